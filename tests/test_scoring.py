# SPDX-License-Identifier: Apache-2.0
"""What an evaluation reports of a split."""

from __future__ import annotations

import numpy as np
import pytest

from tgt_jax import measures, scoring


def logits_of(variables, x):
  return x + variables


def batches(logits, labels, size=8):
  """The split in batches, the last one padded with what must not count."""
  for start in range(0, len(labels), size):
    image, label = logits[start : start + size], labels[start : start + size]
    missing = size - len(label)
    yield {
      "input": np.pad(image, ((0, missing), (0, 0)), constant_values=np.nan),
      "label": np.pad(label, (0, missing)),
      "mask": np.pad(np.ones(len(label), np.float32), (0, missing)),
    }


def score(logits, labels, seeds=1):
  classes = logits.shape[-1]
  return scoring.score(
    np.zeros((seeds, 1, classes), np.float32),
    batches(logits, labels),
    logits=logits_of,
    class_counts=np.arange(1, classes + 1),
    groups=(8, 3),
  )


def draw(classes, size=30):
  rng = np.random.default_rng(classes)
  labels = rng.integers(0, classes, size).astype(np.int32)
  return rng.normal(size=(size, classes)).astype(np.float32), labels


def test_top5_of_many_classes():
  logits, labels = draw(12)
  found = score(logits, labels, seeds=2)
  ranks = np.argsort(-logits, axis=-1)
  right = np.any(ranks[:, :5] == labels[:, None], axis=-1)
  np.testing.assert_allclose(found["top5"], [right.mean()] * 2, rtol=1e-6)
  np.testing.assert_allclose(
    found["accuracy"], [np.mean(ranks[:, 0] == labels)] * 2, rtol=1e-6
  )
  assert np.all(found["top5"] > found["accuracy"])
  seed = scoring.seed_results(found, (0, 1))[1]
  assert seed.metrics["top5"] == pytest.approx(right.mean())


def test_top5_of_few_classes_says_nothing():
  assert "top5" not in score(*draw(10))


def test_top5_is_shown_as_a_percentage():
  assert measures.label("top5") == "top5 %"
  assert measures.format_value("top5", 0.5) == "50.0"
  assert not measures.lower_is_better("top5")


def test_a_student_of_nan_has_an_accuracy_of_zero():
  logits, labels = draw(12)
  found = score(np.full_like(logits, np.nan), labels)
  for name in ("accuracy", "balanced", "top5"):
    assert found[name] == [0.0], name
  seen = np.isin(np.arange(12), labels)
  np.testing.assert_array_equal(found["per_class"][0, seen], 0.0)
  metrics = scoring.seed_results(found, (0,))[0].metrics
  assert metrics["nll"] is None
  assert metrics["ece"] is None


def test_answers_at_hand_score_as_when_asked_for():
  draws = np.random.default_rng(0)
  logits = draws.standard_normal((10, 3)).astype(np.float32)
  labels = draws.integers(0, 3, 10).astype(np.int32)
  counts = {"class_counts": np.array([30, 12, 3]), "groups": (20, 5)}

  def batches():
    for rows in (slice(0, 8), slice(8, 16)):
      size = len(labels[rows])
      fill = lambda array, size=size: np.concatenate(
        [array, np.zeros((8 - size, *array.shape[1:]), array.dtype)]
      )
      yield {
        "input": fill(logits[rows]),
        "label": fill(labels[rows]),
        "teacher_logits": fill(logits[rows]),
        "mask": fill(np.ones(size, np.float32)),
      }

  asked = scoring.score(
    np.zeros((1, 1)), batches(), logits=lambda variables, x: x, **counts
  )
  found = scoring.score_answers(logits, logits, labels, **counts)
  assert found.keys() == asked.keys()
  for name, value in found.items():
    np.testing.assert_allclose(value, asked[name], rtol=1e-5, err_msg=name)
  assert found["agreement"] == 1.0


def test_one_broken_answer_leaves_tags_without_a_score():
  rng = np.random.default_rng(0)
  tags = rng.integers(-1, 2, (50, 4)).astype(np.float32)
  logits = rng.normal(size=(2, 50, 4)).astype(np.float32)
  whole = scoring.score_tags(logits, tags)
  row = np.flatnonzero(tags[:, 1] >= 0)[0]
  logits[1, row, 1] = np.nan
  found = scoring.score_tags(logits, tags)
  for name in ("map", "roc_auc", "macro_f1"):
    assert found[name][0] == whole[name][0]
    assert np.isnan(found[name][1])
  # Of what nobody knows anything may be said.
  logits[1, row, 1] = 0
  logits[1, np.flatnonzero(tags[:, 2] < 0)[0], 2] = np.nan
  assert np.isfinite(scoring.score_tags(logits, tags)["map"]).all()
