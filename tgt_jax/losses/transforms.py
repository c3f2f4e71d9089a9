# SPDX-License-Identifier: Apache-2.0
"""What can be done to logits before any distance: Z-scores and priors.

Functions take any leading axes. `standardised` and `with_priors` take a
distance `(student_logits, teacher_logits, **kwargs)` and return another one,
so they compose. Priors come last: they are in units of log-probability and
must not be rescaled, so `with_priors(standardised(distance), ...)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _common
from tgt_jax.types import Array

Distance = Callable[..., Array]


def logit_standardisation(
  logits: Array,
  *,
  epsilon: float = 1e-7,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Z-scores: mean zero and variance one over the classes.

  A student then matches the order and spacing of the teacher's logits and not
  their size (Sun et al., 2024, "Logit standardization in knowledge
  distillation", arXiv 2403.01427). The variance divides by K; the public code
  of the paper divides by K - 1, which is the same with its temperature
  multiplied by sqrt((K - 1) / K).

  Args:
    logits: scores, [..., K], finite where `where` keeps them.
    epsilon: least standard deviation, > 0; constant logits become zeros.
    axis: the class axis.
    where: the classes that take part; the others become 0.

  Returns:
    Z-scores, [..., K].

  Raises:
    TypeError: logits are not floating point.
    ValueError: epsilon is not positive.
  """
  checks.floating(logits=logits)
  checks.positive(epsilon=epsilon)
  logits = _common.as_float(logits)
  where = _common.class_mask(where, logits)
  if where is not None:
    logits = jnp.where(where, logits, 0.0)

  centred = logits - _common.mean(logits, axis, where, keepdims=True)
  square = jnp.square(centred)
  variance = _common.mean(square, axis, where, keepdims=True)
  scores = centred / jnp.sqrt(variance + epsilon**2)
  return scores if where is None else jnp.where(where, scores, 0.0)


def standardised(distance: Distance) -> Distance:
  """`distance` of Z-scores: both sides through `logit_standardisation`.

  `axis` and `where` reach both the Z-scores and the distance.
  """

  @functools.wraps(distance)
  def wrapped(
    student_logits: Array, teacher_logits: Array, **kwargs: Any
  ) -> Array:
    shared = {k: kwargs[k] for k in ("axis", "where") if k in kwargs}
    return distance(
      logit_standardisation(student_logits, **shared),
      logit_standardisation(teacher_logits, **shared),
      **kwargs,
    )

  return wrapped


def with_priors(
  distance: Distance,
  *,
  student_log_prior: Any = None,
  teacher_log_prior: Any = None,
) -> Distance:
  """`distance` between posteriors under given class priors.

  Adds a log-prior over classes to each side's logits. A student trained with
  a balanced softmax has logits of a balanced world; compared as they are with
  a teacher that knows the long-tailed training set, plain distillation undoes
  that balance. Comparing logits + log-prior on the student's side with the
  teacher's posterior on the same data keeps it, since both then speak of the
  training distribution.

  Adding one prior to both sides leaves a distance of logit differences
  (`logit_mse`) as it was.

  Args:
    distance: `(student_logits, teacher_logits, **kwargs) -> [...]`.
    student_log_prior: [K], or None for no change of that side.
    teacher_log_prior: [K], or None for no change of that side (a teacher
      whose logits already contain the prior of the training data).

  Returns:
    A distance. The class axis is its keyword argument `axis`, or the last.
  """

  def adjusted(logits: Array, log_prior: Any, axis: int) -> Array:
    if log_prior is None:
      return logits
    logits = _common.as_float(logits)
    return logits + _common.per_class(log_prior, logits, axis, name="log_prior")

  @functools.wraps(distance)
  def wrapped(
    student_logits: Array, teacher_logits: Array, **kwargs: Any
  ) -> Array:
    checks.floating(
      student_logits=student_logits, teacher_logits=teacher_logits
    )
    axis = kwargs.get("axis", -1)
    return distance(
      adjusted(student_logits, student_log_prior, axis),
      adjusted(teacher_logits, teacher_log_prior, axis),
      **kwargs,
    )

  return wrapped
