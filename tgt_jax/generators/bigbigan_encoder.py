# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN's encoder: a residual network and a residual head of dense layers.

Known of the published encoder, of which no public port exists: images of 256
pixels in [-1, 1], ResNet-50 with pre-activation, average pooling to 2048
features, a head of four dense layers with skip connections, a mean and a
softplus deviation of 120 latents. Not known, and therefore arguments: the
epsilon of the batch norm, the padding, which convolution has the stride, and
the width of the head. Names and shapes in the file of the weights tell.

References:
  Donahue and Simonyan, 2019, "Large Scale Adversarial Representation
  Learning" (https://arxiv.org/abs/1907.02544).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models.convolutions import PADDINGS
from tgt_jax.models.layers import at_least_float32, dense, global_mean
from tgt_jax.models.resnet_v2 import STRIDE_ON, ResNetV2Trunk
from tgt_jax.types import Array


class _Residual(nn.Module):
  """Two dense layers, activated first, and a shortcut."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = dense(nn.relu(x), self.features, dtype=self.dtype, name="dense_0")
    y = dense(nn.relu(y), self.features, dtype=self.dtype, name="dense_1")
    if x.shape[-1] != self.features:
      x = dense(x, self.features, dtype=self.dtype, name="shortcut")
    return x + y


class BigBiGANEncoder(nn.Module):
  """Images in [-1, 1] to mean and deviation of the latents, each [B, d]."""

  trunk: nn.Module
  latent_dim: int
  head_width: int
  head_blocks: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    *_, last = self.trunk(x.astype(self.dtype))
    x = global_mean(last).astype(self.dtype)
    for i in range(self.head_blocks):
      x = _Residual(self.head_width, self.dtype, name=f"head_{i}")(x)
    x = at_least_float32(x)
    moments = dense(x, 2 * self.latent_dim, dtype=x.dtype, name="moments")
    mean, raw = jnp.split(moments, 2, axis=-1)
    return mean, jax.nn.softplus(raw)


def bigbigan_encoder(
  *,
  latent_dim: int,
  blocks: Sequence[int],
  bn_eps: float,
  padding: str,
  stride_on: str,
  head_width: int,
  head_blocks: int,
  remat: bool,
  dtype: jnp.dtype,
) -> BigBiGANEncoder:
  """Builds the encoder; the arguments are those of `bigbigan`."""
  checks.positive(bn_eps=bn_eps, head_width=head_width)
  checks.non_negative(head_blocks=head_blocks)
  checks.one_of(PADDINGS, padding=padding)
  checks.one_of(STRIDE_ON, stride_on=stride_on)
  trunk = ResNetV2Trunk(
    norm="batch",
    norm_eps=bn_eps,
    standardize_eps=None,
    padding=padding,
    momentum=0.0,  # Of updates of the statistics; there are none.
    train=False,
    dtype=dtype,
    blocks=tuple(blocks),
    stride_on=stride_on,
    remat=remat,
  )
  return BigBiGANEncoder(trunk, latent_dim, head_width, head_blocks, dtype)
