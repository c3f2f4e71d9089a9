# SPDX-License-Identifier: Apache-2.0
"""From a decoder's logits to tokens: greedy, sampled, and by beams.

All work on a step of a decoder with a past of fixed size, run under `jit` and
`vmap`, and stop where every text has ended. They return what was written
behind the start token: [B, length] with the end token, then padding.

References:
  Fan et al., 2018, "Hierarchical Neural Story Generation"
  (https://arxiv.org/abs/1805.04833), top-k sampling.
  Wu et al., 2016, "Google's Neural Machine Translation System"
  (https://arxiv.org/abs/1609.08144), beams and their length penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models.layers import at_least_float32, most_probable
from tgt_jax.types import Array

# `(tokens int [N], index, past) -> (logits of the next token [N, V], past)`;
# every leaf of `past` has the leading axis N.
Step = Callable[[Array, Array, Any], tuple[Array, Any]]

# Stands for minus infinity where scores are still added and compared.
_WORST = -1e9


class SpecialTokens(NamedTuple):
  """Tokens that steer decoding.

  Attributes:
    start_id: what the decoder begins with; not part of the result.
    eos_id: ends a text.
    pad_id: stands behind the end.
    first_id: what every text begins with, `None` where it is free. BART's
      texts begin with `<s>`, 0, which it writes unasked.
    last_id: what stands in the last place of a text that has not ended
      before, `None` where it is free. `eos_id` makes it a whole text.
  """

  start_id: int
  eos_id: int
  pad_id: int
  first_id: int | None = None
  last_id: int | None = None


BART_TOKENS = SpecialTokens(start_id=2, eos_id=2, pad_id=1)


def _force(
  scores: Array, index: Array, length: int, special: SpecialTokens
) -> Array:
  """Leaves one token in the first and last place where it is prescribed."""
  ids = jnp.arange(scores.shape[-1])[None]
  for place, token in ((0, special.first_id), (length - 1, special.last_id)):
    if token is not None:
      forced = jnp.where(ids == token, 0.0, -jnp.inf)
      scores = jnp.where(index == place, forced, scores)
  return scores


def _roll(
  choose: Callable[[Array, Array], Array],
  step: Step,
  past: Any,
  count: int,
  length: int,
  special: SpecialTokens,
  ends: Array | None,
) -> Array:
  """Writes token by token what `choose` picks from the logits."""
  wanted = jnp.ones(count, jnp.int32) if ends is None else ends

  def unfinished(state: tuple[Array, ...]) -> Array:
    index, _, _, found, _ = state
    return (index < length) & (found < wanted).any()

  def write(state: tuple[Any, ...]) -> tuple[Any, ...]:
    index, tokens, last, found, past = state
    ended = found >= wanted
    logits, past = step(last, index, past)
    scores = _force(at_least_float32(logits), index, length, special)
    chosen = choose(scores, index).astype(jnp.int32)
    chosen = jnp.where(ended, special.pad_id, chosen)
    tokens = tokens.at[:, index].set(chosen)
    found = found + (chosen == special.eos_id)
    return index + 1, tokens, chosen, found, past

  start = (
    jnp.int32(0),
    jnp.full((count, length), special.pad_id, jnp.int32),
    jnp.full(count, special.start_id, jnp.int32),
    jnp.zeros(count, jnp.int32),
    past,
  )
  return jax.lax.while_loop(unfinished, write, start)[1]


def greedy(
  step: Step,
  past: Any,
  *,
  count: int,
  length: int,
  special: SpecialTokens = BART_TOKENS,
  ends: Array | None = None,
) -> Array:
  """Returns the most probable next token of each place, int32 [B, length].

  Args:
    step: of the decoder.
    past: empty, with room for `length` places.
    count: number of texts B.
    length: the largest number of tokens.
    special: see `SpecialTokens`.
    ends: how many end tokens finish a text, int [B]; more than one where it
      has parts. `None`: the first.
  """
  checks.positive(count=count, length=length)

  def choose(scores: Array, index: Array) -> Array:
    del index
    return most_probable(scores)

  return _roll(choose, step, past, count, length, special, ends)


def sample(
  step: Step,
  past: Any,
  rngs: Array,
  *,
  length: int,
  special: SpecialTokens = BART_TOKENS,
  ends: Array | None = None,
  temperature: float = 1.0,
  top_k: int = 0,
) -> Array:
  """Draws every token from `softmax(logits / temperature)`.

  Args:
    step: of the decoder.
    past: empty, with room for `length` places.
    rngs: one key per text, [B], so that a text does not depend on its batch.
    length: the largest number of tokens.
    special: see `SpecialTokens`.
    ends: as for `greedy`.
    temperature: > 0; small ones come close to `greedy`.
    top_k: only the so many most probable tokens are drawn; 0 is all.

  Returns:
    int32 [B, length].

  Raises:
    ValueError: an argument out of its range.
  """
  checks.rank(1, rngs=rngs)
  checks.positive(length=length, temperature=temperature)
  checks.non_negative(top_k=top_k)

  def choose(scores: Array, index: Array) -> Array:
    if top_k:
      smallest = jax.lax.top_k(scores, top_k)[0][:, -1:]
      scores = jnp.where(scores < smallest, -jnp.inf, scores)
    keys = jax.vmap(jax.random.fold_in, (0, None))(rngs, index)
    return jax.vmap(jax.random.categorical)(keys, scores / temperature)

  return _roll(choose, step, past, len(rngs), length, special, ends)


class _Beams(NamedTuple):
  """State of the search; K beams per text, those that ended apart."""

  place: Array  # Number of tokens written.
  tokens: Array  # [B, K, length]
  scores: Array  # Sums of log probabilities, [B, K].
  found: Array  # End tokens written, [B, K].
  ended: Array  # [B, K, length], the best first.
  ended_scores: Array  # [B, K]
  has_ended: Array  # [B, K]
  is_open: Array  # Whether a text can still get better, [B].
  wanted: Array  # How many of them finish a text, [B].
  past: Any


def _rows(values: Array, places: Array) -> Array:
  """Takes along axis 1: [B, N, ...] at [B, K]."""
  places = places.reshape(places.shape + (1,) * (values.ndim - 2))
  return jnp.take_along_axis(values, places, axis=1)


def _grow(
  beams: _Beams,
  step: Step,
  length: int,
  length_penalty: float,
  special: SpecialTokens,
) -> _Beams:
  """One more token of every beam."""
  batch, width = beams.scores.shape
  index = beams.place
  last = jnp.where(
    index == 0, special.start_id, beams.tokens[:, :, jnp.maximum(index - 1, 0)]
  )
  logits, past = step(last.reshape(-1), index, beams.past)
  scores = jax.nn.log_softmax(at_least_float32(logits))
  scores = _force(scores, index, length, special)
  vocab_size = scores.shape[-1]
  scores = scores.reshape(batch, width, vocab_size)
  scores = (scores + beams.scores[..., None]).reshape(batch, -1)
  # Twice as many as beams: enough go on even where as many end.
  scores, found = jax.lax.top_k(scores, 2 * width)
  parents, chosen = found // vocab_size, (found % vocab_size).astype(jnp.int32)
  tokens = _rows(beams.tokens, parents).at[:, :, index].set(chosen)
  number = _rows(beams.found, parents) + (chosen == special.eos_id)
  ends = (number >= beams.wanted[:, None]) | (index == length - 1)

  going = jnp.where(ends, scores + _WORST, scores)
  going, kept = jax.lax.top_k(going, width)
  origin = _rows(parents, kept) + width * jnp.arange(batch)[:, None]
  past = jax.tree.map(lambda a: a[origin.reshape(-1)], past)

  counts = ends & beams.is_open[:, None]
  counts &= (jnp.arange(2 * width) < width)[None]
  per_token = (index + 1.0) ** length_penalty
  finals = jnp.where(counts, scores / per_token, 2 * _WORST)
  finals = jnp.concatenate([beams.ended_scores, finals], axis=1)
  finals, best = jax.lax.top_k(finals, width)
  ended = _rows(jnp.concatenate([beams.ended, tokens], axis=1), best)
  has_ended = _rows(jnp.concatenate([beams.has_ended, counts], axis=1), best)

  worst = jnp.where(has_ended.all(1), finals[:, -1], _WORST)
  is_open = beams.is_open & (going[:, 0] / per_token > worst)
  return _Beams(
    index + 1,
    _rows(tokens, kept),
    going,
    _rows(number, kept),
    ended,
    finals,
    has_ended,
    is_open,
    beams.wanted,
    past,
  )


def beam_search(
  step: Step,
  past: Any,
  *,
  count: int,
  num_beams: int,
  length: int,
  special: SpecialTokens = BART_TOKENS,
  ends: Array | None = None,
  length_penalty: float = 1.0,
) -> tuple[Array, Array]:
  """Returns the best of several texts that are written side by side.

  A text's score is the sum of the log probabilities of its tokens, the end
  token included, divided by `number_of_tokens ** length_penalty`. A text ends
  at `eos_id` (see `ends`) or where it has `length` tokens; it is a candidate if
  it is then among the `num_beams` best continuations. The search of a text
  stops where it has `num_beams` candidates and the best open beam, scored at
  its present length, is not above the worst of them.

  That is transformers' beam search with `early_stopping=False`.

  Args:
    step: of the decoder, on `count * num_beams` tokens.
    past: empty, with room for `length` places; leading axis
      `count * num_beams`.
    count: number of texts B.
    num_beams: continuations kept per text, K.
    length: the largest number of tokens.
    special: see `SpecialTokens`.
    ends: as for `greedy`.
    length_penalty: 0 prefers short texts, larger values longer ones.

  Returns:
    Tokens, int32 [B, length], and scores, [B].

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(count=count, num_beams=num_beams, length=length)
  checks.finite(length_penalty=length_penalty)

  def unfinished(beams: _Beams) -> Array:
    return (beams.place < length) & beams.is_open.any()

  def grow(beams: _Beams) -> _Beams:
    return _grow(beams, step, length, length_penalty, special)

  shape = (count, num_beams)
  wanted = jnp.ones(count, jnp.int32) if ends is None else ends
  empty = jnp.full((*shape, length), special.pad_id, jnp.int32)
  # Of equal beams all but the first wait.
  scores = jnp.zeros(shape).at[:, 1:].set(_WORST)
  start = _Beams(
    jnp.int32(0),
    empty,
    scores,
    jnp.zeros(shape, jnp.int32),
    empty,
    jnp.full(shape, _WORST),
    jnp.zeros(shape, bool),
    wanted > 0,
    wanted,
    past,
  )
  beams = jax.lax.while_loop(unfinished, grow, start)
  return beams.ended[:, 0], beams.ended_scores[:, 0]
