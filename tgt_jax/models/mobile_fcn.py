# SPDX-License-Identifier: Apache-2.0
"""MobileFCN, a small convolutional network of spectrograms.

A spectrogram is an image [B, mels, frames, 1]: height is frequency, width is
time.

References:
  Choi, Fazekas and Sandler, 2016, "Automatic Tagging Using Deep Convolutional
  Neural Networks" (https://arxiv.org/abs/1606.00298): its form.
  Ding and Lerch, 2023, "Audio Embeddings as Teachers for Music
  Classification" (https://arxiv.org/abs/2306.17424): depthwise separable.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import bottlenecks, convolutions, depthwise, layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

# What the other four poolings leave of the mels is pooled by the fourth.
_OTHER_ROWS = 2 * 2 * 2 * 4
# All poolings together.
_FEWEST_FRAMES = 4 * 3 * 2 * 2 * 2
# Blocks whose output is a feature; dropout follows each.
_TAPPED = (3, 5, 7)


def _shapes(
  width: int, mels: int
) -> tuple[tuple[int, tuple[int, int] | None], ...]:
  """Channels of every block, and the rows and columns it pools."""
  return (
    (width, (2, 4)),
    (2 * width, (2, 3)),
    (2 * width, (2, 2)),
    (2 * width, (mels // _OTHER_ROWS, 2)),
    (2 * width, (4, 2)),
    (4 * width, None),
    (4 * width, None),
    (4 * width, None),
  )


def _max_pool(x: Array, window: tuple[int, int]) -> Array:
  """The maximum over windows that do not overlap, of any two sides.

  Rows and columns that do not fill a window are dropped; of equal maxima the
  first gets the gradient. As `layers.max_pool`, of squares. Made of choices:
  the gradient of `x.max` compares `x` with the maximum again, and is NaN where
  XLA rounded the two differently (seen on a CPU without its optimisations).
  """
  batch, height, width, channels = x.shape
  rows, columns = height // window[0], width // window[1]
  x = x[:, : rows * window[0], : columns * window[1], :]
  x = x.reshape(batch, rows, window[0], columns, window[1], channels)
  places = itertools.product(range(window[0]), range(window[1]))
  return functools.reduce(
    lambda top, other: jnp.where(top >= other, top, other),
    (x[:, :, i, :, j] for i, j in places),
  )


class MobileFCN(nn.Module):
  """Two convolutions, then six separable ones; see `mobile_fcn`."""

  num_classes: int
  mels: int
  width: int
  dropout: float
  momentum: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    checks.rank(4, x=x)
    if x.shape[1] != self.mels or x.shape[2] < _FEWEST_FRAMES:
      raise ValueError(
        f"x: expected [B, mels, frames, C] of {self.mels} mels and at least"
        f" {_FEWEST_FRAMES} frames, got {x.shape}: set mels={x.shape[1]}, or"
        " use a longer sound"
      )
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    norms = bottlenecks.Norms("torch", 1e-5, self.momentum, train, self.dtype)
    features = []
    for i, (channels, window) in enumerate(_shapes(self.width, self.mels)):
      kernel = 3
      if i >= 2:
        x = depthwise.depthwise(
          x,
          3,
          strides=1,
          padding=norms.padding,
          dtype=self.dtype,
          name=f"block_{i}_depthwise_conv",
        )
        x = norms.norm(x, "relu", f"block_{i}_depthwise")
        kernel = 1
      x = norms.conv_norm(
        x, channels, kernel, activation=None, name=f"block_{i}"
      )
      # The ReLU commutes with the maximum and is cheaper behind it.
      x = nn.relu(x if window is None else _max_pool(x, window))
      if i in _TAPPED:
        features.append(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
    embedding = layers.global_mean(x)
    logits = layers.head(embedding, self.num_classes)
    return Outputs(logits, embedding, tuple(features))


def mobile_fcn(
  *,
  num_classes: int,
  mels: int = 96,
  width: int = 64,
  dropout: float = 0.5,
  momentum: float = 0.9,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> Network:
  """Builds a small convolutional network that pools all mels into one.

  Two 3x3 convolutions, then six depthwise separable ones; the first five pool
  frequency by `mels` and time by 96 in all, so 96x1455 pixels become 1x15.
  What does not fill a window of time is dropped.

  [deviation] Kernels are drawn as of the mobile networks here (He, by fan-out)
  and the last layer is LeCun-normal; published are PyTorch's defaults.

  Args:
    num_classes: number of logits K.
    mels: height of the spectrograms, a multiple of 32. Published are 96, where
      the fourth block pools three rows, and 128, where it pools four.
    width: channels of the first block; the others have two and four times as
      many.
    dropout: probability of dropping a value behind the fourth, sixth and
      eighth block, in [0, 1). The embedding is of what is left.
    momentum: of the running batch statistics, which move by `1 - momentum`
      of the difference; 0.9 is what PyTorch calls 0.1.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, batch
      statistics and logits are float32.
    mean: subtracted from the input, one value or one per channel; spectrograms
      mostly come normalised (`spectrograms.log_mel`).
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of spectrograms [B, mels, frames, C] of 96 frames or more;
    features are the maps behind the fourth, sixth and eighth block, before
    dropout, see also `frames`. The embedding is the mean over frequency and
    time.

  Raises:
    ValueError: an argument out of its range, or (from `init`) a spectrogram
      of another height or too short.
  """
  checks.positive(mels=mels, width=width)
  if mels % _OTHER_ROWS:
    raise ValueError(
      f"mels must be a multiple of {_OTHER_ROWS}, which the poolings divide it"
      f" by, got {mels}"
    )
  return as_network(
    MobileFCN(
      mels=mels,
      width=width,
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
