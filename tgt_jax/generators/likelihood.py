# SPDX-License-Identifier: Apache-2.0
"""The terms of an evidence lower bound, in nats per example.

Every function takes any shape [B, ...], sums over all axes but the first and
returns [B], computed in at least float32.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.types import Array

LIKELIHOODS = ("bernoulli", "gaussian")


def _widen(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sum_per_example(x: Array) -> Array:
  """Returns the sum over all axes but the first, in at least float32."""
  return _widen(x).reshape(x.shape[0], -1).sum(axis=1)


def bernoulli_nll(logits: Array, x: Array) -> Array:
  """Returns `-sum log p(x)` of pixels in [0, 1] under Bernoulli logits.

  For `x` strictly inside (0, 1) this is the usual cross-entropy, not a
  normalised density.

  Args:
    logits: of p(x = 1), shape [B, ...].
    x: in [0, 1], the shape of `logits`.

  Raises:
    ValueError: shapes differ.
  """
  checks.same_shape(logits=logits, x=x)
  checks.floating(logits=logits, x=x)

  logits, x = _widen(logits), _widen(x)
  return sum_per_example(jax.nn.softplus(logits) - x * logits)


def gaussian_nll(mean: Array, x: Array, *, scale: float) -> Array:
  """Returns `-sum log N(x; mean, scale^2)` with its normalising constant.

  Args:
    mean: shape [B, ...].
    x: the shape of `mean`.
    scale: standard deviation of every pixel, > 0.

  Raises:
    ValueError: shapes differ, or `scale` is not positive.
  """
  checks.same_shape(mean=mean, x=x)
  checks.floating(mean=mean, x=x)
  checks.positive(scale=scale)

  mean, x = _widen(mean), _widen(x)
  constant = math.log(scale) + 0.5 * math.log(2.0 * math.pi)
  return sum_per_example(0.5 * ((x - mean) / scale) ** 2 + constant)


def gaussian_kl(mean: Array, scale: Array) -> Array:
  """Returns `KL(N(mean, scale^2) || N(0, 1))`, summed over dimensions.

  Args:
    mean: shape [B, ...].
    scale: standard deviations > 0, the shape of `mean`.

  Raises:
    ValueError: shapes differ.
  """
  checks.same_shape(mean=mean, scale=scale)
  checks.floating(mean=mean, scale=scale)

  mean, scale = _widen(mean), _widen(scale)
  return sum_per_example(0.5 * (mean**2 + scale**2 - 1.0) - jnp.log(scale))


def reconstruction_nll(
  logits: Array, x: Array, *, likelihood: str, noise_scale: float
) -> Array:
  """Returns the negative log-likelihood of `x` under a decoder's output.

  Args:
    logits: the decoder's output before its sigmoid, shape [B, ...].
    x: in [0, 1], the shape of `logits`.
    likelihood: "bernoulli", or "gaussian" around `sigmoid(logits)`.
    noise_scale: standard deviation of the Gaussian.

  Raises:
    ValueError: shapes differ, or an unknown likelihood.
  """
  checks.one_of(LIKELIHOODS, likelihood=likelihood)
  if likelihood == "bernoulli":
    return bernoulli_nll(logits, x)
  return gaussian_nll(jax.nn.sigmoid(logits), x, scale=noise_scale)
