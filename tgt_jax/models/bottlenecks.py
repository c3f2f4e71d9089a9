# SPDX-License-Identifier: Apache-2.0
"""The inverted bottleneck of MobileNets and EfficientNets.

References:
  Sandler, Howard, Zhu, Zhmoginov and Chen, 2018, "MobileNetV2: Inverted
  Residuals and Linear Bottlenecks" (https://arxiv.org/abs/1801.04381).
  Hu, Shen and Sun, 2018, "Squeeze-and-Excitation Networks"
  (https://arxiv.org/abs/1709.01507).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax.models import convolutions, depthwise, layers
from tgt_jax.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "relu": nn.relu,
  "relu6": nn.relu6,
  "silu": nn.silu,
  "hard_swish": nn.hard_swish,
}
GATES: dict[str, Callable[[Array], Array]] = {
  "sigmoid": nn.sigmoid,
  "hard_sigmoid": nn.hard_sigmoid,
}


def round_channels(channels: float, divisor: int = 8) -> int:
  """Returns the nearest multiple of `divisor` that is not 10 % too small."""
  rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * channels else rounded


class Shape(NamedTuple):
  """What distinguishes the blocks of one network.

  Attributes:
    kernel: side of the depthwise kernel.
    strides: of the depthwise convolution.
    expanded: channels inside; no expansion where it equals the input's.
    features: channels of the output.
    squeezed: channels of the squeeze-and-excitation; 0 for none.
    activation: a key of `ACTIVATIONS`.
  """

  kernel: int
  strides: int
  expanded: int
  features: int
  squeezed: int
  activation: str


class Norms(NamedTuple):
  """Batch normalisation and padding, the same in all of a network.

  Attributes:
    padding: one of `convolutions.PADDINGS`.
    bn_eps: added to variances.
    momentum: of the running statistics.
    train: whether the batch's own statistics are used.
    dtype: compute dtype.
  """

  padding: str
  bn_eps: float
  momentum: float
  train: bool
  dtype: jnp.dtype

  def conv_norm(
    self,
    x: Array,
    features: int,
    kernel: int,
    *,
    strides: int = 1,
    activation: str | None,
    name: str,
  ) -> Array:
    """A convolution, batch normalisation and an activation."""
    x = convolutions.conv(
      x,
      features,
      kernel,
      strides=strides,
      padding=self.padding,
      dtype=self.dtype,
      name=f"{name}_conv",
    )
    return self.norm(x, activation, name)

  def norm(self, x: Array, activation: str | None, name: str) -> Array:
    """Batch normalisation and an activation."""
    x = layers.batch_norm(
      x,
      train=self.train,
      momentum=self.momentum,
      epsilon=self.bn_eps,
      dtype=self.dtype,
      name=f"{name}_norm",
    )
    return x if activation is None else ACTIVATIONS[activation](x)


class InvertedBottleneck(nn.Module):
  """Expansion, depthwise convolution, squeeze-and-excitation, projection."""

  shape: Shape
  norms: Norms
  squeeze_activation: str
  gate: str
  drop_connect: float

  def _excite(self, x: Array) -> Array:
    """Weights channels by a function of their means."""
    dtype = self.norms.dtype
    y = layers.global_mean(x).astype(dtype)[:, None, None, :]
    y = convolutions.conv(
      y, self.shape.squeezed, 1, use_bias=True, dtype=dtype, name="squeeze"
    )
    y = ACTIVATIONS[self.squeeze_activation](y)
    y = convolutions.conv(
      y, x.shape[-1], 1, use_bias=True, dtype=dtype, name="excite"
    )
    return x * GATES[self.gate](y)

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape, norms, y = self.shape, self.norms, x
    if shape.expanded != x.shape[-1]:
      y = norms.conv_norm(
        y, shape.expanded, 1, activation=shape.activation, name="expand"
      )
    y = depthwise.depthwise(
      y,
      shape.kernel,
      strides=shape.strides,
      padding=norms.padding,
      dtype=norms.dtype,
      name="depthwise_conv",
    )
    y = norms.norm(y, shape.activation, "depthwise")
    if shape.squeezed:
      y = self._excite(y)
    y = norms.conv_norm(y, shape.features, 1, activation=None, name="project")
    if shape.strides > 1 or shape.features != x.shape[-1]:
      return y
    # All of an example's residual at once: its block is skipped.
    return x + nn.Dropout(
      self.drop_connect,
      broadcast_dims=(1, 2, 3),
      deterministic=not norms.train,
    )(y)
