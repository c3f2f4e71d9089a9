# SPDX-License-Identifier: Apache-2.0
"""What single distances promise beyond the battery."""

from __future__ import annotations

import functools

import hypothesis
import hypothesis.extra.numpy as hypothesis_numpy
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from tgt_jax import losses


def draw(seed=0, shape=(6, 5)):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape), rng.normal(size=shape)


def test_decoupled_kd_splits_kl():
  """KL = TCKD + (1 - teacher's p_target) * NCKD, at the labels given."""
  student, teacher = draw()
  labels = np.array([0, 1, 2, 3, 4, 0], np.int32)

  @jax.jit
  def parts(student, teacher):
    part = functools.partial(
      losses.decoupled_kd, student, teacher, labels=labels, temperature=2.0
    )
    return (
      losses.kl_divergence(student, teacher, temperature=2.0),
      part(alpha=1.0, beta=0.0),
      part(alpha=0.0, beta=1.0),
    )

  with jax.enable_x64(True):
    whole, tckd, nckd = map(np.asarray, parts(student, teacher))
  p_target = special.softmax(teacher / 2, axis=-1)[np.arange(6), labels]
  np.testing.assert_allclose(whole, tckd + (1 - p_target) * nckd, rtol=1e-10)


def test_decoupled_kd_without_labels_targets_the_teachers_top_class():
  student, teacher = (a.astype(np.float32) for a in draw())
  top = teacher.argmax(-1).astype(np.int32)
  loss = jax.jit(losses.decoupled_kd)
  np.testing.assert_array_equal(
    loss(student, teacher), loss(student, teacher, labels=top)
  )
  other = (top + 1) % 5
  assert not np.allclose(
    loss(student, teacher), loss(student, teacher, labels=other)
  )


def test_decoupled_kd_of_a_one_hot_teacher():
  """A teacher that excludes all other classes says nothing about them."""
  teacher = np.full((1, 4), -np.inf, np.float32)
  teacher[0, 2] = 0.0
  student = np.array([[0.0, 1.0, 2.0, -1.0]], np.float32)
  slopes = jax.jit(
    jax.value_and_grad(
      lambda s, t: jnp.sum(losses.decoupled_kd(s, t, temperature=1.0)), (0, 1)
    )
  )
  value, (slope, teacher_slope) = slopes(student, teacher)
  probs = special.softmax(student[0])
  np.testing.assert_allclose(value, -np.log(probs[2]), rtol=1e-6)
  np.testing.assert_allclose(slope[0], probs - np.eye(4)[2], atol=1e-6)
  assert np.all(np.isfinite(teacher_slope))


def test_kl_teacher_gradient_where_optax_gives_nan():
  """Exploration differentiates the teacher; its logits may be large."""
  student = jnp.array([[0.0, 1.0, 2.0]])
  teacher = jnp.array([[200.0, 0.0, -200.0]])

  def by_optax(teacher):
    return jnp.sum(
      optax.losses.kl_divergence(
        jax.nn.log_softmax(student), jax.nn.softmax(teacher)
      )
    )

  def ours(teacher):
    return jnp.sum(losses.kl_divergence(student, teacher))

  optax_slope, slope = jax.jit(
    lambda t: (jax.grad(by_optax)(t), jax.grad(ours)(t))
  )(teacher)
  assert np.any(np.isnan(optax_slope))  # Or this test has lost its reason.
  np.testing.assert_array_equal(slope, np.zeros((1, 3)))


def test_kl_of_a_student_that_excludes_what_the_teacher_does_not():
  student = np.array([[0.0, -np.inf]], np.float32)
  teacher = np.zeros((1, 2), np.float32)
  assert np.isposinf(jax.jit(losses.kl_divergence)(student, teacher)).all()


LOGITS = hypothesis_numpy.arrays(
  np.float32,
  (3, 4),
  elements=hypothesis.strategies.floats(-3e4, 3e4, width=32),
)


@functools.cache
def bounds():
  return jax.jit(
    lambda s, t: (
      losses.jensen_shannon(s, t),
      losses.jensen_shannon(t, s),
      losses.kl_divergence(s, t),
      losses.reverse_kl(s, t),
    )
  )


@hypothesis.given(LOGITS, LOGITS)
def test_divergences_keep_their_bounds(student, teacher):
  shannon, mirrored, forward, backward = map(
    np.asarray, bounds()(student, teacher)
  )
  np.testing.assert_allclose(shannon, mirrored, atol=1e-6)
  assert np.all(shannon >= -1e-6)
  assert np.all(shannon <= np.log(2) + 1e-6)
  # float32: a sum of terms that cancel, each up to about 1 in size.
  assert np.all(forward >= -1e-5)
  assert np.all(backward >= -1e-5)
  # Jensen: shannon is at most a quarter of the symmetric KL.
  assert np.all(shannon <= 0.25 * (forward + backward) + 1e-5)


def dist_parts(student, teacher):
  """The two published correlations, by numpy, as losses."""
  p, q = special.softmax(teacher, -1), special.softmax(student, -1)
  inter = np.mean(
    [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
  )
  intra = np.mean(
    [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
  )
  return inter, intra


@pytest.mark.parametrize("beta, gamma", [(1.0, 0.0), (0.0, 1.0), (2.0, 3.0)])
def test_mean_of_dist_is_the_published_loss(beta, gamma):
  student, teacher = draw()
  inter, intra = (4 * part for part in dist_parts(student / 2, teacher / 2))
  loss = jax.jit(
    functools.partial(losses.dist, temperature=2.0, beta=beta, gamma=gamma)
  )
  values = loss(student.astype(np.float32), teacher.astype(np.float32))
  np.testing.assert_allclose(
    np.mean(values), beta * inter + gamma * intra, rtol=1e-5
  )


def test_dist_ignores_padding():
  """Rows without a class get 0, and the others are as if alone."""
  student, teacher = (a.astype(np.float32) for a in draw())
  real = np.array([1, 1, 0, 1, 0, 1], bool)
  teacher[~real] = np.nan
  loss = jax.jit(
    jax.value_and_grad(
      lambda s: jnp.sum(losses.dist(s, teacher, where=real[:, None]))
    )
  )
  total, slope = loss(student)
  expected = sum(dist_parts(student[real], teacher[real])) * real.sum()
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert np.all(np.isfinite(slope))
  np.testing.assert_array_equal(slope[~real], np.zeros((2, 5)))


def test_dist_without_the_batch_term_is_per_example():
  student, teacher = (a.astype(np.float32) for a in draw())
  loss = functools.partial(losses.dist, gamma=0.0)
  whole = jax.jit(loss)(student, teacher)
  each = jax.jit(jax.vmap(loss))(student[:, None], teacher[:, None])
  np.testing.assert_allclose(whole, each[:, 0], rtol=1e-5, atol=1e-6)


def test_dist_between_two_classes_has_no_inter_class_gradient():
  student, teacher = (a.astype(np.float32) for a in draw(shape=(6, 2)))
  slope = jax.jit(
    jax.grad(lambda s: jnp.sum(losses.dist(s, teacher, gamma=0.0)))
  )(student)
  np.testing.assert_allclose(slope, np.zeros((6, 2)), atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5)])
def test_dist_asks_for_a_batch(shape):
  with pytest.raises(ValueError, match="rank 2"):
    losses.dist(jnp.zeros(shape), jnp.zeros(shape))


@pytest.mark.parametrize(
  "loss, hyper",
  [
    (losses.kl_divergence, {"temperature": 0.0}),
    (losses.decoupled_kd, {"alpha": -1.0}),
    (losses.decoupled_kd, {"beta": float("nan")}),
    (losses.dist, {"gamma": -0.1}),
  ],
)
def test_hyper_parameters_out_of_range(loss, hyper):
  (name,) = hyper
  with pytest.raises(ValueError, match=name):
    loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), **hyper)
