# SPDX-License-Identifier: Apache-2.0
"""Published distillation losses that match relations between examples.

Contract of `tgt_jax.losses.embedding`: student [B, Ds] and teacher [B, Dt],
one value per example of which the mean over the batch is the published loss,
`where` [B] for padding, the teacher's gradient on. All of them are sums over
pairs (i, j), or triples, of examples; example i gets its own row.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _embeddings
from tgt_jax.losses._embeddings import Geometry
from tgt_jax.types import Array

# The public code's, added to lengths and to probabilities.
_PKT_EPSILON = 1e-7


def _smooth_l1(difference: Array) -> Array:
  """Half the square up to 1, linear beyond."""
  size = jnp.abs(difference)
  return jnp.where(size < 1.0, 0.5 * jnp.square(size), size - 0.5)


def _lengths(side: Geometry) -> Array:
  """Distances between examples apart, 1 between the others, [B, B]."""
  return jnp.sqrt(jnp.where(side.apart, side.squares, 1.0))


def _relative_distances(side: Geometry, examples: Array) -> Array:
  """Distances over their mean between different examples, [B, B]."""
  distances = jnp.where(side.apart, _lengths(side), 0.0)
  mean = jnp.sum(distances) / jnp.maximum(examples * (examples - 1.0), 1.0)
  return distances / jnp.where(mean > 0, mean, 1.0)


def _angles(side: Geometry) -> Array:
  """[B, B, B]: at example i, the cosine between the ways to j and to k."""
  products = side.products
  ways = (
    products[None, :, :]
    - products[:, :, None]
    - products[:, None, :]
    + jnp.diagonal(products)[:, None, None]
  )
  scale = jnp.where(side.apart, 1.0 / _lengths(side), 0.0)
  return ways * scale[:, :, None] * scale[:, None, :]


def relational(
  student: Array,
  teacher: Array,
  *,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
  where: Array | None = None,
) -> Array:
  """RKD: distances between two examples and angles between three.

  distance_weight * mean_ij h(d_ij / mean d) + angle_weight * mean_ijk h(cos of
  the angle at i between j and k), h the smooth L1 distance of the student's
  and the teacher's (Park et al., 2019, "Relational knowledge distillation",
  arXiv 1904.05068). The means run over all B^2 pairs and B^3 triples, and the
  weights are the defaults of common public code for classifiers; the paper's
  are in the ratio 1 to 2.

  The angles are arrays of B^3: 1 MB at a batch of 64, 67 MB at 256, some ten
  times over with the gradient. A weight of 0 leaves its part out.

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    distance_weight: >= 0.
    angle_weight: >= 0.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not [B, Ds] and [B, Dt], `where` is not [B], or a weight < 0.
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)
  checks.non_negative(
    distance_weight=distance_weight, angle_weight=angle_weight
  )

  first, second = (
    _embeddings.geometry(side, both.kept)
    for side in (both.student, both.teacher)
  )
  rows = jnp.zeros(both.kept.shape, both.examples.dtype)
  if distance_weight:
    gaps = _smooth_l1(
      _relative_distances(first, both.examples)
      - _relative_distances(second, both.examples)
    )
    rows += distance_weight * jnp.sum(gaps, axis=1) / both.examples
  if angle_weight:
    gaps = _smooth_l1(_angles(first) - _angles(second))
    rows += angle_weight * jnp.sum(gaps, axis=(1, 2)) / both.examples**2
  return _embeddings.values(rows, both.kept)


def similarity_preserving(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """SP: rows of the two Gram matrices, each at length one.

  |Gs - Gt|^2 / B^2 with G = F F^T, F the flattened features and every row of G
  normalised (Tung and Mori, 2019, "Similarity-preserving knowledge
  distillation", arXiv 1907.09682).

  Args:
    student: [B, ...], any axes behind the first; maps are flattened.
    teacher: [B, ...], the same, of any size.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: batches differ, fewer than two axes, or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=None)

  flat = [
    side.reshape(len(both.kept), -1) for side in (both.student, both.teacher)
  ]
  first, second = (_embeddings.unit(_embeddings.inner(x, x)) for x in flat)
  rows = jnp.sum(jnp.square(first - second), axis=1) / both.examples
  return _embeddings.values(rows, both.kept)


def _neighbours(embedding: Array, kept: Array) -> Array:
  """[B, B]: each example's probabilities of being near to the others."""
  direction = _embeddings.unit(embedding, epsilon=_PKT_EPSILON)
  nearness = 0.5 * (_embeddings.inner(direction, direction) + 1.0)
  nearness = jnp.where(_embeddings.pairs(kept), nearness, 0.0)
  total = jnp.sum(nearness, axis=1, keepdims=True)
  return nearness / jnp.where(kept[:, None], total, 1.0)


def probabilistic_transfer(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """PKT: each example's distribution over its neighbours in the batch.

  mean_ij p_ij log(p_ij / q_ij), with p the teacher's and q the student's
  (1 + cos) / 2, every row summing to one (Passalis and Tefas, 2018, "Learning
  deep representations with probabilistic knowledge transfer", arXiv
  1803.10837). The mean runs over all B^2 pairs as in its public code, so the
  value shrinks with the batch: weights of 30 000 are usual.

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not [B, Ds] and [B, Dt], or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)

  q, p = (_neighbours(side, both.kept) for side in (both.student, both.teacher))
  ratio = jnp.log(p + _PKT_EPSILON) - jnp.log(q + _PKT_EPSILON)
  rows = jnp.sum(p * ratio, axis=1) / both.examples
  return _embeddings.values(rows, both.kept)


def correlation_congruence(
  student: Array,
  teacher: Array,
  *,
  gamma: float = 0.4,
  order: int = 2,
  where: Array | None = None,
) -> Array:
  """CC: matrices of a Gaussian kernel, by its Taylor series.

  Mean squared difference of K = exp(-2 gamma) sum_p (2 gamma cos)^p / p! over
  p = 0 ... `order`, cos those between examples (Peng et al., 2019,
  "Correlation congruence for knowledge distillation", arXiv 1904.01802).

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    gamma: of the kernel exp(-gamma |x - y|^2) of unit vectors, > 0.
    order: degree of the series, 1 to 20.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not [B, Ds] and [B, Dt], `where` is not [B], or a
      hyper-parameter is out of range.
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)
  checks.positive(gamma=gamma)
  checks.in_range(1, 20, order=order)

  kernels = []
  for side in (both.student, both.teacher):
    direction = _embeddings.unit(side)
    cosines = _embeddings.inner(direction, direction)
    terms = [
      (2.0 * gamma) ** p / math.factorial(p) * cosines**p
      for p in range(1, order + 1)
    ]
    kernels.append(math.exp(-2.0 * gamma) * sum(terms))  # p = 0 cancels.
  rows = jnp.sum(jnp.square(kernels[0] - kernels[1]), axis=1) / both.examples
  return _embeddings.values(rows, both.kept)
