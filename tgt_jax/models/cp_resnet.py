# SPDX-License-Identifier: Apache-2.0
"""CP-ResNet, a residual network of spectrograms with a bounded view.

A spectrogram is an image [B, mels, frames, 1]: height is frequency, width is
time. How far a pixel of the last map sees is set by `rho`, which says how many
of the kernels are 3x3; all others are 1x1.

References:
  Koutini, Eghbal-zadeh, Dorfer and Widmer, 2019, "The Receptive Field as a
  Regularizer in Deep Convolutional Neural Networks for Acoustic Scene
  Classification" (https://arxiv.org/abs/1907.01803).
  Ding and Lerch, 2023, "Audio Embeddings as Teachers for Music
  Classification" (https://arxiv.org/abs/2306.17424): the form built here.
  Zhang, Dauphin and Ma, 2019, "Fixup Initialization: Residual Learning Without
  Normalization" (https://arxiv.org/abs/1901.09321).
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

MAX_RHO = 22
_NEVER = MAX_RHO + 1

# The rho from which on a kernel is 3x3, of both convolutions of every block.
# [deviation] of the network of 2023 from that of 2019, whose second kernels of
# the middle stage grow last (8, 10, 12, 14): here they grow with the first
# stage's, and at rho 7 the view is 231 pixels wide, there 135.
_THREE_FROM = (
  ((0, _NEVER), (1, 2), (3, 4), (5, 6)),
  ((7, _NEVER), (9, 2), (11, 4), (13, 6)),
  ((15, 16), (17, 18), (19, 20), (21, 22)),
)
_BLOCKS = sum(map(len, _THREE_FROM))
# Blocks of the first stage that 2x2 pooling follows.
_POOLED = (0, 1, 3)
# The stem and the three poolings halve: less would leave no pixel.
_SMALLEST = 15

_he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# Fixup: with L residual branches of two layers, the first is drawn smaller by
# sqrt(L), and the second, at zero, makes every block its shortcut.
_fixup = nn.initializers.variance_scaling(2.0 / _BLOCKS, "fan_out", "normal")


def kernel_sizes(rho: int) -> tuple[tuple[tuple[int, int], ...], ...]:
  """Returns the sides of both kernels, 1 or 3, by stage and block.

  Args:
    rho: in [0, 22].
  """
  checks.in_range(0, MAX_RHO, rho=rho)
  return tuple(
    tuple((3 if rho >= i else 1, 3 if rho >= j else 1) for i, j in stage)
    for stage in _THREE_FROM
  )


class _Block(nn.Module):
  """Two convolutions and a shortcut."""

  features: int
  kernels: tuple[int, int]
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
    first, second = self.kernels
    y = conv(x, self.features, first, kernel_init=_fixup, name="conv_0")
    y = nn.relu(norm(y, name="norm_0"))
    zeros = nn.initializers.zeros
    y = conv(y, self.features, second, kernel_init=zeros, name="conv_1")
    y = norm(y, name="norm_1")
    if x.shape[-1] != self.features:
      x = norm(conv(x, self.features, 1, name="shortcut"), name="shortcut_norm")
    return nn.relu(x + y)


class CPResNet(nn.Module):
  """A stem and three stages of four residual blocks; see `cp_resnet`."""

  num_classes: int
  kernels: tuple[tuple[tuple[int, int], ...], ...]
  width: int
  dropout: float
  momentum: float
  remat: bool
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    checks.rank(4, x=x)
    if min(x.shape[1:3]) < _SMALLEST:
      raise ValueError(
        f"x: expected [B, mels, frames, C] of at least {_SMALLEST} mels and"
        f" frames, got {x.shape}: use a longer sound or more mels"
      )
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    x = convolutions.conv(
      x,
      self.width,
      5,
      strides=2,
      dtype=self.dtype,
      kernel_init=_he_fan_in,
      name="stem_conv",
    )
    x = layers.batch_norm(
      x,
      train=train,
      momentum=self.momentum,
      dtype=self.dtype,
      name="stem_norm",
    )
    x = nn.relu(x)
    block = nn.remat(_Block) if self.remat else _Block
    features = []
    for stage, kernels in enumerate(self.kernels):
      for i, pair in enumerate(kernels):
        x = block(
          features=self.width * 2**stage,
          kernels=pair,
          momentum=self.momentum,
          train=train,
          dtype=self.dtype,
          name=f"stage_{stage}_block_{i}",
        )(x)
        if stage == 0 and i in _POOLED:
          x = layers.max_pool(x)
      features.append(x)
    embedding = layers.global_mean(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(x, self.num_classes)
    return Outputs(logits, embedding, tuple(features))


def cp_resnet(
  *,
  num_classes: int,
  rho: int = 7,
  width: int = 128,
  dropout: float = 0.0,
  momentum: float = 0.9,
  remat: bool = False,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> Network:
  """Builds a residual network whose view `rho` bounds.

  A 5x5 convolution of stride 2, then three stages of four blocks at one
  resolution each, but for three 2x2 poolings within the first: 128x1000 pixels
  become 8x62. An odd last row or column is dropped by the pooling.

  Every block begins as its shortcut (Fixup). [deviation] The weight of the
  last layer is LeCun-normal, as of every network here; published it is
  PyTorch's, uniform with a third of that variance.

  Args:
    num_classes: number of logits K.
    rho: how many kernels are 3x3, in [0, 22]; see `kernel_sizes`.
    width: channels of the first stage; the others have two and four times as
      many.
    dropout: probability of dropping a unit before the last layer, in [0, 1).
    momentum: of the running batch statistics, which move by `1 - momentum`
      of the difference; 0.9 is what PyTorch calls 0.1.
    remat: computes the inside of each block anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel; spectrograms
      mostly come normalised (`spectrograms.log_mel`).
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of spectrograms [B, mels, frames, C] of any size from 15x15;
    features are the maps after the three stages, see also `frames`. The
    embedding is the mean over frequency and time.

  Raises:
    ValueError: an argument out of its range, or (from `init`) a spectrogram
      that is too small.
  """
  checks.positive(width=width)
  return as_network(
    CPResNet(
      kernels=kernel_sizes(rho),
      width=width,
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
