# SPDX-License-Identifier: Apache-2.0
"""Per-batch sums against scikit-learn and by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from tgt_jax import metrics

K = 5


def draw(seed=0, size=40):
  rng = np.random.default_rng(seed)
  logits = 2 * rng.normal(size=(size, K)).astype(np.float32)
  return logits, rng.integers(0, K, size).astype(np.int32)


def value(pair):
  return float(pair.total) / float(pair.count)


METRICS = {
  "accuracy": (
    metrics.accuracy,
    lambda p, y: sklearn.metrics.accuracy_score(y, p.argmax(-1)),
  ),
  "top_k_accuracy": (
    functools.partial(metrics.top_k_accuracy, k=2),
    lambda p, y: sklearn.metrics.top_k_accuracy_score(
      y, p, k=2, labels=range(K)
    ),
  ),
  "negative_log_likelihood": (
    metrics.negative_log_likelihood,
    lambda p, y: sklearn.metrics.log_loss(y, p, labels=range(K)),
  ),
}


@pytest.fixture(params=METRICS)
def metric(request):
  function, oracle = METRICS[request.param]
  return jax.jit(function), oracle


def test_is_what_scikit_learn_says(metric):
  function, oracle = metric
  logits, labels = draw()
  probs = np.exp(np.float64(logits))
  probs /= probs.sum(-1, keepdims=True)
  pair = function(logits, labels)
  assert pair.count == len(labels)
  np.testing.assert_allclose(value(pair), oracle(probs, labels), rtol=1e-6)


def test_a_mask_is_the_subset(metric):
  """Padding may hold NaN and labels out of range."""
  function, _ = metric
  logits, labels = draw()
  mask = np.random.default_rng(1).integers(0, 2, len(labels)).astype(bool)
  expected = function(logits[mask], labels[mask])
  logits[~mask], labels[~mask] = np.nan, -1
  for weights in (mask, mask.astype(np.float32)):
    pair = function(logits, labels, mask=weights)
    assert pair.count == mask.sum()
    np.testing.assert_allclose(pair.total, expected.total, rtol=1e-6)


def test_batches_add_up(metric):
  function, _ = metric
  logits, labels = draw()
  halves = [function(logits[i : i + 20], labels[i : i + 20]) for i in (0, 20)]
  whole = function(logits, labels)
  total = metrics.add_metrics(*halves)
  assert type(total) is type(whole)
  np.testing.assert_allclose(total.total, whole.total, rtol=1e-6)
  assert total.count == whole.count


def test_wrong_shapes_raise(metric):
  function, _ = metric
  logits, labels = draw()
  with pytest.raises(ValueError, match="leading axes"):
    function(logits, labels[:-1])
  with pytest.raises(ValueError, match="rank 2"):
    function(logits[0], labels)
  with pytest.raises(TypeError, match="integers"):
    function(logits, labels.astype(np.float32))
  with pytest.raises(ValueError, match="mask"):
    function(logits, labels, mask=np.ones(3))


def test_constant_logits_are_not_right_about_everything():
  logits, labels = np.zeros((10, K), np.float32), np.arange(10) % K
  assert value(metrics.accuracy(logits, labels)) == 0.2
  assert value(metrics.top_k_accuracy(logits, labels, k=2)) == 0.4
  assert value(metrics.top_k_accuracy(logits, labels, k=K)) == 1.0


@pytest.mark.parametrize("k", [0, K + 1])
def test_k_out_of_range(k):
  with pytest.raises(ValueError, match="k must be in"):
    metrics.top_k_accuracy(*draw(), k=k)


def test_nll_of_a_label_out_of_range_is_nan():
  logits = np.zeros((2, K), np.float32)
  for label in (-1, K):
    pair = metrics.negative_log_likelihood(logits, np.array([0, label]))
    assert np.isnan(pair.total)


def test_nll_of_bfloat16_is_summed_in_float32():
  logits, labels = draw()
  pair = metrics.negative_log_likelihood(jnp.bfloat16(logits), labels)
  assert pair.total.dtype == jnp.float32


def test_agreement_by_hand():
  student = np.eye(3, dtype=np.float32)
  teacher = np.float32([[5, 0, 0], [9, 1, 0], [0, 0, 0.1]])
  pair = jax.jit(metrics.agreement)(student, teacher)
  assert (float(pair.total), float(pair.count)) == (2, 3)
  masked = metrics.agreement(student, teacher, mask=np.array([0, 1, 1]))
  assert (float(masked.total), float(masked.count)) == (1, 2)


def test_mean_with_weights():
  pair = metrics.mean(np.float32([1, 2, np.nan]), np.float32([3, 0.5, 0]))
  assert (float(pair.total), float(pair.count)) == (4, 3.5)


def test_confusion_is_what_scikit_learn_says():
  logits, labels = draw(size=200)
  predictions = logits.argmax(-1)
  confusion = jax.jit(metrics.confusion_matrix, static_argnames="num_classes")(
    labels, predictions, num_classes=K
  )
  assert confusion.dtype == jnp.int32
  np.testing.assert_array_equal(
    confusion[:, :K], sklearn.metrics.confusion_matrix(labels, predictions)
  )
  np.testing.assert_array_equal(confusion[:, K], np.zeros(K))


def test_confusion_counts_only_what_it_should():
  """No label out of range; a prediction out of range is of no class."""
  labels = np.array([0, 1, 1, -1, 3, 2, 2])
  predictions = np.array([1, 1, 1, 0, 0, 7, -1])
  mask = np.array([1, 1, 0, 1, 1, 1, 1])
  confusion = metrics.confusion_matrix(labels, predictions, 3, mask=mask)
  expected = [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 2]]
  np.testing.assert_array_equal(confusion, expected)


def test_metrics_run_under_vmap_over_seeds():
  logits, labels = draw()
  pair = jax.vmap(lambda x: metrics.accuracy(x, labels))(
    np.stack([logits, -logits])
  )
  host = metrics.to_host({"eval/accuracy": pair})["eval/accuracy"]
  expected = [np.mean(x.argmax(-1) == labels) for x in (logits, -logits)]
  np.testing.assert_allclose(host, expected, rtol=1e-6)


@pytest.mark.parametrize("label", range(3))
def test_a_student_of_nan_is_right_about_nothing(label):
  """`argmax` and `top_k` name the NaN's class, whichever that is."""
  labels = np.full(4, label, np.int32)
  logits = np.zeros((4, 3), np.float32)
  logits[:, label] = 1.0  # Right, but for the NaN.
  for place in ([0, 1, 2], [0], [label], [(label + 1) % 3]):
    broken = logits.copy()
    broken[1:, place] = np.nan

    @jax.jit
    def all_of_them(broken):
      predicted = metrics.predictions(broken)
      return {
        "accuracy": metrics.accuracy(broken, labels),
        "top": metrics.top_k_accuracy(broken, labels, k=3),
        "student": metrics.agreement(broken, logits),
        "teacher": metrics.agreement(logits, broken),
        "both": metrics.agreement(broken, broken),
        "predicted": predicted,
        "confusion": metrics.confusion_matrix(labels, predicted, 3),
        "correct": metrics.calibration_bins(broken, labels).correct,
      }

    found = all_of_them(broken)
    assert found.pop("predicted").tolist() == [label, -1, -1, -1]
    assert np.sum(found.pop("correct")) == 1
    summary = metrics.summarize_confusion(found.pop("confusion"))
    assert summary["accuracy"] == summary["balanced_accuracy"] == 0.25
    for name, pair in found.items():
      assert (pair.total, pair.count) == (1, 4), name


def test_no_class_is_not_the_label_of_padding():
  """-1 stands for a label that is not there and for no prediction."""
  logits = np.full((2, 3), np.nan, np.float32)
  pair = metrics.accuracy(logits, np.array([-1, 0]))
  assert (float(pair.total), float(pair.count)) == (0, 2)


def test_an_infinite_logit_is_a_prediction():
  logits = np.float32([[0, np.inf, 0], [-np.inf, -np.inf, 3], [-np.inf] * 3])
  assert metrics.predictions(logits).tolist() == [1, 2, 0]


def test_predictions_take_logits():
  with pytest.raises(ValueError, match="rank 2"):
    metrics.predictions(np.zeros(3, np.float32))
  with pytest.raises(TypeError, match="floating"):
    metrics.predictions(np.zeros((2, 3), np.int32))


def test_accuracies_grow_with_k_up_to_one():
  logits, labels = draw(3)
  found = [
    value(metrics.top_k_accuracy(logits, labels, k=k)) for k in range(1, K + 1)
  ]
  assert found[0] == value(metrics.accuracy(logits, labels))
  assert np.all(np.diff(found) >= 0)
  assert found[-1] == 1.0


def test_a_weight_counts_as_so_many_examples(metric):
  function, _ = metric
  logits, labels = draw(4, size=6)
  times = np.array([1, 3, 0, 2, 1, 1])
  repeated = function(np.repeat(logits, times, 0), np.repeat(labels, times))
  weighted = function(logits, labels, mask=times.astype(np.float32))
  np.testing.assert_allclose(weighted.total, repeated.total, rtol=1e-6)
  assert weighted.count == repeated.count == 8
