# SPDX-License-Identifier: Apache-2.0
"""Several labels at once, some of them unknown: tags.

Each of K classes is a question of its own, answered by sigmoid(logit). Labels
are floats in [0, 1], 1 for yes; -1 says that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _common, distances
from tgt_jax.types import Array

UNKNOWN = -1.0


def binary_cross_entropy(
  logits: Array, labels: Array, *, where: Array | None = None
) -> Array:
  """Cross-entropy of every known label, averaged over those of the batch.

  -(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), where y may be a mixture.
  The mean over the batch is the mean over all its known entries, so that an
  example with many known labels weighs more: example i gets B / (known entries
  of the batch) times its own sum, one without any known label 0. Values depend
  on the batch they came in.

  Args:
    logits: finite scores, [B, K].
    labels: [B, K], floats in [0, 1], or -1 for unknown.
    where: booleans that broadcast to [B, K]; what they drop is as unknown. A
      row without any True is padding and does not count towards B.

  Returns:
    One value per example, [B]; NaN for an example with a label that is neither
    in [0, 1] nor -1.

  Raises:
    ValueError: shapes differ or are not [B, K].
    TypeError: logits or labels are not floating point, or `where` not boolean.
  """
  checks.rank(2, logits=logits, labels=labels)
  checks.floating(logits=logits, labels=labels)
  checks.same_shape(logits=logits, labels=labels)
  logits, labels = _common.as_float(logits), _common.as_float(labels)
  kept = _common.class_mask(where, logits)
  if kept is None:
    kept = jnp.ones(logits.shape, jnp.bool_)

  known = kept & (labels != UNKNOWN)
  valid = (labels >= 0) & (labels <= 1)
  inside = jnp.where(known, logits, 0.0)
  entries = jax.nn.softplus(inside) - inside * jnp.where(valid, labels, 0.0)
  entries = jnp.where(valid, entries, jnp.nan)
  examples = jnp.sum(jnp.any(kept, axis=1), dtype=logits.dtype)
  share = examples / jnp.maximum(jnp.sum(known, dtype=logits.dtype), 1.0)
  return share * jnp.sum(jnp.where(known, entries, 0.0), axis=1)


def where_known(
  distance: Callable[[Array, Array], Array],
  student_logits: Array,
  teacher_logits: Array,
  labels: Array | None,
) -> Array:
  """A distance of logits on the known tags of a batch; on all, of classes.

  An unknown tag adds nothing, and the mean over the batch is the mean over its
  known entries, as in `binary_cross_entropy` and as EAsT distils (arXiv
  2306.17424, L_KD). The distance is to compare tag by tag and to average over
  them, as `bernoulli_kl` does.

  Args:
    distance: `(student logits, teacher logits) -> [B]`, zero where they agree.
    student_logits: scores, [B, K].
    teacher_logits: scores, [B, K].
    labels: tags [B, K], -1 for unknown; or classes or grades [B], or None.

  Returns:
    One value per example, [B].
  """
  if labels is None or labels.ndim < 2:
    return distance(student_logits, teacher_logits)
  known = labels != UNKNOWN
  # Where they agree, neither value nor slope is left.
  agreed = jax.lax.stop_gradient(student_logits).astype(teacher_logits.dtype)
  values = distance(student_logits, jnp.where(known, teacher_logits, agreed))
  return values * (known.size / jnp.maximum(jnp.sum(known), 1))


def bernoulli_kl(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """KL(teacher || student) of each class's yes or no, averaged over classes.

  T^2 * mean_k KL(Bernoulli(sigmoid(t_k / T)) || Bernoulli(sigmoid(s_k / T))):
  distillation where classes do not exclude each other. A yes or no is a
  softmax of two, (x, 0), so this is `kl_divergence` of those, as exact at
  large logits and temperatures.

  The mean runs over the classes that `where` keeps of an example. Published
  losses with unknown labels average over the batch's entries at once: weight
  the values here by the number of kept classes for that.

  Args:
    student_logits: scores, [..., K].
    teacher_logits: scores, [..., K].
    temperature: T, in [1e-6, 1e6].
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...]; 0 at equal logits, and where no class is
    kept.

  Raises:
    ValueError: shapes differ, or the temperature is out of range.
    TypeError: logits are not floating point.
  """
  student_logits, teacher_logits = _common.pair(student_logits, teacher_logits)
  where = _common.class_mask(where, student_logits)

  pairs = []
  for logits in (student_logits, teacher_logits):
    if where is not None:
      logits = jnp.where(where, logits, 0.0)
    pairs.append(jnp.stack([logits, jnp.zeros_like(logits)], axis=-1))
  entries = distances.kl_divergence(*pairs, temperature=temperature)
  return _common.mean(entries, axis, where)
