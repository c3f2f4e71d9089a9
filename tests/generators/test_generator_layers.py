# SPDX-License-Identifier: Apache-2.0
"""Moving pixels between space and channels, and the convolution beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax.generators import layers


def test_space_to_depth_by_hand() -> None:
  x = jnp.arange(8.0).reshape(1, 2, 4, 1)
  got = layers.space_to_depth(x)
  np.testing.assert_array_equal(got, [[[[0, 1, 4, 5], [2, 3, 6, 7]]]])


@pytest.mark.parametrize("factor", [2, 3])
def test_depth_to_space_undoes_it(factor: int) -> None:
  x = np.random.default_rng(0).normal(size=(2, 6, 12, 5))
  there = layers.space_to_depth(x, factor)
  assert there.shape == (2, 6 // factor, 12 // factor, 5 * factor**2)
  np.testing.assert_array_equal(layers.depth_to_space(there, factor), x)


@pytest.mark.oracle
def test_depth_to_space_is_a_pixel_shuffle() -> None:
  torch = pytest.importorskip("torch")
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2, 2))  # B H W C f f
  # PyTorch's channels are [C, f, f], ours [f, f, C].
  theirs = torch.nn.functional.pixel_shuffle(
    torch.tensor(x.transpose(0, 3, 4, 5, 1, 2).reshape(2, 20, 3, 4)), 2
  )
  ours = layers.depth_to_space(
    x.transpose(0, 1, 2, 4, 5, 3).reshape(2, 3, 4, 20)
  )
  np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(
  "image, stages, grid",
  [((28, 28, 1), 2, (7, 7)), ((9, 8, 3), 2, (3, 2)), ((1, 5, 1), 3, (1, 1))],
)
def test_grid_shape_rounds_up(image, stages: int, grid) -> None:
  assert layers.grid_shape(image, stages) == grid


def test_padding_and_cropping_keep_pixels_in_place() -> None:
  """What a one-stage encoder reads at (i, j), a decoder writes at (i, j)."""
  shape = (5, 7, 1)
  encoder = layers.ConvEncoder(shape, (4,), jnp.dtype("float32"))
  decoder = layers.ConvDecoder(shape, (4,), jnp.dtype("float32"))
  # Convolutions that copy the block of pixels at their centre.
  copy = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4))
  conv = {"kernel": copy, "bias": jnp.zeros(4)}
  x = np.random.default_rng(0).uniform(0.5, 1.0, size=(2, *shape))

  grid = encoder.apply({"params": {"conv_0": conv}}, jnp.float32(x))
  assert grid.shape == (2, 3, 4, 4)
  image = decoder.apply({"params": {"grid": conv, "conv_0": conv}}, grid)
  np.testing.assert_allclose(image, 2 * x - 1, atol=1e-6)


def test_no_transposed_or_strided_convolution_is_left() -> None:
  shape = (16, 16, 1)
  encoder = layers.ConvEncoder(shape, (4, 4), jnp.dtype("float32"))
  decoder = layers.ConvDecoder(shape, (4, 4), jnp.dtype("float32"))

  def run(x):
    grid, _ = encoder.init_with_output(jax.random.key(0), x)
    return decoder.init_with_output(jax.random.key(0), grid)[0]

  text = jax.jit(run).lower(jnp.ones((1, *shape))).as_text()
  windows = [line for line in text.splitlines() if "convolution" in line]
  assert len(windows) == 5
  for line in windows:
    assert "stride = [1, 1]" in line or "stride" not in line
    assert "lhs_dilate = [1, 1]" in line or "lhs_dilate" not in line
