# SPDX-License-Identifier: Apache-2.0
"""Lengths and directions over the whole range of a floating-point number."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as hypothesis_numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tgt_jax import exploration

SHAPE = np.float32([[3.0, 4.0, 0.0], [1.0, -2.0, 2.0]])
SCALES = [1e-37, 1e-25, 1e-12, 1.0, 1e12, 1e25, 1e37]


def rms64(vectors):
  return np.sqrt(np.mean(np.float64(vectors) ** 2, axis=-1))


@pytest.mark.parametrize("scale", SCALES)
def test_lengths_and_directions_at_every_scale(scale):
  vectors = np.float32(scale) * SHAPE
  np.testing.assert_allclose(
    jax.jit(exploration.rms)(vectors), rms64(vectors), rtol=1e-6
  )
  np.testing.assert_allclose(
    jax.jit(exploration.unit)(vectors),
    SHAPE / rms64(SHAPE)[:, None],
    rtol=1e-6,
  )


@pytest.mark.parametrize("scale", SCALES)
def test_a_step_is_as_long_on_any_field(scale):
  """The student may agree almost, or be far off: the move is the same."""
  z = jnp.zeros((2, 3))
  rng = jax.random.split(jax.random.key(0), 2)
  slope = np.float32(scale) * SHAPE
  field = lambda latent: jnp.sum(latent * slope, axis=-1)
  moved = exploration.gradient_ascent(0.25).explore(z, rng, field)
  expected = 0.25 * SHAPE / rms64(SHAPE)[:, None]
  np.testing.assert_allclose(moved, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_zeros_have_no_direction_and_no_gradient(dtype):
  zeros = jnp.zeros((2, 3), dtype)

  @jax.jit
  def everything(vectors):
    direct = lambda f: jax.vjp(f, vectors)
    unit, pull_unit = direct(exploration.unit)
    length, pull_length = direct(exploration.rms)
    return (
      unit,
      *pull_unit(jnp.ones_like(unit)),
      *pull_length(jnp.ones_like(length)),
    )

  for found in everything(zeros):
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.zeros((2, 3)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 6e4])
def test_directions_in_half_precision(scale):
  """Squares of these leave float16; the direction does not."""
  vectors = jnp.asarray(scale * SHAPE / 4, jnp.float16)
  unit = exploration.unit(vectors)
  assert unit.dtype == jnp.float16
  expected = SHAPE / rms64(SHAPE)[:, None]
  np.testing.assert_allclose(unit, expected, rtol=2e-3)
  np.testing.assert_allclose(
    exploration.rms(vectors), rms64(vectors), rtol=2e-3
  )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(bad):
  vectors = SHAPE.copy()
  vectors[1, 2] = bad
  unit = np.asarray(exploration.unit(vectors))
  assert np.all(np.isfinite(unit[0]))
  assert np.isnan(unit[1, 2])
  assert not np.isfinite(exploration.rms(vectors)[1])


def test_gradients_where_there_is_a_direction():
  """The unit of the largest entry is held constant; nothing depends on it."""
  with jax.enable_x64(True):
    vectors = np.float64(SHAPE)
    for function in (exploration.unit, exploration.rms):
      check_grads(function, (vectors,), 2, atol=1e-6, rtol=1e-6)
    # Along itself a direction does not change, a length does.
    _, along = jax.jvp(exploration.unit, (vectors,), (vectors,))
    np.testing.assert_allclose(along, np.zeros((2, 3)), atol=1e-12)
    length, growth = jax.jvp(exploration.rms, (vectors,), (vectors,))
    np.testing.assert_allclose(growth, length, rtol=1e-12)


FINITE = hypothesis_numpy.arrays(
  np.float32, (2, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)


@hypothesis.given(FINITE)
def test_a_direction_has_length_one_or_zero(vectors):
  unit = exploration.unit(vectors)
  tiny = np.abs(vectors).max(-1) < np.finfo(np.float32).tiny
  np.testing.assert_allclose(
    exploration.rms(unit), np.where(tiny, 0.0, 1.0), rtol=1e-5
  )
  assert np.all((np.sign(unit) == np.sign(vectors)) | (unit == 0))


@pytest.mark.parametrize("sphere", [False, True])
def test_projection_by_hand(sphere):
  """Inside, outside and at the centre; a radius for each example."""
  centre = np.float32([[1, 1], [1, 1], [1, 1]])
  offset = np.float32([[0.5, -0.5], [6.0, 8.0], [0.0, 0.0]])
  radius = jnp.array([2.0, 5.0, 3.0])
  moved = exploration.project(centre, centre + offset, radius, sphere=sphere)
  inside = [2.0, -2.0] if sphere else [0.5, -0.5]
  outside = 5.0 * offset[1] / np.sqrt(50)
  np.testing.assert_allclose(
    moved - centre, [inside, outside, [0.0, 0.0]], rtol=1e-6
  )


def test_projection_has_finite_gradients_at_the_centre():
  centre = jnp.ones((2, 3))

  def total(z, sphere):
    return jnp.sum(exploration.project(centre, z, 0.5, sphere=sphere))

  for sphere, slope in ((False, 1.0), (True, 0.0)):
    found = jax.grad(total)(centre, sphere)
    np.testing.assert_array_equal(found, np.full((2, 3), slope))


def test_noise_is_an_examples_own():
  rng = jax.random.split(jax.random.key(0), 4)
  like = jnp.zeros((4, 2, 3), jnp.float16)
  noise = exploration.gaussian(rng, like)
  assert (noise.shape, noise.dtype) == (like.shape, like.dtype)
  np.testing.assert_array_equal(
    noise[1:3], exploration.gaussian(rng[1:3], like[:2])
  )


class TestWhere:
  """Padding means nothing: all is as if it were not there."""

  def setup_method(self):
    keys = jax.random.split(jax.random.key(0), 4)
    self.z = jax.random.normal(keys[0], (3, 5, 2))
    lengths = jnp.array([5, 3, 1])
    self.where = (jnp.arange(5)[None] < lengths[:, None])[..., None]
    self.lengths = lengths.tolist()
    # What stands in the padding may be anything.
    self.z = jnp.where(self.where, self.z, 1e6)
    self.slope = jax.random.normal(keys[1], self.z.shape)
    self.partner = jax.random.normal(keys[2], self.z.shape)
    self.rng = jax.random.split(keys[3], 3)

  def field(self, row=None):
    slope = self.slope if row is None else self.slope[row : row + 1]

    def disagreement(z):
      here = slope[:, : z.shape[1]]
      return jnp.sum(here * z + 0.1 * z**2, axis=(1, 2))

    return disagreement

  def test_lengths_are_those_of_the_shortened(self):
    for row, size in enumerate(self.lengths):
      one = slice(row, row + 1)
      whole, short = self.z[one], self.z[one, :size]
      where = self.where[one]
      np.testing.assert_allclose(
        exploration.rms(whole, where), exploration.rms(short), rtol=1e-6
      )
      unit = exploration.unit(whole, where)
      np.testing.assert_allclose(
        unit[:, :size], exploration.unit(short), rtol=1e-6
      )
      assert not np.any(unit[:, size:])
      centre = 0.5 * self.z
      np.testing.assert_allclose(
        exploration.project(centre[one], whole, 0.3, where=where)[:, :size],
        exploration.project(centre[one, :size], short, 0.3),
        rtol=1e-6,
      )

  @pytest.mark.parametrize("normalize", [True, False])
  def test_an_ascent_is_that_of_the_shortened(self, normalize):
    climb = exploration.gradient_ascent(
      0.1, 3, normalize=normalize, radius=0.25
    )
    moved = climb.explore(self.z, self.rng, self.field(), where=self.where)
    for row, size in enumerate(self.lengths):
      one = slice(row, row + 1)
      alone = climb.explore(self.z[one, :size], self.rng[one], self.field(row))
      np.testing.assert_allclose(moved[one, :size], alone, rtol=1e-5)

  @pytest.mark.parametrize(
    "spec",
    [
      {"name": "stay"},
      {"name": "random", "sigma": 0.3},
      {"name": "gradient_ascent", "step_size": 0.1, "start_sigma": 0.2},
      {"name": "gradient_ascent", "step_size": 0.1, "noise": 0.2},
      {"name": "interpolate"},
      {
        "name": "mixture",
        "parts": [{"name": "random", "sigma": 1.0}, {"name": "interpolate"}],
      },
      {
        "name": "chain",
        "parts": [{"name": "random", "sigma": 1.0}, {"name": "interpolate"}],
      },
    ],
    ids=lambda spec: spec["name"],
  )
  def test_padding_is_untouched(self, spec):
    made = exploration.from_spec(spec)
    moved = made.explore(
      self.z, self.rng, self.field(), partner=self.partner, where=self.where
    )
    still = np.broadcast_to(~np.asarray(self.where), moved.shape)
    np.testing.assert_array_equal(moved[still], self.z[still])
    assert spec["name"] == "stay" or not np.allclose(
      moved[~still], self.z[~still]
    )

  def test_tokens_are_counted_where_they_stand(self):
    before = jnp.array([[4, 5, 6, 0, 0], [7, 8, 0, 0, 0]])
    after = jnp.array([[4, 9, 9, 9, 0], [7, 8, 1, 1, 1]])
    where = (before != 0)[..., None]
    np.testing.assert_allclose(
      exploration.distance(before, after, where), [2 / 3, 0.0], rtol=1e-6
    )
    np.testing.assert_allclose(exploration.distance(before, after), [0.6, 0.6])
