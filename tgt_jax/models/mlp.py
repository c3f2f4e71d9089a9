# SPDX-License-Identifier: Apache-2.0
"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs


class MLP(nn.Module):
  """Dense layers with ReLU on the flattened input; see `mlp`."""

  num_classes: int
  widths: tuple[int, ...]
  dropout: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    x = layers.standardize(x, mean=self.mean, std=self.std, dtype=self.dtype)
    x = x.reshape(x.shape[0], -1)
    features, embedding = [], x
    for i, width in enumerate(self.widths):
      x = layers.dense(x, width, dtype=self.dtype, name=f"dense_{i}")
      embedding = nn.relu(x)
      features.append(embedding)
      x = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    logits = layers.head(x, self.num_classes)
    embedding = layers.at_least_float32(embedding)
    return Outputs(logits, embedding, tuple(features))


def mlp(
  *,
  num_classes: int,
  widths: Sequence[int] = (64, 64),
  dropout: float = 0.0,
  dtype: str = "float32",
  mean: float | Sequence[float] = 0.0,
  std: float | Sequence[float] = 1.0,
) -> Network:
  """Builds a multi-layer perceptron.

  Args:
    num_classes: number of logits K.
    widths: width of each hidden layer; empty is a linear model.
    dropout: probability of dropping a hidden unit while training, in [0, 1).
    dtype: compute dtype, "float32" or "bfloat16"; parameters and logits are
      float32.
    mean: subtracted from the input, one value or one per channel.
    std: divides the input, one value or one per channel.

  Returns:
    A `Network` of inputs [B, ...]; features are the hidden layers.

  Raises:
    ValueError: an argument out of its range.
  """
  widths = tuple(widths)
  checks.positive(num_classes=num_classes)
  checks.positive(**{f"widths[{i}]": w for i, w in enumerate(widths)})
  checks.in_range(0.0, 0.999, dropout=dropout)
  std = layers.constants("std", std)
  checks.positive(**{f"std[{i}]": s for i, s in enumerate(std)})
  return as_network(
    MLP(
      num_classes=num_classes,
      widths=widths,
      dropout=dropout,
      mean=layers.constants("mean", mean),
      std=std,
      dtype=layers.compute_dtype(dtype),
    )
  )
