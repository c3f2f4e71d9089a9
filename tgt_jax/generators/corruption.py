# SPDX-License-Identifier: Apache-2.0
"""What a denoising autoencoder of text reads instead of the text.

Functions take token ids [B, L] with padding behind and one key per example
[B], and keep the shape: a shorter text has more padding. Special tokens (the
first and the last of a text, and separators) stay where they are.

References:
  Lewis et al., BART, 2019, arXiv 1910.13461, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.types import Array


def corrupt(
  tokens: Array,
  rng: Array,
  *,
  pad_id: int,
  mask_id: int,
  special_ids: Sequence[int],
  infill: float = 0.3,
  span: float = 3.0,
  delete: float = 0.0,
  stop_ids: Sequence[int] = (),
) -> Array:
  """Permutes sentences, deletes tokens and replaces spans by one mask.

  Args:
    tokens: [B, L].
    rng: keys, [B].
    pad_id: id of padding.
    mask_id: id that stands for a span.
    special_ids: ids that are never touched, such as those of the start and
      the end.
    infill: expected share of the other tokens that lie in spans, in [0, 1).
    span: mean length of a span (Poisson), > 0, and long enough for that share:
      at least -log(1 - infill).
    delete: probability of deletion of a token outside of spans, in [0, 1).
    stop_ids: ids that end a sentence; sentences are shuffled. Empty: none is.

  Returns:
    int32 [B, L].
    [deviation] Spans of length zero, which insert a mask, are not drawn, and
    spans that touch become one.
  """
  checks.rank(2, tokens=tokens)
  checks.same_leading(tokens=tokens, rng=rng)
  checks.in_range(0.0, 1.0, infill=infill, delete=delete)
  checks.positive(span=span)
  if infill == 1.0 or delete == 1.0:
    raise ValueError("infill and delete must be below 1: nothing would be left")
  if span < -math.log1p(-infill):
    raise ValueError(
      f"spans of {span} tokens cannot hide a share of {infill}, even if one"
      f" began everywhere: span must be at least {-math.log1p(-infill):.3f}"
    )

  def one(row: Array, key: Array) -> Array:
    shuffle, spans, deletions = jax.random.split(key, 3)
    if stop_ids:
      row = _shuffle_sentences(row, shuffle, pad_id, special_ids, stop_ids)
    free = ~_is_one_of(row, (*special_ids, pad_id))
    covered = jnp.zeros_like(free)
    if infill:
      covered = _spans(free, spans, infill, span)
    first = covered & ~jnp.concatenate([jnp.zeros(1, bool), covered[:-1]])
    gone = covered & ~first
    if delete:
      drawn = jax.random.bernoulli(deletions, delete, row.shape)
      gone |= drawn & free & ~covered
    row = jnp.where(first, mask_id, row)
    return _close_up(row, gone | (row == pad_id), pad_id)

  return jax.vmap(one)(tokens, rng)


def _is_one_of(row: Array, ids: Sequence[int]) -> Array:
  return jnp.isin(row, jnp.asarray(ids, row.dtype))


def _close_up(row: Array, gone: Array, pad_id: int) -> Array:
  """Leaves tokens out; the rest moves up, padding behind."""
  order = jnp.argsort(gone, stable=True)
  return jnp.where(gone, pad_id, row)[order]


def _spans(free: Array, key: Array, share: float, mean: float) -> Array:
  """Which positions [L] lie in a span."""
  begin, length = jax.random.split(key)
  # Starts are a Bernoulli process: P(position not covered) = exp(-p * mean).
  probability = -math.log1p(-share) / mean
  starts = free & jax.random.bernoulli(begin, probability, free.shape)
  lengths = jax.random.poisson(length, mean, free.shape)
  position = jnp.arange(free.shape[0])
  ends = jnp.where(starts, position + lengths, 0)
  return free & (position < jax.lax.cummax(ends))


def _shuffle_sentences(
  row: Array,
  key: Array,
  pad_id: int,
  special_ids: Sequence[int],
  stop_ids: Sequence[int],
) -> Array:
  """Puts the sentences between two special tokens in a random order."""
  size = row.shape[0]
  special = _is_one_of(row, special_ids)
  # A part is what lies between two special tokens; it keeps its place.
  part = jnp.cumsum(special)
  stops = _is_one_of(row, stop_ids).astype(jnp.int32)
  sentence = jnp.cumsum(stops) - stops
  rank = jax.random.permutation(key, size)[sentence]
  # Within a part: its special token first, then sentence by sentence.
  rank = jnp.where(special, -1, rank)
  part = jnp.where(row == pad_id, size + 1, part)
  order = jnp.lexsort((jnp.arange(size), rank, part))
  return row[order]
