# SPDX-License-Identifier: Apache-2.0
"""Lengths in latent space, per example.

Arrays are [B, ...]: the leading axis counts examples, the rest is one latent
with d coordinates in all. Lengths are root-mean-square lengths, |v| / sqrt(d),
so that a step of length s and Gaussian noise of standard deviation s move a
latent equally far, whatever d is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tgt_jax.types import Array

# Inside the root, so that the gradient at zero is zero and not NaN.
_TINY = 1e-20


def expand(values: Array, like: Array) -> Array:
  """Reshapes [B] so that it multiplies [B, ...] without rank promotion."""
  return values.reshape(values.shape + (1,) * (like.ndim - 1))


def rms(vectors: Array) -> Array:
  """Root-mean-square length of each example, [B, ...] to [B]."""
  axes = tuple(range(1, vectors.ndim))
  return jnp.sqrt(jnp.mean(jnp.square(vectors), axis=axes) + _TINY)


def unit(vectors: Array) -> Array:
  """Scales each example to RMS length one; a zero vector stays zero."""
  return vectors / expand(rms(vectors), vectors)


def project(
  centre: Array, z: Array, radius: float | Array, *, sphere: bool = False
) -> Array:
  """Brings each latent back to within `radius` (RMS) of its centre.

  Args:
    centre: [B, ...].
    z: [B, ...].
    radius: largest RMS distance, > 0.
    sphere: put every latent exactly at that distance instead.

  Returns:
    [B, ...]; a latent that equals its centre stays there.
  """
  offset = z - centre
  length = rms(offset)
  scale = radius / length
  if not sphere:
    scale = jnp.minimum(scale, 1.0)
  return centre + offset * expand(scale, offset)


def gaussian(rng: Array, like: Array) -> Array:
  """Standard normal noise of the shape [B, ...] of `like`.

  Args:
    rng: one key per example, [B].
    like: sets shape and dtype.
  """
  draw = lambda key: jax.random.normal(key, like.shape[1:], like.dtype)
  return jax.vmap(draw)(rng)
