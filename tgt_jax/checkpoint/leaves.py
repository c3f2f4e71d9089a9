# SPDX-License-Identifier: Apache-2.0
"""A state as named leaves, and back: what is stored is leaves, by path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

PyTree = Any


def named_leaves(tree: PyTree) -> dict[str, Any]:
  """Path to leaf. Containers without leaves and `None` leave no trace."""
  named = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name in named:
      raise ValueError(f"two leaves of the state have the path {name!r}")
    if not isinstance(leaf, (int, float)) and not hasattr(leaf, "dtype"):
      raise TypeError(
        f"{name} must be an array or a number, got {type(leaf).__name__}"
      )
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.extended):
      raise TypeError(
        f"{name} is a PRNG key; keep keys out of the state and derive them"
        " from the step"
      )
    named[name] = leaf
  return named


def described(leaves: Mapping[str, Any]) -> dict[str, list]:
  """Path to [dtype, shape], as `host.json` keeps it."""
  return {
    name: [
      str(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype),
      list(leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)),
    ]
    for name, leaf in leaves.items()
  }


def to_store(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays to write: all but the empty ones, which Orbax refuses."""
  # A numpy array may be changed while it is being written: hand over a copy.
  return {
    name: leaf if isinstance(leaf, jax.Array) else np.array(leaf)
    for name, leaf in leaves.items()
    if _size(leaf)
  }


def to_read(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """What Orbax should make of each leaf: where, of which shape and dtype."""
  return {name: _abstract(leaf) for name, leaf in leaves.items() if _size(leaf)}


def filled(leaves: Mapping[str, Any], read: Mapping[str, Any]) -> list[Any]:
  """The values read, each of the kind of the leaf it belongs to."""
  return [
    _like(leaf, read[name] if _size(leaf) else _empty(leaf))
    for name, leaf in leaves.items()
  ]


def _size(leaf: Any) -> int:
  return math.prod(leaf.shape if hasattr(leaf, "shape") else np.shape(leaf))


def _abstract(leaf: Any) -> Any:
  if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
    return np.empty_like(leaf)
  sharding = leaf.sharding
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _empty(leaf: Any) -> Any:
  abstract = _abstract(leaf)
  if isinstance(abstract, np.ndarray):
    return abstract
  return jnp.zeros(leaf.shape, leaf.dtype, device=abstract.sharding)


def _like(leaf: Any, array: Any) -> Any:
  if isinstance(leaf, (bool, int, float)):
    return type(leaf)(array)
  return array[()] if isinstance(leaf, np.generic) else array


def check_same_leaves(
  wanted: Mapping[str, list], saved: Mapping[str, list], where: epath.Path
) -> None:
  """Raises `ValueError` naming the leaves in which two states differ.

  Args:
    wanted: leaf path to [dtype, shape], of the state to be filled.
    saved: the same of the checkpoint.
    where: the checkpoint, for the message.
  """
  lines = []
  for name in sorted(set(wanted) | set(saved)):
    if name not in saved:
      lines.append(f"{name} is not in the checkpoint")
    elif name not in wanted:
      lines.append(f"{name} is only in the checkpoint")
    elif list(wanted[name]) != list(saved[name]):
      lines.append(
        f"{name} is {_words(saved[name])} in the checkpoint,"
        f" {_words(wanted[name])} here"
      )
  if lines:
    shown = "; ".join(lines[:5])
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    raise ValueError(
      f"checkpoint {where} holds another state: {shown}{more}. Use the"
      " configuration it was saved with, or another directory"
    )


def _words(described: list) -> str:
  dtype, shape = described
  return f"{dtype}{list(shape)}"
