# SPDX-License-Identifier: Apache-2.0
"""From sums to numbers, on the host.

Every function accepts a further leading axis, as `vmap` over seeds puts in
front: results are then arrays instead of floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tgt_jax import longtail
from tgt_jax.types import Mean


def add_metrics(first: Any, second: Any) -> Any:
  """Adds two batches' sums leaf by leaf: metrics, bins, confusions.

  Raises:
    ValueError: the two do not have the same structure.
  """
  try:
    return jax.tree.map(lambda a, b: a + b, first, second)
  except (ValueError, TypeError) as error:
    raise ValueError(
      "metrics to add must have the same names and shapes, got"
      f" {jax.tree.structure(first)} and {jax.tree.structure(second)}"
    ) from error


def _number(value: np.ndarray) -> Any:
  return value if np.ndim(value) else float(value)


def _divide(total: Any, count: Any) -> Any:
  """The quotient in float64, NaN where nothing was counted."""
  total = np.asarray(total, np.float64)
  count = np.asarray(count, np.float64)
  result = np.full(np.broadcast_shapes(total.shape, count.shape), np.nan)
  np.divide(total, count, out=result, where=count > 0)
  return result


def to_host(metrics: Mapping[str, Mean]) -> dict[str, Any]:
  """One transfer, one division per metric.

  Args:
    metrics: names to (sum, count) pairs, each a scalar or with leading axes.

  Returns:
    Names to floats, or to arrays where the sums have axes; NaN where the
    count is zero.
  """
  fetched = jax.device_get(dict(metrics))
  return {
    name: _number(_divide(pair.total, pair.count))
    for name, pair in fetched.items()
  }


def _mean_over(values: np.ndarray, classes: np.ndarray) -> Any:
  """Mean of `values` [..., K] over `classes` [K] that were evaluated."""
  counted = np.isfinite(values) & classes
  total = np.sum(np.where(counted, values, 0.0), axis=-1)
  return _number(_divide(total, np.sum(counted, axis=-1)))


def summarize_confusion(
  confusion: Any,
  train_counts: Any = None,
  *,
  thresholds: tuple[float, float] = (100, 20),
) -> dict[str, Any]:
  """Accuracies of a confusion matrix, over all and by training frequency.

  Args:
    confusion: counts, [..., K, K + 1] as of `confusion_matrix`, or
      [..., K, K]; rows are labels.
    train_counts: training examples per class, [K]; None leaves out the
      groups.
    thresholds: `(many, few)` of `longtail.many_medium_few`.

  Returns:
    "accuracy"; "balanced_accuracy", the mean over evaluated classes;
    with two classes "f1", that of class 1; "macro_f1", the mean of 2 TP / (2 TP + FP + FN) over the classes that are a
    label or a prediction of some example; "per_class", an array [..., K] of
    accuracies; with `train_counts` also "many", "medium" and "few", means over
    those classes. NaN stands for a class without examples and for an empty
    group.

  Raises:
    ValueError: another shape, or not one training count per class.
  """
  confusion = np.asarray(jax.device_get(confusion), np.float64)
  rows, columns = (0, 0, *confusion.shape)[-2:]
  if confusion.ndim < 2 or columns not in (rows, rows + 1):
    raise ValueError(
      f"confusion: expected [K, K + 1] or [K, K], got {confusion.shape}"
    )
  num_classes = rows
  correct = np.diagonal(confusion, axis1=-2, axis2=-1)
  per_class = _divide(correct, confusion.sum(axis=-1))
  everything = np.ones(num_classes, bool)
  named = confusion.sum(axis=-2)[..., :num_classes] + confusion.sum(axis=-1)
  summary = {
    "accuracy": _number(
      _divide(correct.sum(axis=-1), confusion.sum(axis=(-2, -1)))
    ),
    "balanced_accuracy": _mean_over(per_class, everything),
    "macro_f1": _mean_over(_divide(2 * correct, named), everything),
    "per_class": per_class,
  }
  if num_classes == 2:
    summary["f1"] = _number(_divide(2 * correct[..., 1], named[..., 1]))
  if train_counts is None:
    return summary
  if np.shape(train_counts) != (num_classes,):
    raise ValueError(
      f"train_counts: expected one for each of {num_classes} classes, got"
      f" shape {np.shape(train_counts)}"
    )
  many, few = thresholds
  groups = longtail.many_medium_few(train_counts, many=many, few=few)
  for name, classes in groups._asdict().items():
    summary[name] = _mean_over(per_class, classes)
  return summary
