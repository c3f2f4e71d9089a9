# SPDX-License-Identifier: Apache-2.0
"""Diagnostics and lengths against hand values."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import exploration


def arguments(**changes):
  z = jnp.zeros((4, 2))
  x = jnp.arange(16.0).reshape(4, 2, 2, 1) / 16
  logits = jnp.eye(4)
  given = {
    "z": z,
    "moved_z": z + jnp.array([[3.0, 4.0]]),
    "x": x,
    "moved_x": x + 0.5,
    "disagreement": jnp.array([1.0, 2.0, 3.0, 4.0]),
    "moved_disagreement": jnp.array([2.0, 4.0, 6.0, 8.0]),
    "teacher_logits": logits,
    "moved_teacher_logits": logits[jnp.array([0, 1, 3, 2])],
  }
  return {**given, **changes}


def means(**changes):
  found = exploration.diagnose(**arguments(**changes))
  return {name: float(m.total / m.count) for name, m in found.items()}


def test_hand_values():
  assert means() == pytest.approx(
    {
      "explore/latent_step": np.sqrt(12.5),
      "explore/image_step": 0.5,
      "explore/disagreement_before": 2.5,
      "explore/disagreement_after": 5.0,
      "explore/label_kept": 0.5,
      "explore/diversity": 1.0,
    }
  )


def test_mask_leaves_out():
  found = means(mask=jnp.array([1.0, 1.0, 0.0, 0.0]))
  assert found["explore/label_kept"] == 1.0
  assert found["explore/disagreement_before"] == 1.5


def test_collapse_has_no_diversity():
  found = means(moved_x=jnp.zeros((4, 2, 2, 1)))
  assert found["explore/diversity"] == pytest.approx(0.0, abs=1e-6)


def test_shapes_must_fit():
  with pytest.raises(ValueError, match="moved_z"):
    means(moved_z=jnp.zeros((4, 3)))


@hypothesis.given(
  st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
  st.floats(0.125, 2.0, width=32),
)
def test_projection_never_leaves_the_ball_and_is_idempotent(offset, radius):
  centre = jnp.ones((1, 4))
  z = centre + jnp.asarray(offset)[None]
  once = exploration.project(centre, z, radius)
  assert float(exploration.rms(once - centre)[0]) <= radius * (1 + 1e-5)
  twice = exploration.project(centre, once, radius)
  np.testing.assert_allclose(twice, once, atol=1e-6)
  if float(exploration.rms(z - centre)[0]) <= radius:
    np.testing.assert_allclose(once, z, atol=1e-6)


def test_lengths():
  vectors = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(
    exploration.rms(vectors), [np.sqrt(12.5), 0], atol=1e-9
  )
  unit = exploration.unit(vectors)
  np.testing.assert_allclose(exploration.rms(unit), [1.0, 0.0], atol=1e-6)
