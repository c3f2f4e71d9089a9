# SPDX-License-Identifier: Apache-2.0
"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs


class CNN(nn.Module):
  """Convolution, pooling and ReLU, then dense layers; see `cnn`."""

  num_classes: int
  widths: tuple[int, ...]
  dense_widths: tuple[int, ...]
  spatial: str
  dropout: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    checks.rank(4, x=x)
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    features = []
    for i, width in enumerate(self.widths):
      x = layers.conv3x3(x, width, dtype=self.dtype, name=f"conv_{i}")
      # The ReLU commutes with the maximum and is cheaper behind it; before
      # it, zeros would tie for the maximum.
      x = nn.relu(layers.max_pool(x))
      features.append(x)
    if self.spatial == "mean":
      x = layers.global_mean(x).astype(self.dtype)
    else:
      x = x.reshape(x.shape[0], -1)
    drop = lambda x: nn.Dropout(self.dropout, deterministic=not train)(x)
    for i, width in enumerate(self.dense_widths):
      x = layers.dense(drop(x), width, dtype=self.dtype, name=f"dense_{i}")
      x = nn.relu(x)
      features.append(x)
    logits = layers.head(drop(x), self.num_classes)
    return Outputs(logits, layers.at_least_float32(x), tuple(features))


def cnn(
  *,
  num_classes: int,
  widths: Sequence[int] = (32, 64),
  dense_widths: Sequence[int] = (128,),
  spatial: str = "flatten",
  dropout: float = 0.0,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> Network:
  """Builds a small convolutional network.

  Each stage is a 3x3 convolution, 2x2 max pooling and a ReLU. An odd last row
  or column is dropped by the pooling.

  Args:
    num_classes: number of logits K.
    widths: channels of each stage; images must be at least
      `2 ** len(widths)` pixels high and wide.
    dense_widths: widths of the hidden dense layers; may be empty.
    spatial: what the dense part reads, "flatten" or the "mean" over pixels.
    dropout: probability of dropping a unit of the dense part while training,
      in [0, 1).
    dtype: compute dtype, "float32" or "bfloat16"; parameters and logits are
      float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of images [B, H, W, C]; features are the stages, then the
    hidden dense layers.

  Raises:
    ValueError: an argument out of its range, no stage, or (from `init`) an
      image too small for the number of stages.
  """
  widths, dense_widths = tuple(widths), tuple(dense_widths)
  checks.positive(num_classes=num_classes, number_of_widths=len(widths))
  checks.positive(**{f"widths[{i}]": w for i, w in enumerate(widths)})
  checks.positive(
    **{f"dense_widths[{i}]": w for i, w in enumerate(dense_widths)}
  )
  checks.one_of(("flatten", "mean"), spatial=spatial)
  checks.in_range(0.0, 0.999, dropout=dropout)
  std = layers.constants("std", std)
  checks.positive(**{f"std[{i}]": s for i, s in enumerate(std)})
  return as_network(
    CNN(
      num_classes=num_classes,
      widths=widths,
      dense_widths=dense_widths,
      spatial=spatial,
      dropout=dropout,
      mean=layers.constants("mean", mean),
      std=std,
      dtype=layers.compute_dtype(dtype),
    )
  )
