# SPDX-License-Identifier: Apache-2.0
"""Weights drawn by numpy from shapes alone: nothing to compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Variances, scales and counts must be positive.
_POSITIVE = ("var", "scale", "counts")


def random_weights(init: Callable, x: Any, *, seed: int = 0) -> Any:
  """Returns what `init(rng, x)` would, with random leaves of sensible size."""
  shapes = jax.eval_shape(init, jax.random.key(0), x)
  generator = np.random.default_rng(seed)

  def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
    name = path[-1].key
    value = 0.3 * generator.normal(size=leaf.shape)
    if name == "kernel":
      value *= 4.0 / np.sqrt(np.prod(leaf.shape[:-1]))
    if name in _POSITIVE:
      value = np.abs(value) + 0.5
    if name == "vectors":
      value /= 0.3
    # float64 where that is enabled, for comparisons in double precision.
    return jnp.asarray(value, jnp.result_type(float))

  return jax.tree_util.tree_map_with_path(draw, shapes)
