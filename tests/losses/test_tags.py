# SPDX-License-Identifier: Apache-2.0
"""Losses of several labels at once, some of them unknown."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from tests.losses.embedding_rows import FIVE, STUDENT
from tgt_jax import losses

B, K = 6, 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, K)).astype(np.float32) * 3
# Known are 2, 0, 4, 1, 3, 1 of each example's labels.
LABELS = np.array(
  [
    [1, -1, 0, -1],
    [-1, -1, -1, -1],
    [0, 0, 1, 0],
    [-1, 0.3, -1, -1],
    [1, 1, -1, 0.75],
    [-1, -1, -1, 0],
  ],
  np.float32,
)


@jax.jit
def value_and_slope(logits, labels, where):
  def total(logits):
    values = losses.binary_cross_entropy(logits, labels, where=where)
    return jnp.sum(values), values

  slope, values = jax.grad(total, has_aux=True)(logits)
  return values, slope


def evaluate(logits=LOGITS, labels=LABELS, where=None):
  where = np.ones((B, K), bool) if where is None else where
  return jax.device_get(value_and_slope(logits, labels, where))


def entries(logits, labels):
  """Of every known entry, and NaN elsewhere, in float64."""
  x, y = np.float64(logits), np.float64(labels)
  value = y * np.log1p(np.exp(-x)) + (1 - y) * np.log1p(np.exp(x))
  return np.where(labels >= 0, value, np.nan)


class TestBinaryCrossEntropy:
  def test_the_mean_is_that_of_all_known_entries(self):
    values, _ = evaluate()
    expected = entries(LOGITS, LABELS)
    np.testing.assert_allclose(np.mean(values), np.nanmean(expected), rtol=1e-6)
    np.testing.assert_allclose(
      values, B / 11 * np.nansum(expected, axis=1), rtol=1e-5
    )
    assert values[1] == 0

  def test_against_scikit_learn(self):
    labels = np.float32(RNG.integers(0, 2, (B, K)))
    values, _ = evaluate(labels=labels)
    probabilities = 1 / (1 + np.exp(-LOGITS.ravel()))
    expected = log_loss(labels.ravel(), probabilities)
    np.testing.assert_allclose(np.mean(values), expected, rtol=1e-5)

  def test_gradient(self):
    _, slope = evaluate()
    known = LABELS >= 0
    expected = B / 11 * (1 / (1 + np.exp(-LOGITS)) - LABELS)
    np.testing.assert_allclose(slope[known], expected[known], rtol=1e-4)
    np.testing.assert_array_equal(slope[~known], np.zeros(np.sum(~known)))

  def test_padding_is_no_example(self):
    """It has no part in the mean over the kept ones, whatever it holds."""
    real = np.array([True, True, False, True, True, False])
    logits = LOGITS.copy()
    logits[~real] = np.nan
    labels = LABELS.copy()
    labels[5] = np.nan
    where = np.repeat(real[:, None], K, axis=1)
    values, slope = evaluate(logits, labels, where)
    expected = np.nanmean(entries(LOGITS[real], LABELS[real]))
    np.testing.assert_allclose(np.mean(values[real]), expected, rtol=1e-6)
    np.testing.assert_array_equal(values[~real], np.zeros(2))
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[~real], np.zeros((2, K)))

  def test_a_dropped_entry_is_unknown(self):
    where = np.ones((B, K), bool)
    where[2, 1] = where[4, 0] = False
    labels = np.where(where, LABELS, np.float32(-1))
    logits = np.where(where, LOGITS, np.float32(np.inf))
    values, slope = evaluate(logits, LABELS, where)
    np.testing.assert_array_equal(values, evaluate(LOGITS, labels)[0])
    assert np.all(np.isfinite(slope))

  def test_nothing_known(self):
    values, slope = evaluate(labels=np.full((B, K), -1, np.float32))
    np.testing.assert_array_equal(values, np.zeros(B))
    np.testing.assert_array_equal(slope, np.zeros((B, K)))

  def test_large_logits(self):
    values, slope = evaluate(np.sign(LOGITS) * np.float32(1e4), LABELS)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slope))
    right = np.where(LABELS > 0.5, 1e4, -1e4).astype(np.float32)
    values, _ = evaluate(right, np.round(LABELS))
    np.testing.assert_array_equal(values, np.zeros(B))

  @pytest.mark.parametrize("label", [-0.5, 1.5, np.nan])
  def test_what_is_no_label_is_nan(self, label):
    labels = LABELS.copy()
    labels[3, 2] = label
    values, _ = evaluate(labels=labels)
    np.testing.assert_array_equal(np.isnan(values), np.arange(B) == 3)

  def test_bfloat16_is_computed_in_float32(self):
    side = jax.ShapeDtypeStruct((B, K), jnp.bfloat16)
    values = jax.eval_shape(losses.binary_cross_entropy, side, side)
    assert values.dtype == jnp.float32

  def test_jit_is_eager(self):
    eager = losses.binary_cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(eager, evaluate()[0], rtol=1e-6)

  def test_wrong_arguments_raise(self):
    loss = losses.binary_cross_entropy
    with pytest.raises(TypeError, match="labels: expected floating"):
      loss(LOGITS, LABELS.astype(np.int32))
    with pytest.raises(ValueError, match="shapes must be equal"):
      loss(LOGITS, LABELS[:, :2])
    with pytest.raises(ValueError, match="labels: expected rank 2"):
      loss(LOGITS, LABELS[:, 0])
    with pytest.raises(TypeError, match="where: expected booleans"):
      loss(LOGITS, LABELS, where=LABELS)

  def test_by_name(self):
    loss = losses.LABEL_LOSSES["binary_cross_entropy"](class_counts=[5, 3, 2])
    np.testing.assert_allclose(loss(LOGITS, LABELS), evaluate()[0], rtol=1e-6)


class TestBernoulliKl:
  """Beyond the battery of distances, where it has a row."""

  def test_golden_value(self):
    """Published is the mean over the batch's known entries, not by example.

    The published code adds 1e-9 to probabilities, hence the tolerance.
    """
    known = np.ones((6, 5), bool)
    known[0, 0] = False
    with jax.enable_x64(True):
      loss = functools.partial(losses.bernoulli_kl, temperature=2.0)
      values = jax.jit(loss)(2 * STUDENT, 2 * FIVE, where=known)
      values = jax.device_get(values)
    counts = known.sum(1)
    np.testing.assert_allclose(
      np.sum(counts * values) / np.sum(counts), 0.4482031054, atol=2e-10, rtol=0
    )

  def test_is_the_divergence_of_two_classes(self):
    """With one class: the softmax of (x, 0)."""
    student, teacher = RNG.normal(size=(2, 5, 1)).astype(np.float32)
    pair = lambda x: jnp.concatenate([x, 0 * x], axis=1)

    @jax.jit
    def both(student, teacher):
      return (
        losses.bernoulli_kl(student, teacher, temperature=3.0),
        losses.kl_divergence(pair(student), pair(teacher), temperature=3.0),
      )

    ours, theirs = both(student, teacher)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)

  def test_a_hot_and_a_sure_teacher(self):
    """T -> inf: an eighth of the squared difference; and no overflow."""
    student, teacher = RNG.normal(size=(2, B, K)).astype(np.float32)
    loss = jax.jit(losses.bernoulli_kl, static_argnames="temperature")
    hot = loss(student, teacher, temperature=1e4)
    np.testing.assert_allclose(
      hot, np.mean((student - teacher) ** 2, axis=1) / 8, rtol=1e-4
    )
    sure = np.full((1, 2), 1e4, np.float32)
    value, slope = jax.jit(jax.value_and_grad(lambda s: loss(s, sure)[0]))(
      -sure
    )
    np.testing.assert_allclose(value, 1e4)
    np.testing.assert_allclose(slope, [[-0.5, -0.5]])
