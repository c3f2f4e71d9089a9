# SPDX-License-Identifier: Apache-2.0
"""Sources, views, and the cuts that make long tails and validation sets."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tgt_jax import data
from tgt_jax.data import sources


def _pixels(size, shape=(3, 4, 2), seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (size, *shape), dtype=np.uint8)


def _source(labels, **kwargs):
  return data.from_arrays(_pixels(len(labels)), labels, name="toy", **kwargs)


def test_fetch_divides_bytes_exactly():
  images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
  source = data.from_arrays(images, [0, 1, 2, 1], name="bytes")
  batch = source.fetch(np.array([2, 0, 2]))
  expected = (images[[2, 0, 2]].astype(np.float64) / 255).astype(np.float32)
  np.testing.assert_array_equal(batch["input"], expected[..., None])
  assert batch["input"].dtype == np.float32
  np.testing.assert_array_equal(batch["label"], [2, 0, 2])
  assert batch["label"].dtype == np.int32
  assert source.input_shape == (8, 8, 1)
  assert len(source) == 4 and source.num_classes == 3


def test_fetch_returns_fresh_arrays():
  source = data.from_arrays(np.ones((2, 2, 2, 1)), [0, 1], name="ones")
  source.fetch(np.arange(2))["input"][:] = 0
  assert source.fetch(np.arange(2))["input"].min() == 1
  with pytest.raises(ValueError, match="read-only"):
    source.labels[0] = 1


@pytest.mark.parametrize("ids", [[-1], [0, 5], [7]])
def test_fetch_refuses_ids_outside(ids):
  with pytest.raises(IndexError, match=r"toy: expected ids in \[0, 5\)"):
    _source([0] * 5).fetch(np.array(ids))


def test_fingerprint_sees_content_name_and_options():
  images, labels = _pixels(5), np.array([0, 1, 0, 1, 2])
  changed = images.copy()
  changed[4, 2, 3, 1] ^= 1
  make = data.from_arrays
  prints = {
    make(images, labels, name="a").fingerprint,
    make(changed, labels, name="a").fingerprint,
    make(images, labels[::-1], name="a").fingerprint,
    make(images, labels, name="b").fingerprint,
    make(images, labels, name="a", options={"seed": 1}).fingerprint,
    make(images.astype(np.float32) / 255, labels, name="a").fingerprint,
    data.subset(make(images, labels, name="a"), [0, 1]).fingerprint,
    data.subset(make(images, labels, name="a"), [1, 0]).fingerprint,
  }
  assert len(prints) == 8
  assert all(int(p, 16) >= 0 for p in prints)
  same = make(images.copy(order="F"), labels.astype(np.uint8), name="a")
  assert same.fingerprint in prints


@hypothesis.given(st.data())
def test_views_compose(draw):
  source = _source(np.arange(12) % 4)
  first = np.array(draw.draw(st.lists(st.integers(0, 11), min_size=1)))
  view = data.subset(source, first)
  second = np.array(
    draw.draw(st.lists(st.integers(0, len(first) - 1), min_size=1))
  )
  twice = data.subset(view, second)
  np.testing.assert_array_equal(twice.ids, first[second])
  batch = twice.fetch(np.arange(len(second)))
  direct = source.fetch(first[second])
  np.testing.assert_array_equal(batch["input"], direct["input"])
  np.testing.assert_array_equal(batch["label"], direct["label"])
  assert twice.class_counts().sum() == len(second)


def test_long_tail_has_the_published_size():
  """CIFAR-100-LT at imbalance 100 has 10,847 images (arXiv 1906.07413)."""
  labels = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 500))
  images = np.zeros((50000, 1, 1), np.uint8)
  source = data.from_arrays(images, labels, name="cifar100-like")
  view, digest = data.long_tail(source, imbalance_ratio=100)
  counts = view.class_counts()
  assert len(view) == 10847
  assert counts[0] == 500 and counts[-1] == 5
  assert (np.diff(counts) <= 0).all()
  np.testing.assert_array_equal(source.labels[view.ids], view.labels)
  assert (np.diff(view.ids) > 0).all()
  again, same_digest = data.long_tail(source, imbalance_ratio=100)
  np.testing.assert_array_equal(again.ids, view.ids)
  assert same_digest == digest and again.fingerprint == view.fingerprint
  other, other_digest = data.long_tail(source, imbalance_ratio=100, seed=1)
  assert other_digest != digest
  np.testing.assert_array_equal(other.class_counts(), counts)


def test_pareto_profile_runs_from_head_to_tail():
  source = _source(np.repeat(np.arange(5), 60))
  view, _ = data.long_tail(
    source, profile="pareto", imbalance_ratio=20, head=40
  )
  counts = view.class_counts()
  assert counts[0] == 40 and counts[-1] == 2
  assert (np.diff(counts) < 0).all()


@hypothesis.given(
  per_class=st.integers(1, 12),
  ratio=st.integers(1, 15),
  seed=st.integers(0, 99),
)
def test_holdout_is_disjoint_and_loses_no_class(per_class, ratio, seed):
  source = _source(np.arange(90) % 6)  # 15 of each class.
  train, _ = data.long_tail(source, imbalance_ratio=ratio, seed=seed)
  held = data.holdout(source, train, per_class=per_class, seed=seed)
  validation, left = held.validation, held.train
  assert not set(validation.ids) & set(left.ids)
  assert set(left.ids) <= set(train.ids)
  assert len(train) - len(left) == held.moved
  assert (left.class_counts() > 0).all()
  # As many as asked where there are enough: outside, or half of those inside.
  inside = train.class_counts()
  room = 15 - inside + inside // 2
  np.testing.assert_array_equal(
    validation.class_counts(), np.minimum(per_class, room)
  )
  spare = np.maximum(validation.class_counts() - (15 - inside), 0)
  np.testing.assert_array_equal(inside - left.class_counts(), spare)
  again = data.holdout(source, train, per_class=per_class, seed=seed)
  np.testing.assert_array_equal(again.validation.ids, validation.ids)


def test_holdout_of_a_whole_source_splits_it():
  source = _source(np.arange(40) % 4)
  held = data.holdout(source, source, per_class=3)
  assert held.moved == 12 and len(held.train) == 28
  assert held.validation.class_counts().tolist() == [3, 3, 3, 3]
  assert held.validation.name == "toy/validation"


def test_holdout_without_need_leaves_the_training_set_as_it_is():
  source = _source(np.arange(40) % 4)
  train, _ = data.long_tail(source, imbalance_ratio=2, head=4)
  held = data.holdout(source, train, per_class=5)
  assert held.moved == 0 and held.train is train


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5])
def test_split_off_is_disjoint_and_keeps_every_class(share):
  source = _source(np.arange(400) % 4)
  train, _ = data.long_tail(source, imbalance_ratio=10.0)
  found = data.split_off(train, share=share, seed=1)
  both = np.concatenate([found.train.ids, found.feedback.ids])
  np.testing.assert_array_equal(np.sort(both), np.sort(train.ids))
  counts, aside = train.class_counts(), found.feedback.class_counts()
  expected = np.minimum(np.round(share * counts), counts - 1)
  np.testing.assert_array_equal(aside, expected)
  again = data.split_off(train, share=share, seed=1)
  np.testing.assert_array_equal(again.feedback.ids, found.feedback.ids)
  other = data.split_off(train, share=share, seed=2)
  assert not np.array_equal(other.feedback.ids, found.feedback.ids)


@pytest.mark.parametrize("share", [0.0, 0.6, 1e-6])
def test_split_off_refuses_what_leaves_nothing(share):
  with pytest.raises(ValueError, match="share"):
    data.split_off(_source(np.arange(400) % 4), share=share)


def test_holdout_of_a_view_of_a_view():
  root = _source(np.arange(60) % 3)
  source = data.subset(root, np.arange(30, 60))
  train, _ = data.long_tail(source, imbalance_ratio=2, head=6)
  held = data.holdout(source, train, per_class=2)
  assert set(held.validation.ids) <= set(range(30, 60))
  np.testing.assert_array_equal(
    held.validation.labels, root.labels[held.validation.ids]
  )


_ONES = np.ones((4, 2, 2, 1), np.float32)


@pytest.mark.parametrize(
  "call, error, message",
  [
    (
      lambda: data.from_arrays(_ONES.astype(int), [0] * 4, name="x"),
      TypeError,
      "x: images: expected uint8 .* got int64",
    ),
    (
      lambda: data.from_arrays(_ONES * 255, [0] * 4, name="x"),
      ValueError,
      r"expected values in \[0, 1\], got 255.0..255.0; scale",
    ),
    (
      lambda: data.from_arrays(_ONES * np.nan, [0] * 4, name="x"),
      ValueError,
      "got nan",
    ),
    (
      lambda: data.from_arrays(_ONES[0, 0], [0] * 4, name="x"),
      ValueError,
      "expected shape",
    ),
    (
      lambda: data.from_arrays(_ONES, [0.0] * 4, name="x"),
      TypeError,
      "labels: expected integers, got float64",
    ),
    (
      lambda: data.from_arrays(_ONES, ["cat"] * 4, name="x"),
      TypeError,
      "map names to numbers",
    ),
    (
      lambda: data.from_arrays(_ONES, [[0]] * 4, name="x"),
      ValueError,
      r"expected shape \[N\]",
    ),
    (
      lambda: data.from_arrays(_ONES, [0, 1, 3, 4], name="x", num_classes=3),
      ValueError,
      r"label 3 of example 2 is out of range: expected 0..2 \(2 of 4",
    ),
    (
      lambda: data.from_arrays(_ONES, [0, -1, 0, 0], name="x"),
      ValueError,
      "label -1 of example 1",
    ),
    (
      lambda: data.from_arrays(_ONES, [0] * 3, name="x"),
      ValueError,
      "4 images but 3 labels",
    ),
    (
      lambda: sources.from_arrays(
        _ONES, [0] * 4, name="x", num_classes=2, class_names=["only"]
      ),
      ValueError,
      "expected 2 class names, got 1",
    ),
    (
      lambda: data.subset(_source([0, 1]), [2]),
      ValueError,
      r"expected ids in \[0, 2\), got 2..2",
    ),
    (
      lambda: data.subset(_source([0, 1]), [True, False]),
      TypeError,
      "ids: expected integers, got bool",
    ),
    (
      lambda: data.long_tail(_source([0, 1]), imbalance_ratio=0.5),
      ValueError,
      "imbalance_ratio must be finite and >= 1",
    ),
    (
      lambda: data.long_tail(
        _source([0, 1]), profile="exponental", imbalance_ratio=2
      ),
      ValueError,
      "Did you mean 'exponential'",
    ),
    (
      lambda: data.long_tail(_source([0, 1, 1]), imbalance_ratio=1, head=2),
      ValueError,
      "class 0: 2 examples wanted, 1 available; lower head 2",
    ),
    (
      lambda: data.holdout(
        data.subset(_source([0, 1, 1]), [0, 1]),
        _source([0, 1, 1]),
        per_class=1,
      ),
      ValueError,
      "is no view of toy: row 2",
    ),
    (
      lambda: data.holdout(_source([0, 1, 1]), _source([0, 0, 1]), per_class=1),
      ValueError,
      "is no view of toy",
    ),
  ],
)
def test_bad_input_is_named(call, error, message):
  with pytest.raises(error, match=message):
    call()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 1.0])
def test_a_fraction_is_a_share_of_every_class_and_nested(share):
  labels = np.repeat(np.arange(3), [100, 40, 5])
  source = data.from_arrays(np.zeros((145, 2, 2)), labels, name="s")
  view, _ = data.long_tail(source, profile="fraction", fraction=share)
  expected = np.maximum(np.rint(share * np.array([100, 40, 5])), 1)
  assert view.class_counts().tolist() == expected.tolist()
  larger, _ = data.long_tail(
    source, profile="fraction", fraction=min(1.0, 2 * share)
  )
  assert set(view.ids) <= set(larger.ids)


def test_a_fraction_out_of_range_and_an_unknown_selection():
  source = data.from_arrays(np.zeros((4, 2, 2)), np.arange(4) % 2, name="s")
  with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got 0"):
    data.long_tail(source, profile="fraction", fraction=0.0)
  with pytest.raises(ValueError, match="selection"):
    data.long_tail(source, imbalance_ratio=1, selection="ldm")


def test_tags_and_embeddings_follow_a_view():
  tags = np.array([[1, 0, -1], [-1, 0.5, 1], [0, 0, 0], [0, 1, 1]])
  rows = np.arange(4 * 2 * 5, dtype=np.float32).reshape(4, 2, 1, 5)
  whole = sources.from_arrays(
    10.0 * np.ones((4, 2, 2)),
    tags,
    name="tagged",
    embeddings=rows,
    bounded=False,
  )
  view = sources.subset(whole, [3, 0])
  assert whole.labels.tolist() == [0, 2, 0, 1]
  assert whole.class_counts().tolist() == [1, 1, 2]
  np.testing.assert_array_equal(view.fetch(np.array([1]))["label"], tags[:1])
  np.testing.assert_array_equal(view.embed(np.array([0])), rows[3:])
  assert view.grades is None and len(view.tags) == 2
  with pytest.raises(ValueError, match=r"example 0, tag 1"):
    sources.from_arrays(np.ones((1, 2, 2)), [[0.0, 2.0]], name="bad")
