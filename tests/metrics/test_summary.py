# SPDX-License-Identifier: Apache-2.0
"""From sums to numbers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from tgt_jax import metrics
from tgt_jax.types import Mean


def pair(total, count):
  return Mean(jnp.asarray(total), jnp.asarray(count))


def test_sums_divide_once_on_the_host():
  batches = [
    {"loss/total": pair(6.0, 2.0), "eval/accuracy": pair(1.0, 2.0)},
    {"loss/total": pair(1.0, 8.0), "eval/accuracy": pair(8.0, 8.0)},
  ]
  host = metrics.to_host(metrics.add_metrics(*batches))
  # Not the mean of the batches' means, 1.5625 and 0.75.
  assert host == {"loss/total": 0.7, "eval/accuracy": 0.9}
  assert all(type(value) is float for value in host.values())


def test_seeds_come_back_as_an_array():
  host = metrics.to_host({"loss": pair([1.0, 3.0], [2.0, 2.0])})
  assert isinstance(host["loss"], np.ndarray)
  np.testing.assert_array_equal(host["loss"], [0.5, 1.5])


def test_nothing_counted_is_nan_without_a_warning():
  host = metrics.to_host({"a": pair(0.0, 0.0), "b": pair([0.0, 1], [0.0, 1])})
  assert np.isnan(host["a"])
  np.testing.assert_array_equal(host["b"], [np.nan, 1.0])


def test_different_names_do_not_add():
  with pytest.raises(ValueError, match="same names"):
    metrics.add_metrics({"a": pair(0.0, 1.0)}, {"b": pair(0.0, 1.0)})


CONFUSION = np.array([[8, 1, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_summary_by_hand():
  summary = metrics.summarize_confusion(CONFUSION, [500, 60, 3, 7])
  np.testing.assert_allclose(summary["per_class"], [0.8, 0.5, 0.5, np.nan])
  assert summary["accuracy"] == 11 / 16
  assert summary["balanced_accuracy"] == pytest.approx(0.6)
  assert (summary["many"], summary["medium"], summary["few"]) == (0.8, 0.5, 0.5)


def test_summary_is_what_scikit_learn_says():
  labels = np.random.default_rng(0).integers(0, 4, 300)
  predictions = np.where(np.arange(300) % 3, labels, (labels * 2) % 4)
  confusion = metrics.confusion_matrix(labels, predictions, 4)
  summary = metrics.summarize_confusion(confusion)
  assert summary["accuracy"] == pytest.approx(
    sklearn.metrics.accuracy_score(labels, predictions)
  )
  assert summary["balanced_accuracy"] == pytest.approx(
    sklearn.metrics.balanced_accuracy_score(labels, predictions)
  )
  np.testing.assert_allclose(
    summary["per_class"],
    sklearn.metrics.recall_score(labels, predictions, average=None),
  )
  assert summary["macro_f1"] == pytest.approx(
    sklearn.metrics.f1_score(labels, predictions, average="macro")
  )
  assert "many" not in summary


def test_f1_of_classes_that_are_labels_or_predictions():
  """Class 2 is only predicted, class 3 only a label, class 4 neither."""
  labels, predicted = np.array([0, 0, 1, 1, 3]), np.array([0, 2, 1, 0, -1])
  confusion = metrics.confusion_matrix(labels, predicted, 5)
  assert metrics.summarize_confusion(confusion)["macro_f1"] == pytest.approx(
    sklearn.metrics.f1_score(
      labels, predicted, average="macro", labels=[0, 1, 2, 3], zero_division=0
    )
  )


def test_an_empty_group_is_nan():
  summary = metrics.summarize_confusion(CONFUSION, [500, 600, 700, 800])
  assert np.isnan(summary["few"])
  assert np.isnan(summary["medium"])
  assert summary["many"] == pytest.approx(0.6)


def test_thresholds():
  summary = metrics.summarize_confusion(
    CONFUSION, [50, 9, 3, 7], thresholds=(10, 5)
  )
  assert (summary["many"], summary["medium"], summary["few"]) == (0.8, 0.5, 0.5)


def test_seeds_lead():
  both = np.stack([CONFUSION, CONFUSION.T])
  summary = metrics.summarize_confusion(both, [500, 60, 3, 7])
  single = [metrics.summarize_confusion(each, [500, 60, 3, 7]) for each in both]
  assert summary["per_class"].shape == (2, 4)
  for name, value in summary.items():
    np.testing.assert_allclose(value, [each[name] for each in single])


def test_bad_arguments():
  for shape in ((4,), (3, 2), (2, 4)):
    with pytest.raises(ValueError, match=r"expected \[K, K \+ 1\]"):
      metrics.summarize_confusion(np.zeros(shape))
  with pytest.raises(ValueError, match="train_counts"):
    metrics.summarize_confusion(CONFUSION, [1, 2])


def test_no_prediction_is_a_wrong_one():
  """The last of K + 1 columns: rows still count all their examples."""
  unsure = np.array([[2], [0], [2], [0]])
  summary = metrics.summarize_confusion(np.hstack([CONFUSION, unsure]))
  np.testing.assert_allclose(summary["per_class"], [8 / 12, 0.5, 0.25, np.nan])
  assert summary["accuracy"] == 11 / 20


def test_adding_does_not_depend_on_the_order_of_batches():
  """Counts are whole numbers, so sums of any order agree to the bit."""
  rng = np.random.default_rng(0)
  batches = [
    {
      "eval/accuracy": pair(float(rng.integers(0, 9)), 8.0),
      "confusion": jnp.asarray(rng.integers(0, 9, (3, 4))),
    }
    for _ in range(6)
  ]
  forward = functools.reduce(metrics.add_metrics, batches)
  backward = functools.reduce(metrics.add_metrics, batches[::-1])
  first, second = (
    functools.reduce(metrics.add_metrics, batches[part])
    for part in (slice(0, 2), slice(2, 6))
  )
  for other in (backward, metrics.add_metrics(first, second)):
    jax.tree.map(np.testing.assert_array_equal, forward, other)
  assert type(forward["eval/accuracy"]) is Mean


def test_a_batch_of_padding_changes_nothing():
  logits, labels = np.float32([[1, 0], [0, 1]]), np.array([0, 0])
  empty = np.zeros(2, bool)

  def sums(mask):
    return {
      "accuracy": metrics.accuracy(logits, labels, mask=mask),
      "bins": metrics.calibration_bins(logits, labels, mask=mask),
      "confusion": metrics.confusion_matrix(labels, labels, 2, mask=mask),
    }

  real, padding = sums(~empty), sums(empty)
  jax.tree.map(
    np.testing.assert_array_equal, metrics.add_metrics(real, padding), real
  )
  assert metrics.to_host({"a": real["accuracy"]}) == {"a": 0.5}


def test_shapes_that_do_not_add():
  with pytest.raises((ValueError, TypeError)):
    metrics.add_metrics({"a": jnp.zeros((2, 3))}, {"a": jnp.zeros((3, 2))})
  with pytest.raises(ValueError, match="same names"):
    metrics.add_metrics({"a": pair(0.0, 1.0)}, {"a": jnp.zeros(())})
