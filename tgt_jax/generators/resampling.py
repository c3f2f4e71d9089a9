# SPDX-License-Identifier: Apache-2.0
"""Changing the size of images and grids, [B, H, W, C] in and out.

Every function is differentiable and linear in its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models.layers import he_normal
from tgt_jax.types import Array


def resize(x: Array, size: Sequence[int]) -> Array:
  """Returns `x` at another size by antialiased bilinear interpolation.

  Pixel centres are at half integers. Where the image shrinks, the triangle
  that weights the pixels is widened to the step between output pixels, as in
  image libraries; where it grows, this is plain bilinear interpolation.

  Args:
    x: floating point, shape [B, H, W, C].
    size: height and width of the result.
  """
  checks.rank(4, x=x)
  checks.floating(x=x)
  height, width = size
  checks.positive(height=height, width=width)

  if x.shape[1:3] == (height, width):
    return x
  shape = (x.shape[0], height, width, x.shape[3])
  return jax.image.resize(x, shape, "linear", antialias=True)


def upsample_nearest(x: Array) -> Array:
  """Returns [B, 2H, 2W, C]: every pixel becomes four."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(
    x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels)
  )
  return x.reshape(batch, 2 * height, 2 * width, channels)


def _halves(kernel: Array, axis: int) -> Array:
  """Three taps on doubled pixels as two taps on single ones, per parity.

  An even output pixel sees the taps (0 | 1, 2) of two neighbours, an odd one
  (0, 1 | 2): [..., 3, ...] becomes [2 (parity), ..., 2, ...].
  """
  first, middle, last = jnp.split(kernel, 3, axis)
  even = jnp.concatenate([first, middle + last], axis)
  odd = jnp.concatenate([first + middle, last], axis)
  return jnp.stack([even, odd])


def convolve_upsampled(
  x: Array, kernel: Array, strides: Any, padding: Any, **kwargs: Any
) -> Array:
  """Returns a 3x3 convolution of `upsample_nearest(x)`, padded by one.

  Of the nine products for an output pixel several see the same input pixel;
  with their taps added up first there are four: 4/9 of the arithmetic. Both
  parities of rows and columns are channels of one 2x2 convolution.

  Args:
    x: shape [B, H, W, C].
    kernel: shape [3, 3, C, F].
    strides: 1, what `nn.Conv` passes.
    padding: one pixel on every side, what `nn.Conv` passes.
    **kwargs: handed to `lax.conv_general_dilated`.
  """
  del strides, padding
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  # [row parity, column parity, 2, 2, C, F], parities last but one.
  kernels = _halves(_halves(kernel, 1), 1)
  kernels = kernels.transpose(2, 3, 4, 0, 1, 5)
  y = jax.lax.conv_general_dilated(
    x,
    kernels.reshape(2, 2, channels, 4 * features),
    (1, 1),
    [(1, 1), (1, 1)],
    **kwargs,
  ).reshape(batch, height + 1, width + 1, 2, 2, features)
  rows = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)
  both = jnp.stack([rows[:, :, :, :-1, 0], rows[:, :, :, 1:, 1]], axis=4)
  return both.reshape(batch, 2 * height, 2 * width, features)


def upsampled_conv3x3(
  x: Array,
  features: int,
  *,
  use_bias: bool = True,
  dtype: jnp.dtype,
  name: str,
) -> Array:
  """Returns a 3x3 convolution of `x` at twice its size, [B, 2H, 2W, F].

  Its parameters are those of a 3x3 convolution. Called inside a compact flax
  method.
  """
  return nn.Conv(
    features,
    (3, 3),
    padding=1,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=he_normal,
    conv_general_dilated=convolve_upsampled,
    name=name,
  )(x)


def _margins(size: int, multiple: int) -> tuple[int, int]:
  extra = -size % multiple
  return extra // 2, extra - extra // 2


def pad_to_multiple(x: Array, multiple: int) -> Array:
  """Repeats the border until height and width are multiples."""
  margins = [_margins(size, multiple) for size in x.shape[1:3]]
  return jnp.pad(x, ((0, 0), *margins, (0, 0)), mode="edge")


def crop_from_multiple(x: Array, size: Sequence[int], multiple: int) -> Array:
  """Undoes `pad_to_multiple` of an image of that size."""
  (top, _), (left, _) = (_margins(side, multiple) for side in size)
  return x[:, top : top + size[0], left : left + size[1], :]
