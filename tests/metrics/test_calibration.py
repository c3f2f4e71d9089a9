# SPDX-License-Identifier: Apache-2.0
"""Expected calibration error."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import metrics


def logits_of(confidence):
  """Two classes; the first with the given probability."""
  confidence = np.asarray(confidence, np.float64)
  margin = np.log(confidence) - np.log1p(-confidence)
  return np.stack([margin, np.zeros_like(margin)], -1).astype(np.float32)


def numpy_error(logits, labels, num_bins):
  """The definition, bin by bin."""
  probs = np.exp(np.float64(logits))
  probs /= probs.sum(-1, keepdims=True)
  confidence, right = probs.max(-1), probs.argmax(-1) == labels
  edges = np.linspace(0, 1, num_bins + 1)
  error = 0.0
  for low, high in itertools.pairwise(edges):
    inside = (confidence > low) & (confidence <= high)
    if inside.any():
      gap = abs(right[inside].mean() - confidence[inside].mean())
      error += inside.mean() * gap
  return error


def test_by_hand():
  """Two bins: confidence .9 with accuracy 1/2, and .6 with accuracy 1."""
  logits = logits_of([0.9, 0.9, 0.6, 0.6])
  bins = metrics.calibration_bins(logits, np.array([0, 1, 0, 0]), num_bins=10)
  np.testing.assert_array_equal(bins.examples, [0, 0, 0, 0, 0, 2, 0, 0, 2, 0])
  error = metrics.expected_calibration_error(bins)
  assert isinstance(error, float)
  np.testing.assert_allclose(error, (0.4 + 0.4) / 2, rtol=1e-6)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_matches_the_definition(num_bins):
  rng = np.random.default_rng(0)
  logits = 2 * rng.normal(size=(300, 4)).astype(np.float32)
  labels = rng.integers(0, 4, 300).astype(np.int32)
  count = jax.jit(
    functools.partial(metrics.calibration_bins, num_bins=num_bins)
  )
  whole = metrics.expected_calibration_error(count(logits, labels))
  np.testing.assert_allclose(
    whole, numpy_error(logits, labels, num_bins), rtol=1e-5
  )
  halves = [count(logits[i::2], labels[i::2]) for i in (0, 1)]
  added = metrics.expected_calibration_error(metrics.add_metrics(*halves))
  np.testing.assert_allclose(added, whole, rtol=1e-5)


def test_certain_and_always_right_is_calibrated():
  """Confidence of exactly one falls into the last bin."""
  logits = np.float32([[1e4, 0], [0, 1e4]])
  bins = metrics.calibration_bins(logits, np.array([0, 1]))
  assert bins.examples[-1] == 2
  assert metrics.expected_calibration_error(bins) == 0


def test_a_mask_is_the_subset():
  logits, labels = logits_of([0.9, 0.8, 0.7]), np.array([0, 1, 0])
  expected = metrics.calibration_bins(logits[:2], labels[:2])
  logits[2] = np.nan
  bins = metrics.calibration_bins(logits, labels, mask=np.array([1, 1, 0]))
  jax.tree.map(np.testing.assert_array_equal, bins, expected)


def test_seeds_and_nothing_at_all():
  zeros = metrics.CalibrationBins(*(jnp.zeros((2, 15)),) * 3)
  error = metrics.expected_calibration_error(zeros)
  assert error.shape == (2,)
  assert np.all(np.isnan(error))


def test_bad_arguments():
  with pytest.raises(ValueError, match="num_bins"):
    metrics.calibration_bins(
      np.zeros((1, 2), np.float32), np.array([0]), num_bins=0
    )
  with pytest.raises(ValueError, match="leading"):
    metrics.calibration_bins(np.zeros((2, 2), np.float32), np.array([0]))


def test_nan_has_no_confidence():
  """It shows in the error, and in no other bin's sums."""
  logits, labels = logits_of([0.9, 0.8, 0.7]), np.array([0, 0, 1])
  logits[1] = np.nan
  bins = metrics.calibration_bins(logits, labels)
  assert (np.sum(bins.examples), np.sum(bins.correct)) == (3, 1)
  assert np.sum(np.isnan(bins.confidence)) == 1
  assert np.isnan(metrics.expected_calibration_error(bins))


@pytest.mark.parametrize("num_bins", [2, 4, 10])
def test_an_edge_belongs_to_the_bin_below(num_bins):
  """Half-open on the left: a confidence of one half is in the lower half."""
  bins = metrics.calibration_bins(
    np.zeros((3, 2), np.float32), np.array([0, 1, 1]), num_bins=num_bins
  )
  expected = np.zeros(num_bins)
  expected[num_bins // 2 - 1] = 3
  np.testing.assert_array_equal(bins.examples, expected)


def test_one_bin_compares_the_means():
  """Then the error is |accuracy - mean confidence|, which weights move."""
  logits = logits_of([0.9, 0.6, 0.8])
  labels, weights = np.array([0, 1, 0]), np.float32([1, 2, 1])
  bins = metrics.calibration_bins(logits, labels, num_bins=1, mask=weights)
  error = metrics.expected_calibration_error(bins)
  np.testing.assert_allclose(error, abs(0.5 - 2.9 / 4), rtol=1e-6)
