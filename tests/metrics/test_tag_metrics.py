# SPDX-License-Identifier: Apache-2.0
"""Metrics of tags against scikit-learn, on the known entries."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tgt_jax import metrics

N, K = 40, 6
RNG = np.random.default_rng(0)


def draw(ties=False):
  """Scores and tags, of which a third is unknown."""
  scores = RNG.uniform(size=(N, K))
  if ties:
    scores = np.round(scores * 4) / 4
  tags = (RNG.uniform(size=(N, K)) < 0.3 + 0.4 * scores).astype(int)
  tags[RNG.uniform(size=(N, K)) < 1 / 3] = -1
  return scores, tags


def by_class(measure, scores, tags):
  known = tags >= 0
  return [measure(tags[m, k], scores[m, k]) for k, m in enumerate(known.T)]


@pytest.mark.parametrize("ties", [False, True])
def test_against_scikit_learn(ties):
  for _ in range(5):
    scores, tags = draw(ties)
    np.testing.assert_allclose(
      metrics.average_precision(scores, tags),
      by_class(sklearn_metrics.average_precision_score, scores, tags),
    )
    np.testing.assert_allclose(
      metrics.roc_auc(scores, tags),
      by_class(sklearn_metrics.roc_auc_score, scores, tags),
    )
    f1 = by_class(
      lambda truth, said: sklearn_metrics.f1_score(
        truth, said > 0.4, average="macro"
      ),
      scores,
      tags,
    )
    assert metrics.macro_f1(scores, tags) == pytest.approx(np.mean(f1))


def test_hand_values():
  scores = np.array([[0.9], [0.8], [0.3], [0.1], [0.99]])
  tags = np.array([[1], [0], [1], [0], [-1]])
  # Precision 1 at the first, 2/3 at the second positive.
  np.testing.assert_allclose(
    metrics.average_precision(scores, tags), [(1 + 2 / 3) / 2]
  )
  np.testing.assert_allclose(metrics.roc_auc(scores, tags), [3 / 4])
  # Yes at 0.9 and 0.8: one right of two; no at the others: the same.
  assert metrics.macro_f1(scores, tags) == pytest.approx(0.5)
  assert metrics.macro_f1(scores, tags, threshold=0.85) == pytest.approx(
    (2 / 3 + 4 / 5) / 2
  )


def test_logits_rank_as_probabilities_do():
  scores, tags = draw()
  logits = jnp.asarray(np.log(scores / (1 - scores)), jnp.float32)
  for measure in (metrics.average_precision, metrics.roc_auc):
    np.testing.assert_allclose(
      measure(logits, jnp.asarray(tags, jnp.float32)), measure(scores, tags)
    )


def test_what_is_unknown_does_not_count():
  scores, tags = draw()
  other = np.where(tags < 0, np.nan, scores)
  for measure in (
    metrics.average_precision,
    metrics.roc_auc,
    metrics.macro_f1,
  ):
    np.testing.assert_array_equal(measure(other, tags), measure(scores, tags))


def test_classes_of_one_kind():
  scores, tags = draw()
  tags[:, 0] = np.minimum(tags[:, 0], 0)  # No positive.
  tags[:, 1] = np.where(tags[:, 1] == 0, 1, tags[:, 1])  # No negative.
  tags[:, 2] = -1
  for measure in (metrics.average_precision, metrics.roc_auc):
    values = measure(scores, tags)
    np.testing.assert_array_equal(np.isnan(values), np.arange(K) < 3)
    assert metrics.macro_mean(values) == pytest.approx(np.mean(values[3:]))
  # A class without positives has both F1 where some were called so.
  f1 = by_class(
    lambda truth, said: (
      sklearn_metrics.f1_score(truth, said > 0.4, average="macro")
      if truth.size
      else np.nan
    ),
    scores,
    tags,
  )
  assert metrics.macro_f1(scores, tags) == pytest.approx(np.nanmean(f1))
  # Nobody says yes and nothing is: the other F1 alone, 1.
  assert metrics.macro_f1(np.zeros((3, 1)), np.zeros((3, 1), int)) == 1.0


def test_nothing_known():
  scores, tags = draw()
  tags = np.full_like(tags, -1)
  assert np.all(np.isnan(metrics.average_precision(scores, tags)))
  assert np.isnan(metrics.macro_mean(metrics.roc_auc(scores, tags)))
  assert np.isnan(metrics.macro_f1(scores, tags))


def test_a_network_that_overflows_is_seen():
  scores, tags = draw()
  row = np.flatnonzero(tags[:, 4] >= 0)[0]
  scores[row, 4] = np.nan
  for measure in (metrics.average_precision, metrics.roc_auc):
    np.testing.assert_array_equal(
      np.isnan(measure(scores, tags)), np.arange(K) == 4
    )
  assert np.isnan(metrics.macro_f1(scores, tags))


def test_wrong_arguments_raise():
  scores, tags = draw()
  for measure in (
    metrics.average_precision,
    metrics.roc_auc,
    metrics.macro_f1,
  ):
    with pytest.raises(ValueError, match="shapes must be equal"):
      measure(scores, tags[:, :2])
    with pytest.raises(ValueError, match="scores: expected rank 2"):
      measure(scores[:, 0], tags[:, 0])
    with pytest.raises(TypeError, match="scores: expected floating"):
      measure(tags, tags)
    with pytest.raises(ValueError, match="got 0.3 for example 1, class 0"):
      measure(scores, np.where(np.arange(N)[:, None] == 1, 0.3, tags))
