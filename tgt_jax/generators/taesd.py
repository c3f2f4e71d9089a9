# SPDX-License-Identifier: Apache-2.0
"""The tiny auto-encoder of Stable Diffusion's latents.

It reads and writes latents of about unit variance that lie where those of
`autoencoder_kl` lie, at a twentieth of the cost. Every layer but the ends is
a ReLU network, so the gradient of a latent may be exactly zero in places.

References:
  Boer Bohan, "Tiny AutoEncoder for Stable Diffusion"
  (https://github.com/madebyollin/taesd).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.generators import layers, resampling
from tgt_jax.generators.likelihood import gaussian_nll
from tgt_jax.models.layers import at_least_float32, compute_dtype, conv3x3
from tgt_jax.types import Array, Generator, ModelState, Params

# Latents are squeezed into [-3, 3] before they are decoded.
_LIMIT = 3.0


class _Block(nn.Module):
  """Three convolutions and an identity."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    y = nn.relu(conv3x3(x, width, dtype=self.dtype, name="conv_0"))
    y = nn.relu(conv3x3(y, width, dtype=self.dtype, name="conv_1"))
    return nn.relu(conv3x3(y, width, dtype=self.dtype, name="conv_2") + x)


def _block(remat: bool) -> Callable[..., nn.Module]:
  return nn.remat(_Block) if remat else _Block


class TinyEncoder(nn.Module):
  """Images in [0, 1] to latents; each stage but the first halves the size."""

  width: int
  blocks: tuple[int, ...]
  latent_channels: int
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = x.astype(self.dtype)
    for stage, blocks in enumerate(self.blocks):
      x = conv3x3(
        x,
        self.width,
        strides=2 if stage else 1,
        use_bias=not stage,
        dtype=self.dtype,
        name=f"stage_{stage}_conv",
      )
      for i in range(blocks):
        x = _block(self.remat)(self.dtype, name=f"stage_{stage}_block_{i}")(x)
    x = conv3x3(x, self.latent_channels, dtype=self.dtype, name="conv_out")
    return at_least_float32(x)


class TinyDecoder(nn.Module):
  """Latents to images, about [0, 1]; stages but the last double the size."""

  width: int
  blocks: tuple[int, ...]
  channels: int
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Array) -> Array:
    x = (jnp.tanh(at_least_float32(z) / _LIMIT) * _LIMIT).astype(self.dtype)
    x = nn.relu(conv3x3(x, self.width, dtype=self.dtype, name="conv_in"))
    for stage, blocks in enumerate(self.blocks):
      for i in range(blocks):
        x = _block(self.remat)(self.dtype, name=f"stage_{stage}_block_{i}")(x)
      if stage + 1 < len(self.blocks):
        x = resampling.upsampled_conv3x3(
          x,
          self.width,
          use_bias=False,
          dtype=self.dtype,
          name=f"stage_{stage}_conv",
        )
    x = conv3x3(x, self.channels, dtype=self.dtype, name="conv_out")
    return at_least_float32(x)


class TinyAutoencoder(nn.Module):
  """Encoder and decoder; see `taesd`."""

  encoder: nn.Module
  decoder: nn.Module

  def encode(self, x: Array) -> Array:
    return self.encoder(x)

  def decode(self, z: Array) -> Array:
    """Returns the image, which may leave [0, 1]."""
    return self.decoder(z)

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))


def _as_generator(
  module: TinyAutoencoder,
  *,
  input_shape: tuple[int, int, int],
  latent_shape: tuple[int, int, int],
  factor: int,
  noise_scale: float,
) -> Generator:
  """Wraps the module into four pure functions; the model state is empty."""

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    layers.check_batch("x", x, input_shape)
    padded = resampling.pad_to_multiple(x, factor)
    return module.init(rng, padded)["params"], {}

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    del model_state
    layers.check_batch("x", x, input_shape)
    padded = resampling.pad_to_multiple(x, factor)
    z: Any = module.apply({"params": params}, padded, method="encode")
    return z

  def paint(params: Params, z: Array) -> Array:
    layers.check_batch("z", z, latent_shape)
    x: Any = module.apply({"params": params}, z, method="decode")
    return resampling.crop_from_multiple(x, input_shape[:2], factor)

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
    del rng
    painted = paint(params, encode(params, model_state, x))
    reconstruction = gaussian_nll(painted, x, scale=noise_scale)
    terms = {"reconstruction": reconstruction}
    return reconstruction, terms, model_state

  return Generator(init=init, encode=encode, decode=decode, loss=loss)


def taesd(
  *,
  input_shape: Sequence[int],
  latent_channels: int = 4,
  width: int = 64,
  encoder_blocks: Sequence[int] = (1, 3, 3, 3),
  decoder_blocks: Sequence[int] = (3, 3, 3, 1),
  noise_scale: float = 0.1,
  remat: bool = False,
  dtype: str = "float32",
) -> Generator:
  """Builds the tiny auto-encoder; the defaults are those of its weights.

  Args:
    input_shape: (H, W, C), C = 3 for the published weights; sizes that are no
      multiple of `2 ** (number of stages - 1)` are padded inside and cropped
      back.
    latent_channels: channels of the latent.
    width: channels of every hidden layer.
    encoder_blocks: residual blocks of each stage.
    decoder_blocks: the same for the decoder; as many stages.
    noise_scale: standard deviation of the pixels in the training objective.
    remat: whether a gradient computes the inside of each block anew instead
      of keeping it.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, latents and
      images are float32.

  Returns:
    A `Generator` with latents [B, h, w, latent_channels] and an empty model
    state. Decoded images are clipped to [0, 1]. Its loss is the negative
    log-likelihood of the pixels around the reconstruction, in nats.

  Raises:
    ValueError: an argument out of its range.
  """
  shape = layers.check_image_shape(input_shape)
  encoder_blocks, decoder_blocks = tuple(encoder_blocks), tuple(decoder_blocks)
  checks.positive(
    latent_channels=latent_channels,
    width=width,
    noise_scale=noise_scale,
    number_of_stages=len(encoder_blocks),
  )
  checks.non_negative(
    **{f"encoder_blocks[{i}]": n for i, n in enumerate(encoder_blocks)},
    **{f"decoder_blocks[{i}]": n for i, n in enumerate(decoder_blocks)},
  )
  if len(encoder_blocks) != len(decoder_blocks):
    raise ValueError(
      "encoder_blocks and decoder_blocks: expected as many stages, got"
      f" {len(encoder_blocks)} and {len(decoder_blocks)}"
    )
  compute, halvings = compute_dtype(dtype), len(encoder_blocks) - 1
  module = TinyAutoencoder(
    TinyEncoder(width, encoder_blocks, latent_channels, remat, compute),
    TinyDecoder(width, decoder_blocks, shape[2], remat, compute),
  )
  return _as_generator(
    module,
    input_shape=shape,
    latent_shape=(*layers.grid_shape(shape, halvings), latent_channels),
    factor=2**halvings,
    noise_scale=noise_scale,
  )
