# SPDX-License-Identifier: Apache-2.0
"""Distances between a student's and a teacher's embeddings.

Every function takes student [B, Ds] and teacher [B, Dt], two views of the same
B examples, and returns one value per example. `embedding_mse` and `cosine`
compare coordinates, so Ds = Dt; the others compare the geometry of the batch,
which two embeddings of different widths share. Those couple the examples: a
value depends on the batch it came in, one of them alone may be negative, and
the published loss is the mean over the batch. They want all of a batch on one
device or under one `jit`, not device by device.

`where` [B] keeps examples (booleans). The others are padding: value and
gradient 0, and no part in any statistic of the batch.

No function stops the gradient of the teacher; a method does that, and must
where the teacher's side learns too: several of these have their optimum where
both sides are constant. Gradients are finite at equal rows and at zero vectors.
"""

from __future__ import annotations

import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _embeddings
from tgt_jax.types import Array

# The published code's, in the root of a distance.
_DISTANCE_EPSILON = 1e-12
# Fewer examples span no U-centred matrix.
_LEAST_BATCH = 4


def embedding_mse(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """Mean squared difference of coordinates.

  With a learned map before it this is two published losses: FitNet's hint,
  the map on the student's side (Romero et al., 2015, "FitNets: hints for thin
  deep nets", arXiv 1412.6550), and the inverted projection, the map on the
  teacher's side (Auty et al., 2024, "Learning to project for cross-task
  knowledge distillation", arXiv 2403.14494).

  Args:
    student: [B, ...], any axes behind the first.
    teacher: of the same shape.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: shapes differ or have fewer than two axes, or `where` is not
      [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=None, same=True)

  difference = (both.student - both.teacher).reshape(len(both.kept), -1)
  rows = jnp.mean(jnp.square(difference), axis=1)
  return _embeddings.values(rows, both.kept)


def cosine(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """1 - cos of the two vectors of an example, in [0, 2].

  A zero vector has cosine 0 with everything, and gradient 0.

  Args:
    student: [B, D].
    teacher: [B, D].
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: shapes differ or are not [B, D], or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, same=True)

  student, teacher = map(_embeddings.unit, (both.student, both.teacher))
  rows = 1.0 - jnp.sum(student * teacher, axis=1)
  return _embeddings.values(rows, both.kept)


def cosine_difference(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """How much the cosines between examples differ on the two sides.

  mean_ij |cos(s_i, s_j) - cos(t_i, t_j)| over all B^2 pairs (Hung and Lerch,
  2022, "Feature-informed embedding space regularization for audio
  classification", arXiv 2206.04850; Ding and Lerch, 2023, "Audio embeddings
  as teachers for music classification", arXiv 2306.17424). Example i gets the
  mean over j. Both sides constant is an optimum too.

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B], in [0, 2].

  Raises:
    ValueError: not [B, Ds] and [B, Dt], or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)

  student, teacher = map(_embeddings.unit, (both.student, both.teacher))
  difference = jnp.abs(
    _embeddings.inner(student, student) - _embeddings.inner(teacher, teacher)
  )
  rows = jnp.sum(difference, axis=1) / both.examples
  return _embeddings.values(rows, both.kept)


def _double_centred(matrix: Array, kept: Array, examples: Array) -> Array:
  """A symmetric matrix less its row and column means, plus its mean."""
  means = jnp.sum(matrix, axis=1) / examples
  centred = matrix - means[:, None] - means[None, :]
  centred += jnp.sum(means) / examples
  return jnp.where(_embeddings.pairs(kept), centred, 0.0)


def distance_correlation(
  student: Array,
  teacher: Array,
  *,
  epsilon: float = 1e-9,
  where: Array | None = None,
) -> Array:
  """1 - dCor^2: whether distances between examples go together.

  With a_ij and b_ij the Euclidean distances on the two sides and A, B the
  double-centred matrices,

    1 - mean(A * B) / sqrt(mean(A * A) mean(B * B) + epsilon)

  (Szekely et al., 2007, "Measuring and testing dependence by correlation of
  distances", arXiv 0803.4101; as a distillation loss Ding and Lerch, 2023,
  arXiv 2306.17424, whose public code takes this square and no root of it).
  Row i of the sum over pairs goes to example i.

  This estimate is biased. Two independent embeddings of hundreds of dimensions
  have a dCor^2 above 0.9 in a batch of 16: most of the loss is gone before
  anything is learned, and the fewer dimensions, the more is left to learn
  from. See `unbiased_distance_correlation` and docs/losses.md.

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    epsilon: >= 0, as in the public code. It drowns the correlation where
      centred distances are below about 0.01; 0 frees the loss of scale, and
      gives a constant embedding the correlation 0.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B]. Their mean is in [0, 1]: 1 where a side is
    constant.

  Raises:
    ValueError: not [B, Ds] and [B, Dt], `where` is not [B], or epsilon < 0.
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)
  checks.non_negative(epsilon=epsilon)

  a, b = (
    _embeddings.distances(side, both.kept, epsilon=_DISTANCE_EPSILON)
    for side in (both.student, both.teacher)
  )
  rows = _embeddings.correlation_rows(
    _double_centred(a, both.kept, both.examples),
    _double_centred(b, both.kept, both.examples),
    both.examples,
    floors=(_floor(a, both.examples), _floor(b, both.examples)),
    epsilon=epsilon,
  )
  return _embeddings.values(1.0 - rows, both.kept)


def _floor(matrix: Array, examples: Array) -> Array:
  """The mean square that centring leaves of equal entries."""
  rounding = 8.0 * jnp.finfo(matrix.dtype).eps
  return rounding**2 * jnp.sum(jnp.square(matrix)) / examples**2


def _u_centred(matrix: Array, kept: Array, examples: Array) -> Array:
  """U-centring; zero where fewer than four examples are left."""
  n = jnp.maximum(examples, _LEAST_BATCH)
  sums = jnp.sum(matrix, axis=1) / (n - 2.0)
  centred = matrix - sums[:, None] - sums[None, :]
  centred += jnp.sum(sums) / (n - 1.0)
  counted = _embeddings.pairs(kept) & ~jnp.eye(len(kept), dtype=jnp.bool_)
  return jnp.where(counted & (examples >= _LEAST_BATCH), centred, 0.0)


def unbiased_distance_correlation(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """1 - the bias-corrected dCor^2, which is near 0 for independent sides.

  As `distance_correlation` with U-centred matrices: off the diagonal

    A_ij = a_ij - (sum_k a_ik + sum_k a_kj) / (n - 2)
           + sum_kl a_kl / ((n - 1) (n - 2)),

  on it 0, and no constants (Szekely and Rizzo, 2014, "Partial distance
  correlation with methods for dissimilarities", arXiv 1310.2926). The
  correlation is signed: independent sides have mean 0 at any batch size, so
  the loss may exceed 1.

  Args:
    student: [B, Ds], B >= 4.
    teacher: [B, Dt].
    where: which examples are no padding, [B]; None for all. Where fewer than
      four are left the loss is 1 with gradient 0.

  Returns:
    One value per example, [B]. Their mean is in [0, 2]: 1 where a side is
    constant.

  Raises:
    ValueError: not [B, Ds] and [B, Dt], B < 4, or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)
  if len(both.kept) < _LEAST_BATCH:
    raise ValueError(
      f"unbiased_distance_correlation needs a batch of {_LEAST_BATCH} or more"
      f" examples, got {len(both.kept)}"
    )

  a, b = (
    _embeddings.distances(side, both.kept)
    for side in (both.student, both.teacher)
  )
  rows = _embeddings.correlation_rows(
    _u_centred(a, both.kept, both.examples),
    _u_centred(b, both.kept, both.examples),
    both.examples,
    floors=(_floor(a, both.examples), _floor(b, both.examples)),
  )
  return _embeddings.values(1.0 - rows, both.kept)


def cka(
  student: Array,
  teacher: Array,
  *,
  centred: bool = True,
  where: Array | None = None,
) -> Array:
  """1 - linear CKA: whether inner products between examples go together.

  1 - |Y^T X|^2 / (|X^T X| |Y^T Y|), Frobenius norms of column-centred X and Y
  (Kornblith et al., 2019, "Similarity of neural network representations
  revisited", arXiv 1905.00414): the cosine of the two Gram matrices, whose
  row i goes to example i. It is biased in small batches as
  `distance_correlation` is.

  Args:
    student: [B, Ds].
    teacher: [B, Dt].
    centred: subtract each side's mean over the batch first.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B]. Their mean is in [0, 1]: 1 where a side is
    constant.

  Raises:
    ValueError: not [B, Ds] and [B, Dt], or `where` is not [B].
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where)

  student, teacher = both.student, both.teacher
  if centred:
    student = _embeddings.centred(student, both.kept)
    teacher = _embeddings.centred(teacher, both.kept)
  rows = _embeddings.correlation_rows(
    _embeddings.inner(student, student),
    _embeddings.inner(teacher, teacher),
    both.examples,
  )
  return _embeddings.values(1.0 - rows, both.kept)
