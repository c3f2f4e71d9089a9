# SPDX-License-Identifier: Apache-2.0
"""Residual networks with pre-activation, and their "Big Transfer" form.

References:
  He, Zhang, Ren and Sun, 2016, "Identity Mappings in Deep Residual Networks"
  (https://arxiv.org/abs/1603.05027).
  Kolesnikov et al., 2020, "Big Transfer (BiT): General Visual Representation
  Learning" (https://arxiv.org/abs/1912.11370).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import convolutions, layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

NORMS = ("batch", "group")
STRIDE_ON = ("conv3x3", "conv1x1")

# Bottlenecks of the four stages.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

_GROUPS = 32


class _Layers(nn.Module):
  """The choices that every layer of one network shares."""

  norm: str
  norm_eps: float
  standardize_eps: float | None
  padding: str
  momentum: float
  train: bool
  dtype: jnp.dtype

  def conv(
    self, x: Array, features: int, kernel: int, strides: int, name: str
  ) -> Array:
    """A convolution, of a standardised kernel where that is chosen."""
    if self.standardize_eps is not None:
      return convolutions.StandardizedConv(
        features=features,
        kernel=kernel,
        strides=strides,
        padding=self.padding,
        epsilon=self.standardize_eps,
        dtype=self.dtype,
        name=name,
      )(x)
    # Zero: at first every block is its shortcut. Not above, where the
    # gradient of standardising zeros is 1 / sqrt(eps).
    zero = name == "conv_2"
    return convolutions.conv(
      x,
      features,
      kernel,
      strides=strides,
      padding=self.padding,
      dtype=self.dtype,
      kernel_init=(nn.initializers.zeros if zero else convolutions.he_fan_out),
      name=name,
    )

  def norm_relu(self, x: Array, name: str) -> Array:
    """Normalisation and a ReLU."""
    if self.norm == "batch":
      x = layers.batch_norm(
        x,
        train=self.train,
        momentum=self.momentum,
        epsilon=self.norm_eps,
        dtype=self.dtype,
        name=name,
      )
    else:
      # The fast variance, E[x^2] - E[x]^2, moves the logits of published
      # weights noticeably.
      x = nn.GroupNorm(
        num_groups=_GROUPS,
        epsilon=self.norm_eps,
        use_fast_variance=False,
        dtype=self.dtype,
        name=name,
      )(x)
    return nn.relu(x)


class _Unit(_Layers):
  """A bottleneck with normalisation in front of each convolution."""

  features: int = 0
  strides: int = 1
  stride_on: str = "conv3x3"
  project: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width, first = self.features // 4, self.stride_on == "conv1x1"
    y = self.norm_relu(x, "norm_0")
    if self.project:
      x = self.conv(y, self.features, 1, self.strides, "shortcut")
    y = self.conv(y, width, 1, self.strides if first else 1, "conv_0")
    y = self.norm_relu(y, "norm_1")
    y = self.conv(y, width, 3, 1 if first else self.strides, "conv_1")
    y = self.norm_relu(y, "norm_2")
    return x + self.conv(y, self.features, 1, 1, "conv_2")


class ResNetV2Trunk(_Layers):
  """All of the network in front of its pooling; see `resnet_v2`.

  Returns the stages, then the last one normalised and rectified.
  """

  blocks: tuple[int, ...] = DEPTHS[50]
  stride_on: str = "conv3x3"
  pool_fill: float = -math.inf
  remat: bool = False

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, ...]:
    x = self.conv(x, 64, 7, 2, "stem_conv")
    x = convolutions.max_pool(x, padding=self.padding, fill=self.pool_fill)
    unit = nn.remat(_Unit) if self.remat else _Unit
    features = []
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        x = unit(
          norm=self.norm,
          norm_eps=self.norm_eps,
          standardize_eps=self.standardize_eps,
          padding=self.padding,
          momentum=self.momentum,
          train=self.train,
          dtype=self.dtype,
          features=256 * 2**stage,
          strides=2 if stage and not i else 1,
          stride_on=self.stride_on,
          project=not i,
          name=f"stage_{stage}_block_{i}",
        )(x)
      features.append(x)
    return (*features, self.norm_relu(x, "norm"))


class ResNetV2(nn.Module):
  """The trunk, mean pooling and a linear layer; see `resnet_v2`."""

  num_classes: int
  blocks: tuple[int, ...]
  norm: str
  norm_eps: float
  standardize_eps: float | None
  padding: str
  stride_on: str
  pool_fill: float
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
    features = ResNetV2Trunk(
      blocks=self.blocks,
      norm=self.norm,
      norm_eps=self.norm_eps,
      standardize_eps=self.standardize_eps,
      padding=self.padding,
      stride_on=self.stride_on,
      pool_fill=self.pool_fill,
      momentum=self.momentum,
      remat=self.remat,
      train=train,
      dtype=self.dtype,
      name="trunk",
    )(x)
    embedding = layers.global_mean(features[-1])
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(
      x, self.num_classes, kernel_init=nn.initializers.normal(0.01)
    )
    return Outputs(logits, embedding, features)


def resnet_v2(
  *,
  num_classes: int,
  depth: int = 50,
  norm: str = "batch",
  norm_eps: float = 1e-5,
  standardize_eps: float | None = None,
  padding: str = "torch",
  stride_on: str = "conv3x3",
  pool_fill: float = -math.inf,
  dropout: float = 0.0,
  momentum: float = 0.9,
  remat: bool = False,
  dtype: str = "float32",
  mean: float | Sequence[float] = convolutions.IMAGENET_MEAN,
  std: float | Sequence[float] = convolutions.IMAGENET_STD,
) -> Network:
  """Builds a residual network with pre-activation.

  Args:
    num_classes: number of logits K.
    depth: a key of `DEPTHS`.
    norm: "batch", or "group" for 32 groups of channels.
    norm_eps: added to the variances of the normalisation.
    standardize_eps: kernels are standardised, this added to their variances;
      `None` for plain kernels.
    padding: of convolutions and pooling, one of `PADDINGS` of `convolutions`.
    stride_on: which convolution of a stage's first block has the stride,
      "conv3x3" or, as in the first publication, "conv1x1".
    pool_fill: the value of the pixels around the image that is pooled.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    momentum: of the running batch statistics.
    remat: computes the inside of each block anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C] of any size; features are the four
    stages, then the last one normalised and rectified.

  Raises:
    ValueError: an argument out of its range.
  """
  if depth not in DEPTHS:
    raise ValueError(
      f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}"
    )
  checks.one_of(NORMS, norm=norm)
  checks.one_of(STRIDE_ON, stride_on=stride_on)
  checks.one_of(convolutions.PADDINGS, padding=padding)
  checks.positive(norm_eps=norm_eps)
  if standardize_eps is not None:
    checks.positive(standardize_eps=standardize_eps)
  return as_network(
    ResNetV2(
      blocks=DEPTHS[depth],
      norm=norm,
      norm_eps=norm_eps,
      standardize_eps=standardize_eps,
      padding=padding,
      stride_on=stride_on,
      pool_fill=pool_fill,
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


resnet50_v2 = functools.partial(resnet_v2, depth=50)
# Its pooling sees zeros outside, which is not what padding in PyTorch's
# pooling means. PyTorch's copies of the weights use `standardize_eps=1e-8`.
bit_resnet50 = functools.partial(
  resnet_v2,
  depth=50,
  norm="group",
  standardize_eps=1e-10,
  pool_fill=0.0,
  mean=0.5,
  std=0.5,
)
