# SPDX-License-Identifier: Apache-2.0
"""Mean grades and their correlations against closed forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import metrics


def test_the_mean_grade():
  probabilities = np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
  found = metrics.expected_grade(jnp.log(probabilities))
  np.testing.assert_allclose(found, [1.1, 2.0], rtol=1e-6)


def test_the_nearest_class():
  labels = np.array([3, 1])
  np.testing.assert_array_equal(metrics.nearest(labels), labels)
  found = metrics.nearest(np.array([0.49, 1.6, 5.0]))
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, [0, 2, 5])
  right = metrics.accuracy(
    jnp.eye(3), metrics.nearest(np.array([0.2, 1.4, 1.3]))
  )
  np.testing.assert_allclose(right.total / right.count, 2 / 3)


def test_correlations():
  grades = np.array([0.0, 1.0, 2.0, 4.0])
  found = metrics.correlations(np.exp(grades), grades)
  assert found["spearman"] == pytest.approx(1.0)
  assert found["pearson"] == pytest.approx(
    np.corrcoef(np.exp(grades), grades)[0, 1]
  )
  found = metrics.correlations(-3 * grades + 1, grades)
  assert found == pytest.approx({"pearson": -1.0, "spearman": -1.0})
  # Of ties each has the mean of their ranks: 2.5, 1, 2.5, 4 against 1 to 4.
  tied = metrics.correlations([5.0, 1.0, 5.0, 9.0], grades)
  assert tied["spearman"] == pytest.approx(
    np.corrcoef([2.5, 1, 2.5, 4], [1, 2, 3, 4])[0, 1]
  )


@pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [0.0, np.nan, 1.0]])
def test_what_has_no_correlation(predicted):
  found = metrics.correlations(predicted, [1.0, 2.0, 3.0])
  assert all(map(np.isnan, found.values()))


def test_tags_are_told_one_by_one():
  logits = jnp.asarray([[2.0, -1.0, 3.0], [-1.0, 1.0, -2.0], [1.0, 1.0, 1.0]])
  tags = jnp.asarray([[1.0, 0.0, -1.0], [1.0, -1.0, -1.0], [0.0, 1.0, 0.3]])
  told = metrics.right(logits, tags)
  assert (told.total, told.count) == (3, 6)
  padded = metrics.right(logits, tags, mask=jnp.asarray([1, 1, 0]))
  assert (padded.total, padded.count) == (2, 3)
  nothing = metrics.right(logits, -jnp.ones((3, 3)))
  assert (nothing.total, nothing.count) == (0, 0)
