# SPDX-License-Identifier: Apache-2.0
"""Distances between a student's and a teacher's class distributions.

Every function takes logits of equal shape with any leading axes and returns
one value for each of them: no reduction over examples. `where` keeps classes
(booleans that broadcast to the logits); a class that it drops, and a class at
-inf on both sides, adds nothing. An example that keeps no class is padding:
its value and its gradient are 0.

Logits are finite, or -inf for a class that a side excludes. A logit of +inf or
NaN, or an example with all classes at -inf, is no distribution and its value is
NaN (of `logit_mse` it may be infinite): a network that overflows shall be seen.

No function stops the gradient of the teacher. Training holds the teacher
constant, but gradient exploration differentiates the same distance through
the teacher as well, so a method applies `jax.lax.stop_gradient` to the
teacher's logits where it trains. Gradients of both sides are free of NaN at
logits of any finite size: both distributions stay in log space.

Distances of softened distributions carry the factor `temperature ** 2`, which
keeps the size of the student's gradient as the temperature changes (Hinton et
al., 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531).
Temperatures go from 1e-6 to 1e6; on all of that range values and gradients
keep float32's relative precision, although divergences vanish as 1 / T^2. (The
teacher's gradient of `soft_cross_entropy` does not: it is off by T * 1e-7.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _common, _divergence
from tgt_jax.types import Array


class _Softened(NamedTuple):
  """Both sides at a temperature, each [..., K].

  Attributes:
    student: the student's log-probabilities.
    teacher: the teacher's.
    ratio: the first less the second, free of cancellation.
    where: the classes that take part, of the shape of the logits, or None.
  """

  student: Array
  teacher: Array
  ratio: Array
  where: Array | None


def _softened(
  student_logits: Array,
  teacher_logits: Array,
  temperature: float,
  axis: int,
  where: Array | None,
) -> _Softened:
  """Checks the arguments; the classes that `where` drops get -inf."""
  student_logits, teacher_logits = _common.pair(student_logits, teacher_logits)
  _common.check_temperature(temperature)
  where = _common.class_mask(where, student_logits)

  student_logits = _common.masked(student_logits, axis, where)
  teacher_logits = _common.masked(teacher_logits, axis, where)
  student = jax.nn.log_softmax(student_logits / temperature, axis=axis)
  teacher = jax.nn.log_softmax(teacher_logits / temperature, axis=axis)
  difference = (student_logits - teacher_logits) / temperature
  ratio, _ = _divergence.log_ratio(teacher, student, difference, axis)
  return _Softened(student, teacher, ratio, where)


def soft_cross_entropy(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Cross-entropy of the student under the teacher's distribution.

  T^2 * sum_k -p_k log q_k, with p the teacher and q the student at
  temperature T. Its student gradient is that of `kl_divergence`; its teacher
  gradient also has that of the teacher's entropy, so ascending it moves
  towards inputs on which the teacher is unsure.

  Args:
    student_logits: scores, [..., K].
    teacher_logits: scores, [..., K].
    temperature: T, in [1e-6, 1e6].
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...], at least the teacher's entropy times T^2.

  Raises:
    ValueError: shapes differ, or the temperature is out of range.
    TypeError: logits are not floating point.
  """
  both = _softened(student_logits, teacher_logits, temperature, axis, where)

  teacher, student = jnp.exp(both.teacher), jnp.exp(both.student)
  log_teacher = jnp.where(teacher == 0, 0.0, both.teacher)
  loss = _divergence.divergence(teacher, student, both.ratio, axis)
  loss -= jnp.sum(teacher * log_teacher, axis=axis)
  return _common.zero_if_empty(temperature**2 * loss, axis, both.where)


def kl_divergence(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """KL(teacher || student): the distillation loss of Hinton et al. (2015).

  T^2 * sum_k p_k (log p_k - log q_k), with p the teacher and q the student at
  temperature T. For large T it tends to half the mean squared difference of
  the centred logits.

  Args:
    student_logits: scores, [..., K].
    teacher_logits: scores, [..., K].
    temperature: T, in [1e-6, 1e6].
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...]; 0 at equal distributions, +inf where the
    student excludes (-inf) what the teacher does not.

  Raises:
    ValueError: shapes differ, or the temperature is out of range.
    TypeError: logits are not floating point.
  """
  both = _softened(student_logits, teacher_logits, temperature, axis, where)

  loss = _divergence.divergence(
    jnp.exp(both.teacher), jnp.exp(both.student), both.ratio, axis
  )
  return temperature**2 * loss


def reverse_kl(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """KL(student || teacher): the student may drop modes, not invent them.

  Arguments, result and errors as in `kl_divergence`, sides exchanged.
  """
  both = _softened(student_logits, teacher_logits, temperature, axis, where)

  loss = _divergence.divergence(
    jnp.exp(both.student), jnp.exp(both.teacher), -both.ratio, axis
  )
  return temperature**2 * loss


def jensen_shannon(
  student_logits: Array,
  teacher_logits: Array,
  *,
  temperature: float = 1.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Jensen-Shannon divergence: symmetric, and at most T^2 log 2.

  T^2 * (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2 (Lin, 1991,
  "Divergence measures based on the Shannon entropy"). A bounded distance
  keeps exploration from chasing the few points where a KL divergence
  explodes.

  Arguments, result and errors as in `kl_divergence`.
  """
  both = _softened(student_logits, teacher_logits, temperature, axis, where)

  student, teacher = jnp.exp(both.student), jnp.exp(both.teacher)
  middle = 0.5 * (student + teacher)
  teacher_to_middle, student_to_middle = _divergence.to_middle(both.ratio)
  loss = 0.5 * (
    _divergence.divergence(teacher, middle, teacher_to_middle, axis)
    + _divergence.divergence(student, middle, student_to_middle, axis)
  )
  return temperature**2 * loss


def logit_mse(
  student_logits: Array,
  teacher_logits: Array,
  *,
  centred: bool = False,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Mean squared difference of logits.

  Ba and Caruana (2014), "Do deep nets really need to be deep?", arXiv
  1312.6184. Logits must be finite where `where` keeps them.

  Args:
    student_logits: scores, [..., K].
    teacher_logits: scores, [..., K].
    centred: subtract each side's mean over classes first, so that only
      differences between classes count, as in a softmax.
    axis: the class axis.
    where: the classes that take part; None for all.

  Returns:
    One value per example, [...], in units of squared logits.

  Raises:
    ValueError: shapes differ.
    TypeError: logits are not floating point.
  """
  student_logits, teacher_logits = _common.pair(student_logits, teacher_logits)
  where = _common.class_mask(where, student_logits)

  difference = student_logits - teacher_logits
  if where is not None:
    difference = jnp.where(where, difference, 0.0)
  if centred:
    difference -= _common.mean(difference, axis, where, keepdims=True)
  return _common.mean(jnp.square(difference), axis, where)


def _target_pair(logits: Array, target: Array, axis: int) -> Array:
  """(log p(target), log p(not target)), stacked along `axis`."""
  log_probs = jax.nn.log_softmax(logits, axis=axis)
  parts = []
  for kept in (target, ~target):
    # log of an empty sum has a NaN gradient: sum over all, then put -inf.
    alive = jnp.any(kept & ~jnp.isneginf(log_probs), axis=axis, keepdims=True)
    some = jnp.where(kept | ~alive, log_probs, -jnp.inf)
    part = jax.nn.logsumexp(some, axis=axis)
    parts.append(jnp.where(jnp.squeeze(alive, axis), part, -jnp.inf))
  return jnp.stack(parts, axis=axis)


def _target_and_rest(
  student_logits: Array,
  teacher_logits: Array,
  difference: Array,
  target: Array,
  axis: int,
) -> tuple[Array, Array]:
  """TCKD and NCKD at temperature 1; `difference` is student - teacher."""
  # A teacher that excludes all but the target says nothing about the rest.
  alive = jnp.any(
    ~target & ~jnp.isneginf(teacher_logits), axis=axis, keepdims=True
  )
  student, teacher = (
    jax.nn.log_softmax(jnp.where(target & alive, -jnp.inf, x), axis=axis)
    for x in (student_logits, teacher_logits)
  )
  ratio, rest = _divergence.log_ratio(teacher, student, difference, axis)
  nckd = _divergence.divergence(jnp.exp(teacher), jnp.exp(student), ratio, axis)
  nckd = jnp.where(jnp.squeeze(alive, axis), nckd, 0.0)

  # How much the target's weight grows, and the sum of all others'.
  change = jnp.sum(jnp.where(target, difference, 0.0), axis=axis)
  growth = jnp.stack([change, rest], axis=axis)
  student = _target_pair(student_logits, target, axis)
  teacher = _target_pair(teacher_logits, target, axis)
  ratio, _ = _divergence.log_ratio(teacher, student, growth, axis)
  tckd = _divergence.divergence(jnp.exp(teacher), jnp.exp(student), ratio, axis)
  return tckd, nckd


def decoupled_kd(
  student_logits: Array,
  teacher_logits: Array,
  *,
  labels: Array | None = None,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  axis: int = -1,
  where: Array | None = None,
) -> Array:
  """Decoupled distillation: target against the rest, and within the rest.

  T^2 * (alpha * TCKD + beta * NCKD): TCKD is the KL divergence of the pair
  (p_t, 1 - p_t), NCKD that of the other classes renormalised. Ordinary KL is
  alpha = 1 with NCKD weighted by the teacher's 1 - p_t, which vanishes where
  the teacher is sure (Zhao et al., 2022, arXiv 2203.08679). The defaults are
  those of its public code for CIFAR-100.

  Args:
    student_logits: scores, [..., K] with K >= 2.
    teacher_logits: scores, [..., K].
    labels: the target classes, [...], integers. None takes the teacher's top
      class, which is the only choice for a generated example: it has no label.
    alpha: weight of TCKD, >= 0.
    beta: weight of NCKD, >= 0. With two classes NCKD is zero.
    temperature: T, in [1e-6, 1e6].
    axis: the class axis.
    where: the classes that take part, the target among them; None for all.

  Returns:
    One value per example, [...]; 0 at equal distributions.

  Raises:
    ValueError: shapes differ, or a hyper-parameter is out of range.
    TypeError: logits are not floating point, or labels not integers.
  """
  student_logits, teacher_logits = _common.pair(student_logits, teacher_logits)
  _common.check_temperature(temperature)
  checks.non_negative(alpha=alpha, beta=beta)
  where = _common.class_mask(where, student_logits)
  student_logits = _common.masked(student_logits, axis, where)
  teacher_logits = _common.masked(teacher_logits, axis, where)
  if labels is None:
    labels = jnp.argmax(teacher_logits, axis=axis)
  _, labels = _common.labelled(teacher_logits, labels, axis)

  target = _common.one_hot(labels, student_logits.shape[axis], axis)
  tckd, nckd = _target_and_rest(
    student_logits / temperature,
    teacher_logits / temperature,
    (student_logits - teacher_logits) / temperature,
    target,
    axis,
  )
  return temperature**2 * (alpha * tckd + beta * nckd)
