# SPDX-License-Identifier: Apache-2.0
"""A narrow layer on embeddings, and a linear classifier behind it."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs


class Bottleneck(nn.Module):
  """Frame by frame to `width` numbers, classes from their mean; see below."""

  num_classes: int
  width: int
  hidden: tuple[int, ...]
  norm: bool
  relu: bool
  fixed: bool

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    x = x.astype(jnp.float32)
    for i, width in enumerate(self.hidden):
      x = nn.relu(layers.dense(x, width, dtype=x.dtype, name=f"dense_{i}"))
    if self.fixed:
      x = self._project(x)
    else:
      x = layers.dense(x, self.width, dtype=x.dtype, name="compact")
    if self.norm:
      x = layers.batch_norm(
        x, train=train, momentum=0.9, dtype=x.dtype, name="norm"
      )
    if self.relu:
      x = nn.relu(x)
    pooled = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
    return Outputs(layers.head(pooled, self.num_classes), pooled, (x,))

  def _project(self, x: Array) -> Array:
    shape = x.shape[-1], self.width
    draw = nn.initializers.normal(self.width**-0.5)
    kernel = self.variable(
      "fixed",
      "kernel",
      lambda: draw(self.make_rng("params"), shape, jnp.float32),
    )
    mean = self.variable("fixed", "mean", jnp.zeros, shape[:1])
    centred = x - jnp.broadcast_to(mean.value, x.shape)
    return centred @ kernel.value


def bottleneck(
  *,
  num_classes: int,
  width: int = 64,
  hidden: Sequence[int] = (),
  norm: bool = False,
  relu: bool = False,
  fixed: bool = False,
) -> Network:
  """Builds a map to a few numbers with a linear classifier on top.

  Args:
    num_classes: number of logits K.
    width: d, of the compact embedding.
    hidden: widths of ReLU layers before it.
    norm: batch normalisation of the compact embedding.
    relu: ReLU behind it.
    fixed: the map is a linear projection that does not learn, random or (as
      `config.compressor_start` says) on principal components: it is model
      state, not parameters. Only the classifier learns.

  Returns:
    A `Network` of embeddings [B, T, 1, D] whose own embedding is the mean over
    the T frames, [B, d], and whose one feature are the frames, [B, T, 1, d].

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(num_classes=num_classes, width=width)
  hidden = tuple(hidden)
  checks.positive(**{f"hidden[{i}]": w for i, w in enumerate(hidden)})
  if fixed and hidden:
    raise ValueError(
      "a fixed bottleneck has no hidden layers: set hidden to ()"
    )
  return as_network(Bottleneck(num_classes, width, hidden, norm, relu, fixed))
