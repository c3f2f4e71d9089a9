# SPDX-License-Identifier: Apache-2.0
"""From sums to numbers."""

from __future__ import annotations

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
  assert "many" not in summary


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
  with pytest.raises(ValueError, match="confusion"):
    metrics.summarize_confusion(np.zeros((2, 3)))
  with pytest.raises(ValueError, match="train_counts"):
    metrics.summarize_confusion(CONFUSION, [1, 2])
