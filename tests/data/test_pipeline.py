# SPDX-License-Identifier: Apache-2.0
"""Batches by step: order, shards, resumption, padding."""

from __future__ import annotations

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tgt_jax import data
from tgt_jax.data import Augmentation


def _source(size, num_classes=3, *, labels=None):
  """Image i is filled with i / 1000, so that its content names it."""
  images = np.ones((size, 4, 5, 1)) * np.arange(size)[:, None, None, None]
  if labels is None:
    labels = np.arange(size) % num_classes
  return data.from_arrays(
    images / 1000, labels, name="count", num_classes=num_classes
  )


def _tail_source():
  return _source(555, labels=np.repeat([2, 0, 1], [500, 50, 5]))


def _noise():
  """Adds each example's own draw: shows which one it got."""

  def apply(images, uniforms):
    return (images + uniforms[:, :, None, None]).astype(np.float32)

  return Augmentation(1, apply)


def _assert_equal(batch, other):
  assert batch.keys() == other.keys()
  for name, value in batch.items():
    if isinstance(value, dict):
      _assert_equal(value, other[name])
    else:
      assert value.dtype == other[name].dtype
      np.testing.assert_array_equal(value, other[name])


def test_a_batch_holds_the_rows_its_ids_name():
  source = _source(10)
  embedding = np.arange(20, dtype=np.float16).reshape(10, 2)
  batches = data.training_batches(
    source, batch_size=4, seed=0, num_steps=6, columns={"z": embedding}
  )
  assert len(batches) == 6
  for step in range(6):
    batch = batches[step]
    ids = batch["id"]
    assert sorted(batch) == ["id", "input", "label", "z"]
    assert batch["input"].shape == (4, 4, 5, 1)
    assert batch["input"].dtype == np.float32
    assert batch["label"].dtype == ids.dtype == np.int32
    assert batch["z"].dtype == np.float16
    np.testing.assert_allclose(batch["input"][:, 0, 0, 0], ids / 1000)
    np.testing.assert_array_equal(batch["label"], ids % 3)
    np.testing.assert_array_equal(batch["z"], embedding[ids])


@hypothesis.given(
  size=st.integers(1, 40),
  batch_size=st.integers(1, 50),
  seed=st.integers(0, 2**70),
  epochs=st.integers(1, 4),
)
def test_every_epoch_covers_every_id_once(size, batch_size, seed, epochs):
  num_steps = -(-epochs * size // batch_size)
  batches = data.training_batches(
    _source(size), batch_size=batch_size, seed=seed, num_steps=num_steps
  )
  ids = np.concatenate([batches[i]["id"] for i in range(num_steps)])
  for epoch in range(epochs):
    part = ids[epoch * size : (epoch + 1) * size]
    np.testing.assert_array_equal(np.sort(part), np.arange(size))


def test_epochs_and_seeds_have_different_orders():
  orders = set()
  for seed in range(3):
    batches = data.training_batches(
      _source(30), batch_size=30, seed=seed, num_steps=3
    )
    orders |= {tuple(batches[step]["id"]) for step in range(3)}
  assert len(orders) == 9


@hypothesis.given(
  sampler=st.sampled_from(sorted(data.SAMPLERS)),
  count=st.sampled_from([1, 2, 3, 4, 6]),
  step=st.integers(0, 30),
)
def test_shards_make_up_the_global_batch(sampler, count, step):
  def batches(shard):
    return data.training_batches(
      _tail_source(),
      batch_size=12,
      seed=4,
      num_steps=31,
      sampler=sampler,
      augment=[_noise(), _noise()],
      views={"strong": [_noise()]},
      shard=shard,
    )

  whole = batches((0, 1))[step]
  parts = [batches((index, count))[step] for index in range(count)]
  joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
  _assert_equal(joined, whole)


@pytest.mark.parametrize("sampler", sorted(data.SAMPLERS))
def test_a_batch_depends_on_seed_and_step_alone(sampler):
  def batches(**kwargs):
    return data.training_batches(
      _tail_source(),
      batch_size=16,
      seed=7,
      sampler=sampler,
      augment=[_noise()],
      **kwargs,
    )

  straight = batches(num_steps=90)
  backwards = batches(num_steps=90)
  short = batches(num_steps=10)
  for step in reversed(range(90)):
    _assert_equal(backwards[step], straight[step])
  for step in range(10):
    _assert_equal(short[step], straight[step])


@pytest.mark.parametrize("sampler", sorted(data.SAMPLERS))
def test_the_stream_does_not_depend_on_how_it_is_cut(sampler):
  """Batches of 7 and of 1000 cut one stream, across blocks and epochs."""
  streams = []
  for batch_size in (7, 1000):
    batches = data.training_batches(
      _tail_source(),
      batch_size=batch_size,
      seed=3,
      num_steps=9000 // batch_size + 1,
      sampler=sampler,
    )
    ids = np.concatenate([batches[i]["id"] for i in range(len(batches))])
    streams.append(ids[:9000])
  np.testing.assert_array_equal(*streams)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_resumed_is_uninterrupted(prefetch, threads):
  batches = data.training_batches(
    _source(23), batch_size=8, seed=1, num_steps=12, augment=[_noise()]
  )
  first = data.iterate(batches, prefetch=prefetch, threads=threads)
  for _ in range(5):
    next(first)
  state = json.loads(json.dumps(first.get_state()))
  assert state == {"next_index": 5}  # Not what was read ahead.
  restored = data.iterate(batches, prefetch=prefetch, threads=threads)
  next(restored)
  restored.set_state(state)
  started = data.iterate(batches, start_step=5, prefetch=prefetch)
  rest = list(first)
  assert len(rest) == 7
  for step, ours, again, late in zip(
    range(5, 12), rest, restored, started, strict=True
  ):
    for batch in (ours, again, late):
      _assert_equal(batch, batches[step])
  for iterator in (first, restored, started):
    iterator.close()


@pytest.mark.parametrize(
  "sampler, expected",
  [
    ("class_balanced", [1 / 3, 1 / 3, 1 / 3]),
    ("square_root", np.sqrt([50, 5, 500]) / np.sqrt([50, 5, 500]).sum()),
  ],
)
def test_balanced_samplers_draw_classes_as_promised(sampler, expected):
  batches = data.training_batches(
    _tail_source(), batch_size=600, seed=0, num_steps=20, sampler=sampler
  )
  drawn = [batches[step] for step in range(20)]
  labels = np.concatenate([batch["label"] for batch in drawn])
  ids = np.concatenate([batch["id"] for batch in drawn])
  wanted = np.asarray(expected) * 12000
  chi_square = ((np.bincount(labels) - wanted) ** 2 / wanted).sum()
  assert chi_square < 13.8  # 2 degrees of freedom, p = 0.001.
  within = np.bincount(ids[labels == 0], minlength=555)[500:550]
  wanted = within.sum() / 50
  assert ((within - wanted) ** 2 / wanted).sum() < 85.4  # 49 df, p = 0.001.


def test_balanced_sampler_skips_absent_classes():
  source = _source(6, labels=[0, 0, 0, 0, 2, 2])
  batches = data.training_batches(
    source, batch_size=1000, seed=0, num_steps=1, sampler="class_balanced"
  )
  counts = np.bincount(batches[0]["label"], minlength=3)
  assert counts[1] == 0 and abs(counts[0] - 500) < 80
  assert set(batches[0]["id"]) == set(range(6))


def test_views_share_the_image_and_differ_in_noise():
  batches = data.training_batches(
    _source(50),
    batch_size=8,
    seed=0,
    num_steps=2,
    augment=[_noise()],
    views={"strong": [_noise()], "raw": []},
  )
  batch = batches[1]
  np.testing.assert_allclose(batch["raw"][:, 0, 0, 0], batch["id"] / 1000)
  weak, strong = (batch[k] - batch["raw"] for k in ("input", "strong"))
  assert np.abs(weak - strong)[:, 0, 0, 0].min() > 0
  later = batches[0]
  assert not np.allclose(weak, later["input"] - later["raw"])


@hypothesis.given(
  size=st.integers(0, 30),
  rows=st.integers(1, 12),
  count=st.integers(1, 4),
)
def test_evaluation_drops_nothing_and_marks_padding(size, rows, count):
  source = _source(size) if size else data.subset(_source(1), [])
  column = np.arange(size, dtype=np.float64) + 0.5
  shards = [
    data.evaluation_batches(
      source,
      batch_size=rows * count,
      columns={"c": column},
      shard=(index, count),
    )
    for index in range(count)
  ]
  assert {len(shard) for shard in shards} == {-(-size // (rows * count))}
  seen = []
  for step in range(len(shards[0])):
    for shard in shards:
      batch = shard[step]
      assert {len(value) for value in batch.values()} == {rows}
      assert batch["mask"].dtype == np.float32
      real = batch["mask"] == 1
      seen += batch["id"][real].tolist()
      np.testing.assert_allclose(batch["c"][real], batch["id"][real] + 0.5)
      padding = batch["mask"] == 0
      assert (real | padding).all()
      assert (batch["id"][padding] == -1).all()
      assert not batch["input"][padding].any()
      assert not batch["label"][padding].any()
  assert seen == list(range(size))


def test_zip_nests_streams():
  main = data.training_batches(_source(9), batch_size=3, seed=0, num_steps=4)
  other = data.training_batches(
    _source(9), batch_size=5, seed=1, num_steps=4, sampler="class_balanced"
  )
  zipped = data.zip_batches({"": main, "seeds": other})
  assert len(zipped) == 4
  for step in range(4):
    batch = dict(zipped[step])
    _assert_equal(batch.pop("seeds"), other[step])
    _assert_equal(batch, main[step])


def test_stack_adds_a_leading_axis():
  streams = [
    data.zip_batches(
      {
        "": data.training_batches(
          _source(9), batch_size=3, seed=seed, num_steps=4
        ),
        "seeds": data.training_batches(
          _source(9), batch_size=2, seed=seed + 10, num_steps=4
        ),
      }
    )
    for seed in range(3)
  ]
  stacked = data.stack_batches(streams)
  assert stacked[2]["input"].shape == (3, 3, 4, 5, 1)
  for row in range(3):
    mine = {k: v[row] for k, v in stacked[2].items() if k != "seeds"}
    mine["seeds"] = {k: v[row] for k, v in stacked[2]["seeds"].items()}
    _assert_equal(mine, streams[row][2])


def _train(**kwargs):
  arguments = {"batch_size": 4, "seed": 0, "num_steps": 3, **kwargs}
  return data.training_batches(_source(10), **arguments)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: _train(batch_size=0), "batch_size must be > 0, got 0"),
    (lambda: _train(num_steps=0), "num_steps must be > 0, got 0"),
    (lambda: _train(seed=-1), "seed must be >= 0, got -1"),
    (lambda: _train(sampler="balanced"), "Did you mean 'class_balanced'"),
    (lambda: _train(shard=(2, 2)), "0 <= index < count"),
    (lambda: _train(shard=(0, 3)), "not divisible by the 3 processes"),
    (
      lambda: _train(columns={"z": np.zeros(9)}),
      r"columns\['z'\]: expected one row per example of count, 10, got 9",
    ),
    (lambda: _train(columns={"id": np.zeros(10)}), "'id' is taken"),
    (lambda: _train(views={"label": []}), "'label' is taken"),
    (
      lambda: data.training_batches(
        data.subset(_source(3), []), batch_size=1, seed=0, num_steps=1
      ),
      "count is empty",
    ),
    (lambda: data.evaluation_batches(_source(3), batch_size=0), "batch_size"),
    (lambda: data.iterate(_train(), start_step=4), "start_step must be in"),
    (lambda: data.iterate(_train(), prefetch=-1), "prefetch must be >= 0"),
    (lambda: data.zip_batches({"seeds": _train()}), "main stream '' is miss"),
    (
      lambda: data.zip_batches({"": _train(), "s": _train(num_steps=4)}),
      "equal lengths",
    ),
    (lambda: data.zip_batches({"": _train(), "id": _train()})[0], "has 'id'"),
    (lambda: data.stack_batches([]), "one or more streams"),
    (
      lambda: data.stack_batches([_train(), _train(num_steps=4)]),
      "equal length",
    ),
  ],
)
def test_bad_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
