# SPDX-License-Identifier: Apache-2.0
"""Variational auto-encoders.

References:
  Kingma and Welling, 2014, "Auto-Encoding Variational Bayes"
  (https://arxiv.org/abs/1312.6114).
  Higgins et al., 2017, "beta-VAE" (https://openreview.net/forum?id=Sy2fzU9gl).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.generators import layers, likelihood as likelihoods
from tgt_jax.models.layers import at_least_float32, compute_dtype
from tgt_jax.types import Array, Generator, ModelState, Params

# Keeps log(scale) finite where a dimension of the posterior collapses.
_MIN_SCALE = 1e-6


class VAE(nn.Module):
  """An encoder, a Gaussian posterior and a decoder."""

  encoder: nn.Module
  decoder: nn.Module
  latent_dim: int

  def setup(self) -> None:
    self.posterior = nn.Dense(2 * self.latent_dim)

  def infer(self, x: Array) -> tuple[Array, Array]:
    """Returns mean and scale of the posterior, each [B, d]."""
    hidden = at_least_float32(self.encoder(x))
    moments = self.posterior(hidden.reshape(hidden.shape[0], -1))
    mean, raw_scale = jnp.split(moments, 2, axis=-1)
    return mean, jax.nn.softplus(raw_scale) + _MIN_SCALE

  def decode(self, z: Array) -> Array:
    """Returns the logits of the image."""
    return self.decoder(z)

  def __call__(self, x: Array) -> Array:
    return self.decode(self.infer(x)[0])


def _as_generator(
  module: VAE,
  *,
  input_shape: tuple[int, int, int],
  beta: float,
  likelihood: str,
  noise_scale: float,
) -> Generator:
  """Wraps the module into four pure functions; the model state is empty."""

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    layers.check_batch("x", x, input_shape)
    return module.init(rng, x)["params"], {}

  def infer(params: Params, x: Array) -> tuple[Array, Array]:
    layers.check_batch("x", x, input_shape)
    moments: Any = module.apply({"params": params}, x, method="infer")
    return moments

  def logits_of(params: Params, z: Array) -> Array:
    layers.check_batch("z", z, (module.latent_dim,))
    logits: Any = module.apply({"params": params}, z, method="decode")
    return logits

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
    return jax.nn.sigmoid(logits_of(params, z))

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> tuple[Array, Mapping[str, Array], ModelState]:
    mean, scale = infer(params, x)
    z = mean + scale * jax.random.normal(rng, mean.shape, mean.dtype)
    reconstruction = likelihoods.reconstruction_nll(
      logits_of(params, z), x, likelihood=likelihood, noise_scale=noise_scale
    )
    kl = likelihoods.gaussian_kl(mean, scale)
    terms = {"reconstruction": reconstruction, "kl": kl}
    return reconstruction + beta * kl, terms, model_state

  return Generator(init=init, encode=encode, decode=decode, loss=loss)


def _check(
  latent_dim: int,
  beta: float,
  likelihood: str,
  noise_scale: float,
  widths: tuple[int, ...],
) -> None:
  checks.positive(latent_dim=latent_dim, noise_scale=noise_scale)
  checks.non_negative(beta=beta)
  checks.one_of(likelihoods.LIKELIHOODS, likelihood=likelihood)
  checks.positive(**{f"widths[{i}]": w for i, w in enumerate(widths)})


def vae(
  *,
  input_shape: Sequence[int],
  latent_dim: int = 32,
  widths: Sequence[int] = (512, 256),
  beta: float = 1.0,
  likelihood: str = "bernoulli",
  noise_scale: float = 0.1,
  dtype: str = "float32",
) -> Generator:
  """Builds a dense variational auto-encoder.

  Args:
    input_shape: (H, W, C).
    latent_dim: dimension d of the latent vector.
    widths: hidden layers of the encoder; the decoder mirrors them.
    beta: weight of the KL term, >= 0; 1 is the evidence lower bound.
    likelihood: of the pixels, "bernoulli" or "gaussian".
    noise_scale: standard deviation of the Gaussian likelihood.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, latents and
      images are float32.

  Returns:
    A `Generator` with latents [B, d] (the posterior mean) and an empty model
    state. Its loss is `reconstruction + beta * kl` in nats per example, with
    one draw of the latent.

  Raises:
    ValueError: an argument out of its range.
  """
  shape, widths = layers.check_image_shape(input_shape), tuple(widths)
  _check(latent_dim, beta, likelihood, noise_scale, widths)
  compute = compute_dtype(dtype)
  module = VAE(
    encoder=layers.DenseEncoder(widths, compute),
    decoder=layers.DenseDecoder(shape, widths, compute),
    latent_dim=latent_dim,
  )
  return _as_generator(
    module,
    input_shape=shape,
    beta=beta,
    likelihood=likelihood,
    noise_scale=noise_scale,
  )


def conv_vae(
  *,
  input_shape: Sequence[int],
  latent_dim: int = 32,
  widths: Sequence[int] = (32, 64),
  beta: float = 1.0,
  likelihood: str = "bernoulli",
  noise_scale: float = 0.1,
  dtype: str = "float32",
) -> Generator:
  """Builds a convolutional variational auto-encoder.

  Args:
    input_shape: (H, W, C); sizes that are no multiple of `2 ** len(widths)`
      are padded inside and cropped back.
    latent_dim: dimension d of the latent vector.
    widths: channels of each stage, which halves the resolution; at least one.
      The decoder mirrors them.
    beta: weight of the KL term, >= 0; 1 is the evidence lower bound.
    likelihood: of the pixels, "bernoulli" or "gaussian".
    noise_scale: standard deviation of the Gaussian likelihood.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, latents and
      images are float32.

  Returns:
    A `Generator` as `vae` describes it.

  Raises:
    ValueError: an argument out of its range.
  """
  shape, widths = layers.check_image_shape(input_shape), tuple(widths)
  checks.positive(number_of_widths=len(widths))
  _check(latent_dim, beta, likelihood, noise_scale, widths)
  compute = compute_dtype(dtype)
  module = VAE(
    encoder=layers.ConvEncoder(shape, widths, compute),
    decoder=layers.ConvDecoder(shape, widths, compute),
    latent_dim=latent_dim,
  )
  return _as_generator(
    module,
    input_shape=shape,
    beta=beta,
    likelihood=likelihood,
    noise_scale=noise_scale,
  )
