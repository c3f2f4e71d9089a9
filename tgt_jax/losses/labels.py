# SPDX-License-Identifier: Apache-2.0
"""Losses against integer labels, plain and for long-tailed training data.

Every function takes logits [..., K] with any leading axes and integer labels
[...], and returns one value per example. `where` keeps classes (booleans that
broadcast to the logits); an example that keeps none is padding, with value and
gradient 0. A label out of range, or of a class that `where` drops, gives NaN
or infinity, never the loss of another class. Logits are finite, or -inf for a
class that is excluded; +inf and NaN give NaN.

`class_counts` are the numbers of training examples per class, [K], known
while tracing (a list or a numpy array). Test logits are used as they are: the
adjustments belong to training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks, longtail
from tgt_jax.losses import _common
from tgt_jax.types import Array

Counts = Sequence[int] | np.ndarray


def cross_entropy(
  logits: Array,
  labels: Array,
  *,
  label_smoothing: float = 0.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Softmax cross-entropy, -log p(label).

  Args:
    logits: scores, [..., K].
    labels: classes, [...], integers in [0, K).
    label_smoothing: weight in [0, 1] of the uniform distribution in the
      target (Szegedy et al., 2016, arXiv 1512.00567). With a class at -inf
      the loss is then infinite; use `where`.
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...].

  Raises:
    ValueError: shapes do not fit, or label_smoothing is out of range.
    TypeError: logits not floating point, or labels not integers.
  """
  logits, labels = _common.labelled(logits, labels, axis)
  checks.in_range(0.0, 1.0, label_smoothing=label_smoothing)
  where = _common.class_mask(where, logits)

  log_probs = jax.nn.log_softmax(_common.masked(logits, axis, where), axis=axis)
  loss = -_common.pick(log_probs, labels, axis)
  if label_smoothing:
    if where is not None:
      log_probs = jnp.where(where, log_probs, 0.0)
    uniform = -_common.mean(log_probs, axis, where)
    loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
  return _common.zero_if_empty(loss, axis, where)


def graded_cross_entropy(
  logits: Array, grades: Array, *, axis: int = -1
) -> Array:
  """Cross-entropy where classes are grades 0 to K - 1 of something.

  A grade between two classes is the mixture of them whose mean it is (Tai et
  al., 2015, arXiv 1503.00075, section 4.2); of a whole grade this is
  `cross_entropy`. What is predicted is the mean grade,
  `metrics.expected_grade`.

  Args:
    logits: scores, [..., K], K >= 2.
    grades: [...], in [0, K - 1].
    axis: the class axis.

  Returns:
    One value per example, [...].

  Raises:
    ValueError: shapes do not fit, or one class.
    TypeError: logits not floating point.
  """
  checks.in_range(2, float("inf"), classes=jnp.shape(logits)[axis])
  grades = jnp.asarray(grades)
  below = jnp.clip(jnp.floor(grades), 0, jnp.shape(logits)[axis] - 2)
  share, below = grades - below, below.astype(jnp.int32)
  near = cross_entropy(logits, below, axis=axis)
  above = cross_entropy(logits, below + 1, axis=axis)
  return (1.0 - share) * near + share * above


def logit_adjustment(
  logits: Array,
  labels: Array,
  *,
  class_counts: Counts,
  tau: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Cross-entropy of logits + tau * log-prior.

  The logits that minimise it are those of a balanced world (tau = 1): the
  adjustment carries the prior, so the network need not (Menon et al., 2021,
  "Long-tail learning via logit adjustment", arXiv 2007.07314).

  Args:
    logits: scores, [..., K].
    labels: classes, [...], integers in [0, K).
    class_counts: training examples per class, [K], all > 0.
    tau: strength, >= 0; 0 is plain cross-entropy.
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...].

  Raises:
    ValueError: shapes do not fit, a count is not positive, or tau < 0.
    TypeError: logits not floating point, or labels not integers.
  """
  logits, labels = _common.labelled(logits, labels, axis)
  checks.non_negative(tau=tau)
  log_prior = longtail.log_prior(class_counts)

  shift = _common.per_class(log_prior, logits, axis, name="class_counts")
  return cross_entropy(logits + tau * shift, labels, axis=axis, where=where)


def balanced_softmax(
  logits: Array,
  labels: Array,
  *,
  class_counts: Counts,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """-log(n_y exp(f_y) / sum_k n_k exp(f_k)), n the class counts.

  Ren et al. (2020), "Balanced meta-softmax for long-tailed visual
  recognition", arXiv 2007.10740; the same function as `logit_adjustment` with
  tau = 1. Arguments, result and errors as there.
  """
  return logit_adjustment(
    logits, labels, class_counts=class_counts, axis=axis, where=where
  )


def ldam(
  logits: Array,
  labels: Array,
  *,
  class_counts: Counts,
  max_margin: float = 0.5,
  scale: float = 30.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Label-distribution-aware margin: rarer classes get a wider margin.

  Cross-entropy of scale * (f - margin of the label at the label), where
  margin_k is proportional to n_k ** (-1/4) and at most `max_margin` (Cao et
  al., 2019, arXiv 1906.07413). The defaults are those of its public code and
  mean logits in [-1, 1], cosines of features and class vectors; an ordinary
  linear layer needs a scale near 1.

  Args:
    logits: scores, [..., K].
    labels: classes, [...], integers in [0, K).
    class_counts: training examples per class, [K], all > 0.
    max_margin: margin of the rarest class, >= 0, in units of logits.
    scale: factor on the logits behind the margin, > 0.
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...].

  Raises:
    ValueError: shapes do not fit, a count is not positive, or a
      hyper-parameter is out of range.
    TypeError: logits not floating point, or labels not integers.
  """
  logits, labels = _common.labelled(logits, labels, axis)
  checks.non_negative(max_margin=max_margin)
  checks.positive(scale=scale)
  margins = longtail.positive_counts(class_counts) ** -0.25
  margins *= max_margin / margins.max()

  shift = _common.per_class(margins, logits, axis, name="class_counts")
  target = _common.one_hot(labels, logits.shape[axis], axis)
  logits = scale * jnp.where(target, logits - shift, logits)
  return cross_entropy(logits, labels, axis=axis, where=where)


def class_weighted(
  logits: Array,
  labels: Array,
  *,
  class_counts: Counts,
  effective_beta: float = 0.999,
  label_smoothing: float = 0.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Cross-entropy times a weight of the label's class, of mean one.

  Weights are inverse effective numbers of examples (Cui et al., 2019,
  "Class-balanced loss based on effective number of samples", arXiv
  1901.05555): `effective_beta` = 0 weights all classes alike, towards 1 by
  the inverse of their counts.

  Args:
    logits: scores, [..., K].
    labels: classes, [...], integers in [0, K).
    class_counts: training examples per class, [K], all > 0.
    effective_beta: in [0, 1).
    label_smoothing: as in `cross_entropy`.
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...]. Their mean is not divided by the sum of the
    batch's weights.

  Raises:
    ValueError: shapes do not fit, a count is not positive, or a
      hyper-parameter is out of range.
    TypeError: logits not floating point, or labels not integers.
  """
  logits, labels = _common.labelled(logits, labels, axis)
  weights: Any = longtail.effective_number_weights(
    class_counts, beta=effective_beta
  )
  _common.per_class(weights, logits, axis, name="class_counts")

  loss = cross_entropy(
    logits, labels, label_smoothing=label_smoothing, axis=axis, where=where
  )
  return jnp.asarray(weights, loss.dtype)[labels] * loss
