# SPDX-License-Identifier: Apache-2.0
"""Influence of generated examples against per-example gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods import test_methods as world_of
from tgt_jax import influence, methods

B = world_of.B


def held(seed=5):
  keys = jax.random.split(jax.random.key(seed))
  return {
    "input": jax.random.uniform(keys[0], (B, *world_of.SHAPE)),
    "label": jax.random.randint(keys[1], (B,), 0, world_of.K),
  }


def shown_of(batch):
  """Other examples with targets of their own."""
  keys = jax.random.split(jax.random.key(3))
  ones = jnp.ones(B)
  return methods.Shown(
    jax.random.uniform(keys[0], (B, *world_of.SHAPE)),
    jax.random.normal(keys[1], (B, world_of.K)),
    ones,
    ones,
  )


def test_it_is_the_product_of_two_gradients():
  student, _, _, batch = world_of.world()
  parts, feedback, shown = world_of.parts(), held(), shown_of(batch)
  params, state = jax.jit(student.init)(jax.random.key(0), batch["input"])
  answer = lambda p, x: student.apply(p, state, x)[0].logits

  def one(p, i):
    return parts.generated_distance(answer(p, shown.x), shown.targets)[i]

  def judge(p):
    logits = answer(p, feedback["input"])
    return jnp.mean(parts.label_loss(logits, feedback["label"]))

  @jax.jit
  def expected(params):
    slopes = jax.vmap(jax.grad(one), (None, 0))(params, jnp.arange(B))
    products = jax.tree.map(
      lambda g, v: jnp.sum(g * v[None], axis=tuple(range(1, g.ndim))),
      slopes,
      jax.grad(judge)(params),
    )
    return sum(jax.tree.leaves(products))

  found = methods.generated_influence(parts, params, state, feedback, shown)
  np.testing.assert_allclose(found, expected(params), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighting", sorted(influence.WEIGHTINGS))
def test_what_harms_has_no_weight(weighting):
  """The mean weight is what the metric says, and nothing is below zero."""
  _, _, _, batch = world_of.world()
  recipe = methods.influenced_tgt(world_of.parts(), weighting=weighting)
  assert recipe.feedback
  _, metrics, grads = world_of.value(recipe.loss, {**batch, "feedback": held()})
  assert metrics["explore/weight"].total >= 0
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))
  if weighting == "softmax":
    np.testing.assert_allclose(metrics["explore/weight"].total, B, rtol=1e-5)


def test_equal_weights_are_tgt(monkeypatch):
  """To the bit: the examples and their targets are the same."""
  _, _, _, batch = world_of.world()
  monkeypatch.setitem(influence.WEIGHTINGS, "identity", jnp.ones_like)
  recipe = methods.influenced_tgt(world_of.parts(), weighting="identity")
  found = world_of.value(recipe.loss, {**batch, "feedback": held()})
  expected = world_of.value(methods.tgt(world_of.parts()), batch)
  assert found[0] == expected[0]
  world_of.same_bits(found[2], expected[2])


def test_an_unknown_weighting():
  of = lambda weighting: methods.influenced_tgt(
    world_of.parts(), weighting=weighting
  )
  with pytest.raises(ValueError, match="unknown weighting 'softmin'"):
    of("softmin")
  with pytest.raises(ValueError, match="takes no 'temprature'"):
    of({"name": "softmax", "temprature": 2.0})
  with pytest.raises(ValueError, match="temperature"):
    of({"name": "softmax", "temperature": 0.0})
  of({"name": "softmax", "temperature": 2.0})
