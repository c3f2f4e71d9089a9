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
from tgt_jax.metrics.embedding import alignment, effective_rank
from tgt_jax.metrics.grades import (
  correlations,
  expected_grade,
  nearest,
  right,
)
from tgt_jax.metrics.summary import (
  add_metrics,
  summarize_confusion,
  to_host,
)
from tgt_jax.metrics.tags import (
  average_precision,
  macro_f1,
  macro_mean,
  roc_auc,
)

__all__ = [
  "CalibrationBins",
  "accuracy",
  "add_metrics",
  "agreement",
  "alignment",
  "average_precision",
  "calibration_bins",
  "confusion_matrix",
  "correlations",
  "effective_rank",
  "expected_calibration_error",
  "expected_grade",
  "macro_f1",
  "macro_mean",
  "mean",
  "nearest",
  "negative_log_likelihood",
  "predictions",
  "right",
  "roc_auc",
  "summarize_confusion",
  "to_host",
  "top_k_accuracy",
]
