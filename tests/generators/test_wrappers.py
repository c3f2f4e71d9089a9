# SPDX-License-Identifier: Apache-2.0
"""Whitened latents, and decoding in turns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import generators

SHAPE = (6, 5, 2)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _images(count: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(7).uniform(size=(count, *SHAPE)))


def _ready(name: str = "conv_vae"):
  generator = generators.GENERATORS[name](
    input_shape=SHAPE, widths=(4, 6), dtype="float64"
  )
  return generator, *random_weights(generator.init, _images(2))


def _whitened(name: str = "conv_vae"):
  """A generator, its measured twin, and the moments."""
  generator, params, inner = _ready(name)
  encode = jax.jit(lambda x: generator.encode(params, inner, x))
  statistics = generators.latent_statistics(encode, [_images(9)])
  twin = generators.whitened(generator)
  again, state = random_weights(twin.init, _images(2))
  jax.tree.map(np.testing.assert_array_equal, again, params)
  state = {**state, "generator": inner}
  return generator, twin, params, inner, state, statistics


def test_whitened_latents_have_unit_moments() -> None:
  _, twin, params, _, state, statistics = _whitened()
  state = generators.with_statistics(state, statistics)
  z = twin.encode(params, state, _images(9))
  np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-5)
  np.testing.assert_allclose(z.std(axis=0), 1.0, atol=1e-5)


def test_decode_undoes_encode() -> None:
  generator, twin, params, inner, state, statistics = _whitened()
  state = generators.with_statistics(state, statistics)
  plain = generator.encode(params, inner, _images(4))
  z = twin.encode(params, state, _images(4))
  np.testing.assert_allclose(
    np.asarray(z) * statistics.std + statistics.mean, plain, rtol=1e-12
  )
  np.testing.assert_allclose(
    twin.decode(params, state, z),
    generator.decode(params, inner, plain),
    rtol=1e-12,
  )


def test_noise_of_one_is_noise_of_one_deviation() -> None:
  generator, twin, params, inner, state, statistics = _whitened()
  state = generators.with_statistics(state, statistics)
  z = twin.encode(params, state, _images(1))
  got = twin.decode(params, state, z + 1.0)
  plain = generator.encode(params, inner, _images(1))
  want = generator.decode(params, inner, plain + statistics.std[None])
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_without_moments_it_is_the_generator_inside() -> None:
  generator, twin, params, inner, _, _ = _whitened()
  _, state = jax.jit(twin.init)(jax.random.key(0), _images(2))
  x, rng = _images(3), jax.random.key(1)
  z = twin.encode(params, state, x)
  np.testing.assert_array_equal(z, generator.encode(params, inner, x))
  value, terms, new_state = twin.loss(params, state, x, rng=rng)
  want, want_terms, _ = generator.loss(params, inner, x, rng=rng)
  np.testing.assert_array_equal(value, want)
  assert terms.keys() == want_terms.keys()
  assert jax.tree.structure(new_state) == jax.tree.structure(state)


def test_training_changes_the_state_inside() -> None:
  twin = generators.whitened(_ready("conv_vq_vae")[0])
  params, state = random_weights(twin.init, _images(2))
  _, _, after = twin.loss(params, state, _images(4), rng=jax.random.key(0))
  before = state["generator"]["codebook"]["counts"]
  assert not np.array_equal(after["generator"]["codebook"]["counts"], before)
  assert after["latent"] is state["latent"]


def test_a_constant_dimension_keeps_its_unit() -> None:
  _, twin, params, _, state, statistics = _whitened()
  std = statistics.std.copy()
  std[0] = 0.0
  state = generators.with_statistics(state, statistics._replace(std=std))
  assert float(state["latent"]["std"][0]) == 1.0
  z = twin.encode(params, state, _images(3))
  assert np.isfinite(z).all()


def test_moments_of_another_generator() -> None:
  *_, state, statistics = _whitened()
  other = generators.LatentStatistics(statistics.mean[1:], statistics.std[1:])
  with pytest.raises(ValueError, match=r"mean \(31,\).*latent \(32,\)"):
    generators.with_statistics(state, other)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 20])
def test_turns_change_nothing(size: int) -> None:
  """Values and gradients, of the latents and of the weights."""
  generator, params, state = _ready()
  turns = generators.chunked(generator, size)
  z = jnp.asarray(np.random.default_rng(1).normal(size=(7, 32)))

  def run(decode):
    def value(params, z):
      x = decode(params, state, z)
      return jnp.sin(3.0 * x).sum(), x

    return jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(params, z)

  (_, want), want_grads = run(generator.decode)
  (_, got), got_grads = run(turns.decode)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  for one, other in zip(
    jax.tree.leaves(got_grads), jax.tree.leaves(want_grads), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
  assert turns.encode is generator.encode


def test_turns_need_less_memory() -> None:
  """Also the gradient keeps one turn at a time."""
  generator, params, state = _ready()
  z = jnp.zeros((64, 32))

  def memory(decode):
    gradient = jax.grad(lambda z: decode(params, state, z).sum())
    compiled = jax.jit(gradient).lower(z).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  whole = memory(generator.decode)
  assert memory(generators.chunked(generator, 4).decode) < 0.3 * whole


def test_no_turn() -> None:
  with pytest.raises(ValueError, match="size must be > 0, got 0"):
    generators.chunked(_ready()[0], 0)
