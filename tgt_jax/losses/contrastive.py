# SPDX-License-Identifier: Apache-2.0
"""Contrastive representation distillation: find the teacher's view of oneself.

`in_batch_contrastive` takes the other examples of the batch as negatives.
`bank_contrast` is the published CRD (Tian et al., 2020, "Contrastive
representation distillation", arXiv 1910.10699): thousands of negatives from a
memory of all training examples, which these functions take and return. A step
is

  values, bank = bank_contrast(bank, student, teacher, ids, negative_ids)
  bank = update_bank(bank, student, teacher, ids)

Embeddings are [B, D] of one width, usually linear maps of both networks'
features; every function scales them to length one, so it does not matter
whether that was done. They return one value per example, [B]; `where` [B] keeps
examples, padding has value and gradient 0. Gradients reach both embeddings
(the published maps learn on both sides) and never the memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _common, _embeddings
from tgt_jax.types import Array

# Of a memory: below, exp(1 / temperature) nears the end of float32.
_TEMPERATURES = (0.02, 1e3)
# The published code's, added to a sum of two probabilities.
_EPSILON = 1e-7


def in_batch_contrastive(
  student: Array,
  teacher: Array,
  *,
  temperature: float = 0.07,
  symmetric: bool = False,
  where: Array | None = None,
) -> Array:
  """InfoNCE: each student picks its own teacher out of the batch's.

  -log softmax_j(cos(s_i, t_j) / temperature) at j = i (van den Oord et al.,
  2018, "Representation learning with contrastive predictive coding", arXiv
  1807.03748). At best the value is near 0, by chance log B.

  Args:
    student: [B, D].
    teacher: [B, D].
    temperature: in [1e-6, 1e6].
    symmetric: the mean with the other direction, each teacher picking its
      student (Radford et al., 2021, arXiv 2103.00020).
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B], >= 0.

  Raises:
    ValueError: shapes differ or are not [B, D], `where` is not [B], or the
      temperature is out of range.
    TypeError: an embedding is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, same=True)
  _common.check_temperature(temperature)

  student, teacher = map(_embeddings.unit, (both.student, both.teacher))
  scores = _embeddings.inner(student, teacher) / temperature
  # A row of padding keeps its zeros, so that nothing becomes NaN.
  dropped = both.kept[:, None] ^ both.kept[None, :]
  scores = jnp.where(dropped, -jnp.inf, scores)
  rows = -jnp.diagonal(jax.nn.log_softmax(scores, axis=1))
  if symmetric:
    rows = 0.5 * (rows - jnp.diagonal(jax.nn.log_softmax(scores, axis=0)))
  return _embeddings.values(rows, both.kept)


def _told_apart(log_scores: Array, num_examples: int) -> Array:
  """`noise_contrastive` of the scores' logarithms, [B]."""
  noise = (log_scores.shape[1] - 1) / num_examples
  total = jnp.logaddexp(log_scores, math.log(noise + _EPSILON))
  positive = log_scores[:, 0] - total[:, 0]
  negative = math.log(noise) - total[:, 1:]
  return -(positive + jnp.sum(negative, axis=1))


def noise_contrastive(
  scores: Array, *, num_examples: int, where: Array | None = None
) -> Array:
  """CRD's loss of one direction: the true partner told from noise.

  With P the scores, K negatives, n training examples and m = K / n,

    -log P_0 / (P_0 + m + 1e-7) - sum_k log m / (P_k + m + 1e-7)

  (Gutmann and Hyvarinen, 2010, "Noise-contrastive estimation"; Tian et al.,
  2020, arXiv 1910.10699).

  Args:
    scores: normalised, >= 0, [B, 1 + K]: the positive's first.
    num_examples: n.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not [B, 1 + K] with K >= 1, num_examples < 1, or `where` is
      not [B].
    TypeError: scores are not floating point, or `where` not boolean.
  """
  checks.rank(2, scores=scores)
  checks.floating(scores=scores)
  checks.positive(num_examples=num_examples)
  scores = _embeddings.as_float(scores)
  checks.in_range(1, math.inf, negatives=scores.shape[1] - 1)
  kept = _embeddings.kept_rows(where, scores.shape[0])

  scores = jnp.where(kept[:, None], scores, 1.0)
  # Below it a score has no logarithm; there it has no gradient either.
  scores = jnp.maximum(scores, jnp.finfo(scores.dtype).tiny)
  rows = _told_apart(jnp.log(scores), num_examples)
  return _embeddings.values(rows, kept)


class Bank(NamedTuple):
  """A memory of every training example's embeddings.

  Attributes:
    student: unit vectors, [n, D].
    teacher: unit vectors, [n, D].
    normalisers: what turns exp(cos / temperature) into a probability, [2]: of
      the student against the teacher's memory and the reverse. 0 until the
      first `bank_contrast`.
  """

  student: Array
  teacher: Array
  normalisers: Array


def init_bank(rng: Array, num_examples: int, dim: int) -> Bank:
  """Uniform in +-sqrt(3 / D), so of length one on average, as published.

  Args:
    rng: a key.
    num_examples: n, > 0.
    dim: D, > 0.
  """
  checks.positive(num_examples=num_examples, dim=dim)
  bound = (3.0 / dim) ** 0.5
  student, teacher = jax.random.uniform(
    rng, (2, num_examples, dim), minval=-bound, maxval=bound
  )
  return Bank(student, teacher, jnp.zeros((2,)))


def _check_bank(bank: Bank, student: Array, ids: Array) -> None:
  """Raises unless the memory has the embeddings' width, and ids are [B]."""
  checks.rank(1, ids=ids)
  checks.integer(ids=ids)
  checks.same_leading(student=student, ids=ids)
  for name, memory in (("student", bank.student), ("teacher", bank.teacher)):
    if jnp.shape(memory)[1:] != jnp.shape(student)[1:]:
      raise ValueError(
        f"bank.{name}: expected width {jnp.shape(student)[1]}, that of the"
        f" embeddings, got shape {jnp.shape(memory)}"
      )


def _recall(memory: Array, ids: Array) -> Array:
  """Rows of the memory; NaN, not another example's, where out of range."""
  ids = jnp.where(ids < 0, memory.shape[0], ids)
  rows = memory.at[ids].get(mode="fill", fill_value=jnp.nan)
  return jax.lax.stop_gradient(rows)


def bank_contrast(
  bank: Bank,
  student: Array,
  teacher: Array,
  ids: Array,
  negative_ids: Array,
  *,
  temperature: float = 0.07,
  where: Array | None = None,
) -> tuple[Array, Bank]:
  """CRD: both directions against the memory.

  The score of student i against the teacher's memory of example j is
  exp(cos / temperature) / Z, and the reverse; the value is the sum of
  `noise_contrastive` of both. Z is set by the first batch, to n times its mean
  of exp(cos / temperature), and stays.

  Args:
    bank: the memory, as of before this batch.
    student: [B, D].
    teacher: [B, D].
    ids: which training examples the batch holds, [B], integers in [0, n).
    negative_ids: with whom each is contrasted, [B, K]; published are K =
      16 384 of other classes.
    temperature: in [0.02, 1000].
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B]; NaN where an id is out of range. And the bank
    with its normalisers set.

  Raises:
    ValueError: shapes do not fit, or the temperature is out of range.
    TypeError: an embedding is not floating point, ids not integers, or
      `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, same=True)
  _check_bank(bank, both.student, ids)
  checks.rank(2, negative_ids=negative_ids)
  checks.integer(negative_ids=negative_ids)
  checks.same_leading(ids=ids, negative_ids=negative_ids)
  checks.in_range(*_TEMPERATURES, temperature=temperature)

  num_examples = bank.student.shape[0]
  shown = jnp.concatenate([jnp.asarray(ids)[:, None], negative_ids], axis=1)
  shown = jnp.where(both.kept[:, None], shown, 0)
  rows, normalisers = jnp.zeros(both.kept.shape), []
  directions = ((both.student, bank.teacher), (both.teacher, bank.student))
  for (embedding, memory), known in zip(
    directions, bank.normalisers, strict=True
  ):
    cosines = jnp.einsum(
      "bd,bkd->bk",
      _embeddings.unit(embedding),
      _recall(memory, shown),
      precision=jax.lax.Precision.HIGHEST,
    )
    logits = cosines / temperature
    first = jnp.where(both.kept[:, None], jnp.exp(logits), 0.0)
    first = jnp.sum(first) / (both.examples * shown.shape[1]) * num_examples
    normaliser = jax.lax.stop_gradient(jnp.where(known > 0, known, first))
    rows = rows + _told_apart(logits - jnp.log(normaliser), num_examples)
    normalisers.append(normaliser.astype(bank.normalisers.dtype))
  set_bank = bank._replace(normalisers=jnp.stack(normalisers))
  return _embeddings.values(rows, both.kept), set_bank


def update_bank(
  bank: Bank,
  student: Array,
  teacher: Array,
  ids: Array,
  *,
  momentum: float = 0.5,
  where: Array | None = None,
) -> Bank:
  """Moves the memory of a batch's examples towards their embeddings.

  Each row becomes momentum * row + (1 - momentum) * unit embedding, at length
  one. Of an id that occurs twice in a batch one of the two embeddings counts.

  Args:
    bank: the memory.
    student: [B, D].
    teacher: [B, D].
    ids: which training examples the batch holds, [B]; those outside [0, n)
      change nothing.
    momentum: in [0, 1].
    where: which examples are no padding, [B]; padding changes nothing.

  Returns:
    The new memory; no gradient goes through it.

  Raises:
    ValueError: shapes do not fit, or momentum is out of range.
    TypeError: an embedding is not floating point, ids not integers, or
      `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, same=True)
  _check_bank(bank, both.student, ids)
  checks.in_range(0.0, 1.0, momentum=momentum)

  ids = jnp.where(both.kept & (ids >= 0), ids, bank.student.shape[0])

  def moved(memory: Array, embedding: Array) -> Array:
    rows = memory.at[ids].get(mode="fill", fill_value=0.0)
    rows = momentum * rows + (1.0 - momentum) * _embeddings.unit(embedding)
    rows = _embeddings.unit(rows).astype(memory.dtype)
    return memory.at[ids].set(rows, mode="drop")

  new = Bank(
    student=moved(bank.student, both.student),
    teacher=moved(bank.teacher, both.teacher),
    normalisers=bank.normalisers,
  )
  return jax.lax.stop_gradient(new)
