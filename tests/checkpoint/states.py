# SPDX-License-Identifier: Apache-2.0
"""States to save, and their comparison to the bit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checkpoint


def assert_same_bits(found: Any, expected: Any) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert isinstance(one, jax.Array) == isinstance(other, jax.Array)
    one, other = np.asarray(one), np.asarray(other)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


def small(value: float) -> dict[str, Any]:
  return {"w": jnp.full((40, 5), value, jnp.float32), "n": jnp.int32(value)}


def save_steps(directory: Any, steps: Any, **options: Any) -> None:
  with checkpoint.Checkpoints(directory, **options) as checkpoints:
    for step in steps:
      assert checkpoints.save(step, small(step), iterator_state={"at": step})
