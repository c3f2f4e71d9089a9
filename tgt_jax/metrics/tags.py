# SPDX-License-Identifier: Apache-2.0
"""Several labels at once, some unknown: how well each class is told.

Scores [N, K] are logits or probabilities, higher for yes. Tags [N, K] are 1 for
yes, 0 for no, -1 where nobody knows; unknown entries count nowhere. Ranking a
class needs all of its scores, so these run on the host over a whole evaluation
set and do not add up over batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import checks

_TAGS = (-1, 0, 1)


def _arrays(scores: Any, tags: Any) -> tuple[np.ndarray, np.ndarray]:
  """Both on the host; scores in float64, tags as int8.

  Raises:
    ValueError: shapes differ or are not [N, K], or a tag is none of 1, 0, -1.
    TypeError: scores are not floating point.
  """
  checks.rank(2, scores=scores, tags=tags)
  checks.floating(scores=scores)
  checks.same_shape(scores=scores, tags=tags)
  scores, tags = (np.asarray(jax.device_get(a)) for a in (scores, tags))
  strange = ~np.isin(tags, _TAGS)
  if strange.any():
    row, column = np.argwhere(strange)[0]
    raise ValueError(
      "tags must be 1, 0 or -1 (unknown), got"
      f" {tags[row, column]} for example {row}, class {column}"
    )
  return scores.astype(np.float64), tags.astype(np.int8)


def _per_class(
  scores: Any, tags: Any, measure: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
  """`measure(scores, positive)` of each class's known entries, [K].

  NaN where those are not of both kinds, or a score is NaN.
  """
  scores, tags = _arrays(scores, tags)
  result = np.full(scores.shape[1], np.nan)
  for k in range(scores.shape[1]):
    known = tags[:, k] >= 0
    said, positive = scores[known, k], tags[known, k] == 1
    both = positive.any() and not positive.all()
    if both and not np.isnan(said).any():
      result[k] = measure(said, positive)
  return result


def _area_under_precision(scores: np.ndarray, positive: np.ndarray) -> float:
  """Precision at each distinct score, weighted by the recall it adds."""
  order = np.argsort(-scores, kind="stable")
  scores, positive = scores[order], positive[order]
  last = np.append(scores[1:] != scores[:-1], True)  # Equal scores as one.
  found = np.cumsum(positive)[last]
  shown = np.flatnonzero(last) + 1
  gained = np.diff(found, prepend=0) / found[-1]
  return float(np.sum(gained * found / shown))


def _area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float:
  """How often a positive is above a negative; equal scores count half."""
  from scipy import stats

  ranks = stats.rankdata(scores)
  hits = np.sum(positive)
  above = np.sum(ranks[positive]) - hits * (hits + 1) / 2
  return float(above / (hits * (len(scores) - hits)))


def average_precision(scores: Any, tags: Any) -> np.ndarray:
  """Area under the precision-recall curve of each class, by steps.

  Args:
    scores: [N, K].
    tags: 1, 0, or -1 for unknown, [N, K].

  Returns:
    [K], in [0, 1]; NaN where the known entries of a class are not of both
    kinds, or a score of them is NaN. `macro_mean` makes it mAP.

  Raises:
    ValueError: shapes differ or are not [N, K], or a tag is none of the three.
    TypeError: scores are not floating point.
  """
  return _per_class(scores, tags, _area_under_precision)


def roc_auc(scores: Any, tags: Any) -> np.ndarray:
  """Area under the ROC curve of each class, 0.5 by chance.

  Arguments, result and errors as in `average_precision`.
  """
  return _per_class(scores, tags, _area_under_roc)


def macro_mean(values: Any) -> float:
  """Mean over the classes that have a value; NaN where none has."""
  values = np.asarray(values, np.float64)
  values = values[~np.isnan(values)]
  return float(np.mean(values)) if values.size else float("nan")


def macro_f1(scores: Any, tags: Any, threshold: float = 0.4) -> float:
  """Mean over classes of the mean F1 of yes and of no, at one threshold.

  A score above the threshold says yes. F1 is 2 TP / (2 TP + FP + FN) on known
  entries; one that is 0 / 0, of an answer that is neither right nor given,
  leaves the other alone. The default is that of EAsT's public code on
  OpenMIC, for probabilities.

  Args:
    scores: [N, K].
    tags: 1, 0, or -1 for unknown, [N, K].
    threshold: on the scale of the scores.

  Returns:
    In [0, 1]; a class without known entries does not enter. NaN where none
    has any, or a known score is NaN.

  Raises:
    ValueError: shapes differ or are not [N, K], or a tag is none of the three.
    TypeError: scores are not floating point.
  """
  scores, tags = _arrays(scores, tags)
  checks.finite(threshold=threshold)
  known = tags >= 0
  if np.isnan(scores[known]).any():
    return float("nan")
  said = scores > threshold
  per_class = []
  for truth, answer in ((tags == 1, said), (tags == 0, ~said)):
    right = np.sum(known & truth & answer, axis=0)
    named = np.sum(known & truth, axis=0) + np.sum(known & answer, axis=0)
    f1 = np.full(scores.shape[1], np.nan)
    np.divide(2.0 * right, named, out=f1, where=named > 0)
    per_class.append(f1)
  return macro_mean([macro_mean(pair) for pair in zip(*per_class, strict=True)])
