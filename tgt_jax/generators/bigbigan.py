# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN's generator: BigGAN at 128 pixels with one learned class.

Latents are z ~ N(0, I) of 120 dimensions. The first sixth makes the lowest
resolution, each other sixth conditions the normalisation of one block. The
published weights are divided by their spectral norms once, when they are
converted, so that nothing here knows of these.

References:
  Donahue and Simonyan, 2019, "Large Scale Adversarial Representation
  Learning" (https://arxiv.org/abs/1907.02544).
  Brock, Donahue and Simonyan, 2019, "Large Scale GAN Training for High
  Fidelity Natural Image Synthesis" (https://arxiv.org/abs/1809.11096).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.generators import layers, resampling
from tgt_jax.generators.bigbigan_encoder import bigbigan_encoder
from tgt_jax.models.layers import (
  at_least_float32,
  compute_dtype,
  conv3x3,
  dense,
  max_pool,
)
from tgt_jax.types import Array, Generator, ModelState, Params

# Channels of the first grid and behind each block, in units of `ch`.
_FIRST_WIDTH = 16
_WIDTHS = (16, 8, 4, 2, 1)
_FIRST_SIDE = 4
_CHUNKS = 1 + len(_WIDTHS)
_CLASS_DIM = 128
# The block behind which places attend to each other, at 64 x 64.
_ATTENTION = 3
NATIVE_SIZE = _FIRST_SIDE * 2 ** len(_WIDTHS)


class _Norm(nn.Module):
  """Batch norm with stored statistics, its gain and offset given or learned.

  Called with a condition [B, D], the gain is one plus a linear map of it.
  """

  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, condition: Array | None = None) -> Array:
    size = x.shape[-1:]
    mean = self.variable("batch_stats", "mean", jnp.zeros, size)
    var = self.variable("batch_stats", "var", jnp.ones, size)
    if condition is None:
      gain = self.param("scale", nn.initializers.ones, size)[None]
      offset = self.param("bias", nn.initializers.zeros, size)[None]
    else:
      affine = lambda name: nn.Dense(
        size[0], use_bias=False, dtype=condition.dtype, name=name
      )(condition)
      gain, offset = 1.0 + affine("gain"), affine("offset")
    gain = gain * jax.lax.rsqrt(var.value + self.epsilon)[None]
    offset = offset - gain * mean.value[None]
    y = at_least_float32(x) * gain[:, None, None] + offset[:, None, None]
    return y.astype(self.dtype)


class _Block(nn.Module):
  """Doubles the size; every normalisation sees the condition."""

  features: int
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, condition: Array) -> Array:
    y = _Norm(self.epsilon, self.dtype, name="norm_0")(x, condition)
    y = resampling.upsampled_conv3x3(
      nn.relu(y), self.features, dtype=self.dtype, name="conv_0"
    )
    y = _Norm(self.epsilon, self.dtype, name="norm_1")(y, condition)
    y = conv3x3(nn.relu(y), self.features, dtype=self.dtype, name="conv_1")
    # A 1x1 convolution may as well come before its input is doubled.
    x = dense(x, self.features, dtype=self.dtype, name="shortcut")
    return y + resampling.upsample_nearest(x)


class _Attention(nn.Module):
  """Each place attends to the maxima of 2x2 others."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    batch, _, _, features = x.shape
    project = lambda x, size, name: nn.Dense(
      size, use_bias=False, dtype=self.dtype, name=name
    )(x)
    flat = lambda x: x.reshape(batch, -1, x.shape[-1])
    query = flat(project(x, features // 8, "query"))
    key = flat(max_pool(project(x, features // 8, "key")))
    value = flat(max_pool(project(x, features // 2, "value")))
    scores = jnp.einsum("bqd,bkd->bqk", query, key)
    weights = jax.nn.softmax(at_least_float32(scores)).astype(self.dtype)
    y = project(jnp.einsum("bqk,bkd->bqd", weights, value), features, "out")
    gamma = self.param("gamma", nn.initializers.zeros, ())
    return x + gamma.astype(self.dtype) * y.reshape(x.shape)


class BigBiGANGenerator(nn.Module):
  """Latents [B, d] to images [B, 128, 128, channels] in [-1, 1]."""

  ch: int
  channels: int
  bn_eps: float
  output_bn_eps: float
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Array) -> Array:
    block = nn.remat(_Block) if self.remat else _Block
    attention = nn.remat(_Attention) if self.remat else _Attention
    z = at_least_float32(z)
    label = self.param(
      "class_vector", nn.initializers.normal(1.0), (_CLASS_DIM,)
    )
    label = jnp.broadcast_to(label, (z.shape[0], _CLASS_DIM)).astype(z.dtype)
    first, *chunks = jnp.split(z, _CHUNKS, axis=-1)
    width = _FIRST_WIDTH * self.ch
    size = (_FIRST_SIDE, _FIRST_SIDE, width)
    x = dense(
      first.astype(self.dtype),
      _FIRST_SIDE**2 * width,
      dtype=self.dtype,
      name="linear",
    ).reshape(-1, *size)
    for i, (width, chunk) in enumerate(zip(_WIDTHS, chunks, strict=True)):
      condition = jnp.concatenate([chunk, label], axis=-1)
      made = block(width * self.ch, self.bn_eps, self.dtype, name=f"block_{i}")
      x = made(x, condition)
      if i == _ATTENTION:
        x = attention(self.dtype, name="attention")(x)
    x = nn.relu(_Norm(self.output_bn_eps, self.dtype, name="norm")(x))
    x = conv3x3(x, self.channels, dtype=self.dtype, name="conv")
    return jnp.tanh(at_least_float32(x))


class BigBiGAN(nn.Module):
  """Generator and, where there is one, encoder; see `bigbigan`."""

  generator: nn.Module
  encoder: nn.Module | None

  def infer(self, x: Array) -> tuple[Array, Array]:
    """Returns mean and deviation of the latents of images in [0, 1]."""
    if self.encoder is None:
      raise ValueError(
        "this BigBiGAN has no encoder: expected latents, got images. Build it"
        " with with_encoder=True and weights that have one, or encode before"
      )
    return self.encoder(2.0 * x - 1.0)

  def decode(self, z: Array) -> Array:
    """Returns images in [0, 1] at 128 pixels."""
    return 0.5 * self.generator(z) + 0.5

  def everything(self, x: Array, z: Array) -> Array:
    """Touches every parameter, for `init`."""
    if self.encoder is not None:
      self.infer(x)
    return self.decode(z)


def _as_generator(
  module: BigBiGAN,
  *,
  input_shape: tuple[int, int, int],
  latent_dim: int,
  encoder_size: int,
  resize: bool,
) -> Generator:
  """Wraps the module into four pure functions."""

  def shown(x: Array) -> Array:
    layers.check_batch("x", x, input_shape)
    return resampling.resize(x, (encoder_size, encoder_size))

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    z = jnp.zeros((1, latent_dim), x.dtype)
    variables = dict(module.init(rng, shown(x), z, method="everything"))
    return variables.pop("params"), variables

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    variables = {"params": params, **model_state}
    moments: Any = module.apply(variables, shown(x), method="infer")
    return moments[0]

  def decode(
    params: Params,
    model_state: ModelState,
    z: Array,
    x: Array | None = None,
  ) -> Array:
    del x
    layers.check_batch("z", z, (latent_dim,))
    variables = {"params": params, **model_state}
    made: Any = module.apply(variables, z, method="decode")
    if not resize:
      return made
    # A weighted mean may leave the range by a rounding error.
    return jnp.clip(resampling.resize(made, input_shape[:2]), 0.0, 1.0)

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> NoReturn:
    del params, model_state, x, rng
    raise ValueError(
      "BigBiGAN is used as it was trained: its adversarial training is not"
      " part of this package. Convert its published weights and name their"
      " file in the config, or choose another generator"
    )

  return Generator(init=init, encode=encode, decode=decode, loss=loss)


def bigbigan(
  *,
  input_shape: Sequence[int],
  ch: int = 96,
  latent_dim: int = 120,
  bn_eps: float = 1e-4,
  output_bn_eps: float = 1e-4,
  resize: bool = True,
  with_encoder: bool = True,
  encoder_size: int = 256,
  encoder_blocks: Sequence[int] = (3, 4, 6, 3),
  encoder_bn_eps: float = 1e-4,
  encoder_padding: str = "SAME",
  encoder_stride_on: str = "conv3x3",
  head_width: int = 4096,
  head_blocks: int = 2,
  remat: bool = False,
  dtype: str = "float32",
) -> Generator:
  """Builds BigBiGAN; the defaults are those of its published weights.

  What is not known of the published encoder is said in `bigbigan_encoder`.

  Args:
    input_shape: (H, W, C), C = 3 for the published weights.
    ch: channels of the last block, 4 or more; 96 for the published weights.
    latent_dim: dimension of the latent, a multiple of 6.
    bn_eps: added to the variances of the blocks' normalisation.
    output_bn_eps: of the last normalisation: 1e-4 in DeepMind's module; the
      PyTorch port of the generator (`BigBiGAN_x1.pth`) runs with 1e-5.
    resize: whether decoded images are brought to `input_shape` by antialiased
      bilinear interpolation; without, they have 128 pixels a side.
    with_encoder: False for weights of the generator alone: `encode` raises.
    encoder_size: side of the images that the encoder sees; others are resized
      in the same way.
    encoder_blocks: bottlenecks of the encoder's four stages.
    encoder_bn_eps: added to the variances of the encoder's normalisation.
    encoder_padding: "SAME" (TensorFlow's) or "torch".
    encoder_stride_on: the convolution of a bottleneck with the stride.
    head_width: units of each layer of the encoder's head.
    head_blocks: pairs of such layers.
    remat: whether a gradient computes the inside of each block anew instead
      of keeping it.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, statistics,
      latents and images are float32.

  Returns:
    A `Generator` with latents [B, latent_dim], the posterior mean; its model
    state holds the statistics of the normalisations. Its `loss` raises.

  Raises:
    ValueError: an argument out of its range.
  """
  shape = layers.check_image_shape(input_shape)
  checks.positive(
    latent_dim=latent_dim,
    bn_eps=bn_eps,
    output_bn_eps=output_bn_eps,
    encoder_size=encoder_size,
  )
  if ch < 4:
    raise ValueError(f"ch must be >= 4, got {ch}")
  if latent_dim % _CHUNKS:
    raise ValueError(f"latent_dim must be a multiple of 6, got {latent_dim}")
  compute = compute_dtype(dtype)
  generator = BigBiGANGenerator(
    ch, shape[2], bn_eps, output_bn_eps, remat, compute
  )
  encoder = bigbigan_encoder(
    latent_dim=latent_dim,
    blocks=encoder_blocks,
    bn_eps=encoder_bn_eps,
    padding=encoder_padding,
    stride_on=encoder_stride_on,
    head_width=head_width,
    head_blocks=head_blocks,
    remat=remat,
    dtype=compute,
  )
  return _as_generator(
    BigBiGAN(generator, encoder if with_encoder else None),
    input_shape=shape,
    latent_dim=latent_dim,
    encoder_size=encoder_size,
    resize=resize,
  )
