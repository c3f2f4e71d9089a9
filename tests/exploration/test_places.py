# SPDX-License-Identifier: Apache-2.0
"""Explorations of a part of a sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import exploration
from tgt_jax.rng import split_examples


class TestSomePlaces:
  """A part of a sequence moves, as its inner exploration says."""

  Z = jax.random.normal(jax.random.key(3), (4, 500, 3))
  KEYS = split_examples(jax.random.key(4), 4)

  def moved(self, spec, share, **options):
    made = exploration.some_places(spec, share)
    field = lambda latent: jnp.sum(latent**2, axis=(1, 2))
    gap = made.explore(self.Z, self.KEYS, field, **options) - self.Z
    return np.asarray(gap)

  def test_whole_places_move_with_their_probability(self):
    gap = self.moved({"name": "random", "sigma": 2.0}, 0.3)
    there = np.any(gap != 0, axis=-1)
    assert np.all(gap[there] != 0)
    np.testing.assert_allclose(there.mean(axis=1), 0.3, atol=0.07)
    np.testing.assert_allclose(gap[there].std(), 2.0, rtol=0.05)
    # Every example draws its own.
    assert np.any(there[0] != there[1])

  def test_all_places_are_the_inner_exploration(self):
    inner = exploration.gradient_ascent(0.3)
    gap = self.moved(inner, 1.0)
    field = lambda latent: jnp.sum(latent**2, axis=(1, 2))
    expected = inner.explore(self.Z, self.KEYS, field) - self.Z
    np.testing.assert_allclose(gap, expected, atol=1e-6)

  def test_lengths_count_what_moves(self):
    ascent = {"name": "gradient_ascent", "step_size": 0.3}
    gap = self.moved(ascent, 0.2)
    for one in gap:
      there = np.any(one != 0, axis=-1)
      np.testing.assert_allclose(
        np.sqrt(np.mean(one[there] ** 2)), 0.3, rtol=1e-4
      )

  def test_padding_stays(self):
    where = np.zeros((4, 500, 1), bool)
    where[:, :100] = True
    gap = self.moved(exploration.random(1.0), 0.5, where=where)
    assert not np.any(gap[:, 100:])
    assert np.any(gap[:, :100])

  @pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
  def test_a_share_out_of_range(self, share):
    with pytest.raises(ValueError, match="share"):
      exploration.some_places(exploration.stay(), share)
