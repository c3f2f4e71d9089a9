# SPDX-License-Identifier: Apache-2.0
"""What a step of teacher and student says, leaves out and computes again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.methods.pair import (
  STUDENT,
  B,
  answers,
  batch,
  brute,
  close,
  logits,
  made,
  parts,
  same_bits,
  steps,
  teachers_gradient,
)
from tgt_jax import losses, methods


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("influence", ["exact", "finite_difference"])
def test_a_direction_within_a_part(influence):
  """The teacher hears of no other parameter's way ahead."""
  course = methods.lgtm(
    parts(), influence=influence, influence_weight=5.0, within="^out$"
  )
  states, _ = steps(course)
  args = states[0], batch(0), optax.sgd(0.2)
  expected = brute(*args, held=5.0, within=("out",))
  rtol = 1e-10 if influence == "exact" else 1e-3
  close(teachers_gradient(states), expected, rtol)
  with pytest.raises(ValueError, match="no parameter matches 'heads'"):
    steps(methods.lgtm(parts(), within="heads"))


def test_what_is_logged():
  _, metrics = steps(methods.lgtm(parts()))
  found = {n: float(m.total / m.count) for n, m in metrics.items()}
  bins = [found[f"influence/bin{i}"] for i in range(8)]
  np.testing.assert_allclose(sum(bins), 1.0, rtol=1e-6)
  np.testing.assert_allclose(
    sum(bins[4:]), found["influence/positive"], rtol=1e-6
  )
  for name in (
    "feedback/student_loss",
    "feedback/teacher_loss",
    "influence/ratio",
  ):
    assert found[name] > 0, name


@pytest.mark.parametrize("weight", [1.0, "normalised"])
def test_a_second_forward_pass_changes_nothing(weight):
  kept, _ = steps(methods.lgtm(parts(), influence_weight=weight))
  course = methods.lgtm(parts(), influence_weight=weight, recompute=True)
  again, _ = steps(course)
  close(again[1].params, kept[1].params, 1e-13)
  # The compiler is asked not to merge the two.
  text = str(
    jax.make_jaxpr(made(course).update)(
      again[0], {}, batch(), jax.random.key(0)
    )
  )
  assert "optimization_barrier" in text


def test_watching_the_teacher_changes_nothing():
  watched, metrics = steps(methods.lgtm(parts()))
  unwatched, fewer = steps(methods.lgtm(parts(), watch_teacher=False))
  same_bits(watched[1], unwatched[1])
  gone = {"feedback/teacher_loss", "feedback/teacher_accuracy"}
  assert set(metrics) - set(fewer) == gone


def test_influence_says_what_leaving_an_example_out_does():
  """To first order: with a tiny rate, the held-out loss changes by I_i."""
  tiny = optax.sgd(1e-4)
  states, metrics = steps(methods.lgtm(parts()), 1, tiny)
  state, one = states[0], batch(0)

  def held_out(weights):
    def loss(theta):
      own = answers(theta, one["input"], "student")
      said = answers(state.params["teacher"], one["input"], "teacher")
      return jnp.mean(weights * losses.kl_divergence(own, said))

    theta = state.params["student"]
    ahead = jax.tree.map(
      lambda p, g: p - 1e-4 * g, theta, jax.grad(loss)(theta)
    )
    told = logits(STUDENT, ahead, one["feedback"]["input"])
    return jnp.mean(losses.cross_entropy(told, one["feedback"]["label"]))

  # The derivative by the weight of each example is -I_i / B.
  helps = -B * jax.grad(held_out)(jnp.ones(B))
  np.testing.assert_allclose(
    metrics["influence/mean"].total / B, jnp.mean(helps), rtol=1e-3
  )
  np.testing.assert_allclose(
    metrics["influence/positive"].total / B, jnp.mean(helps > 0)
  )


def test_padding_teaches_nobody():
  one = batch(0)
  masked = {**one, "mask": np.array([1.0, 1, 1, 1, 0, 0])}
  other = {**masked, "input": one["input"].copy(), "label": one["label"].copy()}
  other["input"][4:] += 3.0
  other["label"][4:] = 0
  first, _ = steps(methods.lgtm(parts()), batches=[masked])
  second, _ = steps(methods.lgtm(parts()), batches=[other])
  close(first[1].params, second[1].params, 1e-12)


def test_an_ensemble_does_not_learn():
  with pytest.raises(ValueError, match="num_labelers to 1"):
    methods.prokt(parts(labeler=None))
