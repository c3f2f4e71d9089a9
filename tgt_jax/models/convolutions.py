# SPDX-License-Identifier: Apache-2.0
"""Convolution and pooling of the ImageNet networks, in two paddings.

Beside `layers`, which has what every network needs. Images are [B, H, W, C].
`conv`, `depthwise` and `StandardizedConv` create parameters: they are called
inside a compact flax method. Every kernel is stored as [k, k, C_in, C_out].

Padding "torch" is `k // 2` pixels on every side, whatever the stride. "SAME"
is TensorFlow's: as many pixels as give `ceil(size / stride)` outputs, and the
odd one behind. They differ where a stride meets an even size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers
from tgt_jax.types import Array

PADDINGS = ("torch", "SAME")

# Of the RGB values of the training images, as the published weights have it.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Variance 2 / (k * k * C_out) keeps the scale of gradients through a ReLU.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform in +-1 / sqrt(fan_out): the last layer of the mobile networks.
uniform_fan_out = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")

Pairs = Sequence[tuple[int, int]]


def pad_pairs(
  padding: str, size: Sequence[int], kernel: int, strides: int
) -> Pairs:
  """Returns the rows and columns to add around an image.

  Args:
    padding: one of `PADDINGS`.
    size: height and width.
    kernel: side of a square kernel, odd.
    strides: of both axes.
  """
  checks.one_of(PADDINGS, padding=padding)
  if padding == "torch":
    return [(kernel // 2, kernel // 2)] * 2
  return jax.lax.padtype_to_pads(size, (kernel,) * 2, (strides,) * 2, "SAME")


def network_fields(
  *,
  num_classes: int,
  dropout: float,
  momentum: float,
  dtype: str,
  mean: float | Sequence[float],
  std: float | Sequence[float],
) -> dict[str, Any]:
  """Returns the fields that every ImageNet network has, checked and hashable.

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(num_classes=num_classes)
  checks.in_range(0.0, 0.999, dropout=dropout)
  checks.in_range(0.0, 1.0, momentum=momentum)
  std = layers.constants("std", std)
  checks.positive(**{f"std[{i}]": s for i, s in enumerate(std)})
  return {
    "num_classes": num_classes,
    "dropout": dropout,
    "momentum": momentum,
    "mean": layers.constants("mean", mean),
    "std": std,
    "dtype": layers.compute_dtype(dtype),
  }


def window_slices(
  padded: Array, window: int, strides: int, shape: Sequence[int]
) -> list[Array]:
  """The `window ** 2` strided images whose pixels share an output pixel."""
  batch, _, _, channels = padded.shape
  rows, columns = ((size - 1) * strides + 1 for size in shape)
  return [
    jax.lax.slice(
      padded,
      (0, i, j, 0),
      (batch, i + rows, j + columns, channels),
      (1, strides, strides, 1),
    )
    for i in range(window)
    for j in range(window)
  ]


def output_size(padded: Array, window: int, strides: int) -> list[int]:
  """Height and width of what a window leaves of padded images."""
  return [(size - window) // strides + 1 for size in padded.shape[1:3]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _window_max(padded: Array, window: int, strides: int) -> Array:
  shape = output_size(padded, window, strides)
  slices = window_slices(padded, window, strides, shape)
  return functools.reduce(jnp.maximum, slices)


@_window_max.defjvp
def _window_max_jvp(
  window: int, strides: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  """The tangent of the first maximum: linear, so every mode passes."""
  top = _window_max(primals[0], window, strides)
  shape = top.shape[1:3]
  taken = jnp.zeros(top.shape, bool)
  total = jnp.zeros_like(top)
  for value, move in zip(
    window_slices(primals[0], window, strides, shape),
    window_slices(tangents[0], window, strides, shape),
    strict=True,
  ):
    here = (value == top) & ~taken
    taken = taken | here
    total = total + jnp.where(here, move, 0)
  return top, total


def max_pool(
  x: Array, *, padding: str = "torch", fill: float = -math.inf
) -> Array:
  """Returns 3x3 max pooling of stride 2, the pooling behind a stem.

  Of equal maxima the first one gets the gradient.

  Args:
    x: shape [B, H, W, C].
    padding: one of `PADDINGS`.
    fill: the value of the pixels outside. 0 differs from -inf where a whole
      corner is negative.

  Returns:
    Shape [B, ceil(H / 2), ceil(W / 2), C].
  """
  checks.rank(4, x=x)
  pairs = pad_pairs(padding, x.shape[1:3], 3, 2)
  padded = jnp.pad(x, ((0, 0), *pairs, (0, 0)), constant_values=fill)
  return _window_max(padded, 3, 2)


def _pointwise(
  x: Array, kernel: Array, strides: Sequence[int], *_: Any, **__: Any
) -> Array:
  """A 1x1 convolution as the matrix product that it is."""
  return x[:, :: strides[0], :: strides[1], :] @ kernel[0, 0]


def conv(
  x: Array,
  features: int,
  kernel: int,
  *,
  strides: int = 1,
  padding: str = "torch",
  groups: int = 1,
  use_bias: bool = False,
  dtype: jnp.dtype,
  kernel_init: Callable = he_fan_out,
  name: str,
) -> Array:
  """Returns a convolution of `x` with a square kernel.

  Args:
    x: shape [B, H, W, C].
    features: number of output channels.
    kernel: side of the kernel, odd.
    strides: of both axes.
    padding: one of `PADDINGS`.
    groups: channels are split into so many convolutions.
    use_bias: adds a bias.
    dtype: compute dtype.
    kernel_init: initialiser of the kernel.
    name: of the parameters.

  Returns:
    Shape [B, ceil(H / strides), ceil(W / strides), features].
  """
  convolve = None
  if kernel == 1 and groups == 1:
    convolve = _pointwise
  elif kernel == 3 and groups == 1:
    convolve = layers.convolve
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=strides,
    padding=pad_pairs(padding, x.shape[1:3], kernel, strides),
    feature_group_count=groups,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=kernel_init,
    conv_general_dilated=convolve,
    name=name,
  )(x)


class StandardizedConv(nn.Module):
  """A convolution whose kernel has mean 0 and variance 1 per output.

  References:
    Qiao, Wang, Liu, Shen and Yuille, 2019, "Micro-Batch Training with
    Batch-Channel Normalization and Weight Standardization"
    (https://arxiv.org/abs/1903.10520).
  """

  features: int
  kernel: int
  strides: int
  padding: str
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param("kernel", he_fan_out, shape, jnp.float32)
    kernel = kernel - kernel.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(kernel).mean((0, 1, 2), keepdims=True)
    kernel = kernel * jax.lax.rsqrt(variance + self.epsilon)
    kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
    strides = (self.strides, self.strides)
    if self.kernel == 1:
      return _pointwise(x, kernel, strides)
    pairs = pad_pairs(self.padding, x.shape[1:3], self.kernel, self.strides)
    return jax.lax.conv_general_dilated(
      x, kernel, strides, pairs, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
