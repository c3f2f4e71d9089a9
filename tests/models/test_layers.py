# SPDX-License-Identifier: Apache-2.0
"""Pooling, convolution and normalisation against flax, torch and numpy."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tgt_jax.models import layers


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(np.float32)


@pytest.mark.parametrize("size, window", [((5, 8), 2), ((7, 9), 3)])
def test_max_pool_equals_flax(size: tuple[int, int], window: int) -> None:
  x = _normal(0, (3, *size, 2))
  expected = nn.max_pool(x, (window, window), (window, window))

  np.testing.assert_array_equal(layers.max_pool(x, window), expected)


def test_max_pool_gradient_equals_flax_without_ties() -> None:
  x, weights = _normal(0, (2, 5, 6, 3)), _normal(1, (2, 2, 3, 3))
  ours = jax.grad(lambda x: (weights * layers.max_pool(x)).sum())(x)
  flax = jax.grad(lambda x: (weights * nn.max_pool(x, (2, 2), (2, 2))).sum())(x)

  np.testing.assert_array_equal(ours, flax)
  assert not np.any(ours[:, 4])  # The odd row reaches nothing.


@pytest.mark.parametrize("window", [2, 3])
def test_max_pool_gives_ties_to_the_first_as_flax_does(window: int) -> None:
  x = jax.random.randint(jax.random.key(0), (2, 6, 6, 3), 0, 3).astype(float)
  weights = jax.random.normal(jax.random.key(1), (6 // window,))
  scale = weights[None, :, None, None]
  slope = lambda pool: jax.grad(lambda x: (scale * pool(x)).sum())(x)
  size = (window, window)

  np.testing.assert_array_equal(
    slope(lambda x: layers.max_pool(x, window)),
    slope(lambda x: nn.max_pool(x, size, size)),
  )


def test_max_pool_passes_forward_mode() -> None:
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  check_grads(layers.max_pool, (x,), order=2, modes=("fwd", "rev"), rtol=1e-2)


def test_max_pool_refuses_what_no_window_fits() -> None:
  with pytest.raises(ValueError, match="cannot pool 1x4 by 2x2: use fewer"):
    layers.max_pool(jnp.ones((1, 1, 4, 1)))


def _convolve(x, kernel, conv=layers.convolve):
  return conv(
    x,
    kernel,
    (1, 1),
    [(1, 1), (1, 1)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _reference_conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """A 3x3 convolution by loops, float64."""
  batch, height, width, _ = x.shape
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  out = np.zeros((batch, height, width, kernel.shape[-1]))
  for row in range(height):
    for column in range(width):
      patch = padded[:, row : row + 3, column : column + 3]
      out[:, row, column] = np.einsum("bijc,ijcf->bf", patch, kernel)
  return out


# Below and above the size where the product takes over.
@pytest.mark.parametrize("size", [(2, 2), (1, 7), (3, 4)])
def test_conv_equals_loops(size: tuple[int, int]) -> None:
  x, kernel = _normal(0, (2, *size, 3)), _normal(1, (3, 3, 3, 4))

  got = jax.jit(_convolve)(x, kernel)
  np.testing.assert_allclose(
    got, _reference_conv(np.float64(x), np.float64(kernel)), atol=5e-6
  )


def test_conv_of_a_small_grid_has_the_gradients_of_lax() -> None:
  x, kernel = _normal(0, (2, 2, 2, 3)), _normal(1, (3, 3, 3, 4))

  @jax.jit
  def both(x, kernel):
    def loss(x, kernel, conv):
      return jnp.sum(jnp.sin(_convolve(x, kernel, conv)))

    gradient = jax.grad(loss, (0, 1))
    return (
      gradient(x, kernel, layers.convolve),
      gradient(x, kernel, jax.lax.conv_general_dilated),
    )

  ours, theirs = both(x, kernel)
  for got, want in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_small_grids_avoid_the_swapped_convolution() -> None:
  """XLA on a CPU swaps image and kernel below 3x3 pixels, and is slow there."""

  def lowered(side: int) -> str:
    x, kernel = np.ones((4, side, side, 8)), np.ones((3, 3, 8, 8))
    return jax.jit(_convolve).lower(x, kernel).as_text()

  assert "stablehlo.convolution" not in lowered(2)
  assert "stablehlo.convolution" in lowered(3)


def test_standardize_in_numbers() -> None:
  x = jnp.asarray([[[[0.5, 1.0]]]])
  got = layers.standardize(
    x, mean=(0.5, 0.5), std=(2.0, 0.25), dtype=jnp.float32
  )

  np.testing.assert_array_equal(got, [[[[0.0, 2.0]]]])


def test_standardize_subtracts_before_rounding() -> None:
  x = jnp.asarray([[1.0 + 2.0**-10]])
  got = layers.standardize(x, mean=(1.0,), std=(1.0,), dtype=jnp.bfloat16)

  assert got.dtype == jnp.bfloat16
  assert float(got[0, 0]) == 2.0**-10  # bfloat16(x) - 1 would be zero.


def test_standardize_refuses_integers_and_a_wrong_channel_count() -> None:
  with pytest.raises(TypeError, match="x: expected floating point, got uint8"):
    layers.standardize(
      jnp.ones((1, 2, 2, 3), jnp.uint8), mean=(0.0,), std=(1.0,), dtype=float
    )
  with pytest.raises(ValueError, match=r"std: .* one per channel \(3\), got 2"):
    layers.standardize(
      jnp.ones((1, 2, 2, 3)), mean=(0.0,), std=(1.0, 1.0), dtype=float
    )


@pytest.mark.parametrize("value", ["red", [], None])
def test_constants_are_numbers(value: object) -> None:
  with pytest.raises(ValueError, match="mean: expected a number"):
    layers.constants("mean", value)


def test_float64_needs_x64() -> None:
  with pytest.raises(ValueError, match="needs jax_enable_x64"):
    layers.compute_dtype("float64")
  with jax.enable_x64(True):
    assert layers.compute_dtype("float64") == jnp.float64


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_most_probable_is_argmax(dtype: str) -> None:
  with jax.enable_x64(dtype == "float64"):
    # Few values and many places: ties everywhere.
    drawn = jax.random.randint(jax.random.key(0), (5, 7, 300), 0, 40)
    scores = drawn.astype(dtype).at[0].set(-jnp.inf).at[1, :, 9].set(jnp.inf)
    found = jax.jit(layers.most_probable)(scores)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, jnp.argmax(scores, -1))
    broken = layers.most_probable(scores.at[..., 4].set(jnp.nan))
    assert int(broken.min()) >= 0 and int(broken.max()) < 300
