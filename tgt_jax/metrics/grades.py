# SPDX-License-Identifier: Apache-2.0
"""Classes that are grades of something: a mean grade, and how well it ranks."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks
from tgt_jax.metrics import classification
from tgt_jax.types import Array


def nearest(labels: Any) -> Array:
  """Labels as they are; of grades the nearest class, of tags the first highest.

  Args:
    labels: classes, int [B]; grades, float [B]; or tags, float [B, K].
  """
  labels = jnp.asarray(labels)
  if labels.ndim == 2:
    return jnp.argmax(labels, axis=1)
  if not jnp.issubdtype(labels.dtype, jnp.floating):
    return labels
  return jnp.round(labels).astype(jnp.int32)


def right(
  logits: Array, labels: Array, *, mask: Array | None = None
) -> classification.Mean:
  """How often labels of any kind are told.

  Of classes, and of grades the nearest, `accuracy`; of tags how often a known
  one is on the right side of zero.

  Args:
    logits: [B, K].
    labels: see `nearest`; tags are in [0, 1] or -1 where nobody knows.
    mask: [B], booleans or weights; None counts every example.
  """
  labels = jnp.asarray(labels)
  if labels.ndim == 1:
    return classification.accuracy(logits, nearest(labels), mask=mask)
  counted = (labels >= 0).astype(jnp.float32)
  if mask is not None:
    counted *= jnp.asarray(mask, jnp.float32)[:, None]
  return classification.mean((logits > 0) == (labels > 0.5), counted)


def expected_grade(logits: Array) -> Array:
  """The mean of grades 0 to K - 1 by their probabilities, [B].

  Args:
    logits: [B, K].
  """
  checks.rank(2, logits=logits)
  checks.floating(logits=logits)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  return jax.nn.softmax(logits) @ jnp.arange(logits.shape[-1], dtype=float)


def correlations(predicted: Any, grades: Any) -> dict[str, float]:
  """How predictions and true grades go together.

  Args:
    predicted: [N].
    grades: [N].

  Returns:
    "pearson", of the values, and "spearman", of their ranks, in [-1, 1]; NaN
    where one of the two is constant or not finite.

  Raises:
    ValueError: shapes differ.
  """
  from scipy import stats

  pair = [np.asarray(a, np.float64) for a in (predicted, grades)]
  checks.same_shape(predicted=pair[0], grades=pair[1])
  if len(pair[0]) < 2 or not all(np.isfinite(a).all() for a in pair):
    return {"pearson": np.nan, "spearman": np.nan}
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of what is constant.
    return {
      "pearson": float(stats.pearsonr(*pair).statistic),
      "spearman": float(stats.spearmanr(*pair).statistic),
    }
