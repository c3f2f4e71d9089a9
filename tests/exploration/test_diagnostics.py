# SPDX-License-Identifier: Apache-2.0
"""Diagnostics and lengths against hand values."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import exploration, metrics


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
      "explore/input_step": 0.5,
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


def test_weights_are_repeated_examples():
  """But for diversity, which looks at neighbours."""
  weighted = means(mask=jnp.array([3.0, 1.0, 0.0, 2.0]))
  order = jnp.array([0, 0, 0, 1, 3, 3])
  repeated = means(**{n: v[order] for n, v in arguments().items()})
  for name in set(weighted) - {"explore/diversity"}:
    assert weighted[name] == pytest.approx(repeated[name]), name


def test_a_masked_example_may_hold_nan():
  mask = jnp.array([1.0, 1.0, 1.0, 0.0])
  clean = means(mask=mask)
  given = arguments()
  for name in ("disagreement", "moved_disagreement", "moved_z"):
    given[name] = given[name].at[3].set(jnp.nan)
  found = means(mask=mask, **{n: given[n] for n in given})
  assert found == pytest.approx(clean)


def test_nothing_counted_is_no_number():
  found = exploration.diagnose(**arguments(mask=jnp.zeros(4)))
  assert {float(m.count) for m in found.values()} == {0.0}
  assert {float(m.total) for m in found.values()} == {0.0}


def test_a_teacher_of_nan_keeps_no_label():
  """`argmax` names the NaN's class, before and after alike."""
  broken = jnp.eye(4).at[:2, 0].set(jnp.nan)
  found = means(teacher_logits=broken, moved_teacher_logits=broken)
  assert found["explore/label_kept"] == 0.5


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_diversity_is_the_spread_of_the_batch(factor):
  """Scaled about any point the batch is `factor` times as diverse."""
  x = arguments()["x"]
  found = means(moved_x=factor * x + 7.0)
  assert found["explore/diversity"] == pytest.approx(factor, rel=1e-5)


def test_batches_add_up_to_the_whole():
  """All but diversity, whose neighbours end at the border of a batch."""
  given = arguments()
  halves = [
    exploration.diagnose(**{n: v[part] for n, v in given.items()})
    for part in (slice(0, 2), slice(2, 4))
  ]
  added = metrics.to_host(metrics.add_metrics(*halves))
  whole = means()
  for name in set(whole) - {"explore/diversity"}:
    assert added[name] == pytest.approx(whole[name]), name


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"moved_x": jnp.zeros((4, 2, 2, 3))}, "moved_x"),
    ({"disagreement": jnp.zeros(3)}, "leading axes"),
    ({"x": jnp.zeros((3, 2)), "moved_x": jnp.zeros((3, 2))}, "leading axes"),
  ],
)
def test_other_shapes_must_fit(changes, match):
  with pytest.raises(ValueError, match=match):
    means(**changes)
