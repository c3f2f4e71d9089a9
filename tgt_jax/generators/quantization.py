# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation with a codebook of moving averages.

Vectors are [..., D] with any leading axes. The codebook learns without
gradients: each code is the moving average of the vectors it was nearest to.

References:
  van den Oord, Vinyals and Kavukcuoglu, 2017, "Neural Discrete Representation
  Learning", appendix A.1 (https://arxiv.org/abs/1711.00937).
  Razavi, van den Oord and Vinyals, 2019, "Generating Diverse High-Fidelity
  Images with VQ-VAE-2" (https://arxiv.org/abs/1906.00446).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.types import Array

# A rounded product would pick another code where two are nearly as near.
_EXACT = jax.lax.Precision.HIGHEST


class Codebook(NamedTuple):
  """K codes and the moving averages they come from.

  Attributes:
    vectors: the codes, shape [K, D].
    counts: moving average of how many vectors chose each code, shape [K].
    sums: moving average of the sum of those vectors, shape [K, D].
  """

  vectors: Array
  counts: Array
  sums: Array


def init_codebook(rng: Array, num_codes: int, code_dim: int) -> Codebook:
  """Returns standard normal codes, each with the weight of one vector."""
  checks.positive(num_codes=num_codes, code_dim=code_dim)

  vectors = jax.random.normal(rng, (num_codes, code_dim), jnp.float32)
  return Codebook(vectors, jnp.ones((num_codes,), jnp.float32), vectors)


def nearest_code(vectors: Array, z: Array) -> Array:
  """Returns the index of the code nearest to each vector of `z`.

  Args:
    vectors: codes, shape [K, D].
    z: shape [..., D].

  Returns:
    Integers of shape [...]; the lowest index where distances tie.

  Raises:
    ValueError: the last axes differ.
  """
  checks.rank(2, vectors=vectors)
  checks.floating(vectors=vectors, z=z)
  if z.ndim < 1 or z.shape[-1] != vectors.shape[-1]:
    raise ValueError(
      f"z: expected last axis {vectors.shape[-1]} as the codes"
      f" {vectors.shape}, got shape {z.shape}"
    )

  # |z - e|^2 without |z|^2, which is the same for every code.
  products = jnp.matmul(z, vectors.T, precision=_EXACT)
  norms = jnp.sum(vectors**2, axis=-1)
  norms = norms.reshape((1,) * (z.ndim - 1) + (-1,))
  return jnp.argmin(norms - 2.0 * products, axis=-1)


def quantize(vectors: Array, z: Array) -> Array:
  """Returns the nearest codes of `z`; the gradient passes straight through.

  Args:
    vectors: codes, shape [K, D]; no gradient reaches them.
    z: shape [..., D]; its gradient is that of the result.
  """
  vectors = jax.lax.stop_gradient(vectors)
  codes = vectors[nearest_code(vectors, jax.lax.stop_gradient(z))]
  return z + jax.lax.stop_gradient(codes - z)


def update_codebook(
  codebook: Codebook,
  z: Array,
  indices: Array,
  *,
  decay: float,
  epsilon: float = 1e-5,
) -> Codebook:
  """Returns the codebook moved towards the vectors that chose each code.

  Written as sums over all vectors: under `jit` over a sharded batch they are
  the sums of the global batch.

  Args:
    codebook: before the update.
    z: vectors before quantisation, shape [..., D]; no gradient reaches them.
    indices: the code of each vector, shape [...].
    decay: of the moving averages, in [0, 1].
    epsilon: Laplace smoothing of the counts, > 0: a code that nothing chooses
      is pulled towards zero instead of divided by it.

  Raises:
    ValueError: a value out of range, or shapes that do not fit.
  """
  checks.in_range(0.0, 1.0, decay=decay)
  checks.positive(epsilon=epsilon)
  checks.integer(indices=indices)
  if z.shape[:-1] != indices.shape:
    raise ValueError(
      "indices: expected one per vector of z, shape"
      f" {z.shape[:-1]}, got {indices.shape}"
    )

  num_codes, code_dim = codebook.vectors.shape
  flat = jax.lax.stop_gradient(z).reshape(-1, code_dim)
  chosen = jax.nn.one_hot(indices.reshape(-1), num_codes, dtype=flat.dtype)
  batch_sums = jnp.matmul(chosen.T, flat, precision=_EXACT)
  counts = decay * codebook.counts + (1.0 - decay) * chosen.sum(axis=0)
  sums = decay * codebook.sums + (1.0 - decay) * batch_sums
  total = counts.sum()
  smoothed = (counts + epsilon) / (total + num_codes * epsilon) * total
  return Codebook(sums / smoothed[:, None], counts, sums)


def restart_dead_codes(
  codebook: Codebook, z: Array, *, rng: Array, threshold: float
) -> Codebook:
  """Returns the codebook with unused codes moved onto vectors of `z`.

  Args:
    codebook: after its update.
    z: vectors of the present batch, shape [..., D].
    rng: draws which vector each restarted code takes, with replacement.
    threshold: a code whose moving count is below it is restarted with weight
      one, so at most 1; 0 restarts none.

  Raises:
    ValueError: `threshold` outside [0, 1].
  """
  checks.in_range(0.0, 1.0, threshold=threshold)

  num_codes, code_dim = codebook.vectors.shape
  flat = jax.lax.stop_gradient(z).reshape(-1, code_dim)
  picks = jax.random.randint(rng, (num_codes,), 0, flat.shape[0])
  dead = codebook.counts < threshold
  vectors = jnp.where(dead[:, None], flat[picks], codebook.vectors)
  counts = jnp.where(dead, 1.0, codebook.counts)
  sums = jnp.where(dead[:, None], vectors, codebook.sums)
  return Codebook(vectors, counts, sums)


def code_counts(indices: Array, num_codes: int) -> Array:
  """Returns how often each code occurs in `indices`, float32 [K]."""
  checks.integer(indices=indices)
  checks.positive(num_codes=num_codes)

  chosen = jax.nn.one_hot(indices.reshape(-1), num_codes, dtype=jnp.float32)
  return chosen.sum(axis=0)


def perplexity(counts: Array) -> Array:
  """Returns exp(entropy) of the usage of codes, from 1 to K.

  Args:
    counts: non-negative, shape [K]; all zero gives 1.

  Returns:
    A scalar: the number of codes that equal use would need.
  """
  checks.rank(1, counts=counts)
  checks.floating(counts=counts)

  usage = counts / jnp.maximum(counts.sum(), jnp.finfo(counts.dtype).tiny)
  logs = jnp.log(jnp.where(usage > 0, usage, 1.0))
  return jnp.exp(-jnp.sum(usage * logs))
