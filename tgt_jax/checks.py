# SPDX-License-Identifier: Apache-2.0
"""Argument checks; the only module that imports chex.

Shapes and types are static under `jit`, so these run while tracing and cost
nothing in a compiled step. Every failure is a `ValueError` (or a `TypeError`
for a dtype) that names the argument, what was expected and what came.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import chex
import jax.numpy as jnp


def rank(expected: int | set[int], **arrays: Any) -> None:
  """Raises `ValueError` unless every array has the expected rank."""
  for name, array in arrays.items():
    try:
      chex.assert_rank(array, expected)
    except AssertionError as error:
      raise ValueError(
        f"{name}: expected rank {expected}, got shape {jnp.shape(array)}"
      ) from error


def same_shape(**arrays: Any) -> None:
  """Raises `ValueError` unless all arrays have one shape (no broadcasting)."""
  try:
    chex.assert_equal_shape(list(arrays.values()))
  except AssertionError as error:
    shapes = ", ".join(f"{n} {jnp.shape(a)}" for n, a in arrays.items())
    raise ValueError(f"shapes must be equal, got {shapes}") from error


def same_leading(**arrays: Any) -> None:
  """Raises `ValueError` unless all arrays have one leading axis size."""
  try:
    chex.assert_equal_shape_prefix(list(arrays.values()), 1)
  except (AssertionError, ValueError) as error:
    shapes = ", ".join(f"{n} {jnp.shape(a)}" for n, a in arrays.items())
    raise ValueError(f"leading axes must be equal, got {shapes}") from error


def floating(**arrays: Any) -> None:
  """Raises `TypeError` unless every array has a floating-point dtype."""
  for name, array in arrays.items():
    try:
      chex.assert_type(array, float)
    except AssertionError as error:
      raise TypeError(
        f"{name}: expected floating point, got {jnp.result_type(array)}"
      ) from error


def integer(**arrays: Any) -> None:
  """Raises `TypeError` unless every array has an integer dtype."""
  for name, array in arrays.items():
    try:
      chex.assert_type(array, int)
    except AssertionError as error:
      raise TypeError(
        f"{name}: expected integers, got {jnp.result_type(array)}"
      ) from error


def _number(name: str, value: Any) -> None:
  try:
    if isinstance(value, bool):
      raise TypeError
    math.isfinite(value)
  except TypeError as error:
    raise TypeError(f"{name}: expected a number, got {value!r}") from error


def finite(**values: float) -> None:
  """Raises `ValueError` unless every Python number is finite."""
  for name, value in values.items():
    _number(name, value)
    if not math.isfinite(value):
      raise ValueError(f"{name} must be finite, got {value}")


def positive(**values: float) -> None:
  """Raises `ValueError` unless every number is finite and above zero."""
  finite(**values)
  for name, value in values.items():
    if not value > 0:
      raise ValueError(f"{name} must be > 0, got {value}")


def non_negative(**values: float) -> None:
  """Raises `ValueError` unless every number is finite, and zero or above."""
  finite(**values)
  for name, value in values.items():
    if not value >= 0:
      raise ValueError(f"{name} must be >= 0, got {value}")


def in_range(low: float, high: float, /, **values: float) -> None:
  """Raises `ValueError` unless every Python number lies in [low, high]."""
  for name, value in values.items():
    _number(name, value)
    if not low <= value <= high:
      raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def inside(low: float, high: float, /, **values: float) -> None:
  """Raises `ValueError` unless each value is in (low, high)."""
  for name, value in values.items():
    _number(name, value)
    if not low < value < high:
      raise ValueError(f"{name} must be in ({low:g}, {high:g}), got {value}")


def one_of(choices: Iterable[str] | Mapping[str, Any], **values: str) -> None:
  """Raises `ValueError` that lists the choices and the nearest of them."""
  choices = sorted(choices)
  for name, value in values.items():
    if value not in choices:
      near = difflib.get_close_matches(str(value), choices, n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"{name}: unknown {value!r}; choose from {', '.join(choices)}.{hint}"
      )
