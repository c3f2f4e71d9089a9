# SPDX-License-Identifier: Apache-2.0
"""Divergences that stay exact where the two distributions nearly agree.

At a high temperature T both distributions are nearly uniform, the divergence
is of the order 1 / T^2, and the loss multiplies it by T^2. Sums of p log p - p
log q then cancel to nothing in float32. Here a divergence is a sum of terms
that cannot cancel,

  KL(p || q) = sum_k p_k (exp(r_k) - 1 - r_k),   r = log q - log p,

which holds because p and q both sum to one, and r comes from the difference of
the logits instead of that of two rounded log-probabilities.

Functions take any leading axes; `axis` is the class axis. A class at -inf on
both sides adds nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tgt_jax.types import Array

# Up to here a log-ratio is small: series instead of differences.
_NEAR = 0.5
# Degree of the series by bytes per number: the next term is below its rounding.
_DEGREE = {4: 8, 8: 16}


@jax.custom_jvp
def _excess(r: Array) -> Array:
  """exp(r) - 1 - r for |r| <= _NEAR, without cancellation."""
  series = jnp.ones_like(r)
  for n in range(_DEGREE[r.dtype.itemsize], 2, -1):
    series = 1.0 + series * r / n
  return 0.5 * jnp.square(r) * series


@_excess.defjvp
def _excess_jvp(primals, tangents):
  (r,), (tangent,) = primals, tangents
  return _excess(r), jnp.expm1(r) * tangent


def log_ratio(
  log_p: Array, log_q: Array, difference: Array, axis: int
) -> tuple[Array, Array]:
  """The log of q / p, to a relative precision where the two nearly agree.

  Args:
    log_p: log-probabilities, [..., K].
    log_q: log-probabilities, [..., K].
    difference: logits of q - logits of p, [..., K]; any constant may be added.
    axis: the class axis.

  Returns:
    The log-ratios, [..., K]: 0 for a class at -inf on both sides, infinite for
    one at -inf on one side. And the difference of the two log-partitions,
    [...], or inf where the two do not nearly agree.
  """
  out_of_p, out_of_q = jnp.isneginf(log_p), jnp.isneginf(log_q)
  out_of_both = out_of_p & out_of_q
  kept = ~(out_of_p | out_of_q)

  # The result does not depend on the centre, so it needs no derivative.
  p = jnp.exp(log_p)
  inside = jnp.where(kept, difference, 0.0)
  centre = jax.lax.stop_gradient(jnp.sum(p * inside, axis=axis, keepdims=True))
  inside = jnp.where(kept, inside - centre, 0.0)
  near = jnp.all(
    jnp.where(kept, jnp.abs(inside) <= _NEAR, out_of_both),
    axis=axis,
    keepdims=True,
  )
  inside = jnp.where(near, inside, 0.0)
  growth = jnp.log1p(jnp.sum(p * jnp.expm1(inside), axis=axis, keepdims=True))

  rounded = jnp.where(out_of_both, 0.0, log_q) - jnp.where(
    out_of_both, 0.0, log_p
  )
  exact = jnp.where(kept, inside - growth, 0.0)
  shift = jnp.where(near, centre + growth, jnp.inf)
  return jnp.where(near, exact, rounded), jnp.squeeze(shift, axis)


def divergence(p: Array, q: Array, ratio: Array, axis: int) -> Array:
  """KL(p || q) = sum_k p_k (log p_k - log q_k), [...].

  Args:
    p: probabilities, [..., K].
    q: probabilities, [..., K].
    ratio: log q - log p as of `log_ratio`, [..., K].
    axis: the class axis.
  """
  near = jnp.abs(ratio) <= _NEAR
  close = p * _excess(jnp.where(near, ratio, 0.0))
  # A class without weight may have an infinite ratio.
  apart = q - p - p * jnp.where(near | (p == 0), 0.0, ratio)
  return jnp.sum(jnp.where(near, close, apart), axis=axis)


def to_middle(ratio: Array) -> tuple[Array, Array]:
  """Log(m / p) and log(m / q), m = (p + q) / 2, given log(q / p)."""
  more = ratio > 0
  # log((1 + exp(-|ratio|)) / 2), written so that it has derivatives at 0.
  shared = jnp.log1p(0.5 * jnp.expm1(jnp.where(more, -ratio, ratio)))
  return (
    shared + jnp.where(more, ratio, 0.0),
    shared + jnp.where(more, 0.0, -ratio),
  )
