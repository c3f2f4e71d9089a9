# SPDX-License-Identifier: Apache-2.0
"""Names, units and directions of metrics, and how their values are shown.

A metric of a further test split has that split's name in front:
"mismatched/accuracy".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

_PERCENT = frozenset(
  {
    "accuracy",
    "top5",
    "balanced",
    "many",
    "medium",
    "few",
    "macro_f1",
    "f1",
    "map",
    "roc_auc",
    "pearson",
    "spearman",
    "agreement",
    *(
      f"{who}_{metric}"
      for who in ("teacher", "compressor")
      for metric in ("accuracy", "map", "f1", "pearson", "spearman")
    ),
    "words_recovered",
    "probe_accuracy",
    "probe_map",
    "probe_roc_auc",
    "ece",
  }
)
_LOWER_IS_BETTER = frozenset({"nll", "ece", "reconstruction_rms"})
_PLAIN = frozenset({"dcor", "cka", "rank", "compressor_rank"})
METRICS = _PERCENT | _LOWER_IS_BETTER | _PLAIN  # That a config may show.


def plain(metric: str) -> str:
  """Returns a metric's name without the split that it is of."""
  return metric.rpartition("/")[2]


class Spread(NamedTuple):
  """Mean and sample standard deviation (n - 1) over seeds.

  Attributes:
    mean: over the seeds that have a value; NaN if none has.
    sd: NaN with fewer than two.
    valid: how many have a value.
    missing: how many have none.
  """

  mean: float
  sd: float
  valid: int
  missing: int


def defined(value: Any) -> float | None:
  """Returns a number as a float, and `None` for one that is not finite."""
  return None if value is None or not math.isfinite(value) else float(value)


def spread(values: Sequence[float | None]) -> Spread:
  """Returns mean and sd of what is there, and how much is not."""
  there = [v for v in map(defined, values) if v is not None]
  mean = statistics.fmean(there) if there else math.nan
  sd = statistics.stdev(there) if len(there) > 1 else math.nan
  return Spread(mean, sd, len(there), len(values) - len(there))


def format_value(metric: str, value: float | None) -> str:
  """Returns one value in the unit of its metric, or a dash."""
  if value is None or not math.isfinite(value):
    return "–"
  digits = 1 if plain(metric) in _PERCENT else 3
  return f"{shown(metric) * value:.{digits}f}"


def format_spread(metric: str, values: Sequence[float | None]) -> str:
  """Returns `mean ± sd`; a seed without a value is counted in words."""
  found = spread(values)
  text = format_value(metric, found.mean)
  if not math.isnan(found.sd):
    text += f" ± {format_value(metric, found.sd)}"
  if found.valid and found.missing:
    text += f" ({found.missing} failed)"
  return text


def shown(metric: str) -> float:
  """Returns what a value is multiplied by for the unit of `label`."""
  return 100.0 if plain(metric) in _PERCENT else 1.0


def label(metric: str) -> str:
  """Returns a column's heading, with its unit."""
  return f"{metric} %" if plain(metric) in _PERCENT else metric


def lower_is_better(metric: str) -> bool:
  """Returns whether a smaller value is a better one."""
  return plain(metric) in _LOWER_IS_BETTER
