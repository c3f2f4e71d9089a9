# SPDX-License-Identifier: Apache-2.0
"""Explorations against closed forms on fields whose gradient is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import exploration
from tgt_jax.rng import split_examples

B, D = 6, 5


@pytest.fixture
def z():
  return jax.random.normal(jax.random.key(1), (B, D))


@pytest.fixture
def rng():
  return split_examples(jax.random.key(2), B)


def zero(latent):
  return jnp.zeros(latent.shape[0])


def bowl(latent):
  """Gradient: the latent itself."""
  return 0.5 * jnp.sum(latent**2, axis=-1)


EVERY = {
  "stay": exploration.stay(),
  "random": exploration.random(0.7),
  "gradient": exploration.gradient_ascent(0.3, 3, start_sigma=0.1, noise=0.1),
  "interpolate": exploration.interpolate(0.1, 0.9),
  "chain": exploration.chain(
    exploration.random(0.2), exploration.gradient_ascent(0.3)
  ),
  "mixture": exploration.mixture(
    exploration.random(0.2), exploration.gradient_ascent(0.3)
  ),
  "some_places": exploration.some_places(exploration.random(0.7), 0.5),
}


@pytest.mark.parametrize("name", sorted(EVERY))
class TestEvery:
  """What holds for every exploration."""

  def run(self, name, z, rng):
    return EVERY[name].explore(z, rng, bowl, partner=jnp.roll(z, 1, axis=0))

  def test_jit_equals_eager(self, name, z, rng):
    eager = self.run(name, z, rng)
    jitted = jax.jit(lambda z, rng: self.run(name, z, rng))(z, rng)
    np.testing.assert_allclose(jitted, eager, rtol=1e-6, atol=1e-6)

  def test_examples_are_independent(self, name, z, rng):
    partner = jnp.roll(z, 1, axis=0)
    whole = self.run(name, z, rng)
    for part in (slice(0, 2), slice(2, 6)):
      alone = EVERY[name].explore(
        z[part], rng[part], bowl, partner=partner[part]
      )
      np.testing.assert_allclose(alone, whole[part], rtol=1e-6, atol=1e-6)

  def test_keeps_shape_and_dtype(self, name, z, rng):
    sequence = jnp.stack([z, z], axis=1)  # Latents of more than one axis.
    field = lambda latent: jnp.sum(latent**2, axis=(1, 2))
    moved = EVERY[name].explore(sequence, rng, field, partner=sequence)
    assert moved.shape == sequence.shape
    assert moved.dtype == sequence.dtype

  def test_same_key_same_move(self, name, z, rng):
    np.testing.assert_array_equal(
      self.run(name, z, rng), self.run(name, z, rng)
    )


def test_random_without_noise_is_the_latent(z, rng):
  moved = exploration.random(0.0).explore(z, rng, zero)
  np.testing.assert_array_equal(moved, z)


def test_random_has_the_stated_moments(rng):
  z = jnp.ones((2000, 50))
  rng = split_examples(jax.random.key(3), 2000)
  noise = np.asarray(exploration.random(0.5).explore(z, rng, zero) - z)
  # 100 000 draws: four standard errors of the mean and of the deviation.
  assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(noise.size)
  assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * noise.size)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_raw_ascent_of_a_bowl_is_geometric_growth(z, rng, steps):
  moved = exploration.gradient_ascent(0.1, steps, normalize=False).explore(
    z, rng, bowl
  )
  expected = np.asarray(z, np.float64) * 1.1**steps
  np.testing.assert_allclose(moved, expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_normalized_ascent_of_a_plane_walks_straight(z, rng, steps):
  slope = jnp.arange(1.0, D + 1)
  plane = lambda latent: latent @ slope
  moved = exploration.gradient_ascent(0.2, steps).explore(z, rng, plane)
  unit = np.asarray(slope) / np.sqrt(np.mean(np.asarray(slope) ** 2))
  np.testing.assert_allclose(moved, z + 0.2 * steps * unit[None], rtol=1e-5)
  np.testing.assert_allclose(exploration.rms(moved - z), 0.2 * steps, rtol=1e-5)


def test_a_flat_field_moves_nothing_and_is_no_nan(z, rng):
  moved = exploration.gradient_ascent(0.5, 2).explore(z, rng, zero)
  np.testing.assert_array_equal(moved, z)


def test_ascent_climbs(z, rng):
  field = lambda latent: jnp.sum(jnp.sin(latent), axis=-1)
  moved = exploration.gradient_ascent(0.05, 4).explore(z, rng, field)
  assert np.all(np.asarray(field(moved) > field(z)))


def test_radius_is_a_ball_around_the_start(z, rng):
  far = exploration.gradient_ascent(2.0, 3, radius=0.5)
  near = exploration.gradient_ascent(0.01, 1, radius=0.5)
  np.testing.assert_allclose(
    exploration.rms(far.explore(z, rng, bowl) - z), 0.5, rtol=1e-5
  )
  np.testing.assert_allclose(
    exploration.rms(near.explore(z, rng, bowl) - z), 0.01, rtol=1e-4
  )


def test_sphere_gives_every_move_one_length(z, rng):
  made = exploration.gradient_ascent(
    0.2, 2, start_sigma=1.0, radius=0.8, sphere=True
  )
  moved = made.explore(z, rng, bowl)
  np.testing.assert_allclose(exploration.rms(moved - z), 0.8, rtol=1e-5)


def test_warm_start_is_the_random_exploration(z, rng):
  warm = exploration.gradient_ascent(0.0, start_sigma=0.6)
  np.testing.assert_array_equal(
    warm.explore(z, rng, bowl), exploration.random(0.6).explore(z, rng, bowl)
  )


def test_interpolation_stays_between(z, rng):
  partner = z + 2.0
  made = exploration.interpolate(0.25, 0.5)
  share = (made.explore(z, rng, zero, partner=partner) - z) / 2.0
  np.testing.assert_allclose(share, share[:, :1] * jnp.ones((1, D)), rtol=1e-5)
  assert np.all((np.asarray(share) >= 0.25) & (np.asarray(share) <= 0.5))
  assert np.ptp(np.asarray(share[:, 0])) > 0.01


def test_interpolation_needs_partners(z, rng):
  with pytest.raises(ValueError, match="latents of other examples"):
    exploration.interpolate().explore(z, rng, zero)
  assert exploration.chain(exploration.interpolate()).needs_partner


def test_chain_applies_in_order(z, rng):
  made = exploration.chain(
    exploration.gradient_ascent(0.1, normalize=False),
    exploration.gradient_ascent(0.2, normalize=False),
  )
  np.testing.assert_allclose(
    made.explore(z, rng, bowl), z * 1.1 * 1.2, rtol=1e-6
  )


def test_mixture_draws_by_its_weights():
  size = 4000
  z, rng = jnp.ones((size, 2)), split_examples(jax.random.key(0), size)
  made = exploration.mixture(
    exploration.stay(),
    exploration.gradient_ascent(1.0, normalize=False),
    weights=(0.25, 0.75),
  )
  moved = np.asarray(made.explore(z, rng, bowl))
  assert set(np.unique(moved)) == {1.0, 2.0}
  share = np.mean(moved[:, 0] == 2.0)
  assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / size)


def test_strengths_follow_their_schedules(z, rng):
  made = exploration.from_spec(
    {
      "name": "gradient_ascent",
      "normalize": False,
      "step_size": {"name": "linear", "start": 0.0, "end": 1.0, "steps": 10},
    }
  )
  for step, factor in ((0, 1.0), (5, 1.5), (10, 2.0), (99, 2.0)):
    moved = made.explore(z, rng, bowl, step=step)
    np.testing.assert_allclose(moved, factor * z, rtol=1e-6)


@pytest.mark.parametrize(
  "spec, step, value",
  [
    (0.3, 7, 0.3),
    ({"name": "cosine", "start": 2.0, "end": 1.0, "steps": 4}, 2, 1.5),
    ({"name": "cosine", "start": 2.0, "end": 1.0, "steps": 4}, 9, 1.0),
    ({"name": "ramp", "end": 2.0, "start_step": 10, "steps": 4}, 9, 0.0),
    ({"name": "ramp", "end": 2.0, "start_step": 10, "steps": 4}, 12, 1.0),
    (lambda step: 2.0 * step, 3, 6.0),
  ],
)
def test_schedules(spec, step, value):
  found = exploration.as_schedule(spec, name="sigma")(step)
  np.testing.assert_allclose(found, value, atol=1e-6)


@pytest.mark.parametrize(
  "build, message",
  [
    (lambda: exploration.random(-1.0), "sigma must be >= 0, got -1.0"),
    (lambda: exploration.random(float("inf")), "sigma must be finite"),
    (lambda: exploration.random(float("nan")), "sigma must be finite"),
    (
      lambda: exploration.gradient_ascent(0.1, noise=float("inf")),
      "noise must be finite",
    ),
    (
      lambda: exploration.gradient_ascent(0.1, radius=float("inf")),
      "radius must be finite",
    ),
    (
      lambda: exploration.mixture(
        exploration.stay(), exploration.stay(), weights=(1.5, -0.5)
      ),
      r"weights\[1\] must be >= 0, got -0.5",
    ),
    (lambda: exploration.gradient_ascent(0.1, 0), "num_steps must be >= 1"),
    (lambda: exploration.gradient_ascent(0.1, radius=-1.0), "radius must be"),
    (lambda: exploration.gradient_ascent(0.1, sphere=True), "needs a radius"),
    (lambda: exploration.interpolate(0.6, 0.5), "low must not exceed high"),
    (lambda: exploration.interpolate(0.0, 1.5), r"high must be in"),
    (exploration.chain, "at least one exploration"),
    (
      lambda: exploration.mixture(exploration.stay(), weights=(0.5,)),
      "weights that sum to 1",
    ),
    (lambda: exploration.from_spec({"name": "randon"}), "mean 'random'"),
    (
      lambda: exploration.from_spec({"name": "random", "sgima": 1.0}),
      "mean 'sigma'",
    ),
    (
      lambda: exploration.random({"name": "linaer", "start": 0}),
      "schedule of sigma",
    ),
  ],
)
def test_bad_arguments(build, message):
  with pytest.raises(ValueError, match=message):
    build()


def test_only_z_is_differentiated(z, rng):
  """The move is a function of the field's parameters that ascent ignores."""

  def moved(scale):
    field = lambda latent: scale * bowl(latent)
    return jnp.sum(exploration.gradient_ascent(0.1).explore(z, rng, field))

  # Normalised: the scale of the field cannot matter, to first order either.
  np.testing.assert_allclose(jax.grad(moved)(2.0), 0.0, atol=1e-5)


def test_wrong_shapes_raise(z, rng):
  with pytest.raises(ValueError, match="leading axes"):
    exploration.random(0.1).explore(z, rng[:2], zero)
  with pytest.raises(TypeError, match="floating"):
    exploration.random(0.1).explore(jnp.ones((B, D), int), rng, zero)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"interpolate"}))
def test_moves_do_not_depend_on_the_origin(z, rng, name):
  """Shifting latents and field by the same vector shifts the result."""
  shift = jnp.arange(1.0, D + 1)[None]
  moved = EVERY[name].explore(z, rng, bowl)
  there = EVERY[name].explore(z + shift, rng, lambda x: bowl(x - shift))
  np.testing.assert_allclose(there - shift, moved, rtol=1e-4, atol=1e-5)


def test_a_coordinate_that_the_field_ignores_stays(z, rng):
  field = lambda latent: jnp.sum(jnp.cos(latent[:, :3]), axis=-1)
  moved = exploration.gradient_ascent(0.3, 3).explore(z, rng, field)
  np.testing.assert_array_equal(moved[:, 3:], z[:, 3:])
  assert np.all(np.abs(moved[:, :3] - z[:, :3]).max(-1) > 0.01)


def test_steps_draw_noise_of_their_own(rng):
  """n steps of noise s from one start have deviation s sqrt(n)."""
  z = jnp.zeros((500, 40))
  rng = split_examples(jax.random.key(5), 500)
  for steps in (1, 4):
    made = exploration.gradient_ascent(0.0, steps, noise=0.5)
    moved = np.asarray(made.explore(z, rng, zero))
    bound = 4 * 0.5 * np.sqrt(steps) / np.sqrt(2 * moved.size)
    assert abs(moved.std() - 0.5 * np.sqrt(steps)) < bound


def test_parts_of_a_chain_draw_noise_of_their_own(rng):
  z = jnp.zeros((500, 40))
  rng = split_examples(jax.random.key(6), 500)
  single = exploration.random(1.0)
  moved = np.asarray(exploration.chain(single, single).explore(z, rng, zero))
  bound = 4 * np.sqrt(2) / np.sqrt(2 * moved.size)
  assert abs(moved.std() - np.sqrt(2)) < bound


def test_a_mixture_of_one_is_a_chain_of_one(z, rng):
  part = exploration.random(0.4)
  np.testing.assert_array_equal(
    exploration.mixture(part).explore(z, rng, zero),
    exploration.chain(part).explore(z, rng, zero),
  )


def test_a_part_of_weight_zero_is_never_drawn(z, rng):
  made = exploration.mixture(
    exploration.stay(), exploration.random(9.0), weights=(1.0, 0.0)
  )
  np.testing.assert_array_equal(made.explore(z, rng, zero), z)


def test_specs_and_explorations_mix(z, rng):
  spec = {"name": "random", "sigma": 0.3}
  made = exploration.from_spec(
    {"name": "chain", "parts": [spec, {"name": "stay"}]}
  )
  direct = exploration.chain(exploration.random(0.3), exploration.stay())
  np.testing.assert_array_equal(
    made.explore(z, rng, zero), direct.explore(z, rng, zero)
  )
  assert not made.needs_partner


def test_interpolation_ends_at_its_partners(z, rng):
  partner = jnp.roll(z, 1, axis=0)
  for share, expected in ((0.0, z), (1.0, partner)):
    made = exploration.interpolate(share, share)
    moved = made.explore(z, rng, zero, partner=partner)
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def test_ascent_of_a_quadratic_by_hand(rng):
  """Normalised steps on a slope of one sign walk towards the top and past."""
  z = jnp.array([[1.0]])
  field = lambda latent: -0.5 * jnp.sum((latent - 1.5) ** 2, axis=-1)
  for steps, end in ((1, 1.2), (2, 1.4), (3, 1.6), (4, 1.4)):
    moved = exploration.gradient_ascent(0.2, steps).explore(z, rng[:1], field)
    np.testing.assert_allclose(moved, [[end]], rtol=1e-5)
