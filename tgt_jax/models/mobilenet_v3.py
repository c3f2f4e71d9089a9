# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3-Large.

References:
  Howard et al., 2019, "Searching for MobileNetV3"
  (https://arxiv.org/abs/1905.02244), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import bottlenecks, convolutions, layers
from tgt_jax.models.bottlenecks import round_channels
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

# Of each block: kernel, stride, expansion, channels, squeezes, activation.
_STAGES: tuple[tuple[tuple[int, int, float, int, bool, str], ...], ...] = (
  ((3, 1, 1, 16, False, "relu"),),
  ((3, 2, 4, 24, False, "relu"), (3, 1, 3, 24, False, "relu")),
  ((5, 2, 3, 40, True, "relu"),) + ((5, 1, 3, 40, True, "relu"),) * 2,
  (
    (3, 2, 6, 80, False, "hard_swish"),
    (3, 1, 2.5, 80, False, "hard_swish"),
    (3, 1, 2.3, 80, False, "hard_swish"),
    (3, 1, 2.3, 80, False, "hard_swish"),
  ),
  ((3, 1, 6, 112, True, "hard_swish"),) * 2,
  ((5, 2, 6, 160, True, "hard_swish"),)
  + ((5, 1, 6, 160, True, "hard_swish"),) * 2,
)


def _shapes(
  width: float, depth: float
) -> tuple[tuple[bottlenecks.Shape, ...], ...]:
  """The blocks of every stage."""
  before, stages = _stem_width(width), []
  for stage in _STAGES:
    shapes = []
    kept = stage[: math.ceil(depth * len(stage))]
    for kernel, strides, expansion, channels, squeezes, activation in kept:
      expanded = round_channels(before * expansion)
      before = round_channels(channels * width)
      squeezed = round_channels(expanded / 4) if squeezes else 0
      shapes.append(
        bottlenecks.Shape(
          kernel, strides, expanded, before, squeezed, activation
        )
      )
    stages.append(tuple(shapes))
  return tuple(stages)


def _stem_width(width: float) -> int:
  """Of thin networks the stem keeps its 16 channels."""
  return 16 if width < 0.75 else round_channels(16 * width)


class MobileNetV3(nn.Module):
  """Six stages of inverted bottlenecks; see `mobilenet_v3_large`."""

  num_classes: int
  width: float
  depth: float
  padding: str
  bn_eps: float
  dropout: float
  momentum: float
  remat: bool
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    checks.rank(4, x=x)
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    norms = bottlenecks.Norms(
      self.padding, self.bn_eps, self.momentum, train, self.dtype
    )
    swish = "hard_swish"
    x = norms.conv_norm(
      x,
      _stem_width(self.width),
      3,
      strides=2,
      activation=swish,
      name="stem",
    )
    block = bottlenecks.InvertedBottleneck
    block = nn.remat(block) if self.remat else block
    features = []
    for stage, shapes in enumerate(_shapes(self.width, self.depth)):
      for i, shape in enumerate(shapes):
        x = block(
          shape=shape,
          norms=norms,
          squeeze_activation="relu",
          gate="hard_sigmoid",
          drop_connect=0.0,
          name=f"stage_{stage}_block_{i}",
        )(x)
      features.append(x)
    x = norms.conv_norm(
      x, round_channels(960 * self.width), 1, activation=swish, name="last"
    )
    features.append(x)
    x = layers.global_mean(x).astype(self.dtype)[:, None, None, :]
    x = convolutions.conv(
      x, 1280, 1, use_bias=True, dtype=self.dtype, name="head_conv"
    )
    embedding = layers.at_least_float32(nn.hard_swish(x)[:, 0, 0, :])
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(
      x,
      self.num_classes,
      kernel_init=convolutions.uniform_fan_out,
    )
    return Outputs(logits, embedding, tuple(features))


def mobilenet_v3_large(
  *,
  num_classes: int,
  width: float = 1.0,
  depth: float = 1.0,
  padding: str = "SAME",
  bn_eps: float = 1e-3,
  dropout: float = 0.0,
  momentum: float = 0.99,
  remat: bool = False,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.5,
) -> Network:
  """Builds MobileNetV3-Large.

  Padding and `bn_eps` are those of TensorFlow's weights; weights trained in
  PyTorch want "torch", 1e-5 and ImageNet's mean and standard deviation.

  Args:
    num_classes: number of logits K.
    width: multiplies the channels of all but the last hidden layer, which
      keeps 1280.
    depth: share of a stage's blocks that are kept, the first ones, in
      (0, 1].
    padding: of the convolutions, one of `PADDINGS` of `convolutions`.
    bn_eps: added to the variances of batch normalisation.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    momentum: of the running batch statistics.
    remat: computes the inside of each block anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C] of any size; features are the six
    stages and the layer that is pooled.

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(width=width, depth=depth, bn_eps=bn_eps)
  checks.in_range(0.0, 1.0, depth=depth)
  checks.one_of(convolutions.PADDINGS, padding=padding)
  return as_network(
    MobileNetV3(
      width=width,
      depth=depth,
      padding=padding,
      bn_eps=bn_eps,
      remat=remat,
      **convolutions.network_fields(
        num_classes=num_classes,
        dropout=dropout,
        momentum=momentum,
        dtype=dtype,
        mean=mean,
        std=std,
      ),
    )
  )
