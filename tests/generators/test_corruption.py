# SPDX-License-Identifier: Apache-2.0
"""What a denoising autoencoder reads: nothing invented, specials in place."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax.generators import corruption

PAD, BOS, EOS, MASK, STOP = 0, 1, 2, 3, 9
SPECIAL = (BOS, EOS)
OPTIONS = {"pad_id": PAD, "mask_id": MASK, "special_ids": SPECIAL}


def texts(size=64, length=40, seed=0):
  """Rows [BOS words EOS padding] of different lengths, words all distinct."""
  rng = np.random.default_rng(seed)
  rows = np.full((size, length), PAD, np.int32)
  for row in rows:
    count = rng.integers(1, length - 1)
    row[0] = BOS
    row[1 : count + 1] = 10 + rng.permutation(1000)[:count]
    row[count + 1] = EOS
  return jnp.asarray(rows)


def keys(size, seed=1):
  return jax.random.split(jax.random.key(seed), size)


def words(row):
  return [t for t in np.asarray(row).tolist() if t != PAD]


@pytest.mark.parametrize("infill", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("delete", [0.0, 0.2])
def test_what_is_left_is_in_its_order(infill, delete):
  rows = texts()
  found = jax.jit(
    lambda x, k: corruption.corrupt(
      x, k, **OPTIONS, infill=infill, delete=delete
    )
  )(rows, keys(len(rows)))
  assert found.shape == rows.shape
  assert found.dtype == rows.dtype
  for before, after in zip(rows, found, strict=True):
    old, new = words(before), words(after)
    assert PAD not in after[: len(new)].tolist()  # Padding is behind.
    assert (new[0], new[-1]) == (BOS, EOS)
    kept = [t for t in new if t != MASK]
    positions = [old.index(t) for t in kept]
    assert positions == sorted(positions)
    if not delete:  # A mask wherever neighbours were none, and only there.
      gaps = [b - a > 1 for a, b in itertools.pairwise(positions)]
      assert sum(gaps) == new.count(MASK)
      assert (MASK, MASK) not in itertools.pairwise(new)
    if not infill:
      assert MASK not in new


def test_nothing_asked_is_nothing_done():
  rows = texts()
  found = corruption.corrupt(rows, keys(len(rows)), **OPTIONS, infill=0.0)
  np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("span", [1.0, 3.0])
def test_the_expected_share_is_covered(span):
  size, length = 400, 102
  rows = jnp.concatenate(
    [
      jnp.full((size, 1), BOS),
      jnp.broadcast_to(jnp.arange(10, 10 + length - 2), (size, length - 2)),
      jnp.full((size, 1), EOS),
    ],
    axis=1,
  )
  found = corruption.corrupt(rows, keys(size), **OPTIONS, infill=0.3, span=span)
  kept = np.isin(np.asarray(found), np.arange(10, 10 + length)).sum()
  share = 1.0 - kept / (size * (length - 2))
  # Starts are a little rarer at the beginning, where no span reaches in.
  assert share == pytest.approx(0.3, abs=0.02)


def test_the_expected_share_is_deleted():
  rows = texts(400)
  count = np.sum(np.asarray(rows) >= 10)
  found = corruption.corrupt(
    rows, keys(400), **OPTIONS, infill=0.0, delete=0.25
  )
  left = np.sum(np.asarray(found) >= 10)
  assert left / count == pytest.approx(0.75, abs=0.02)


def test_sentences_move_as_wholes():
  first, second, third = [11, 12, STOP], [21, STOP], [31, 32, 33, STOP]
  pair = [41, STOP]
  row = [BOS, *first, *second, *third, EOS, *pair, EOS, PAD, PAD]
  rows = jnp.asarray([row] * 60, jnp.int32)
  found = corruption.corrupt(
    rows, keys(60), **OPTIONS, infill=0.0, stop_ids=(STOP,)
  )
  orders = set()
  for after in found.tolist():
    assert after[0] == BOS
    assert after[10:] == [EOS, *pair, EOS, PAD, PAD]  # A part of its own.
    inside, sentences = after[1:10], []
    while inside:
      end = inside.index(STOP) + 1
      sentences.append(inside[:end])
      inside = inside[end:]
    assert sorted(sentences) == sorted([first, second, third])
    orders.add(tuple(s[0] for s in sentences))
  assert len(orders) == 6


def test_each_text_draws_for_itself():
  rows = texts(8)
  whole = corruption.corrupt(rows, keys(8), **OPTIONS)
  half = corruption.corrupt(rows[4:], keys(8)[4:], **OPTIONS)
  np.testing.assert_array_equal(whole[4:], half)
  again = corruption.corrupt(rows, keys(8, seed=2), **OPTIONS)
  assert np.any(np.asarray(whole) != np.asarray(again))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"infill": 1.0}, "below 1"),
    ({"infill": -0.1}, "infill"),
    ({"delete": 1.5}, "delete"),
    ({"span": 0.0}, "span"),
    ({"infill": 0.3, "span": 0.3}, "cannot hide a share of 0.3"),
  ],
)
def test_bad_arguments(options, message):
  rows = texts(2)
  with pytest.raises(ValueError, match=message):
    corruption.corrupt(rows, keys(2), **OPTIONS, **options)
