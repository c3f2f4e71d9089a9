# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution: XLA's, but on a CPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax.models.convolutions import (
  Pairs,
  output_size,
  pad_pairs,
  window_slices,
)
from tgt_jax.types import Array


def _taps(
  size: Sequence[int], window: int, strides: int, padding: Pairs
) -> list[tuple[int, int]]:
  """The places of a kernel that meet a pixel somewhere, not only padding."""

  def of_axis(length: int, before: int, after: int) -> list[int]:
    starts = range(-before, length + after - window + 1, strides)
    return [
      i for i in range(window) if any(0 <= s + i < length for s in starts)
    ]

  rows, columns = (
    of_axis(length, *pair) for length, pair in zip(size, padding, strict=True)
  )
  return [(i, j) for i in rows for j in columns]


def _tap(kernel: Array, i: int, j: int, shape: Sequence[int]) -> Array:
  """One number per channel, spread over an image."""
  channels = kernel.shape[-1]
  tap = jax.lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, 1, channels))
  return jax.lax.broadcast_in_dim(tap, shape, (0, 1, 2, 3))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def shifted_products(
  x: Array, kernel: Array, strides: int, padding: Pairs
) -> Array:
  """A depthwise convolution as a sum of shifted images, each times a number.

  XLA's grouped convolution is slow on a CPU; measured with its gradient at
  16 images of 32x32x32, 3x3: 26 ms against 270 ms, of 4x4x480, 5x5: 13 ms
  against 220 ms. Every mode of differentiation passes.

  Args:
    x: shape [B, H, W, C].
    kernel: shape [k, k, 1, C].
    strides: of both axes.
    padding: pixels before and after the rows, and the columns.
  """
  return _shifted_products(x, kernel, strides, padding)


# Here `jit` saves tracing a shape again, and `lax` is quicker to trace than
# `jax.numpy`: with its gradient, 0.3 s became 0.06 s per layer.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _shifted_products(
  x: Array, kernel: Array, strides: int, padding: Pairs
) -> Array:
  window, size = kernel.shape[0], x.shape[1:3]
  pads = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
  padded = jax.lax.pad(x, jax.lax.full((), 0, x.dtype), pads)
  shape = output_size(padded, window, strides)
  slices = window_slices(padded, window, strides, shape)
  products = [
    jax.lax.mul(
      slices[i * window + j],
      _tap(kernel, i, j, (x.shape[0], *shape, x.shape[3])),
    )
    for i, j in _taps(size, window, strides, padding)
  ]
  total = functools.reduce(jax.lax.add, products)
  # Else XLA computes the products anew in whatever reads them several times.
  return jax.lax.optimization_barrier(total)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _placed_products(
  x: Array, kernel: Array, strides: int, padding: Pairs
) -> Array:
  """The same sum, by adding what each pixel gives to its surroundings.

  Its transpose reads slices, which XLA does five times as fast as the
  transpose of slices.
  """
  batch, height, width, channels = x.shape
  window = kernel.shape[0]
  last = window - 1
  zero = jax.lax.full((), 0, x.dtype)
  placed = [
    jax.lax.pad(
      jax.lax.mul(x, _tap(kernel, i, j, x.shape)),
      zero,
      ((0, 0, 0), (last - i, i, 0), (last - j, j, 0), (0, 0, 0)),
    )
    for i, j in _taps((height, width), window, strides, padding)
  ]
  full = jax.lax.optimization_barrier(functools.reduce(jax.lax.add, placed))
  starts = [last - before for before, _ in padding]
  ends = [
    start + size + sum(pair) - last
    for start, size, pair in zip(starts, (height, width), padding, strict=True)
  ]
  return jax.lax.optimization_barrier(
    jax.lax.slice(
      full,
      (0, *starts, 0),
      (batch, *ends, channels),
      (1, strides, strides, 1),
    )
  )


@shifted_products.defjvp
def _shifted_products_jvp(
  strides: int,
  padding: Pairs,
  primals: tuple[Array, Array],
  tangents: tuple[Array, Array],
) -> tuple[Array, Array]:
  (x, kernel), (x_move, kernel_move) = primals, tangents
  moved = _placed_products(x_move, kernel, strides, padding)
  turned = shifted_products(x, kernel_move, strides, padding)
  return shifted_products(x, kernel, strides, padding), moved + turned


def _depthwise(
  x: Array, kernel: Array, strides: Sequence[int], padding: Pairs, **kwargs: Any
) -> Array:
  """Shifted products on a CPU, XLA's convolution elsewhere."""

  def on_cpu(x: Array, kernel: Array) -> Array:
    return shifted_products(x, kernel, strides[0], tuple(padding))

  def elsewhere(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **kwargs)

  return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def depthwise(
  x: Array,
  kernel: int,
  *,
  strides: int,
  padding: str,
  dtype: jnp.dtype,
  name: str,
) -> Array:
  """Returns a convolution of every channel of `x` with a kernel of its own.

  Args:
    x: shape [B, H, W, C].
    kernel: side of the kernel, odd.
    strides: of both axes.
    padding: one of `PADDINGS`.
    dtype: compute dtype.
    name: of the parameters; the kernel is [kernel, kernel, 1, C].
  """
  return nn.Conv(
    x.shape[-1],
    (kernel, kernel),
    strides=strides,
    padding=pad_pairs(padding, x.shape[1:3], kernel, strides),
    feature_group_count=x.shape[-1],
    use_bias=False,
    dtype=dtype,
    # The fan-out of one group is kernel ** 2.
    kernel_init=nn.initializers.normal(math.sqrt(2.0) / kernel),
    conv_general_dilated=_depthwise,
    name=name,
  )(x)
