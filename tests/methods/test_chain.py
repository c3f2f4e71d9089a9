# SPDX-License-Identifier: Apache-2.0
"""TAKD and RCO are plain distillation from other arrays."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses, methods, models, teachers

B, D, K, STEPS = 6, 5, 3, 10


@functools.cache
def world():
  """A labeler, an assistant, three anchors and a batch."""
  make = lambda width: models.MODELS["mlp"](num_classes=K, widths=(width,))
  student, labeler, assistant = make(4), make(16), make(8)
  rng = np.random.default_rng(0)
  batch = {
    "input": jnp.asarray(rng.normal(size=(B, D)), jnp.float32),
    "label": jnp.asarray(rng.integers(0, K, B)),
    "teacher_logits": jnp.asarray(rng.normal(size=(B, K)), jnp.float32),
  }
  draw = lambda made, key: teachers.Frozen(
    *jax.jit(made.init)(jax.random.key(key), batch["input"])
  )
  anchors = [draw(labeler, key) for key in (1, 2, 3)]
  frozen = {
    "labeler": (anchors[-1],),
    "assistants": (draw(assistant, 4),),
    "anchors": jax.tree.map(lambda *a: jnp.stack(a), *anchors),
  }
  parts = methods.Parts(
    student=student,
    teacher=teachers.Teacher(
      encode=None,
      decode=None,
      render=None,
      label=lambda f, x: teachers.labeler([labeler])(f["labeler"], x),
    ),
    label_loss=losses.cross_entropy,
    distance=losses.kl_divergence,
    generated_distance=losses.kl_divergence,
    disagreement=losses.kl_divergence,
    labeler=labeler,
    assistants=(assistant,),
  )
  return parts, frozen, batch, anchors


def gradient(loss, frozen, batch, step=0):
  parts, *_ = world()
  params, state = jax.jit(parts.student.init)(jax.random.key(9), batch["input"])
  slope = jax.jit(jax.grad(loss, has_aux=True))
  return slope(
    {"student": params},
    {"student": state},
    frozen,
    batch,
    jax.random.key(0),
    jnp.asarray(step, jnp.int32),
  )[0]


def same_bits(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def plain(frozen, batch):
  """Distillation without cached answers."""
  parts, *_ = world()
  bare = {k: v for k, v in batch.items() if k != "teacher_logits"}
  return gradient(methods.kd(parts), frozen, bare)


def test_takd_is_distillation_from_the_assistant():
  parts, frozen, batch, _ = world()
  assistant = parts.assistants[0]
  teacher = parts.teacher._replace(
    label=lambda f, x: teachers.single(assistant.apply)(f["assistants"][0], x)
  )
  bare = {k: v for k, v in batch.items() if k != "teacher_logits"}
  expected = gradient(methods.kd(parts._replace(teacher=teacher)), frozen, bare)
  # The cached answers in the batch are the labeler's and are left alone.
  same_bits(gradient(methods.takd(parts), frozen, batch), expected)


@pytest.mark.parametrize(
  ("step", "number"), [(0, 0), (3, 0), (4, 1), (6, 1), (7, 2), (9, 2), (10, 2)]
)
def test_rco_learns_from_the_anchor_of_its_time(step, number):
  """Ten updates, three anchors: 0 to 3, 4 to 6, 7 to 9."""
  parts, frozen, batch, anchors = world()
  loss = methods.rco(parts, steps=STEPS, anchors=3)
  expected = plain({"labeler": (anchors[number],)}, batch)
  same_bits(gradient(loss, frozen, batch, step), expected)


def test_at_last_rco_is_distillation_from_the_labeler():
  parts, frozen, batch, _ = world()
  loss = methods.rco(parts, steps=STEPS, anchors=3)
  same_bits(gradient(loss, frozen, batch, STEPS - 1), plain(frozen, batch))


def test_what_is_missing():
  parts, *_ = world()
  with pytest.raises(ValueError, match=r"config\.assistants"):
    methods.takd(parts._replace(assistants=()))
  for number in (0, 1):
    with pytest.raises(ValueError, match=r"config\.anchors to 2"):
      methods.rco(parts, steps=STEPS, anchors=number)
  with pytest.raises(ValueError, match="6 anchors do not fit into 5 updates"):
    methods.rco(parts, steps=5, anchors=6)
  with pytest.raises(ValueError, match="num_labelers to 1"):
    methods.rco(parts._replace(labeler=None), steps=STEPS, anchors=3)
