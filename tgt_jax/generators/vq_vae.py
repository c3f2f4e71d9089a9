# SPDX-License-Identifier: Apache-2.0
"""Vector-quantised auto-encoders.

The codebook is model state, not a parameter: what is frozen after training is
`(params, model_state)`. Latents are the vectors before quantisation, and
`decode` quantises, so that noise on a latent may move it to another code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.generators import layers, likelihood as likelihoods, quantization
from tgt_jax.models.layers import at_least_float32, compute_dtype
from tgt_jax.types import Array, Generator, ModelState, Params


class _Options(NamedTuple):
  """What the loss of `vq_vae` and `conv_vq_vae` takes; see there."""

  num_codes: int
  commitment: float
  decay: float
  epsilon: float
  restart_below: float
  likelihood: str
  noise_scale: float


class VQVAE(nn.Module):
  """An encoder onto a grid of vectors, and a decoder from it."""

  encoder: nn.Module
  decoder: nn.Module
  latent_shape: tuple[int, ...]  # (N, D) or (h, w, D).

  def setup(self) -> None:
    # A dense encoder has all its vectors to make from one, a grid has one.
    self.flat = len(self.latent_shape) == 2
    size = self.latent_shape[-1]
    if self.flat:
      size *= self.latent_shape[0]
    self.project = nn.Dense(size)

  def encode(self, x: Array) -> Array:
    """Returns the vectors before quantisation, [B, *latent_shape]."""
    z = self.project(at_least_float32(self.encoder(x)))
    return z.reshape(-1, *self.latent_shape)

  def decode(self, z: Array) -> Array:
    """Returns the logits of the image of quantised vectors."""
    return self.decoder(z)

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))


def _codebook(model_state: ModelState) -> quantization.Codebook:
  return quantization.Codebook(**model_state["codebook"])


def _learned(
  codebook: quantization.Codebook,
  z: Array,
  indices: Array,
  options: _Options,
  rng: Array,
) -> quantization.Codebook:
  """The codebook after a batch: moving averages, dead codes by option."""
  codebook = quantization.update_codebook(
    codebook, z, indices, decay=options.decay, epsilon=options.epsilon
  )
  if not options.restart_below:
    return codebook
  return quantization.restart_dead_codes(
    codebook, z, rng=rng, threshold=options.restart_below
  )


def _as_generator(
  module: VQVAE, input_shape: tuple[int, int, int], options: _Options
) -> Generator:
  """Wraps module and codebook into four pure functions."""

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    layers.check_batch("x", x, input_shape)
    # The codes do not depend on x, so that every process of many draws the
    # same; `restart_below` brings them to the data.
    codebook = quantization.init_codebook(
      jax.random.fold_in(rng, 1), options.num_codes, module.latent_shape[-1]
    )
    params = module.init(jax.random.fold_in(rng, 0), x)["params"]
    return params, {"codebook": codebook._asdict()}

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    del model_state
    layers.check_batch("x", x, input_shape)
    z: Any = module.apply({"params": params}, x, method="encode")
    return z

  def logits_of(params: Params, model_state: ModelState, z: Array) -> Array:
    layers.check_batch("z", z, module.latent_shape)
    quantized = quantization.quantize(_codebook(model_state).vectors, z)
    logits: Any = module.apply({"params": params}, quantized, method="decode")
    return logits

  decode = lambda params, model_state, z, x=None: jax.nn.sigmoid(
    logits_of(params, model_state, z)
  )

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> tuple[Array, Mapping[str, Array], ModelState]:
    codebook = _codebook(model_state)
    z = encode(params, model_state, x)
    indices = quantization.nearest_code(codebook.vectors, z)
    reconstruction = likelihoods.reconstruction_nll(
      logits_of(params, model_state, z),
      x,
      likelihood=options.likelihood,
      noise_scale=options.noise_scale,
    )
    codes = jax.lax.stop_gradient(codebook.vectors[indices])
    commitment = likelihoods.sum_per_example((z - codes) ** 2)
    usage = quantization.code_counts(indices, options.num_codes)
    terms = {
      "reconstruction": reconstruction,
      "commitment": commitment,
      # Of the batch; one value per example so that it averages as the rest.
      "perplexity": jnp.full_like(
        reconstruction, quantization.perplexity(usage)
      ),
    }
    codebook = _learned(codebook, z, indices, options, rng)
    value = reconstruction + options.commitment * commitment
    return value, terms, {**model_state, "codebook": codebook._asdict()}

  return Generator(init=init, encode=encode, decode=decode, loss=loss)


def _check(
  options: _Options, widths: tuple[int, ...], sizes: Mapping[str, int]
) -> None:
  checks.positive(
    num_codes=options.num_codes,
    epsilon=options.epsilon,
    noise_scale=options.noise_scale,
    **sizes,
  )
  checks.positive(**{f"widths[{i}]": w for i, w in enumerate(widths)})
  checks.non_negative(commitment=options.commitment)
  checks.in_range(
    0.0, 1.0, decay=options.decay, restart_below=options.restart_below
  )
  checks.one_of(likelihoods.LIKELIHOODS, likelihood=options.likelihood)


def vq_vae(
  *,
  input_shape: Sequence[int],
  num_latents: int = 16,
  code_dim: int = 8,
  num_codes: int = 128,
  widths: Sequence[int] = (512, 256),
  commitment: float = 0.25,
  decay: float = 0.99,
  epsilon: float = 1e-5,
  restart_below: float = 0.1,
  likelihood: str = "bernoulli",
  noise_scale: float = 0.1,
  dtype: str = "float32",
) -> Generator:
  """Builds a dense vector-quantised auto-encoder.

  Args:
    input_shape: (H, W, C).
    num_latents: number of vectors N per image.
    code_dim: dimension D of a vector.
    num_codes: number of codes K.
    widths: hidden layers of the encoder; the decoder mirrors them.
    commitment: weight of the squared distance between the vectors and their
      codes, summed over N and D; >= 0.
    decay: of the codebook's moving averages, in [0, 1].
    epsilon: Laplace smoothing of the codes' counts.
    restart_below: a code whose moving count falls below it takes a vector of
      the batch; in [0, 1], 0 for never.
    likelihood: of the pixels, "bernoulli" or "gaussian".
    noise_scale: standard deviation of the Gaussian likelihood.
    dtype: compute dtype, "float32" or "bfloat16"; parameters, latents, codes
      and images are float32.

  Returns:
    A `Generator` with latents [B, N, D]; its model state is
    `{"codebook": {"vectors", "counts", "sums"}}`. Its loss is
    `reconstruction + commitment * distance`, the reconstruction in nats per
    example; the term "perplexity" is that of the batch's codes.

  Raises:
    ValueError: an argument out of its range.
  """
  shape, widths = layers.check_image_shape(input_shape), tuple(widths)
  options = _Options(
    num_codes,
    commitment,
    decay,
    epsilon,
    restart_below,
    likelihood,
    noise_scale,
  )
  _check(options, widths, {"num_latents": num_latents, "code_dim": code_dim})
  compute = compute_dtype(dtype)
  module = VQVAE(
    encoder=layers.DenseEncoder(widths, compute),
    decoder=layers.DenseDecoder(shape, widths, compute),
    latent_shape=(num_latents, code_dim),
  )
  return _as_generator(module, shape, options)


def conv_vq_vae(
  *,
  input_shape: Sequence[int],
  code_dim: int = 16,
  num_codes: int = 128,
  widths: Sequence[int] = (32, 64),
  commitment: float = 0.25,
  decay: float = 0.99,
  epsilon: float = 1e-5,
  restart_below: float = 0.1,
  likelihood: str = "bernoulli",
  noise_scale: float = 0.1,
  dtype: str = "float32",
) -> Generator:
  """Builds a convolutional vector-quantised auto-encoder.

  Args:
    input_shape: (H, W, C); sizes that are no multiple of `2 ** len(widths)`
      are padded inside and cropped back.
    code_dim: dimension D of a vector.
    num_codes: number of codes K.
    widths: channels of each stage, which halves the resolution; at least one.
      The decoder mirrors them.
    commitment: as in `vq_vae`.
    decay: as in `vq_vae`.
    epsilon: as in `vq_vae`.
    restart_below: as in `vq_vae`.
    likelihood: as in `vq_vae`.
    noise_scale: as in `vq_vae`.
    dtype: as in `vq_vae`.

  Returns:
    A `Generator` as `vq_vae` describes it, with latents [B, h, w, D] on a
    grid of `ceil(H / 2 ** len(widths))` by `ceil(W / 2 ** len(widths))`.

  Raises:
    ValueError: an argument out of its range.
  """
  shape, widths = layers.check_image_shape(input_shape), tuple(widths)
  options = _Options(
    num_codes,
    commitment,
    decay,
    epsilon,
    restart_below,
    likelihood,
    noise_scale,
  )
  _check(
    options, widths, {"number_of_widths": len(widths), "code_dim": code_dim}
  )
  compute = compute_dtype(dtype)
  module = VQVAE(
    encoder=layers.ConvEncoder(shape, widths, compute),
    decoder=layers.ConvDecoder(shape, widths, compute),
    latent_shape=(*layers.grid_shape(shape, len(widths)), code_dim),
  )
  return _as_generator(module, shape, options)
