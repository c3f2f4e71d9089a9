# SPDX-License-Identifier: Apache-2.0
"""What every loss needs: float32 log space, class masks, class vectors.

Functions take any leading axes; `axis` is the class axis.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.types import Array

# Beyond these a softened distribution is one class or uniform in float32.
TEMPERATURES = (1e-6, 1e6)


def check_temperature(temperature: float) -> None:
  """Raises `ValueError` unless the temperature is in `TEMPERATURES`."""
  checks.in_range(*TEMPERATURES, temperature=temperature)


def as_float(array: Array) -> Array:
  """At least float32: a loss in bfloat16 has three digits."""
  array = jnp.asarray(array)
  return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def class_mask(where: Any, logits: Array) -> Array | None:
  """`where` as booleans of the shape of `logits`; None stays None.

  Raises:
    TypeError: `where` is not boolean.
    ValueError: `where` does not broadcast to the shape of `logits`.
  """
  if where is None:
    return None
  where = jnp.asarray(where)
  if where.dtype != jnp.bool_:
    raise TypeError(f"where: expected booleans, got {where.dtype}")
  try:
    return jnp.broadcast_to(where, logits.shape)
  except ValueError as error:
    raise ValueError(
      f"where: shape {where.shape} does not broadcast to the logits'"
      f" {logits.shape}"
    ) from error


def pair(student_logits: Any, teacher_logits: Any) -> tuple[Array, Array]:
  """Both logits as floats of at least 32 bits.

  Raises:
    TypeError: one of them is not floating point.
    ValueError: shapes differ.
  """
  checks.floating(student_logits=student_logits, teacher_logits=teacher_logits)
  checks.same_shape(
    student_logits=student_logits, teacher_logits=teacher_logits
  )
  return as_float(student_logits), as_float(teacher_logits)


def labelled(logits: Any, labels: Any, axis: int) -> tuple[Array, Array]:
  """Logits as floats, labels as integers over the other axes.

  Raises:
    TypeError: logits not floating point, or labels not integers.
    ValueError: labels do not have the shape of logits without `axis`.
  """
  checks.floating(logits=logits)
  checks.integer(labels=labels)
  logits, labels = as_float(logits), jnp.asarray(labels)
  expected = list(logits.shape)
  del expected[axis]
  if labels.shape != tuple(expected):
    raise ValueError(
      f"labels: expected shape {tuple(expected)} (logits"
      f" {logits.shape} without axis {axis}), got {labels.shape}"
    )
  return logits, labels


def masked(logits: Array, axis: int, where: Array | None) -> Array:
  """`logits` with -inf at the classes that `where` drops.

  An example that keeps no class gets zeros, so that nothing becomes NaN; its
  loss is then put to zero by `zero_if_empty`.
  """
  if where is None:
    return logits
  some = jnp.any(where, axis=axis, keepdims=True)
  return jnp.where(where, logits, jnp.where(some, -jnp.inf, 0.0))


def zero_if_empty(loss: Array, axis: int, where: Array | None) -> Array:
  """`loss` with 0 for an example of which `where` keeps no class."""
  if where is None:
    return loss
  return jnp.where(jnp.any(where, axis=axis), loss, 0.0)


def mean(
  values: Array, axis: int, where: Array | None, *, keepdims: bool = False
) -> Array:
  """Mean over the classes that `where` keeps; 0 where it keeps none."""
  if where is None:
    return jnp.mean(values, axis=axis, keepdims=keepdims)
  total = jnp.sum(values, axis=axis, where=where, keepdims=keepdims)
  count = jnp.sum(where, axis=axis, keepdims=keepdims)
  return total / jnp.maximum(count, 1)


def pick(values: Array, labels: Array, axis: int) -> Array:
  """The entry of each label; NaN, not another class, where out of range."""
  # A negative index would count from the end; past the end it reads as NaN.
  index = jnp.where(labels < 0, values.shape[axis], labels)
  index = jnp.expand_dims(index, axis)
  picked = jnp.take_along_axis(values, index, axis=axis, mode="fill")
  return jnp.squeeze(picked, axis)


def one_hot(labels: Array, num_classes: int, axis: int) -> Array:
  """Booleans, True at each label's class, with the class axis at `axis`."""
  return jax.nn.one_hot(labels, num_classes, axis=axis, dtype=jnp.bool_)


def per_class(vector: Any, logits: Array, axis: int, *, name: str) -> Array:
  """A vector over classes, [K], shaped to add to `logits`.

  Raises:
    ValueError: not one value per class.
  """
  vector = jnp.asarray(vector)
  if vector.shape != (logits.shape[axis],):
    raise ValueError(
      f"{name}: expected one value for each of {logits.shape[axis]}"
      f" classes, got shape {vector.shape}"
    )
  shape = [1] * logits.ndim
  shape[axis] = -1
  return as_float(vector).reshape(shape)
