# SPDX-License-Identifier: Apache-2.0
"""Encoders and decoders of the generators, and the forms that decide speed.

Images and grids are [B, H, W, C]. Resolution changes by moving pixels between
space and channels, never by strided or transposed convolutions: every
convolution here is 3x3 with stride one, whose gradients are fast everywhere
(the weight gradient of a transposed convolution is about three times slower
on a CPU).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models.layers import at_least_float32, conv3x3, dense
from tgt_jax.types import Array


def check_image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
  """Returns `input_shape` as a tuple; raises `ValueError` unless (H, W, C)."""
  shape = tuple(int(size) for size in input_shape)
  if len(shape) != 3 or min(shape) < 1:
    raise ValueError(
      "input_shape: expected (height, width, channels), each >= 1, got"
      f" {tuple(input_shape)}"
    )
  return shape


def check_batch(name: str, value: Array, shape: tuple[int, ...]) -> None:
  """Raises unless `value` is floating point of shape [B, *shape]."""
  checks.floating(**{name: value})
  if value.ndim != len(shape) + 1 or value.shape[1:] != shape:
    expected = ", ".join(str(size) for size in ("B", *shape))
    raise ValueError(f"{name}: expected [{expected}], got {value.shape}")


def space_to_depth(x: Array, factor: int = 2) -> Array:
  """Returns [B, H/f, W/f, f*f*C]: blocks of pixels become channels."""
  batch, height, width, channels = x.shape
  rows, columns = height // factor, width // factor
  x = x.reshape(batch, rows, factor, columns, factor, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, rows, columns, factor * factor * channels)


def depth_to_space(x: Array, factor: int = 2) -> Array:
  """Returns [B, f*H, f*W, C/(f*f)]; the inverse of `space_to_depth`."""
  batch, height, width, depth = x.shape
  channels = depth // factor**2
  x = x.reshape(batch, height, width, factor, factor, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height * factor, width * factor, channels)


def grid_shape(
  input_shape: tuple[int, int, int], num_stages: int
) -> tuple[int, int]:
  """Returns height and width behind `num_stages` halvings, rounded up."""
  side = 2**num_stages
  return -(-input_shape[0] // side), -(-input_shape[1] // side)


def _margins(size: int, padded: int) -> tuple[int, int]:
  before = (padded - size) // 2
  return before, padded - size - before


class DenseEncoder(nn.Module):
  """Flattened image to hidden units [B, widths[-1]]."""

  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = (2.0 * x - 1.0).astype(self.dtype).reshape(x.shape[0], -1)
    for i, width in enumerate(self.widths):
      x = nn.relu(dense(x, width, dtype=self.dtype, name=f"dense_{i}"))
    return x


class DenseDecoder(nn.Module):
  """Latents of any shape to the logits of an image; widths are mirrored."""

  input_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Array) -> Array:
    height, width, channels = self.input_shape
    x = z.astype(self.dtype).reshape(z.shape[0], -1)
    for i, features in enumerate(reversed(self.widths)):
      x = nn.relu(dense(x, features, dtype=self.dtype, name=f"dense_{i}"))
    x = dense(x, height * width * channels, dtype=self.dtype, name="pixels")
    return at_least_float32(x).reshape(-1, height, width, channels)


class ConvEncoder(nn.Module):
  """Image to a grid [B, h, w, widths[-1]], half the size for each width."""

  input_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    height, width, _ = self.input_shape
    stages = len(self.widths)
    rows, columns = grid_shape(self.input_shape, stages)
    x = (2.0 * x - 1.0).astype(self.dtype)
    # Repeating the border keeps a bright background free of a dark frame.
    x = jnp.pad(
      x,
      (
        (0, 0),
        _margins(height, rows * 2**stages),
        _margins(width, columns * 2**stages),
        (0, 0),
      ),
      mode="edge",
    )
    for i, features in enumerate(self.widths):
      x = space_to_depth(x)
      x = nn.relu(conv3x3(x, features, dtype=self.dtype, name=f"conv_{i}"))
    return x


class ConvDecoder(nn.Module):
  """Latents to the logits of an image by convolutions and pixel shuffles.

  A latent vector [B, d] is first spread over the grid by a dense layer; a
  grid of latents [B, h, w, d] enters through a convolution.
  """

  input_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Array) -> Array:
    height, width, channels = self.input_shape
    stages = len(self.widths)
    rows, columns = grid_shape(self.input_shape, stages)
    deepest = self.widths[-1]
    x = z.astype(self.dtype)
    if x.ndim == 2:
      x = dense(x, rows * columns * deepest, dtype=self.dtype, name="grid")
      x = x.reshape(-1, rows, columns, deepest)
    else:
      x = conv3x3(x, deepest, dtype=self.dtype, name="grid")
    # The last stage ends in pixels: no convolution runs at full resolution.
    outputs = (*reversed(self.widths[:-1]), channels)
    for i, features in enumerate(outputs):
      x = nn.relu(x)
      x = conv3x3(x, 4 * features, dtype=self.dtype, name=f"conv_{i}")
      x = depth_to_space(x)
    top, _ = _margins(height, rows * 2**stages)
    left, _ = _margins(width, columns * 2**stages)
    return at_least_float32(x[:, top : top + height, left : left + width, :])
