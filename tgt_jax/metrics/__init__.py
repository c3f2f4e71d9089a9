# SPDX-License-Identifier: Apache-2.0
"""Metrics: sums and counts on the device, one division on the host."""

from __future__ import annotations

from tgt_jax.metrics.calibration import (
  CalibrationBins,
  calibration_bins,
  expected_calibration_error,
)
from tgt_jax.metrics.classification import (
  accuracy,
  agreement,
  confusion_matrix,
  mean,
  negative_log_likelihood,
  predictions,
  top_k_accuracy,
)
from tgt_jax.metrics.grades import correlations, expected_grade, nearest
from tgt_jax.metrics.summary import (
  add_metrics,
  summarize_confusion,
  to_host,
)

__all__ = [
  "CalibrationBins",
  "accuracy",
  "add_metrics",
  "agreement",
  "calibration_bins",
  "confusion_matrix",
  "correlations",
  "expected_calibration_error",
  "expected_grade",
  "mean",
  "nearest",
  "negative_log_likelihood",
  "predictions",
  "summarize_confusion",
  "to_host",
  "top_k_accuracy",
]
