# SPDX-License-Identifier: Apache-2.0
"""Residual networks in their ImageNet form.

"Version 1.5": the stride of a bottleneck is on its 3x3 convolution.

References:
  He, Zhang, Ren and Sun, 2016, "Deep Residual Learning for Image
  Recognition" (https://arxiv.org/abs/1512.03385).
  Xie, Girshick, Dollár, Tu and He, 2017, "Aggregated Residual Transformations
  for Deep Neural Networks" (https://arxiv.org/abs/1611.05431).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import convolutions, layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

# Blocks of the four stages, and whether they are bottlenecks.
DEPTHS = {
  10: ((1, 1, 1, 1), False),
  14: ((1, 1, 1, 1), True),
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}


class _Block(nn.Module):
  """Two 3x3 convolutions, or a bottleneck of three, and a shortcut."""

  features: int
  width: int
  strides: int
  bottleneck: bool
  groups: int
  momentum: float
  train: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = functools.partial(convolutions.conv, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm,
      train=self.train,
      momentum=self.momentum,
      dtype=self.dtype,
    )
    y, strides, last = x, self.strides, 1
    if self.bottleneck:
      y = nn.relu(norm(conv(y, self.width, 1, name="conv_0"), name="norm_0"))
      y = conv(
        y, self.width, 3, strides=strides, groups=self.groups, name="conv_1"
      )
      y = nn.relu(norm(y, name="norm_1"))
      y = conv(y, self.features, 1, name="conv_2")
      last = 2
    else:
      y = conv(y, self.width, 3, strides=strides, name="conv_0")
      y = nn.relu(norm(y, name="norm_0"))
      y = conv(y, self.features, 3, name="conv_1")
    # Scale 0: at first every block is its shortcut.
    y = norm(y, name=f"norm_{last}", scale_init=nn.initializers.zeros)
    if x.shape[-1] != self.features or self.strides > 1:
      x = conv(x, self.features, 1, strides=self.strides, name="shortcut")
      x = norm(x, name="shortcut_norm")
    return nn.relu(x + y)


class ImageNetResNet(nn.Module):
  """Four stages of residual blocks; see `resnet_imagenet`."""

  num_classes: int
  blocks: tuple[int, ...]
  bottleneck: bool
  groups: int
  group_width: int
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
    x = convolutions.conv(
      x, 64, 7, strides=2, dtype=self.dtype, name="stem_conv"
    )
    x = layers.batch_norm(
      x,
      train=train,
      momentum=self.momentum,
      dtype=self.dtype,
      name="stem_norm",
    )
    x = convolutions.max_pool(nn.relu(x))
    block = nn.remat(_Block) if self.remat else _Block
    features = []
    for stage, count in enumerate(self.blocks):
      planes = 64 * 2**stage
      for i in range(count):
        x = block(
          features=planes * (4 if self.bottleneck else 1),
          width=planes * self.groups * self.group_width // 64,
          strides=2 if stage and not i else 1,
          bottleneck=self.bottleneck,
          groups=self.groups,
          momentum=self.momentum,
          train=train,
          dtype=self.dtype,
          name=f"stage_{stage}_block_{i}",
        )(x)
      features.append(x)
    embedding = layers.global_mean(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(x, self.num_classes)
    return Outputs(logits, embedding, tuple(features))


def resnet_imagenet(
  *,
  num_classes: int,
  depth: int = 50,
  groups: int = 1,
  group_width: int = 64,
  dropout: float = 0.0,
  momentum: float = 0.9,
  remat: bool = False,
  dtype: str = "float32",
  mean: float | Sequence[float] = convolutions.IMAGENET_MEAN,
  std: float | Sequence[float] = convolutions.IMAGENET_STD,
) -> Network:
  """Builds a residual network of four stages.

  Args:
    num_classes: number of logits K.
    depth: a key of `DEPTHS`; 10, 18 and 34 have no bottlenecks.
    groups: of the 3x3 convolutions of bottlenecks; ResNeXt has 32.
    group_width: channels of one group in the first stage; 4 with 32 groups.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    momentum: of the running batch statistics, which move by `1 - momentum`
      of the difference.
    remat: computes the inside of each block anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C] of any size; features are the four
    stages.

  Raises:
    ValueError: an argument out of its range.
  """
  if depth not in DEPTHS:
    raise ValueError(
      f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}"
    )
  checks.positive(groups=groups, group_width=group_width)
  blocks, bottleneck = DEPTHS[depth]
  if not bottleneck and (groups, group_width) != (1, 64):
    raise ValueError(
      f"depth {depth} has no bottlenecks to split: expected groups=1 and"
      f" group_width=64, got {groups} and {group_width}; use depth 50"
    )
  return as_network(
    ImageNetResNet(
      blocks=blocks,
      bottleneck=bottleneck,
      groups=groups,
      group_width=group_width,
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


resnet10 = functools.partial(resnet_imagenet, depth=10)
resnet18 = functools.partial(resnet_imagenet, depth=18)
resnet50 = functools.partial(resnet_imagenet, depth=50)
resnet101 = functools.partial(resnet_imagenet, depth=101)
resnet152 = functools.partial(resnet_imagenet, depth=152)
resnext50 = functools.partial(
  resnet_imagenet, depth=50, groups=32, group_width=4
)
