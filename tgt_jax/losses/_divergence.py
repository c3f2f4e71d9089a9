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
# Terms of the series; the next one is below float64's precision at _NEAR.
_TERMS = 16


@jax.custom_jvp
def _excess(r: Array) -> Array:
  """exp(r) - 1 - r for |r| <= _NEAR, without cancellation."""
  series = jnp.ones_like(r)
  for n in range(_TERMS, 2, -1):
    series = 1.0 + series * r / n
  return 0.5 * jnp.square(r) * series


@_excess.defjvp
def _excess_jvp(primals, tangents):
  (r,), (tangent,) = primals, tangents
  return _excess(r), jnp.expm1(r) * tangent


def _log_mean_exp(log_p: Array, values: Array, axis: int) -> Array:
  """The log of sum_k p_k exp(values_k) for |values| <= _NEAR; keeps the axis."""
  growth = jnp.sum(jnp.exp(log_p) * jnp.expm1(values), axis=axis, keepdims=True)
  return jnp.log1p(growth)


def log_ratio(
  log_p: Array, log_q: Array, difference: Array, axis: int
) -> Array:
  """The log of q / p, to a relative precision where the two nearly agree.

  Args:
    log_p: log-probabilities, [..., K].
    log_q: log-probabilities, [..., K].
    difference: logits of q - logits of p, [..., K]; any constant may be added.
    axis: the class axis.

  Returns:
    [..., K]; 0 for a class at -inf on both sides, infinite for one at -inf on
    one side.
  """
  out_of_p, out_of_q = jnp.isneginf(log_p), jnp.isneginf(log_q)
  kept = ~(out_of_p | out_of_q)

  # The ratio does not depend on the centre, so it needs no derivative.
  inside = jnp.where(kept, difference, 0.0)
  centre = jax.lax.stop_gradient(
    jnp.sum(jnp.exp(log_p) * inside, axis=axis, keepdims=True)
  )
  inside = jnp.where(kept, inside - centre, 0.0)
  near = jnp.all(
    (jnp.abs(inside) <= _NEAR) & (out_of_p == out_of_q),
    axis=axis,
    keepdims=True,
  )
  inside = jnp.where(near, inside, 0.0)
  exact = inside - _log_mean_exp(log_p, inside, axis)

  rounded = jnp.where(out_of_p & out_of_q, 0.0, log_q) - jnp.where(
    out_of_p & out_of_q, 0.0, log_p
  )
  return jnp.where(near, jnp.where(kept, exact, 0.0), rounded)


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


def log_middle_ratio(ratio: Array) -> Array:
  """log((p + q) / 2) - log p, given log q - log p; finite."""
  near = jnp.abs(ratio) <= _NEAR
  close = jnp.log1p(0.5 * jnp.expm1(jnp.where(near, ratio, 0.0)))
  limits = jnp.finfo(ratio.dtype)
  far = jnp.clip(jnp.where(near, 0.0, ratio), limits.min, limits.max)
  return jnp.where(near, close, jnp.logaddexp(far, 0.0) - jnp.log(2.0))


def entropy(log_p: Array, logits: Array, axis: int) -> Array:
  """-sum_k p_k log p_k, [...]; `logits` are those of p, [..., K].

  Of a nearly uniform p it is log K less the divergence from uniform: the same
  value, and a gradient that does not cancel.
  """
  kept = ~jnp.isneginf(log_p)
  log_count = jnp.log(
    jnp.sum(kept, axis=axis, keepdims=True).astype(log_p.dtype)
  )
  log_uniform = jnp.where(kept, -log_count, -jnp.inf)
  ratio = log_ratio(log_uniform, log_p, logits, axis)
  flat = jnp.all(jnp.abs(ratio) <= _NEAR, axis=axis)
  p = jnp.exp(log_p)
  lost = divergence(p, jnp.exp(log_uniform), -ratio, axis)
  direct = -jnp.sum(p * jnp.where(p == 0, 0.0, log_p), axis=axis)
  return jnp.where(flat, jnp.squeeze(log_count, axis) - lost, direct)
