# SPDX-License-Identifier: Apache-2.0
"""Decoding against enumeration, with a decoder that is a table.

Logits of a place depend on all the tokens before it, kept in the past: a past
that is not reordered with its beams gives other logits.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax.models import bart as bart_lib, decoding, transformer

VOCAB, LENGTH, BATCH = 4, 4, 3
SPECIAL = decoding.SpecialTokens(start_id=0, eos_id=2, pad_id=1)
# Of each text, by the number that its past spells.
TABLE = np.random.default_rng(0).normal(
  size=(BATCH, VOCAB ** (LENGTH + 1), VOCAB)
)
TABLE[..., 1] = -20.0  # Padding is never written.


def _decoder(copies: int = 1):
  """A step over the table; the past is the text's number and what it read."""
  table = jnp.asarray(TABLE, jnp.float32)

  def step(tokens, index, past):
    row, read = past
    read = jnp.where(index == 0, tokens, read * VOCAB + tokens)
    return table[row, read], (row, read)

  rows = jnp.repeat(jnp.arange(BATCH), copies)
  return step, (rows, jnp.zeros_like(rows))


def _log_probabilities(row: int, before: tuple[int, ...]) -> np.ndarray:
  read = 0
  for token in (SPECIAL.start_id, *before):
    read = read * VOCAB + token
  logits = TABLE[row, read]
  return logits - np.log(np.exp(logits).sum())


def _all_texts(ends: int):
  """Every text that ends at so many end tokens or is of full length."""

  def cut(text):
    places = [i for i, t in enumerate(text) if t == SPECIAL.eos_id]
    return text[: places[ends - 1] + 1] if len(places) >= ends else text

  return {cut(t) for t in itertools.product(range(VOCAB), repeat=LENGTH)}


def _best(
  row: int, length_penalty: float, ends: int
) -> tuple[float, tuple[int, ...]]:
  scored = []
  for text in _all_texts(ends):
    total = sum(
      _log_probabilities(row, text[:i])[token] for i, token in enumerate(text)
    )
    scored.append((total / len(text) ** length_penalty, text))
  return max(scored)


def _padded(text: tuple[int, ...]) -> list[int]:
  return [*text, *[SPECIAL.pad_id] * (LENGTH - len(text))]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("ends", [None, (2, 1, 2)])
def test_beams_enough_for_all_find_the_best_text(length_penalty, ends) -> None:
  beams = VOCAB**LENGTH
  step, past = _decoder(copies=beams)
  tokens, scores = jax.jit(
    lambda past: decoding.beam_search(
      step,
      past,
      count=BATCH,
      num_beams=beams,
      length=LENGTH,
      special=SPECIAL,
      ends=None if ends is None else jnp.asarray(ends),
      length_penalty=length_penalty,
    )
  )(past)
  for row, wanted in enumerate(ends or (1,) * BATCH):
    score, text = _best(row, length_penalty, wanted)
    np.testing.assert_array_equal(tokens[row], _padded(text))
    np.testing.assert_allclose(scores[row], score, rtol=1e-5)


def _greedy(row: int, ends: int = 1) -> list[int]:
  text: tuple[int, ...] = ()
  while len(text) < LENGTH and text.count(SPECIAL.eos_id) < ends:
    text = (*text, int(_log_probabilities(row, text).argmax()))
  return _padded(text)


def test_greedy_and_what_comes_to_it() -> None:
  step, past = _decoder()
  want = [_greedy(row) for row in range(BATCH)]
  got = decoding.greedy(step, past, count=BATCH, length=LENGTH, special=SPECIAL)
  np.testing.assert_array_equal(got, want)
  assert (np.asarray(got) == SPECIAL.pad_id).any()

  keys = jax.random.split(jax.random.key(0), BATCH)
  sample = functools.partial(
    decoding.sample, step, past, keys, length=LENGTH, special=SPECIAL
  )
  np.testing.assert_array_equal(sample(top_k=1), want)
  np.testing.assert_array_equal(sample(temperature=1e-4), want)
  one_beam, _ = decoding.beam_search(
    step, past, count=BATCH, num_beams=1, length=LENGTH, special=SPECIAL
  )
  np.testing.assert_array_equal(one_beam, want)


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.5, 0), (2.0, 2)])
def test_samples_follow_the_distribution(temperature, top_k) -> None:
  count = 4000
  logits = jnp.log(jnp.asarray([0.1, 0.2, 0.3, 0.4]))
  keys = jax.random.split(jax.random.key(1), count)

  def step(tokens, index, past):
    return jnp.broadcast_to(logits[None], (len(tokens), VOCAB)), past

  tokens = decoding.sample(
    step,
    None,
    keys,
    length=1,
    special=SPECIAL,
    temperature=temperature,
    top_k=top_k,
  )
  want = np.asarray([0.1, 0.2, 0.3, 0.4]) ** (1.0 / temperature)
  want[: VOCAB - top_k if top_k else 0] = 0.0
  want /= want.sum()
  found = np.bincount(np.asarray(tokens)[:, 0], minlength=VOCAB) / count
  # Four standard deviations of a frequency.
  np.testing.assert_allclose(found, want, atol=4 * 0.5 / np.sqrt(count))
  assert not found[want == 0.0].any()


def test_a_text_is_sampled_by_its_own_key() -> None:
  step, (rows, read) = _decoder()
  keys = jax.random.split(jax.random.key(2), BATCH)
  sample = functools.partial(
    decoding.sample, step, length=LENGTH, special=SPECIAL
  )
  whole = sample((rows, read), keys)
  np.testing.assert_array_equal(
    sample((rows[1:], read[1:]), keys[1:]), whole[1:]
  )


def test_texts_of_several_parts_end_with_the_last() -> None:
  step, past = _decoder()
  assert any(_greedy(row) != _greedy(row, ends=2) for row in range(BATCH))
  for ends in (np.array([2, 2, 2]), np.array([1, 2, 3])):
    got = decoding.greedy(
      step,
      past,
      count=BATCH,
      length=LENGTH,
      special=SPECIAL,
      ends=jnp.asarray(ends),
    )
    want = [_greedy(row, int(ends[row])) for row in range(BATCH)]
    np.testing.assert_array_equal(got, want)


def test_forced_tokens() -> None:
  step, past = _decoder()
  special = SPECIAL._replace(first_id=3, last_id=SPECIAL.eos_id)
  got = np.asarray(
    decoding.greedy(step, past, count=BATCH, length=LENGTH, special=special)
  )
  np.testing.assert_array_equal(got[:, 0], 3)
  np.testing.assert_array_equal((got == SPECIAL.eos_id).sum(1), 1)


@pytest.mark.parametrize(
  "kwargs, error",
  [
    ({"temperature": 0.0}, "temperature must be > 0"),
    ({"top_k": -1}, "top_k must be >= 0"),
    ({"length": 0}, "length must be > 0"),
  ],
)
def test_wrong_arguments(kwargs, error) -> None:
  step, past = _decoder()
  keys = jax.random.split(jax.random.key(0), BATCH)
  with pytest.raises(ValueError, match=error):
    decoding.sample(step, past, keys, **{"length": 2, **kwargs})


TEXTS = np.array([[0, 5, 6, 2], [0, 7, 2, 1]], np.int32)


@functools.cache
def _bart(**kwargs):
  module = bart_lib.bart(
    num_layers=1,
    num_decoder_layers=1,
    width=8,
    num_heads=2,
    mlp_width=12,
    vocab_size=9,
    max_positions=6,
    dropout=0.0,
    **kwargs,
  )
  params = jax.jit(module.init)(jax.random.key(0), TEXTS)["params"]
  return module, jax.tree.map(lambda p: 5.0 * p, params)


def test_steps_of_bart_are_its_decoding_at_once() -> None:
  module, params = _bart()
  mask = transformer.token_mask(jnp.asarray(TEXTS), module.pad_id)

  @jax.jit
  def both(params):
    variables = {"params": params}
    states = module.apply(variables, TEXTS, method="encode")
    whole = module.apply(variables, states, mask, TEXTS, method="decode")
    step, past = bart_lib.decoder(module, params, states, mask, max_length=4)
    rows = []
    for index in range(4):
      logits, past = step(TEXTS[:, index], index, past)
      rows.append(logits)
    return whole, jnp.stack(rows, axis=1)

  whole, steps = both(params)
  np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-4)


def test_discrete_tokens_pass_a_gradient_by() -> None:
  """A step that decodes on its way can be differentiated all the same."""
  module, params = _bart()
  mask = transformer.token_mask(jnp.asarray(TEXTS), module.pad_id)

  def loss(params):
    states = module.apply({"params": params}, TEXTS, method="encode")
    step, past = bart_lib.decoder(module, params, states, mask, max_length=3)
    tokens = decoding.greedy(step, past, count=2, length=3)
    return (states**2).sum() * (1.0 + 0.0 * tokens.sum())

  gradient = jax.jit(jax.grad(loss))(params)
  assert np.any(gradient["tokens"]["embedding"])
  # Nothing reaches the decoder, and the constant of the logits.
  assert not np.any(gradient["decoder_norm"]["scale"])
  assert not np.any(gradient["logits_bias"])


def test_too_long_for_the_positions() -> None:
  module, params = _bart()
  states, mask = jnp.zeros((1, 2, 8)), jnp.ones((1, 2), bool)
  with pytest.raises(ValueError, match=r"max_length must be in \[1, 6\]"):
    bart_lib.decoder(module, params, states, mask, max_length=7)
  with pytest.raises(ValueError, match="7 tokens are longer"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 7), jnp.int32))


def test_shift_right() -> None:
  got = bart_lib.shift_right(jnp.asarray(TEXTS), 2)
  np.testing.assert_array_equal(got, [[2, 0, 5, 6], [2, 0, 7, 2]])
  soft = bart_lib.shift_right(jax.nn.one_hot(TEXTS, 9), 2)
  np.testing.assert_array_equal(soft, jax.nn.one_hot(got, 9))
