# SPDX-License-Identifier: Apache-2.0
"""Resizing, doubling and padding of images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax.generators import resampling


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _images(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.oracle
@pytest.mark.parametrize(
  "size", [(5, 7), (9, 6), (20, 24), (5, 24), (3, 3), (10, 12)]
)
def test_resize_equals_torch(size: tuple[int, int]) -> None:
  torch = pytest.importorskip("torch")
  x = _images(2, 10, 12, 3)
  want = torch.nn.functional.interpolate(
    torch.tensor(np.asarray(x)).permute(0, 3, 1, 2),
    size=size,
    mode="bilinear",
    align_corners=False,
    antialias=True,
  )
  got = jax.jit(resampling.resize, static_argnums=1)(x, size)
  np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=1e-12)


def test_resize_keeps_constants_and_averages_halves() -> None:
  constant = jnp.full((1, 6, 8, 2), 0.7)
  np.testing.assert_allclose(
    resampling.resize(constant, (5, 9)), 0.7, rtol=1e-12
  )
  # Two pixels to one: the triangle reaches one and a half pixels either way.
  x = _images(1, 8, 1, 1)
  taps = np.asarray([1.0, 3.0, 3.0, 1.0]) / 8.0
  want = (taps * np.asarray(x)[0, 1:5, 0, 0]).sum()
  got = resampling.resize(x, (4, 1))[0, 1, 0, 0]
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_resize_has_the_transposed_map_as_its_gradient() -> None:
  x, y = _images(1, 9, 7, 2), _images(1, 4, 15, 2, seed=1)
  value, pullback = jax.vjp(lambda x: resampling.resize(x, (4, 15)), x)
  (gradient,) = pullback(y)
  np.testing.assert_allclose((value * y).sum(), (x * gradient).sum())


def test_resize_of_the_same_size_is_the_identity() -> None:
  x = _images(1, 4, 5, 2)
  assert resampling.resize(x, (4, 5)) is x


def test_bad_sizes() -> None:
  with pytest.raises(ValueError, match="height must be > 0, got 0"):
    resampling.resize(_images(1, 4, 4, 1), (0, 3))
  with pytest.raises(ValueError, match="x: expected rank 4"):
    resampling.resize(_images(4, 4, 1), (2, 2))


def test_upsample_nearest_equals_numpy() -> None:
  x = _images(2, 3, 4, 5)
  want = np.asarray(x).repeat(2, axis=1).repeat(2, axis=2)
  np.testing.assert_array_equal(resampling.upsample_nearest(x), want)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 3), (3, 1, 6, 3)])
def test_convolution_of_a_doubled_image(shape: tuple[int, ...]) -> None:
  """Value and both gradients are those of doubling, then convolving."""
  x, kernel = _images(*shape), _images(3, 3, 3, 4, seed=1)
  numbers = ("NHWC", "HWIO", "NHWC")

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(
      resampling.upsample_nearest(x),
      kernel,
      (1, 1),
      [(1, 1), (1, 1)],
      dimension_numbers=numbers,
    )

  def fast(x, kernel):
    return resampling.convolve_upsampled(
      x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=numbers
    )

  @jax.jit
  def both(x, kernel):
    want, pull = jax.vjp(plain, x, kernel)
    got, pull_fast = jax.vjp(fast, x, kernel)
    ones = jnp.cos(want)
    return (want, *pull(ones)), (got, *pull_fast(ones))

  want, got = both(x, kernel)
  for one, other in zip(want, got, strict=True):
    assert one.shape == other.shape
    np.testing.assert_allclose(other, one, atol=1e-12)


def test_it_does_less_arithmetic() -> None:
  x = jax.ShapeDtypeStruct((1, 32, 32, 16), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.float32)

  def convolve(x, kernel):
    return resampling.convolve_upsampled(
      x, kernel, None, None, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  flops = jax.jit(convolve).lower(x, kernel).cost_analysis()["flops"]
  plain = 2 * 9 * 16 * 16 * 64 * 64
  assert flops < 0.5 * plain


@pytest.mark.parametrize("size, padded", [((7, 9), (8, 12)), ((8, 4), (8, 4))])
def test_padding_is_undone(
  size: tuple[int, int], padded: tuple[int, int]
) -> None:
  x = _images(2, *size, 3)
  wide = resampling.pad_to_multiple(x, 4)
  assert wide.shape == (2, *padded, 3)
  np.testing.assert_array_equal(wide[:, -1], wide[:, size[0] - 1 - padded[0]])
  np.testing.assert_array_equal(resampling.crop_from_multiple(wide, size, 4), x)
