# SPDX-License-Identifier: Apache-2.0
"""Where exploration may go."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.methods.test_methods import B, method_of, parts, world
from tgt_jax import exploration, methods


def test_nobody_walks_towards_what_means_nothing():
  """As padding of a text: coordinates that the partner does not have."""
  _, teacher, frozen, batch = world()
  # An example has its first two coordinates; every third one has all three.
  odd = jnp.arange(B) % 3 == 0

  def where(x):
    same = jnp.all(x[:, None] == batch["input"][None], axis=(2, 3, 4))
    whole = jnp.any(same & odd[None], axis=1)
    return jnp.arange(3)[None] < jnp.where(whole, 3, 2)[:, None]

  made = parts(
    teacher=teacher._replace(where=where),
    exploration=exploration.interpolate(1.0, 1.0),
  )
  state = method_of(methods.tgt(made)).init(jax.random.key(7), batch)
  context = methods.Context(state.params["student"], {}, frozen, 0)
  starts = methods.start_points(batch, jax.random.key(3), 1, True)
  z, moved = methods.trace(made, context, starts).z
  partner = jnp.roll(z, 1, axis=0)
  both = where(batch["input"]) & where(jnp.roll(batch["input"], 1, axis=0))
  expected = jnp.where(both, partner, z)
  np.testing.assert_allclose(moved, expected, rtol=1e-6)
  assert np.any(np.asarray(moved[:, 2] == z[:, 2]))
