# SPDX-License-Identifier: Apache-2.0
"""Residual networks in their CIFAR form.

References:
  He, Zhang, Ren and Sun, 2016, "Deep Residual Learning for Image
  Recognition", section 4.2 (https://arxiv.org/abs/1512.03385).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

SHORTCUTS = ("A", "B")


class _Block(nn.Module):
  """Two 3x3 convolutions and a shortcut."""

  features: int
  strides: int
  shortcut: str
  momentum: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    norm = functools.partial(
      layers.batch_norm,
      train=train,
      momentum=self.momentum,
      dtype=self.dtype,
    )
    y = layers.conv3x3(
      x,
      self.features,
      strides=self.strides,
      use_bias=False,
      dtype=self.dtype,
      name="conv_0",
    )
    y = nn.relu(norm(y, name="norm_0"))
    y = layers.conv3x3(
      y, self.features, use_bias=False, dtype=self.dtype, name="conv_1"
    )
    y = norm(y, name="norm_1")
    extra = self.features - x.shape[-1]
    if not extra and self.strides == 1:
      return nn.relu(x + y)
    # A 1x1 kernel of stride s reads every s-th pixel: take these first, then
    # option B is a matrix product.
    x = x[:, :: self.strides, :: self.strides, :]
    if self.shortcut == "A":
      before = extra // 2
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, extra - before)))
    else:
      x = nn.Dense(
        self.features,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=layers.he_normal,
        name="shortcut",
      )(x)
      x = norm(x, name="shortcut_norm")
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Three stages of residual blocks; see `resnet`."""

  num_classes: int
  blocks: int
  width: int
  shortcut: str
  dropout: float
  momentum: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    checks.rank(4, x=x)
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    # The first convolution has 16 channels whatever the width, as in wide
    # residual networks; at width 1 it is the form of He et al.
    x = layers.conv3x3(
      x, 16, use_bias=False, dtype=self.dtype, name="stem_conv"
    )
    x = nn.relu(
      layers.batch_norm(
        x,
        train=train,
        momentum=self.momentum,
        dtype=self.dtype,
        name="stem_norm",
      )
    )
    features = []
    for stage in range(3):
      for i in range(self.blocks):
        x = _Block(
          features=16 * self.width * 2**stage,
          strides=2 if stage and not i else 1,
          shortcut=self.shortcut,
          momentum=self.momentum,
          dtype=self.dtype,
          name=f"stage_{stage}_block_{i}",
        )(x, train=train)
      features.append(x)
    embedding = layers.global_mean(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(x, self.num_classes)
    return Outputs(logits, embedding, tuple(features))


def resnet(
  *,
  num_classes: int,
  depth: int = 20,
  width: int = 1,
  shortcut: str = "A",
  dropout: float = 0.0,
  momentum: float = 0.9,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> Network:
  """Builds a residual network of three stages (16, 32, 64 channels).

  Args:
    num_classes: number of logits K.
    depth: 6n + 2 weighted layers: 20, 32, 44, 56, 110...
    width: multiplies the channels of the stages.
    shortcut: where a stage begins, "A" subsamples and pads channels with
      zeros (no parameters), "B" is a 1x1 convolution with batch norm.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    momentum: of the running batch statistics, which move by `1 - momentum`
      of the difference; 0.9 is what PyTorch calls 0.1.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C] of any size; features are the three
    stages. The running variance is of the biased estimator.

  Raises:
    ValueError: an argument out of its range.
  """
  if depth < 8 or (depth - 2) % 6:
    raise ValueError(
      f"depth must be 6n + 2 with n >= 1 (8, 14, 20, 32...), got {depth}"
    )
  checks.positive(num_classes=num_classes, width=width)
  checks.one_of(SHORTCUTS, shortcut=shortcut)
  checks.in_range(0.0, 0.999, dropout=dropout)
  checks.in_range(0.0, 1.0, momentum=momentum)
  std = layers.constants("std", std)
  checks.positive(**{f"std[{i}]": s for i, s in enumerate(std)})
  return as_network(
    ResNet(
      num_classes=num_classes,
      blocks=(depth - 2) // 6,
      width=width,
      shortcut=shortcut,
      dropout=dropout,
      momentum=momentum,
      mean=layers.constants("mean", mean),
      std=std,
      dtype=layers.compute_dtype(dtype),
    )
  )


# The two students of the paper of He et al. that fit small images.
resnet20 = functools.partial(resnet, depth=20)
resnet32 = functools.partial(resnet, depth=32)
