# SPDX-License-Identifier: Apache-2.0
"""How two embeddings of the same examples agree, and how far one spreads.

On the host, in float64. These look at a whole evaluation set at once: they are
no means over examples and do not add up over batches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks

# Largest number of examples whose distances to each other are computed: two
# matrices of 34 MB.
MAX_EXAMPLES = 2048
_LEAST_EXAMPLES = 4


def _embedding(array: Any, name: str) -> tuple[np.ndarray, float]:
  """[N, D] in float64, and the relative precision that it came with."""
  checks.rank(2, **{name: array})
  checks.floating(**{name: array})
  array = np.asarray(jax.device_get(array))
  return array.astype(np.float64), float(jnp.finfo(array.dtype).eps)


def _centred(embedding: np.ndarray, rounding: float) -> np.ndarray:
  """Less the mean; zero where all rows are equal up to rounding."""
  # From one of the rows first: of equal rows that leaves exact zeros.
  centred = embedding - embedding[:1]
  centred -= np.mean(centred, axis=0, keepdims=True)
  size = np.max(np.abs(embedding), initial=0.0)
  spread = np.max(np.abs(centred), initial=0.0)
  return centred if spread > rounding * size else np.zeros_like(centred)


def _u_centred_distances(centred: np.ndarray) -> np.ndarray:
  """Euclidean distances of rows, U-centred, [N, N]."""
  products = centred @ centred.T
  squares = np.diagonal(products)
  matrix = squares[:, None] + squares[None, :] - 2.0 * products
  matrix = np.sqrt(np.maximum(matrix, 0.0))
  np.fill_diagonal(matrix, 0.0)
  n = len(matrix)
  sums = np.sum(matrix, axis=1) / (n - 2)
  matrix -= sums[:, None] + sums[None, :] - np.sum(sums) / (n - 1)
  np.fill_diagonal(matrix, 0.0)
  return matrix


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
  """The cosine of two matrices, NaN where one is zero."""
  length = np.linalg.norm(first) * np.linalg.norm(second)
  return float(np.sum(first * second) / length) if length else float("nan")


def alignment(student: Any, teacher: Any) -> dict[str, float]:
  """How far distances and inner products between examples agree.

  "dcor" is the bias-corrected squared distance correlation (Szekely and Rizzo,
  2014, arXiv 1310.2926): 1 where one embedding is the other turned, shifted or
  scaled, about 0 for independent ones at any N and any dimensions, and below
  0 by chance. "cka" is linear CKA (Kornblith et al., 2019, arXiv 1905.00414)
  of centred embeddings, in [0, 1]; it is biased upwards where N is not far
  above the dimensions.

  Of more than `MAX_EXAMPLES` = 2048 examples as many are taken, evenly spaced
  from the first to the last: memory is at most a few matrices of 2048 x 2048.

  Args:
    student: [N, Ds], N >= 4.
    teacher: [N, Dt].

  Returns:
    "dcor" and "cka"; NaN where an embedding is constant or not finite.

  Raises:
    ValueError: not [N, Ds] and [N, Dt] with N >= 4.
    TypeError: an embedding is not floating point.
  """
  student, student_rounding = _embedding(student, "student")
  teacher, teacher_rounding = _embedding(teacher, "teacher")
  checks.same_leading(student=student, teacher=teacher)
  checks.in_range(_LEAST_EXAMPLES, float("inf"), examples=len(student))

  if not (np.isfinite(student).all() and np.isfinite(teacher).all()):
    return {"dcor": float("nan"), "cka": float("nan")}
  if len(student) > MAX_EXAMPLES:
    kept = np.linspace(0, len(student) - 1, MAX_EXAMPLES).round().astype(int)
    student, teacher = student[kept], teacher[kept]
  student = _centred(student, student_rounding)
  teacher = _centred(teacher, teacher_rounding)
  return {
    "dcor": _cosine(
      _u_centred_distances(student), _u_centred_distances(teacher)
    ),
    "cka": _cosine(student @ student.T, teacher @ teacher.T),
  }


def effective_rank(embedding: Any) -> float:
  """How many directions an embedding spreads over, as a real number.

  exp of the entropy of the singular values of the centred matrix, normalised
  to sum to one (Roy and Vetterli, 2007, "The effective rank: a measure of
  effective dimensionality"): D where all directions have the same spread, near
  1 where an embedding has collapsed to a line.

  Args:
    embedding: [N, D].

  Returns:
    In [1, min(N - 1, D)]; 0 where all rows are equal up to the rounding of
    the embedding's own dtype, NaN where one is not finite.

  Raises:
    ValueError: not [N, D], or nothing in it.
    TypeError: not floating point.
  """
  array, rounding = _embedding(embedding, "embedding")
  checks.positive(examples=array.shape[0], dimensions=array.shape[1])

  if not np.isfinite(array).all():
    return float("nan")
  values = np.linalg.svd(_centred(array, rounding), compute_uv=False)
  if not values[0] > 0:
    return 0.0
  shares = values / np.sum(values)
  shares = shares[shares > 0]
  return float(np.exp(-np.sum(shares * np.log(shares))))
