# SPDX-License-Identifier: Apache-2.0
"""EfficientNets B0 to B3, and EfficientNet-Lite0.

References:
  Tan and Le, 2019, "EfficientNet: Rethinking Model Scaling for Convolutional
  Neural Networks" (https://arxiv.org/abs/1905.11946).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import bottlenecks, convolutions, layers
from tgt_jax.models.bottlenecks import round_channels
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

# Of each stage: blocks, kernel, stride of the first, expansion, channels.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


def _shapes(
  width: float, depth: float, lite: bool
) -> tuple[tuple[bottlenecks.Shape, ...], ...]:
  """The blocks of every stage."""
  before, stages = round_channels(32 * width), []
  for count, kernel, strides, expansion, channels in _STAGES:
    features, shapes = round_channels(channels * width), []
    for i in range(math.ceil(depth * count)):
      shapes.append(
        bottlenecks.Shape(
          kernel=kernel,
          strides=1 if i else strides,
          expanded=before * expansion,
          features=features,
          # A quarter of what comes into the block, not of what it expands to.
          squeezed=0 if lite else max(1, before // 4),
          activation="relu6" if lite else "silu",
        )
      )
      before = features
    stages.append(tuple(shapes))
  return tuple(stages)


class EfficientNet(nn.Module):
  """Seven stages of inverted bottlenecks; see `efficientnet`."""

  num_classes: int
  width: float
  depth: float
  lite: bool
  padding: str
  bn_eps: float
  dropout: float
  drop_connect: float
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
    activation = "relu6" if self.lite else "silu"
    x = norms.conv_norm(
      x,
      round_channels(32 * self.width),
      3,
      strides=2,
      activation=activation,
      name="stem",
    )
    block = bottlenecks.InvertedBottleneck
    block = nn.remat(block) if self.remat else block
    stages = _shapes(self.width, self.depth, self.lite)
    total, done, features = sum(map(len, stages)), 0, []
    for stage, shapes in enumerate(stages):
      for i, shape in enumerate(shapes):
        x = block(
          shape=shape,
          norms=norms,
          squeeze_activation=activation,
          gate="sigmoid",
          # Grows with depth, from 0.
          drop_connect=self.drop_connect * done / total,
          name=f"stage_{stage}_block_{i}",
        )(x)
        done += 1
      features.append(x)
    x = norms.conv_norm(
      x,
      round_channels(1280 * self.width),
      1,
      activation=activation,
      name="head",
    )
    features.append(x)
    embedding = layers.global_mean(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(
      x,
      self.num_classes,
      kernel_init=convolutions.uniform_fan_out,
    )
    return Outputs(logits, embedding, tuple(features))


def efficientnet(
  *,
  num_classes: int,
  width: float = 1.0,
  depth: float = 1.0,
  lite: bool = False,
  padding: str = "SAME",
  bn_eps: float = 1e-3,
  dropout: float = 0.2,
  drop_connect: float = 0.2,
  momentum: float = 0.99,
  remat: bool = False,
  dtype: str = "float32",
  mean: float | Sequence[float] = convolutions.IMAGENET_MEAN,
  std: float | Sequence[float] = convolutions.IMAGENET_STD,
) -> Network:
  """Builds an EfficientNet.

  Padding and `bn_eps` are those of TensorFlow's weights; weights trained in
  PyTorch want "torch" and 1e-5.

  Args:
    num_classes: number of logits K.
    width: multiplies the channels.
    depth: multiplies the blocks of a stage.
    lite: no squeeze-and-excitation, and ReLU6.
    padding: of the convolutions, one of `PADDINGS` of `convolutions`.
    bn_eps: added to the variances of batch normalisation.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    drop_connect: probability that an example skips the last block while
      training, in [0, 1); of earlier blocks in proportion to their depth.
    momentum: of the running batch statistics.
    remat: computes the inside of each block anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C] of any size; features are the seven
    stages and the layer that is pooled.

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(width=width, depth=depth, bn_eps=bn_eps)
  checks.one_of(convolutions.PADDINGS, padding=padding)
  checks.in_range(0.0, 0.999, drop_connect=drop_connect)
  return as_network(
    EfficientNet(
      width=width,
      depth=depth,
      lite=lite,
      padding=padding,
      bn_eps=bn_eps,
      drop_connect=drop_connect,
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


efficientnet_b0 = functools.partial(efficientnet, width=1.0, depth=1.0)
efficientnet_b1 = functools.partial(efficientnet, width=1.0, depth=1.1)
efficientnet_b2 = functools.partial(
  efficientnet, width=1.1, depth=1.2, dropout=0.3
)
efficientnet_b3 = functools.partial(
  efficientnet, width=1.2, depth=1.4, dropout=0.3
)
# Its pixels are (x * 255 - 127) / 128.
efficientnet_lite0 = functools.partial(
  efficientnet, lite=True, mean=127 / 255, std=128 / 255
)
