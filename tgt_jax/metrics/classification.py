# SPDX-License-Identifier: Apache-2.0
"""What a batch of predictions is worth, as sums that add up over batches.

Functions take logits [B, K] and labels [B] and run under `jit` and `vmap`.
`mask` [B] marks what counts: booleans, or weights >= 0. Where it is zero an
example enters nothing, not even a NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.types import Array, Mean


def mean(values: Array, mask: Array | None = None) -> Mean:
  """(sum, count) of one value per example.

  Args:
    values: [B].
    mask: [B], booleans or weights; None counts every example.

  Raises:
    ValueError: shapes differ.
  """
  values = jnp.asarray(values)
  values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
  if mask is None:
    return Mean(jnp.sum(values), jnp.asarray(values.size, values.dtype))
  checks.same_shape(values=values, mask=mask)
  weights = jnp.asarray(mask).astype(values.dtype)
  values = jnp.where(weights > 0, values, 0.0)
  return Mean(jnp.sum(weights * values), jnp.sum(weights))


def _check(logits: Any, labels: Any) -> None:
  checks.rank(2, logits=logits)
  checks.rank(1, labels=labels)
  checks.floating(logits=logits)
  checks.integer(labels=labels)
  checks.same_leading(logits=logits, labels=labels)


def predictions(logits: Array) -> Array:
  """The class of the largest logit, [B], the first of equal ones.

  -1, which is no class, where a logit is NaN: `argmax` would name the NaN's.
  """
  checks.rank(2, logits=logits)
  checks.floating(logits=logits)
  valid = ~jnp.any(jnp.isnan(logits), axis=-1)
  return jnp.where(valid, jnp.argmax(logits, axis=-1), -1)


def accuracy(
  logits: Array, labels: Array, *, mask: Array | None = None
) -> Mean:
  """How often the label is what `predictions` says; never where that is NaN."""
  _check(logits, labels)
  predicted = predictions(logits)
  return mean((predicted == labels) & (predicted >= 0), mask)


def top_k_accuracy(
  logits: Array, labels: Array, *, k: int, mask: Array | None = None
) -> Mean:
  """How often the label is among the `k` largest logits.

  Among equal logits the lower class comes first, as in `accuracy`, so that a
  collapsed network with constant logits is not right about everything. Logits
  with a NaN are wrong.

  Raises:
    ValueError: shapes do not fit, or k is not in [1, K].
  """
  _check(logits, labels)
  checks.in_range(1, logits.shape[-1], k=k)
  _, top = jax.lax.top_k(logits, k)
  valid = ~jnp.any(jnp.isnan(logits), axis=-1)
  return mean(valid & jnp.any(top == labels[:, None], axis=-1), mask)


def agreement(
  student_logits: Array,
  teacher_logits: Array,
  *,
  mask: Array | None = None,
) -> Mean:
  """How often student and teacher have the same top class, none if NaN.

  Fidelity, not accuracy: see Stanton et al. (2021), arXiv 2106.05945.
  """
  checks.rank(2, student_logits=student_logits, teacher_logits=teacher_logits)
  checks.same_shape(
    student_logits=student_logits, teacher_logits=teacher_logits
  )
  student = predictions(student_logits)
  same = (student == predictions(teacher_logits)) & (student >= 0)
  return mean(same, mask)


def negative_log_likelihood(
  logits: Array, labels: Array, *, mask: Array | None = None
) -> Mean:
  """-log p(label) in nats; NaN for a label out of range."""
  _check(logits, labels)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  # Past the end reads as NaN; a negative index would count from the end.
  index = jnp.where(labels < 0, logits.shape[-1], labels)[:, None]
  picked = jnp.take_along_axis(log_probs, index, axis=-1, mode="fill")
  return mean(-picked[:, 0], mask)


def confusion_matrix(
  labels: Array,
  predicted: Array,
  num_classes: int,
  *,
  mask: Array | None = None,
) -> Array:
  """Counts of (label, prediction) pairs.

  Args:
    labels: true classes, [B], integers.
    predicted: predicted classes, [B], integers; -1 for none.
    num_classes: K. A label outside [0, K) is not counted.
    mask: [B]; examples at zero are not counted, others count once.

  Returns:
    [K, K + 1], int32, exact up to 2**31: rows are labels, columns what was
    predicted; the last one counts what is no class in [0, K).

  Raises:
    ValueError: shapes differ.
    TypeError: not integers.
  """
  checks.rank(1, labels=labels, predicted=predicted)
  checks.integer(labels=labels, predicted=predicted)
  checks.same_shape(labels=labels, predicted=predicted)
  counted = jnp.asarray(labels) >= 0  # A negative index counts from the end.
  a_class = (predicted >= 0) & (predicted < num_classes)
  column = jnp.where(a_class, predicted, num_classes)
  if mask is not None:
    checks.same_shape(labels=labels, mask=mask)
    counted &= jnp.asarray(mask) > 0
  zeros = jnp.zeros((num_classes, num_classes + 1), jnp.int32)
  return zeros.at[labels, column].add(counted.astype(jnp.int32), mode="drop")
