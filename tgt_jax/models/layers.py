# SPDX-License-Identifier: Apache-2.0
"""The building blocks whose form decides the speed of a network.

Convolutions, pooling and normalisation of every network of this sub-package
go through this file, so that a faster form of one of them is written once.
Images are [B, H, W, C]. Functions that create parameters are called inside a
compact flax method.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks
from tgt_jax.types import Array

# Compute dtypes; parameters are float32 whatever is chosen. float64 is for
# verification and needs jax_enable_x64.
DTYPES = ("bfloat16", "float32", "float64")

# Variance 2 / fan_in keeps the scale of activations through a ReLU.
he_normal = nn.initializers.he_normal()
lecun_normal = nn.initializers.lecun_normal()


def compute_dtype(name: str) -> jnp.dtype:
  """Returns the dtype of that name.

  Raises:
    ValueError: not one of `DTYPES`, or float64 while JAX has it disabled.
  """
  checks.one_of(DTYPES, dtype=name)
  if name == "float64" and jax.dtypes.canonicalize_dtype(name) != name:
    raise ValueError(
      "dtype 'float64' needs jax_enable_x64; set it or choose 'float32'"
    )
  return jnp.dtype(name)


def at_least_float32(x: Array) -> Array:
  """Returns `x` in float32, or in its own dtype where that is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def most_probable(scores: Array) -> Array:
  """Returns `argmax` over the last axis, int32, by two plain reductions.

  XLA reduces pairs of value and index one by one on a CPU: over a vocabulary
  that takes three to five times as long.

  Args:
    scores: floating point, [..., V], V below 2**24.

  Returns:
    [...], the first of the largest. Where one is NaN, some index below V:
    whether a maximum passes NaN on is the backend's.
  """
  size = scores.shape[-1]
  behind = jnp.arange(size, 0, -1, dtype=jnp.float32)
  peak = jnp.max(scores, axis=-1, keepdims=True)
  first = jnp.max(jnp.where(scores == peak, behind, 1.0), axis=-1)
  return size - first.astype(jnp.int32)


def constants(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
  """Returns a scalar or per-channel constant as a hashable tuple.

  Raises:
    ValueError: no value, or one that is not a finite number.
  """
  try:
    values = np.ravel(np.asarray(value, np.float64))
  except (TypeError, ValueError):
    values = np.zeros(0)
  if not values.size or not np.isfinite(values).all():
    raise ValueError(
      f"{name}: expected a number or one per channel, got {value!r}"
    )
  return tuple(values.tolist())


def standardize(
  x: Array,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  dtype: jnp.dtype,
) -> Array:
  """Returns `(x - mean) / std` in `dtype`, computed in at least float32.

  Args:
    x: floating point, shape [B, ..., C].
    mean: one value, or C of them.
    std: one value, or C of them.
    dtype: of the result.

  Raises:
    TypeError: `x` is not floating point (integer pixels 0..255, mostly).
    ValueError: the number of constants is neither 1 nor C.
  """
  checks.floating(x=x)
  for name, values in (("mean", mean), ("std", std)):
    if len(values) not in (1, x.shape[-1]):
      raise ValueError(
        f"{name}: expected 1 value or one per channel ({x.shape[-1]}),"
        f" got {len(values)}"
      )

  x = at_least_float32(x)
  shape = (1,) * (x.ndim - 1) + (-1,)
  shift = jnp.asarray(mean, x.dtype).reshape(shape)
  scale = jnp.asarray(std, x.dtype).reshape(shape)
  return ((x - shift) / scale).astype(dtype)


def _windows(x: Array, window: int) -> Array:
  """[B, H, W, C] to [B, rows, window, columns, window, C]."""
  batch, height, width, channels = x.shape
  rows, columns = height // window, width // window
  x = x[:, : rows * window, : columns * window, :]
  return x.reshape(batch, rows, window, columns, window, channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _window_max(x: Array, window: int) -> Array:
  # A maximum of slices: XLA fuses it with what comes before, which a
  # reduction over the window keeps apart.
  cells, side = _windows(x, window), range(window)
  slices = [cells[:, :, i, :, j] for i in side for j in side]
  return functools.reduce(jnp.maximum, slices)


@_window_max.defjvp
def _window_max_jvp(
  window: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  """The tangent of the first maximum: linear, so every mode passes."""
  top = _window_max(primals[0], window)
  is_top = _windows(primals[0], window) == top[:, :, None, :, None, :]
  taken = jnp.zeros_like(is_top[:, :, :1, :, :1])
  rows = []
  for i in range(window):
    row = []
    for j in range(window):
      here = is_top[:, :, i : i + 1, :, j : j + 1]
      row.append(here & ~taken)
      taken = taken | here
    rows.append(jnp.concatenate(row, axis=4))
  first = jnp.concatenate(rows, axis=2)
  moves = jnp.where(first, _windows(tangents[0], window), 0)
  return top, moves.sum(axis=(2, 4))


def max_pool(x: Array, window: int = 2) -> Array:
  """Returns the maximum over windows that do not overlap.

  Equal to `nn.max_pool` with stride `window` and padding VALID, gradient
  included (of equal maxima the first one gets it); rows and columns that do
  not fill a window are dropped. Written out because XLA's select-and-scatter,
  the gradient of `nn.max_pool`, is slow on a CPU: the input gradient of a
  small CNN takes a quarter of the time.

  Args:
    x: shape [B, H, W, C].
    window: side of the window.

  Returns:
    Shape [B, H // window, W // window, C].

  Raises:
    ValueError: the image is smaller than one window.
  """
  checks.rank(4, x=x)
  height, width = x.shape[1:3]
  if height < window or width < window:
    raise ValueError(
      f"cannot pool {height}x{width} by {window}x{window}: use fewer pooling"
      " stages or larger images"
    )

  return _window_max(x, window)


def global_mean(x: Array) -> Array:
  """Returns the mean over height and width, [B, H, W, C] to [B, C]."""
  return at_least_float32(x).mean(axis=(1, 2))


def convolve(
  x: Array,
  kernel: Array,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **kwargs: Any,
) -> Array:
  """Returns `lax.conv_general_dilated` for 3x3 kernels that keep the size.

  Two cases are written out as matrix products of shifted images, because
  XLA's convolution is slow there on a CPU. Where an image has fewer pixels than
  the kernel, XLA swaps the two (measured: ten times the time at 2x2 pixels).
  And of a single channel, where the input gradient takes twice the time.

  Args:
    x: shape [B, H, W, C].
    kernel: shape [3, 3, C, F].
    strides: (1, 1) for the matrix product; anything else is handed on.
    padding: one pixel on every side for the matrix product.
    **kwargs: handed on.
  """
  height, width, channels = x.shape[1:]
  same = tuple(strides) == (1, 1) and list(padding) == [(1, 1), (1, 1)]
  tiny = height * width < 9
  if not same or not (tiny or channels == 1):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **kwargs)
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  shifted = [
    padded[:, i : i + height, j : j + width, :]
    for i in range(3)
    for j in range(3)
  ]
  if tiny:
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])
  taps = kernel.reshape(9, 1, -1)
  total = sum(x @ tap for x, tap in zip(shifted, taps, strict=True))
  # Else XLA computes the nine products anew inside the pooling's gradient.
  return jax.lax.optimization_barrier(total)


def conv3x3(
  x: Array,
  features: int,
  *,
  strides: int = 1,
  use_bias: bool = True,
  dtype: jnp.dtype,
  name: str,
) -> Array:
  """Returns a 3x3 convolution of `x` [B, H, W, C], zero-padded by one.

  The padding is one on every side for any stride, as PyTorch and the papers
  of the residual networks have it ("SAME" would pad a strided convolution of
  an even size on one side only).
  """
  return nn.Conv(
    features,
    (3, 3),
    strides=strides,
    padding=1,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=he_normal,
    conv_general_dilated=convolve,
    name=name,
  )(x)


def batch_norm(
  x: Array,
  *,
  train: bool,
  momentum: float,
  dtype: jnp.dtype,
  name: str,
  epsilon: float = 1e-5,
  scale_init: Callable = nn.initializers.ones,
) -> Array:
  """Returns batch normalisation of `x` over all but its last axis.

  Statistics are computed in at least float32. They are those of the whole
  array: under `jit` over a sharded batch, of the global batch.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=momentum,
    epsilon=epsilon,
    dtype=dtype,
    scale_init=scale_init,
    name=name,
  )(x)


def dense(
  x: Array,
  features: int,
  *,
  dtype: jnp.dtype,
  name: str,
  kernel_init: Callable = he_normal,
) -> Array:
  """Returns an affine map of the last axis of `x`."""
  return nn.Dense(features, dtype=dtype, kernel_init=kernel_init, name=name)(x)


def head(
  embedding: Array,
  num_classes: int,
  *,
  kernel_init: Callable = lecun_normal,
) -> Array:
  """Returns logits [B, K] of an embedding [B, D], in at least float32."""
  embedding = at_least_float32(embedding)
  return dense(
    embedding,
    num_classes,
    dtype=embedding.dtype,
    kernel_init=kernel_init,
    name="head",
  )
