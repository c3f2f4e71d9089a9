# SPDX-License-Identifier: Apache-2.0
"""DIST: match relations between predictions instead of probabilities.

Takes [B, K]; unlike the other distances it looks across the batch. Logits are
finite or -inf; one of +inf or NaN makes the values of its whole batch NaN.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _common
from tgt_jax.types import Array

# Added to squared norms: a constant row has correlation 0, not NaN.
_EPSILON = 1e-16
# Above, float32 loses the differences between probabilities of one row.
_TEMPERATURES = (1e-6, 1e3)


def _unit(values: Array, axis: int, where: Array) -> Array:
  """Centred along `axis` and scaled to length one, over `where`."""
  count = jnp.maximum(jnp.sum(where, axis=axis, keepdims=True), 1)
  values = jnp.where(where, values, 0.0)
  values -= jnp.sum(values, axis=axis, keepdims=True) / count
  values = jnp.where(where, values, 0.0)
  square = jnp.sum(jnp.square(values), axis=axis, keepdims=True)
  return values / jnp.sqrt(square + _EPSILON)


def dist(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  beta: float = 1.0,
  gamma: float = 1.0,
  where: Array | None = None,
) -> Array:
  """Correlation of predictions over classes and, per class, over the batch.

  With Y the softmax at temperature T, row i an example and column k a class,

    T^2 * (beta * mean_i (1 - corr(Ys_i., Yt_i.))       inter-class relation
           + gamma * mean_k (1 - corr(Ys_.k, Yt_.k)))   intra-class relation

  (Huang et al., 2022, "Knowledge distillation from a stronger teacher", arXiv
  2205.10536). The published loss is the mean of the values returned here. A
  correlation over the batch is a sum over its examples, so the second term
  splits exactly: example i gets 1 - B/K sum_k u_ik v_ik, where u and v are the
  centred unit columns. One such value may be negative; only the mean is a
  correlation.

  With gamma > 0 the examples of a batch are coupled: a value depends on the
  whole batch it came in. Exploration, which treats every example on its own
  and may hold only one device's part of the batch, should use gamma = 0. With
  two classes the inter-class term has no gradient: two centred unit vectors
  of length two are equal or opposite.

  Args:
    student_logits: scores, [B, K].
    teacher_logits: scores, [B, K].
    temperature: T, in [1e-6, 1e3].
    beta: weight of the inter-class relation, >= 0.
    gamma: weight of the intra-class relation, >= 0.
    where: booleans that broadcast to [B, K]. A row without any True is
      padding: it gets the value 0 and enters no statistic.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: shapes differ or are not [B, K], or a hyper-parameter is out
      of range.
    TypeError: logits are not floating point.
  """
  checks.rank(2, student_logits=student_logits, teacher_logits=teacher_logits)
  student_logits, teacher_logits = _common.pair(student_logits, teacher_logits)
  checks.in_range(*_TEMPERATURES, temperature=temperature)
  checks.non_negative(beta=beta, gamma=gamma)
  kept = _common.class_mask(where, student_logits)
  if kept is None:
    kept = jnp.ones(student_logits.shape, jnp.bool_)

  rows = jnp.any(kept, axis=1)
  student, teacher = (
    jax.nn.softmax(_common.masked(logits, -1, kept) / temperature)
    for logits in (student_logits, teacher_logits)
  )
  inter = 1.0 - jnp.sum(
    _unit(student, 1, kept) * _unit(teacher, 1, kept), axis=1
  )
  scale = jnp.sum(rows) / jnp.maximum(jnp.sum(jnp.any(kept, axis=0)), 1)
  intra = 1.0 - scale * jnp.sum(
    _unit(student, 0, kept) * _unit(teacher, 0, kept), axis=1
  )
  loss = temperature**2 * (beta * inter + gamma * intra)
  return jnp.where(rows, loss, 0.0)
