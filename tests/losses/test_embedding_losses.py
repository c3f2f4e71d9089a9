# SPDX-License-Identifier: Apache-2.0
"""What single losses between embeddings promise beyond the battery."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses

CORRELATIONS = (
  losses.distance_correlation,
  losses.unbiased_distance_correlation,
  losses.cka,
)


@jax.jit
def similarities(student, teacher):
  """Mean over draws [R, B, D] of 1 - loss, for each of `CORRELATIONS`."""
  mean = lambda loss: jnp.mean(jax.vmap(loss)(student, teacher))
  return jnp.stack([1.0 - mean(loss) for loss in CORRELATIONS])


def independent(batch, widths, draws):
  rng = np.random.default_rng(0)
  return similarities(
    *(rng.normal(size=(draws, batch, d)).astype(np.float32) for d in widths)
  )


@pytest.mark.parametrize(
  "batch, widths, biased, cka, tolerance",
  [
    (16, (32, 32), 0.889, 0.66, 0.01),
    (16, (256, 512), 0.989, 0.95, 0.007),
    (64, (2, 2), 0.092, 0.03, 0.015),
    (64, (256, 128), 0.914, 0.73, 0.005),
  ],
)
def test_bias_in_small_batches(batch, widths, biased, cka, tolerance):
  """Of independent embeddings; the values are those of other code."""
  found = independent(batch, widths, draws=200 if batch == 16 else 100)
  np.testing.assert_allclose(found[0], biased, atol=tolerance)
  np.testing.assert_allclose(found[2], cka, atol=0.01)
  # Its standard error is below 0.008 here.
  np.testing.assert_allclose(found[1], 0.0, atol=0.025)


def test_fewer_dimensions_leave_more_to_learn():
  """By compression alone, of a teacher that the student knows nothing of."""
  rng = np.random.default_rng(1)
  student = rng.normal(size=(100, 16, 64)).astype(np.float32)
  teacher = rng.normal(size=(100, 16, 256)).astype(np.float32)
  left = [
    1.0 - similarities(student, teacher[..., :width])[0] for width in (256, 4)
  ]
  assert left[0] < 0.05
  assert left[1] > 5 * left[0]


class TestCollapse:
  TEACHER = np.random.default_rng(2).normal(size=(8, 5)).astype(np.float32)
  CONSTANT = np.full((8, 3), 0.1, np.float32)

  @pytest.mark.parametrize("loss", CORRELATIONS)
  def test_a_constant_student_has_no_correlation(self, loss):
    constant = np.full((8, 5), 7.7, np.float32)
    teachers = np.stack([self.TEACHER, 1e4 * self.TEACHER, constant])
    slope_of = jax.value_and_grad(lambda s, t: jnp.mean(loss(s, t)))
    values, slope = jax.jit(jax.vmap(slope_of, (None, 0)))(
      self.CONSTANT, teachers
    )
    np.testing.assert_allclose(values, np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(slope, np.zeros((3, 8, 3)), atol=1e-6)

  def test_equal_directions_please_the_cosine_difference(self):
    """The reason why a teacher's side that learns needs stop_gradient."""
    values = losses.cosine_difference(self.CONSTANT, self.CONSTANT + 1.0)
    np.testing.assert_allclose(values, np.zeros(8), atol=1e-6)


class TestDistanceCorrelation:
  RNG = np.random.default_rng(3)
  STUDENT = RNG.normal(size=(6, 5)).astype(np.float32)
  TEACHER = RNG.normal(size=(6, 5)).astype(np.float32)

  def test_epsilon_hides_small_embeddings_and_0_does_not(self):
    @jax.jit
    def values(scale):
      return [
        jnp.mean(
          losses.distance_correlation(
            scale * self.STUDENT, scale * self.TEACHER, epsilon=epsilon
          )
        )
        for epsilon in (1e-9, 0.0)
      ]

    published, free = values(1.0)
    np.testing.assert_allclose(published, free, rtol=1e-6)
    hidden, still = values(1e-3)
    # The distances have a constant of their own, 1e-6.
    np.testing.assert_allclose(still, free, rtol=2e-3)
    assert hidden > 0.9 > free

  def test_the_unbiased_one_needs_four_examples(self):
    loss = losses.unbiased_distance_correlation
    with pytest.raises(ValueError, match="4 or more examples, got 3"):
      loss(self.STUDENT[:3], self.TEACHER[:3])
    kept = np.arange(6) < 3
    values, slope = jax.jit(
      jax.value_and_grad(
        lambda s: jnp.sum(loss(s, self.TEACHER, where=jnp.asarray(kept)))
      )
    )(self.STUDENT)
    np.testing.assert_allclose(values, 3.0)
    np.testing.assert_array_equal(slope, np.zeros((6, 5)))


def test_equal_rows_are_one_point_and_not_noise():
  """In float32 their distance is what rounding leaves; it has no gradient."""
  rng = np.random.default_rng(4)
  student = rng.normal(size=(8, 32)).astype(np.float32) + 3.0
  student[1:3] = student[0]
  teacher = rng.normal(size=(8, 16)).astype(np.float32)
  slope_of = lambda loss: jax.jit(jax.grad(lambda s, t: jnp.mean(loss(s, t))))
  for loss in (losses.distance_correlation, losses.relational):
    found = slope_of(loss)(student, teacher)
    with jax.enable_x64(True):
      expected = slope_of(loss)(*(np.float64(x) for x in (student, teacher)))
      expected = jax.device_get(expected)
    error = np.linalg.norm(found - expected)
    assert error < 1e-4 * np.linalg.norm(expected)


class TestMaps:
  def test_pooling_of_sizes_that_do_not_divide(self):
    """Windows from floor(i H / h) to ceil((i + 1) H / h), as elsewhere."""
    maps = np.random.default_rng(5).normal(size=(2, 7, 5, 3))
    rows, columns = ((0, 3), (2, 5), (4, 7)), ((0, 3), (2, 5))
    small = np.array(
      [
        [[m[a:b, c:d].mean((0, 1)) for c, d in columns] for a, b in rows]
        for m in maps
      ]
    )
    flat = np.ones((2, 3, 2, 1), np.float32)
    loss = jax.jit(losses.attention_transfer)
    np.testing.assert_allclose(
      loss(np.float32(maps), flat), loss(np.float32(small), flat), rtol=2e-5
    )

  def test_height_and_width_are_pooled_each_to_the_smaller(self):
    wide = np.ones((2, 4, 8, 3), np.float32)
    high = np.ones((2, 8, 4, 2), np.float32)
    for loss in (losses.attention_transfer, losses.neuron_selectivity):
      values = jax.jit(loss)(wide, high)
      np.testing.assert_allclose(values, np.zeros(2), atol=1e-6)

  def test_the_power_is_at_least_one(self):
    maps = np.ones((2, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="p must be"):
      losses.attention_transfer(maps, maps, p=0.5)

  def test_variance_is_one_value_for_each_channel(self):
    maps = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="variance: expected one value for"):
      losses.variational_information(maps, maps, np.ones(4, np.float32))
    with pytest.raises(TypeError, match="variance: expected floating"):
      losses.variational_information(maps, maps, np.ones(3, int))

  def test_the_best_variance_is_the_mean_square(self):
    rng = np.random.default_rng(6)
    student, teacher = rng.normal(size=(2, 4, 3, 3, 2)).astype(np.float32)
    best = np.mean((student - teacher) ** 2, axis=(0, 1, 2))
    slope = jax.jit(
      jax.grad(
        lambda v: jnp.mean(losses.variational_information(student, teacher, v))
      )
    )(best)
    np.testing.assert_allclose(slope, np.zeros(2), atol=1e-6)
