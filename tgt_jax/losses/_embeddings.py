# SPDX-License-Identifier: Apache-2.0
"""What losses between embeddings share: rows that count, distances, centring.

Both sides are [B, ...] with equal B. `kept` [B] says which rows are examples;
the others are padding: they are zeroed before anything is computed, so that
what they hold reaches no value and no gradient.

Inner products take all of float32's digits on accelerators too. Distances come
from inner products of centred rows, without an array [B, B, D]: two rows that
differ by less than about 0.1 % of their distance from the mean have no digits
left in float32, and count as one point. A batch that is constant up to rounding
has no geometry: centred, it is exactly zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses._common import as_float
from tgt_jax.types import Array

# Vectors shorter than the root of this have no direction.
_TINY = 1e-24
# In units of the dtype's rounding: squared distances and spreads below it are
# what is left of equal numbers.
_ROUNDING = 16.0


class Pair(NamedTuple):
  """Both sides of a distance, floats of at least 32 bits, padding zeroed.

  Attributes:
    student: [B, ...].
    teacher: [B, ...].
    kept: which rows are examples, [B], booleans.
    examples: how many they are, at least 1, a float.
  """

  student: Array
  teacher: Array
  kept: Array
  examples: Array


def kept_rows(where: Any, size: int) -> Array:
  """`where` as booleans [B]; None keeps all.

  Raises:
    TypeError: `where` is not boolean.
    ValueError: `where` is not [B].
  """
  if where is None:
    return jnp.ones((size,), jnp.bool_)
  where = jnp.asarray(where)
  if where.dtype != jnp.bool_:
    raise TypeError(f"where: expected booleans, got {where.dtype}")
  if where.shape != (size,):
    raise ValueError(
      f"where: expected shape {(size,)}, one for each example, got"
      f" {where.shape}"
    )
  return where


def per_row(values: Array, like: Array) -> Array:
  """[B] as [B, 1, ...], of the rank of `like`."""
  return values.reshape((-1,) + (1,) * (like.ndim - 1))


def pair(
  student: Any,
  teacher: Any,
  where: Any,
  *,
  rank: int | None = 2,
  same: bool = False,
) -> Pair:
  """Checks both sides and zeroes their padding.

  Args:
    student: [B, ...].
    teacher: [B, ...].
    where: see `kept_rows`.
    rank: of both sides; None takes any from 2.
    same: whether all axes must agree, not the first alone.

  Raises:
    TypeError: a side is not floating point, or `where` not boolean.
    ValueError: shapes do not fit.
  """
  sides = {"student": student, "teacher": teacher}
  checks.floating(**sides)
  for name, side in sides.items():
    if rank is None and jnp.ndim(side) < 2:
      raise ValueError(
        f"{name}: expected [B, ...] of rank 2 or more, got shape"
        f" {jnp.shape(side)}"
      )
  if rank is not None:
    checks.rank(rank, **sides)
  (checks.same_shape if same else checks.same_leading)(**sides)
  student, teacher = as_float(student), as_float(teacher)
  kept = kept_rows(where, student.shape[0])
  student, teacher = (
    jnp.where(per_row(kept, side), side, 0.0) for side in (student, teacher)
  )
  dtype = jnp.promote_types(student.dtype, teacher.dtype)
  examples = jnp.maximum(jnp.sum(kept, dtype=dtype), 1.0)
  return Pair(student, teacher, kept, examples)


def values(rows: Array, kept: Array) -> Array:
  """One value per example, 0 for padding."""
  return jnp.where(kept, rows, 0.0)


def pairs(kept: Array) -> Array:
  """[B, B]: pairs of two examples, each with itself among them."""
  return kept[:, None] & kept[None, :]


def inner(first: Array, second: Array) -> Array:
  """Inner products of rows, [B, D] and [N, D] to [B, N]."""
  return jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)


def unit(vectors: Array, *, epsilon: float = 0.0) -> Array:
  """Vectors at length one.

  One of length zero stays zero, with gradient 0: it has no direction.

  Args:
    vectors: [..., D].
    epsilon: what published code adds to the length.
  """
  square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  some = square > _TINY
  length = jnp.sqrt(jnp.where(some, square, 1.0)) + epsilon
  return jnp.where(some, vectors / length, 0.0)


def centred(embedding: Array, kept: Array) -> Array:
  """Less the mean of the kept rows; zero where those are all the same."""
  count = jnp.maximum(jnp.sum(kept, dtype=embedding.dtype), 1.0)
  # From one of the rows first: of equal rows that leaves exact zeros. What is
  # subtracted from all changes nothing, so it needs no derivative.
  anchor = jax.lax.stop_gradient(embedding[jnp.argmax(kept)])
  shifted = jnp.where(kept[:, None], embedding - anchor[None, :], 0.0)
  shifted -= jnp.sum(shifted, axis=0, keepdims=True) / count
  shifted = jnp.where(kept[:, None], shifted, 0.0)
  rounding = _ROUNDING * jnp.finfo(embedding.dtype).eps
  alive = jnp.max(jnp.abs(shifted)) > rounding * jnp.max(jnp.abs(embedding))
  return jnp.where(alive, shifted, 0.0)


class Geometry(NamedTuple):
  """Where the rows of a batch lie to each other.

  Attributes:
    products: inner products of the centred rows, [B, B].
    squares: squared distances, [B, B]; 0, with gradient 0, off `apart`.
    apart: pairs of examples that are not the same point, [B, B].
  """

  products: Array
  squares: Array
  apart: Array


def geometry(embedding: Array, kept: Array) -> Geometry:
  """Products and squared distances of rows [B, D]."""
  embedding = centred(embedding, kept)
  products = inner(embedding, embedding)
  lengths = jnp.diagonal(products)
  sums = lengths[:, None] + lengths[None, :]
  squares = sums - 2.0 * products
  rounding = _ROUNDING * jnp.finfo(embedding.dtype).eps
  apart = pairs(kept) & (squares > rounding * sums)
  apart &= ~jnp.eye(len(kept), dtype=jnp.bool_)
  return Geometry(products, jnp.where(apart, squares, 0.0), apart)


def distances(embedding: Array, kept: Array, *, epsilon: float = 0.0) -> Array:
  """Euclidean distances of rows [B, D], [B, B]; 0 where one is padding.

  Args:
    embedding: [B, D].
    kept: [B].
    epsilon: added to their squares; a point is its root away from itself.
  """
  _, squares, apart = geometry(embedding, kept)
  roots = jnp.sqrt(jnp.where(apart, squares + epsilon, 1.0))
  return jnp.where(pairs(kept), jnp.where(apart, roots, epsilon**0.5), 0.0)


def correlation_rows(
  first: Array,
  second: Array,
  examples: Array,
  *,
  floors: tuple[Array, Array] | None = None,
  epsilon: float = 0.0,
) -> Array:
  """The cosine of two matrices, split over their rows.

  Args:
    first: [B, B], zero where a row or column is padding.
    second: the same of the other side.
    examples: n, how many rows are none.
    floors: mean squares of the two up to which a matrix is rounding alone.
    epsilon: added to the product of the two mean squares.

  Returns:
    [B]; over the n rows their mean is sum(first * second) / (|first|
    |second|), or 0 where a matrix vanishes.
  """
  rows = jnp.sum(first * second, axis=1) / examples
  power, other = (jnp.sum(jnp.square(m)) / examples**2 for m in (first, second))
  floor, other_floor = (0.0, 0.0) if floors is None else floors
  some = (power > floor) & (other > other_floor)
  power, other = jnp.where(some, power, 1.0), jnp.where(some, other, 1.0)
  if epsilon:
    length = jnp.sqrt(power * other + epsilon)
  else:  # The product of two mean squares leaves float32's range early.
    length = jnp.sqrt(power) * jnp.sqrt(other)
  return jnp.where(some, rows / length, 0.0)
