# SPDX-License-Identifier: Apache-2.0
"""Losses by name."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses, registry

COUNTS = [5, 3, 2]
embedding_distance = functools.partial(
  registry.build, losses.EMBEDDING_DISTANCES, family="embedding distance"
)
distance = functools.partial(
  registry.build, losses.DISTANCES, family="distance"
)
label_loss = functools.partial(
  registry.build, losses.LABEL_LOSSES, family="label loss"
)


@pytest.mark.parametrize("priors", [False, True])
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("name", losses.DISTANCES)
def test_every_distance_takes_the_same_arguments(name, standardise, priors):
  spec = {"name": name, "standardise": standardise, "priors": priors}
  loss = distance(spec, class_counts=COUNTS)
  logits = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16)
  values = jax.eval_shape(loss, logits, logits)
  assert values.shape == (4,)
  assert values.dtype == jnp.float32


@pytest.mark.parametrize("name", losses.LABEL_LOSSES)
def test_every_label_loss_takes_the_same_arguments(name):
  loss = label_loss({"name": name}, class_counts=COUNTS)
  logits = jax.ShapeDtypeStruct((4, 3), jnp.float32)
  labels = jax.ShapeDtypeStruct((4,), jnp.int32)
  if name == "binary_cross_entropy":  # Its labels are tags.
    labels = logits
  assert jax.eval_shape(loss, logits, labels).shape == (4,)


@pytest.mark.parametrize("name", losses.EMBEDDING_DISTANCES)
def test_every_embedding_distance_is_a_public_loss(name):
  loss = embedding_distance({"name": name})
  assert loss.func is getattr(losses, name)
  sides = 2 * [jax.ShapeDtypeStruct((6, 3), jnp.bfloat16)]
  where = jax.ShapeDtypeStruct((6,), bool)
  values = jax.eval_shape(
    lambda s, t, where: loss(s, t, where=where), *sides, where
  )
  assert values.shape == (6,)
  assert values.dtype == jnp.float32


def test_an_embedding_distance_of_ones_own():
  @losses.embedding_distance_factory
  def power(student, teacher, *, exponent: float = 1.0, where=None):
    if exponent <= 0:
      raise ValueError("exponent must be > 0")
    return losses.embedding_mse(student, teacher, where=where) ** exponent

  build = functools.partial(registry.build, {"power": power}, family="distance")
  loss = build({"name": "power", "exponent": 2.0})
  np.testing.assert_allclose(loss(jnp.ones((2, 3)), jnp.zeros((2, 3))), [1, 1])
  with pytest.raises(ValueError, match="exponent must be"):
    build({"name": "power", "exponent": -1.0})
  with pytest.raises(ValueError, match="takes no 'where'"):
    build({"name": "power", "where": None})


def test_hyper_parameters_reach_the_loss():
  student, teacher = np.float32([[[0, 1, 2]], [[1, 0, 0]]])
  softer = distance({"name": "kl_divergence", "temperature": 2.5})
  adjusted = label_loss(
    {"name": "logit_adjustment", "tau": 0.3}, class_counts=COUNTS
  )

  @jax.jit
  def differences(student, teacher):
    labels = jnp.array([1])
    return (
      softer(student, teacher)
      - losses.kl_divergence(student, teacher, temperature=2.5),
      adjusted(student, labels)
      - losses.cross_entropy(
        student + 0.3 * jnp.log(jnp.array(COUNTS))[None], labels
      ),
    )

  for difference in differences(student, teacher):
    np.testing.assert_allclose(difference, [0], atol=1e-6)


def test_a_config_need_not_know_the_counts_without_priors():
  loss = distance({"name": "jensen_shannon"})
  logits = jax.ShapeDtypeStruct((2, 7), jnp.float32)
  assert jax.eval_shape(loss, logits, logits).shape == (2,)


def test_the_signature_is_for_error_messages():
  with pytest.raises(ValueError, match="Did you mean 'temperature'"):
    distance({"name": "kl_divergence", "temprature": 2.0})
  with pytest.raises(ValueError, match="takes no 'axis'"):
    distance({"name": "kl_divergence", "axis": 0})
  with pytest.raises(ValueError, match="takes no 'tau'"):
    label_loss({"name": "balanced_softmax", "tau": 2.0}, class_counts=COUNTS)


@pytest.mark.parametrize(
  "build, spec, match",
  [
    (distance, {"name": "kl_divergence", "priors": True}, "class_counts"),
    (distance, {"name": "kl_divergence", "temperature": -1.0}, "temperature"),
    (distance, {"name": "dist", "beta": -1.0}, "beta"),
    (label_loss, {"name": "ldam"}, "class_counts"),
    (label_loss, {"name": "cross_entropy", "label_smoothing": 2.0}, "smooth"),
    (distance, {"name": "kl_divergance"}, "Did you mean 'kl_divergence'"),
    (distance, {"name": "bernoulli_kl", "temperature": 0.0}, "temperature"),
    (embedding_distance, {"name": "relational", "angle_weight": -1.0}, "angle"),
    (embedding_distance, {"name": "cka", "temperature": 1.0}, "takes no"),
    (
      embedding_distance,
      {"name": "distance_correlation", "epsilon": -1.0},
      "epsilon",
    ),
    (embedding_distance, {"name": "correlation_congruence", "order": 0}, "ord"),
    (
      embedding_distance,
      {"name": "in_batch_contrastive", "temperature": 0.0},
      "temperature",
    ),
  ],
)
def test_mistakes_surface_when_the_loss_is_built(build, spec, match):
  with pytest.raises(ValueError, match=match):
    build(spec)


@losses.distance_factory
def absolute(student_logits, teacher_logits, *, power: float = 1.0):
  return jnp.sum(jnp.abs(student_logits - teacher_logits) ** power, axis=-1)


def test_a_distance_of_ones_own():
  spec = {"name": "mine", "power": 2.0, "standardise": True}
  loss = registry.build({"mine": absolute}, spec, family="distance")
  student = jnp.array([[0.0, 1.0, 5.0]])
  np.testing.assert_allclose(loss(student, 3 * student + 1), [0], atol=1e-9)
  with pytest.raises(ValueError, match="takes no 'exponent'"):
    registry.build(
      {"mine": absolute}, {"name": "mine", "exponent": 1}, family="distance"
    )
