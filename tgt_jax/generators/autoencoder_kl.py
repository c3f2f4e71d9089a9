# SPDX-License-Identifier: Apache-2.0
"""The KL-regularised auto-encoder of latent diffusion models.

Latents are a small image: a grid an eighth of the size with the published
widths. They are scaled to about unit variance.

References:
  Rombach et al., 2022, "High-Resolution Image Synthesis with Latent Diffusion
  Models" (https://arxiv.org/abs/2112.10752).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.generators import layers, likelihood as likelihoods, resampling
from tgt_jax.models.layers import (
  at_least_float32,
  compute_dtype,
  conv3x3,
  dense,
)
from tgt_jax.types import Array, Generator, ModelState, Params

_EPSILON = 1e-6
# Bounds of the posterior's log variance, as it was trained.
_LOG_VARIANCES = (-30.0, 20.0)


def _norm(x: Array, groups: int, dtype: jnp.dtype, name: str) -> Array:
  return nn.GroupNorm(
    groups,
    epsilon=_EPSILON,
    dtype=dtype,
    # The variance of the differences: that of the squares loses all digits
    # where a mean is large.
    use_fast_variance=False,
    name=name,
  )(x)


class _Block(nn.Module):
  """Norm, activation and convolution, twice, and a shortcut."""

  features: int
  groups: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = nn.silu(_norm(x, self.groups, self.dtype, "norm_0"))
    y = conv3x3(y, self.features, dtype=self.dtype, name="conv_0")
    y = nn.silu(_norm(y, self.groups, self.dtype, "norm_1"))
    y = conv3x3(y, self.features, dtype=self.dtype, name="conv_1")
    if x.shape[-1] != self.features:
      x = dense(x, self.features, dtype=self.dtype, name="shortcut")
    return x + y


class _Attention(nn.Module):
  """Every place of the grid attends to all, with one head."""

  groups: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    batch, height, width, features = x.shape
    y = _norm(x, self.groups, self.dtype, "norm")
    y = y.reshape(batch, height * width, features)
    query, key, value = (
      dense(y, features, dtype=self.dtype, name=name)
      for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bqd,bkd->bqk", query * features**-0.5, key)
    weights = jax.nn.softmax(at_least_float32(scores)).astype(self.dtype)
    y = jnp.einsum("bqk,bkd->bqd", weights, value)
    y = dense(y, features, dtype=self.dtype, name="out")
    return x + y.reshape(x.shape)


def _middle(
  x: Array, groups: int, dtype: jnp.dtype, block: Callable[..., nn.Module]
) -> Array:
  features = x.shape[-1]
  x = block(features, groups, dtype, name="mid_block_0")(x)
  x = _Attention(groups, dtype, name="mid_attention")(x)
  return block(features, groups, dtype, name="mid_block_1")(x)


class KLEncoder(nn.Module):
  """Images in [-1, 1] to the moments of a latent, 2 d channels."""

  latent_channels: int
  widths: tuple[int, ...]
  blocks: int
  groups: int
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    block = nn.remat(_Block) if self.remat else _Block
    x = x.astype(self.dtype)
    x = conv3x3(x, self.widths[0], dtype=self.dtype, name="conv_in")
    for level, features in enumerate(self.widths):
      for i in range(self.blocks):
        name = f"level_{level}_block_{i}"
        x = block(features, self.groups, self.dtype, name=name)(x)
      if level + 1 < len(self.widths):
        # Padded on one side only, as it was trained.
        x = nn.Conv(
          features,
          (3, 3),
          strides=2,
          padding=((0, 1), (0, 1)),
          dtype=self.dtype,
          name=f"level_{level}_conv",
        )(x)
    x = _middle(x, self.groups, self.dtype, block)
    x = nn.silu(_norm(x, self.groups, self.dtype, "norm_out"))
    channels = 2 * self.latent_channels
    return conv3x3(x, channels, dtype=self.dtype, name="conv_out")


class KLDecoder(nn.Module):
  """Latents to images, about [-1, 1]. Levels count from the image inwards."""

  channels: int
  widths: tuple[int, ...]
  blocks: int
  groups: int
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Array) -> Array:
    block = nn.remat(_Block) if self.remat else _Block
    x = conv3x3(z, self.widths[-1], dtype=self.dtype, name="conv_in")
    x = _middle(x, self.groups, self.dtype, block)
    for level, features in reversed(list(enumerate(self.widths))):
      for i in range(self.blocks + 1):
        name = f"level_{level}_block_{i}"
        x = block(features, self.groups, self.dtype, name=name)(x)
      if level:
        name = f"level_{level}_conv"
        x = resampling.upsampled_conv3x3(
          x, features, dtype=self.dtype, name=name
        )
    x = nn.silu(_norm(x, self.groups, self.dtype, "norm_out"))
    x = conv3x3(x, self.channels, dtype=self.dtype, name="conv_out")
    return at_least_float32(x)


class AutoencoderKL(nn.Module):
  """Encoder, decoder and a 1x1 convolution on either side of the latent."""

  encoder: nn.Module
  decoder: nn.Module
  latent_channels: int
  scaling: float
  dtype: jnp.dtype

  def setup(self) -> None:
    self.moments = nn.Dense(2 * self.latent_channels, dtype=self.dtype)
    self.latent = nn.Dense(self.latent_channels, dtype=self.dtype)

  def infer(self, x: Array) -> tuple[Array, Array]:
    """Returns mean and scale of the posterior of the scaled latent."""
    moments = at_least_float32(self.moments(self.encoder(2.0 * x - 1.0)))
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    scale = jnp.exp(0.5 * jnp.clip(log_variance, *_LOG_VARIANCES))
    return self.scaling * mean, self.scaling * scale

  def decode(self, z: Array) -> Array:
    """Returns the image, which may leave [0, 1]."""
    z = (at_least_float32(z) / self.scaling).astype(self.dtype)
    return 0.5 * self.decoder(self.latent(z)) + 0.5

  def __call__(self, x: Array) -> Array:
    return self.decode(self.infer(x)[0])


def _as_generator(
  module: AutoencoderKL,
  *,
  input_shape: tuple[int, int, int],
  latent_shape: tuple[int, int, int],
  factor: int,
  beta: float,
  noise_scale: float,
) -> Generator:
  """Wraps the module into four pure functions; the model state is empty."""

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    layers.check_batch("x", x, input_shape)
    padded = resampling.pad_to_multiple(x, factor)
    return module.init(rng, padded)["params"], {}

  def infer(params: Params, x: Array) -> tuple[Array, Array]:
    layers.check_batch("x", x, input_shape)
    padded = resampling.pad_to_multiple(x, factor)
    moments: Any = module.apply({"params": params}, padded, method="infer")
    return moments

  def paint(params: Params, z: Array) -> Array:
    layers.check_batch("z", z, latent_shape)
    x: Any = module.apply({"params": params}, z, method="decode")
    return resampling.crop_from_multiple(x, input_shape[:2], factor)

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    del model_state
    return infer(params, x)[0]

  def decode(
    params: Params,
    model_state: ModelState,
    z: Array,
    x: Array | None = None,
  ) -> Array:
    del model_state, x
    return jnp.clip(paint(params, z), 0.0, 1.0)

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> tuple[Array, Mapping[str, Array], ModelState]:
    mean, scale = infer(params, x)
    z = mean + scale * jax.random.normal(rng, mean.shape, mean.dtype)
    reconstruction = likelihoods.gaussian_nll(
      paint(params, z), x, scale=noise_scale
    )
    # The prior is N(0, 1) on the latent before scaling.
    kl = likelihoods.gaussian_kl(mean / module.scaling, scale / module.scaling)
    terms = {"reconstruction": reconstruction, "kl": kl}
    return reconstruction + beta * kl, terms, model_state

  return Generator(init=init, encode=encode, decode=decode, loss=loss)


def autoencoder_kl(
  *,
  input_shape: Sequence[int],
  latent_channels: int = 4,
  widths: Sequence[int] = (128, 256, 512, 512),
  blocks: int = 2,
  groups: int = 32,
  scaling: float = 0.18215,
  beta: float = 1e-6,
  noise_scale: float = 0.1,
  remat: bool = False,
  dtype: str = "float32",
) -> Generator:
  """Builds the auto-encoder; the defaults are those of Stable Diffusion 1.

  Args:
    input_shape: (H, W, C), C = 3 for the published weights; sizes that are no
      multiple of `2 ** (len(widths) - 1)` are padded inside and cropped back.
    latent_channels: channels d of the latent.
    widths: channels of each level, from the image inwards; every level but
      the last halves the size.
    blocks: residual blocks of each level of the encoder; the decoder has one
      more.
    groups: of every group normalisation; divides each width.
    scaling: multiplies what the encoder returns, so that latents have about
      unit variance.
    beta: weight of the KL term of the loss, >= 0.
    noise_scale: standard deviation of the pixels in the loss.
    remat: whether a gradient computes the inside of each block anew instead
      of keeping it.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, latents and
      images are float32.

  Returns:
    A `Generator` with latents [B, h, w, d], the scaled posterior mean, and an
    empty model state. Decoded images are clipped to [0, 1]. Its loss is
    `reconstruction + beta * kl` in nats per example with one draw of the
    latent; the published weights had further terms.

  Raises:
    ValueError: an argument out of its range.
  """
  shape, widths = layers.check_image_shape(input_shape), tuple(widths)
  checks.positive(
    latent_channels=latent_channels,
    number_of_widths=len(widths),
    blocks=blocks,
    groups=groups,
    scaling=scaling,
    noise_scale=noise_scale,
  )
  checks.positive(**{f"widths[{i}]": w for i, w in enumerate(widths)})
  checks.non_negative(beta=beta)
  if any(width % groups for width in widths):
    raise ValueError(f"groups {groups} must divide every width, got {widths}")
  compute, halvings = compute_dtype(dtype), len(widths) - 1
  module = AutoencoderKL(
    KLEncoder(latent_channels, widths, blocks, groups, remat, compute),
    KLDecoder(shape[2], widths, blocks, groups, remat, compute),
    latent_channels=latent_channels,
    scaling=scaling,
    dtype=compute,
  )
  return _as_generator(
    module,
    input_shape=shape,
    latent_shape=(*layers.grid_shape(shape, halvings), latent_channels),
    factor=2**halvings,
    beta=beta,
    noise_scale=noise_scale,
  )
