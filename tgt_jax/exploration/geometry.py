# SPDX-License-Identifier: Apache-2.0
"""Lengths in latent space, per example.

Arrays are [B, ...]: the leading axis counts examples, the rest is one latent
with d coordinates in all. Lengths are root-mean-square lengths, |v| / sqrt(d),
so that a step of length s and Gaussian noise of standard deviation s move a
latent equally far, whatever d is. Where a latent has coordinates that mean
nothing (padding), `where` says which ones do, broadcasting to the array:
lengths count these alone, and the others never move. Squares are taken of multiples of the largest
entry, so lengths neither vanish nor overflow before the entries do. A vector
of zeros has length 0, and length and direction have gradient 0 there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tgt_jax.types import Array


def expand(values: Array, like: Array) -> Array:
  """Reshapes [B] so that it multiplies [B, ...] without rank promotion."""
  return values.reshape(values.shape + (1,) * (like.ndim - 1))


def inside(vectors: Array, where: Array | None) -> Array:
  """The vectors, with zeros for the coordinates that `where` leaves out."""
  return vectors if where is None else jnp.where(where, vectors, 0.0)


def _scaled(vectors: Array, where: Array | None) -> tuple[Array, Array, Array]:
  """Each example's largest entry, its multiples of it, and their RMS.

  Zeros stand for a vector without a normal number in it; the RMS is then 1.
  """
  axes = tuple(range(1, vectors.ndim))
  vectors = inside(vectors, where)
  # Lengths do not depend on the unit, so it needs no derivative.
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=axes))
  still = largest < jnp.finfo(vectors.dtype).tiny  # NaN goes on as NaN.
  largest = jnp.where(still, 1.0, largest).astype(vectors.dtype)
  multiples = vectors / expand(largest, vectors)
  multiples = jnp.where(expand(still, vectors), 0.0, multiples)
  square = jnp.mean(jnp.square(multiples), axis=axes, where=where)
  length = jnp.sqrt(jnp.where(still, 1.0, square).astype(vectors.dtype))
  return jnp.where(still, 0.0, largest), multiples, length


def rms(vectors: Array, where: Array | None = None) -> Array:
  """Root-mean-square length of each example, [B, ...] to [B]."""
  largest, _, length = _scaled(vectors, where)
  return largest * length


def distance(before: Array, after: Array, where: Array | None = None) -> Array:
  """How far inputs moved, [B, ...] to [B].

  Args:
    before: [B, ...]; images, or token ids [B, L].
    after: of the same shape and type.
    where: of the latents of `before`; for token ids [B, L, 1], the positions
      that are not padding.

  Returns:
    RMS length of the difference of numbers; of token ids the share of
    positions, among those of `where`, that hold another token.
  """
  if jnp.issubdtype(after.dtype, jnp.integer):
    there = None if where is None else where[..., 0]
    return jnp.mean((before != after).astype(jnp.float32), 1, where=there)
  return rms(after - before)


def unit(vectors: Array, where: Array | None = None) -> Array:
  """Scales each example to RMS length one; a zero vector stays zero."""
  _, multiples, length = _scaled(vectors, where)
  return multiples / expand(length, multiples)


def project(
  centre: Array,
  z: Array,
  radius: float | Array,
  *,
  sphere: bool = False,
  where: Array | None = None,
) -> Array:
  """Brings each latent back to within `radius` (RMS) of its centre.

  Args:
    centre: [B, ...].
    z: [B, ...].
    radius: largest RMS distance, > 0; one number, or one per example [B].
    sphere: put every latent exactly at that distance instead.
    where: the coordinates that count.

  Returns:
    [B, ...]; a latent that equals its centre stays there.
  """
  offset = inside(z - centre, where)
  length = rms(offset, where)
  reach = jnp.broadcast_to(jnp.asarray(radius, offset.dtype), length.shape)
  moved = expand(reach, offset) * unit(offset, where)
  if not sphere:
    moved = jnp.where(expand(length > reach, offset), moved, offset)
  return centre + moved


def gaussian(rng: Array, like: Array, where: Array | None = None) -> Array:
  """Standard normal noise of the shape [B, ...] of `like`.

  Args:
    rng: one key per example, [B].
    like: sets shape and dtype.
    where: the coordinates that get noise; the others get zeros.
  """
  draw = lambda key: jax.random.normal(key, like.shape[1:], like.dtype)
  return inside(jax.vmap(draw)(rng), where)
