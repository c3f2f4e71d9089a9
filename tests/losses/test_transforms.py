# SPDX-License-Identifier: Apache-2.0
"""Z-scores and priors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import longtail, losses

COUNTS = [60, 30, 10]
LOG_PRIOR = np.log(np.array(COUNTS, np.float32) / 100)


def draw(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(2, 4, 3)).astype(np.float32)


def test_z_scores():
  logits = 5.0 * draw()[0] + 3.0
  scores = jax.jit(losses.logit_standardisation)(logits)
  np.testing.assert_allclose(np.mean(scores, -1), np.zeros(4), atol=1e-6)
  np.testing.assert_allclose(np.std(scores, -1), np.ones(4), rtol=1e-5)


def test_z_scores_of_constant_logits_are_zero_with_a_finite_gradient():
  score = losses.logit_standardisation
  value, slope = jax.jit(jax.value_and_grad(lambda x: jnp.sum(score(x) ** 2)))(
    np.full((1, 3), 2.0, np.float32)
  )
  assert value == 0
  assert np.all(np.isfinite(slope))


def test_z_scores_ignore_classes_and_their_garbage():
  logits = draw()[0]
  where = np.array([True, True, False])
  dirty = np.where(where, logits, np.nan)
  scores = losses.logit_standardisation(dirty, where=where)
  np.testing.assert_allclose(
    scores[:, :2], np.sign(logits[:, :2] - logits[:, 1::-1]), rtol=1e-4
  )
  np.testing.assert_array_equal(scores[:, 2], np.zeros(4))


def test_standardised_ignores_scale_and_shift_of_each_side():
  student, teacher = draw()
  distance = jax.jit(losses.standardised(losses.kl_divergence))
  np.testing.assert_allclose(
    distance(9 * student - 4, 0.2 * teacher + 1),
    distance(student, teacher),
    rtol=1e-4,
    atol=1e-6,
  )


def test_priors_are_those_of_bayes():
  """Balanced logits with a prior added are the posterior's logits."""
  student, teacher = draw()

  def by_hand(student, teacher):
    weigh = jnp.asarray(COUNTS)[None]
    joint = [jax.nn.softmax(x) * weigh for x in (student, teacher)]
    q, p = (x / jnp.sum(x, axis=-1, keepdims=True) for x in joint)
    return jnp.sum(p * jnp.log(p / q), axis=-1)

  distance = losses.with_priors(
    losses.kl_divergence,
    student_log_prior=LOG_PRIOR,
    teacher_log_prior=LOG_PRIOR,
  )
  np.testing.assert_allclose(
    jax.jit(distance)(student, teacher),
    jax.jit(by_hand)(student, teacher),
    rtol=1e-4,
    atol=1e-6,
  )


def test_a_prior_on_one_side():
  """A balanced student agrees with a long-tailed posterior after its prior."""
  student = draw()[0]
  teacher = student + LOG_PRIOR[None]
  build = functools.partial(
    losses.DISTANCES["kl_divergence"], class_counts=COUNTS
  )
  one_sided = build(priors=True, teacher_priors=False)
  other_sided = build(priors=False, teacher_priors=True)
  np.testing.assert_allclose(
    jax.jit(one_sided)(student, teacher), np.zeros(4), atol=1e-6
  )
  np.testing.assert_allclose(
    jax.jit(other_sided)(teacher, student), np.zeros(4), atol=1e-6
  )
  assert np.all(jax.jit(build(priors=True))(student, teacher) > 1e-3)


def test_no_prior_is_the_distance_itself():
  student, teacher = draw()
  np.testing.assert_array_equal(
    losses.with_priors(losses.logit_mse)(student, teacher),
    losses.logit_mse(student, teacher),
  )


def test_priors_follow_the_class_axis():
  student, teacher = draw()
  distance = losses.with_priors(
    losses.kl_divergence, student_log_prior=longtail.log_prior(COUNTS)
  )
  np.testing.assert_allclose(
    distance(student.T, teacher.T, axis=0),
    distance(student, teacher),
    rtol=1e-6,
  )


def test_transforms_pass_arguments_on():
  student, teacher = draw()
  labels = np.array([0, 1, 2, 0], np.int32)
  wrapped = losses.with_priors(losses.standardised(losses.decoupled_kd))
  direct = losses.decoupled_kd

  @jax.jit
  def both(student, teacher):
    scores = [losses.logit_standardisation(x) for x in (student, teacher)]
    return (
      wrapped(student, teacher, labels=labels, alpha=2.0),
      direct(*scores, labels=labels, alpha=2.0),
    )

  actual, expected = both(student, teacher)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_bad_arguments():
  student, teacher = draw()
  short = losses.with_priors(losses.kl_divergence, student_log_prior=[0.0] * 2)
  with pytest.raises(ValueError, match="log_prior"):
    short(student, teacher)
  with pytest.raises(ValueError, match="epsilon"):
    losses.logit_standardisation(student, epsilon=0.0)
  with pytest.raises(TypeError, match="floating"):
    losses.logit_standardisation(np.zeros((2, 3), np.int32))
  with pytest.raises(TypeError, match="teacher_logits"):
    short(student, np.zeros((4, 3), np.int32))
