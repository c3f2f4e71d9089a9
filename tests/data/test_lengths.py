# SPDX-License-Identifier: Apache-2.0
"""Batches of text: few lengths, similar ones together, nothing lost."""

from __future__ import annotations

import collections
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tgt_jax import data
from tgt_jax.data import lengths, orders, tokenizer as tokenizer_lib

pytest.importorskip("tokenizers")

_WORDS = tokenizer_lib.train(["a b c d e f g"], kind="bpe", vocab_size=300)
_FULL = 32
_BUCKETS = (4, 8, 16, 32)


def _texts(size, seed=0):
  """Lengths from 2 to 32, most of them short."""
  draw = np.random.default_rng(seed).random(size)
  return ["abcdefg" * 5 for _ in draw], (draw**3 * 31).astype(int)


def _source(size=300, seed=0, name="toy"):
  letters, counts = _texts(size, seed)
  texts = [text[:count] for text, count in zip(letters, counts, strict=True)]
  return data.from_texts(
    texts,
    np.arange(size) % 3,
    tokenizer=_WORDS,
    max_length=_FULL,
    name=name,
  )


def _train(source=None, **kwargs):
  options = {"batch_size": 12, "seed": 3, "num_steps": 60, **kwargs}
  return data.training_batches(
    _source() if source is None else source, **options
  )


def _assert_equal(batch, other):
  assert batch.keys() == other.keys()
  for name, value in batch.items():
    assert value.dtype == other[name].dtype
    np.testing.assert_array_equal(value, other[name])


def test_default_buckets():
  assert data.buckets(_source()) == _BUCKETS
  images = data.from_arrays(np.zeros((2, 4, 4, 1)), [0, 1], name="images")
  assert data.buckets(images) is None
  with pytest.raises(ValueError, match="images: buckets are for text"):
    data.buckets(images, (4,))
  assert data.buckets(_source(), (20, 32)) == (20, 32)
  dataset = data.Dataset(_source(), images, _source(), {"more": _source()})
  own = data.with_buckets(dataset, (20, 32))
  for split in (own.train, own.train_full, own.others["more"]):
    assert data.buckets(split) == (20, 32)
    assert data.buckets(data.subset(split, np.arange(3))) == (20, 32)
    assert data.buckets(split, (8, 32)) == (8, 32)
  assert own.test is images
  assert data.with_buckets(dataset, ()).train is dataset.train


@pytest.mark.parametrize(
  "chosen", [(), (16,), (32, 16), (16, 16, 32), (2, 4, 8, 16, 32), (32, 64)]
)
def test_bad_buckets(chosen):
  with pytest.raises(ValueError, match=r"at most 4 .* end with 32, got"):
    data.buckets(_source(), chosen)


def test_a_batch_is_padded_to_the_smallest_bucket():
  source = _source()
  whole = source.read(np.arange(len(source)))
  seen = collections.Counter()
  batches = _train(source)
  for step in range(60):
    batch = batches[step]
    size = batch["input"].shape[1]
    longest = source.text.lengths[batch["id"]].max()
    assert size == min(b for b in _BUCKETS if b >= longest)
    np.testing.assert_array_equal(batch["input"], whole[batch["id"], :size])
    np.testing.assert_array_equal(batch["label"], batch["id"] % 3)
    seen[size] += 1
  assert set(seen) == set(_BUCKETS)
  # Most texts are short; drawn at random, a batch of 12 would be long.
  assert seen[4] + seen[8] > 20


def test_chosen_buckets_are_used():
  batches = _train(buckets=(20, 32))
  assert {batches[i]["input"].shape[1] for i in range(60)} == {20, 32}


@hypothesis.given(
  size=st.integers(1, 90),
  batch_size=st.integers(1, 30),
  window=st.integers(1, 9),
  seed=st.integers(0, 2**70),
)
def test_a_window_keeps_its_examples(size, batch_size, window, seed):
  values = np.random.default_rng(seed).integers(1, 50, size)
  plain = orders.natural(np.zeros(size, int), seed=seed)
  moved = orders.similar_lengths(
    plain, values, batch_size=batch_size, window=window
  )
  span = window * batch_size
  for index in range(4):
    start, stop = index * span, (index + 1) * span
    before, after = plain(start, stop), moved(start, stop)
    np.testing.assert_array_equal(np.sort(before), np.sort(after))
    # Between two batches of a window, one has no shorter text than the other.
    parts = [values[part] for part in after.reshape(-1, batch_size)]
    parts.sort(key=lambda part: (part.min(), part.max()))
    for short, long in itertools.pairwise(parts):
      assert short.max() <= long.min()


def test_an_epoch_shows_every_example_once():
  batches = _train(num_steps=25, batch_size=12)  # 300 examples.
  ids = np.concatenate([batches[step]["id"] for step in range(25)])
  np.testing.assert_array_equal(np.sort(ids), np.arange(300))


@pytest.mark.parametrize("sampler", sorted(data.SAMPLERS))
def test_a_batch_depends_on_seed_and_step_alone(sampler):
  straight = _train(sampler=sampler)
  backwards = _train(sampler=sampler, num_steps=61)
  for step in reversed(range(60)):
    _assert_equal(backwards[step], straight[step])
  ids = [_train(sampler=sampler, seed=s)[0]["id"].tolist() for s in range(3)]
  assert len(set(map(tuple, ids))) == 3


def _mark():
  """Adds an example's own draws: shows which it got."""

  def apply(ids, uniforms):
    return ids + (1000 * uniforms[:, : ids.shape[1]]).astype(np.int32)

  return data.Augmentation(_FULL, apply)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_shards_make_up_the_global_batch(count):
  source = _source()
  tokens = np.random.default_rng(0).random((300, _FULL, 2), np.float32)

  def batches(shard):
    return _train(
      source,
      shard=shard,
      augment=[_mark()],
      views={"strong": [_mark()]},
      columns={"latent": tokens},
    )

  whole = batches((0, 1))
  parts = [batches((index, count)) for index in range(count)]
  for step in range(0, 60, 7):
    each = [part[step] for part in parts]
    joined = {k: np.concatenate([p[k] for p in each]) for k in each[0]}
    _assert_equal(joined, whole[step])


def test_columns_per_token_are_cut():
  source = _source()
  columns = {
    "latent": np.random.default_rng(0).random((300, _FULL, 2), np.float32),
    # As many classes as tokens: must stay whole.
    "logits": np.random.default_rng(1).random((300, _FULL), np.float32),
    "pooled": np.zeros((300, 5, 2), np.float16),
  }
  batches = _train(source, columns=columns)
  for step in range(10):
    batch = batches[step]
    ids, size = batch["id"], batch["input"].shape[1]
    np.testing.assert_array_equal(
      batch["latent"], columns["latent"][ids, :size]
    )
    np.testing.assert_array_equal(batch["logits"], columns["logits"][ids])
    assert batch["pooled"].shape == (12, 5, 2)


def _evaluate(source, **kwargs):
  batches = data.evaluation_batches(source, batch_size=32, **kwargs)
  return [batches[index] for index in range(len(batches))]


def test_evaluation_by_length_restores_by_id():
  source = _source(150)
  column = np.arange(150.0)
  plain = _evaluate(source)
  by_length = _evaluate(
    source, buckets=data.buckets(source), columns={"number": column}
  )
  assert {batch["input"].shape[1] for batch in plain} == {_FULL}
  sizes = [batch["input"].shape[1] for batch in by_length]
  assert sizes == sorted(sizes) and len(set(sizes)) > 2
  ids = np.concatenate([batch["id"] for batch in by_length])
  assert sorted(ids.tolist()) == [-1] * 10 + list(range(150))
  for batch in by_length:
    kept = batch["mask"] == 1
    rows, size = batch["id"][kept], batch["input"].shape[1]
    expected = source.read(rows)
    np.testing.assert_array_equal(batch["input"][kept], expected[:, :size])
    assert (expected[:, size:] == source.pad_id).all()
    np.testing.assert_array_equal(batch["number"][kept], rows)


@pytest.mark.parametrize("sort", [False, True])
def test_evaluation_pads_by_rows_that_hold_tokens(sort):
  source = _source(35)
  buckets = data.buckets(source) if sort else None
  last = _evaluate(source, buckets=buckets)[-1]
  padded = last["mask"] == 0
  assert padded.sum() == 29
  assert (last["id"][padded] == -1).all()
  # A row without a token would give a network nothing to attend to.
  assert (last["input"][padded] != source.pad_id).any(axis=1).all()
  parts = [
    _evaluate(source, buckets=buckets, shard=(i, 4))[-1] for i in range(4)
  ]
  joined = {k: np.concatenate([p[k] for p in parts]) for k in last}
  _assert_equal(joined, last)


def test_joined_streams_have_their_long_batches_together():
  """A small stream, a large one, and one of larger batches."""
  shapes = ((2500, 12), (90, 12), (2500, 48))
  sources = [_source(size, seed=size) for size, _ in shapes]
  window = min(data.window(*shape) for shape in shapes)
  assert window == 7  # 90 // 12.
  streams = [
    _train(source, seed=i, batch_size=batch_size, window=window)
    for i, (source, (_, batch_size)) in enumerate(
      zip(sources, shapes, strict=True)
    )
  ]
  sizes = np.array(
    [[s[i]["input"].shape[1] for i in range(56)] for s in streams]
  )
  assert np.mean(sizes == sizes[:1]) > 0.8
  apart = _train(sources[0], batch_size=12)
  other = np.array([apart[i]["input"].shape[1] for i in range(56)])
  assert np.mean(other == sizes[1]) < 0.6


def test_joined_streams_share_a_length():
  first, second = _source(name="first"), _source(200, seed=1, name="second")
  tokens = np.ones((200, _FULL, 2), np.float32)
  streams = {
    "": _train(first),
    "starts": _train(second, seed=4, columns={"latent": tokens}),
  }
  zipped = data.zip_batches(streams, pad_id=first.pad_id)
  lengthened = 0
  for step in range(60):
    batch, parts = zipped[step], {k: s[step] for k, s in streams.items()}
    size = max(part["input"].shape[1] for part in parts.values())
    for found, part in ((batch, parts[""]), (batch["starts"], parts["starts"])):
      own = part["input"].shape[1]
      assert found["input"].shape == (12, size)
      np.testing.assert_array_equal(found["input"][:, :own], part["input"])
      assert (found["input"][:, own:] == first.pad_id).all()
      assert found["input"].dtype == np.int32
      lengthened += own < size
    own = parts["starts"]["input"].shape[1]
    latent = batch["starts"]["latent"]
    assert latent.shape == (12, size, 2)
    assert latent[:, :own].min() == 1 and not latent[:, own:].any()
  assert lengthened > 0
  stacked = data.stack_batches(
    [
      zipped,
      data.zip_batches({**streams, "": _train(first, seed=9)}, pad_id=1),
    ],
    pad_id=first.pad_id,
  )
  for step in range(60):
    batch = stacked[step]
    assert batch["input"].shape == (2, 12, batch["input"].shape[2])
    assert batch["starts"]["input"].shape == batch["input"].shape
    assert batch["starts"]["latent"].shape == (*batch["input"].shape, 2)
  bare = data.zip_batches(streams)
  with pytest.raises(ValueError, match="give the pad_id"):
    for step in range(60):
      bare[step]


def test_seeds_have_their_long_batches_at_the_same_steps():
  """Else the longest of several stacked seeds decides, almost always."""
  source = _source(3000)
  streams = [_train(source, seed=seed, num_steps=200) for seed in range(4)]
  alone = [streams[0][step]["input"].shape[1] for step in range(200)]
  together = [
    max(stream[step]["input"].shape[1] for stream in streams)
    for step in range(200)
  ]
  assert sum(together) < 1.15 * sum(alone)


def test_similar_lengths_save_padding():
  source = _source(3000)
  batches = _train(source, num_steps=250)
  padded = sum(batches[step]["input"].size for step in range(250))
  assert padded < 0.45 * 3000 * _FULL
  assert source.text.lengths.sum() > 0.6 * padded


def test_shapes_are_few():
  source = _source()
  batches = _train(source, num_steps=200)
  found = {batches[step]["input"].shape for step in range(200)}
  assert len(found) <= lengths.MOST
