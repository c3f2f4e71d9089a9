# SPDX-License-Identifier: Apache-2.0
"""Methods by tasks: one row per arm, one column per run and metric.

Each run is shown by the metric it puts first, so that a task reported by F1
stands beside one reported by accuracy; or by several, "f1+accuracy", whose mean
is what it adds to the mean over runs, as in GLUE's score.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from tgt_jax import measures, results as results_lib, tables
from tgt_jax.pairing import Run
from tgt_jax.results import ArmResult


def _names(runs: Sequence[Run]) -> list[str]:
  """Arms in the order in which runs have them, reference arms last."""
  arms = [arm for run in runs for arm in run.results.arms]
  ordered = sorted(arms, key=lambda arm: arm.reference)
  return list(dict.fromkeys(arm.name for arm in ordered))


def _of(run: Run, name: str) -> ArmResult | None:
  return next((arm for arm in run.results.arms if arm.name == name), None)


def _average(values: Sequence[Sequence[float | None]]) -> str:
  """The mean over tasks of the means of their numbers."""
  if any(v is None or math.isnan(v) for task in values for v in task):
    return "–"
  means = [
    statistics.fmean(v for v in task if v is not None) for task in values
  ]
  return f"{100 * statistics.fmean(means):.1f}"


def table(
  runs: Sequence[Run], *, metrics: Sequence[str] | None = None
) -> tables.Table:
  """Returns arms by runs, with their average, size and time.

  Args:
    runs: one per task.
    metrics: for each run one, or several joined by "+"; by default the first
      column of each.

  Raises:
    ValueError: another number of metrics, one that is no fraction, or one that
      no arm of its run has.
  """
  chosen = list(metrics or (run.results.columns[0] for run in runs))
  if len(chosen) != len(runs):
    raise ValueError(
      f"{len(chosen)} metrics for {len(runs)} runs; give one for each, or none"
    )
  tasks = [
    (run, metrics.split("+")) for run, metrics in zip(runs, chosen, strict=True)
  ]
  pairs = [(run, metric) for run, metrics in tasks for metric in metrics]
  for run, metric in pairs:
    if measures.shown(metric) == 1.0:
      raise ValueError(f"{run.name}: {metric} is no fraction to average")
    if not any(metric in s.metrics for a in run.results.arms for s in a.seeds):
      raise ValueError(f"{run.name}: no arm has {metric!r}")
  mark = lambda run: " (leaks)" if run.results.leaks else ""
  header = ["arm"]
  header += [f"{r.name}{mark(r)}, {measures.label(m)}" for r, m in pairs]
  rows = []
  for name in _names(runs):
    found = [_of(run, name) for run in runs]
    cells, means = [], []
    for arm, (_, metrics) in zip(found, tasks, strict=True):
      of = lambda m, arm=arm: list(arm.values(m).values()) if arm else []
      cells += [
        measures.format_spread(m, of(m)) if arm else "–" for m in metrics
      ]
      means.append([measures.spread(of(m)).mean for m in metrics])
    there = [arm for arm in found if arm is not None]
    times = [a.ms_per_step for a in there if a.ms_per_step is not None]
    size = "–".join(f"{n:,}" for n in sorted({a.parameters for a in there}))
    role = " (reference)" if there[0].reference else ""
    # Tasks differ in length: a mean over some of them is no one's.
    took = f"{statistics.fmean(times):.2f}" if len(times) == len(runs) else "–"
    rows.append([name + role, *cells, _average(means), size, took])
  rules = [len(rows)]
  rows.append(_teachers(tasks))
  return tables.Table(
    [*header, "mean", "parameters", "ms/step"],
    rows,
    rules=rules,
    notes=_notes(runs),
  )


def _teachers(tasks: Sequence[tuple[Run, list[str]]]) -> list[str]:
  """The last row."""
  values, sizes = [], set()
  cells: list[str] = []
  for run, metrics in tasks:
    teacher = run.results.teacher
    found = [teacher.metrics.get(m) if teacher else None for m in metrics]
    values.append(found)
    cells += map(measures.format_value, metrics, found)
    if teacher and teacher.parameters is not None:
      sizes.add(teacher.parameters)
  size = "–".join(f"{n:,}" for n in sorted(sizes)) or "–"
  return ["teacher", *cells, _average(values), size, "–"]


def _notes(runs: Sequence[Run]) -> list[str]:
  seeds = {len(arm.seeds) for run in runs for arm in run.results.arms}
  several = "–".join(map(str, sorted({min(seeds), max(seeds)})))
  notes = [
    f"Mean ± sd over {several} seeds at the last step; the mean is over runs."
  ]
  if any(run.results.leaks for run in runs):
    notes.append(f"Warning: {results_lib.LEAK}.")
  return notes
