# SPDX-License-Identifier: Apache-2.0
"""Expected calibration error as bin statistics that add up over batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks
from tgt_jax.types import Array


class CalibrationBins(NamedTuple):
  """Sums per confidence bin, each [bins]; batches add with `add_metrics`.

  Attributes:
    examples: how many, or the sum of their weights.
    confidence: sum of the top class's probabilities.
    correct: number of right predictions.
  """

  examples: Array
  confidence: Array
  correct: Array


def calibration_bins(
  logits: Array,
  labels: Array,
  *,
  num_bins: int = 15,
  mask: Array | None = None,
) -> CalibrationBins:
  """Sorts a batch by confidence into bins of equal width.

  Bin b holds confidences in (b / bins, (b + 1) / bins] (Guo et al., 2017,
  "On calibration of modern neural networks", arXiv 1706.04599). Logits with a
  NaN have no confidence: they are wrong, and the error becomes NaN.

  Args:
    logits: scores, [B, K].
    labels: classes, [B], integers.
    num_bins: number of bins.
    mask: [B], booleans or weights; None counts every example.

  Raises:
    ValueError: shapes do not fit, or num_bins is not positive.
    TypeError: logits not floating point, or labels not integers.
  """
  checks.rank(2, logits=logits)
  checks.floating(logits=logits)
  checks.integer(labels=labels)
  checks.same_leading(logits=logits, labels=labels)
  checks.positive(num_bins=num_bins)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  weights = jnp.ones(labels.shape, logits.dtype)
  if mask is not None:
    checks.same_shape(labels=labels, mask=mask)
    weights = jnp.asarray(mask).astype(logits.dtype)

  confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
  valid = ~jnp.isnan(confidence)
  correct = valid & (jnp.argmax(logits, axis=-1) == labels)
  index = jnp.ceil(jnp.where(valid, confidence, 0.0) * num_bins)
  index = index.astype(jnp.int32) - 1
  index = jnp.clip(index, 0, num_bins - 1)

  def per_bin(values: Array) -> Array:
    values = jnp.where(weights > 0, weights * values, 0.0)
    return jnp.zeros(num_bins, values.dtype).at[index].add(values)

  return CalibrationBins(
    examples=per_bin(jnp.ones_like(confidence)),
    confidence=per_bin(confidence),
    correct=per_bin(correct.astype(confidence.dtype)),
  )


def expected_calibration_error(bins: CalibrationBins) -> Any:
  """Mean over examples of |accuracy - confidence| of their bin, on the host.

  Args:
    bins: sums over all batches, each [..., bins].

  Returns:
    A float, or an array [...] where the bins have leading axes; NaN where
    there were no examples.
  """
  examples, confidence, correct = (
    np.asarray(value, np.float64) for value in jax.device_get(bins)
  )
  gaps = np.sum(np.abs(correct - confidence), axis=-1)
  total = np.sum(examples, axis=-1)
  error = np.full(np.shape(total), np.nan)
  np.divide(gaps, total, out=error, where=total > 0)
  return error if error.ndim else float(error)
