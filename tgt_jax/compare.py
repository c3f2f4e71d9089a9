# SPDX-License-Identifier: Apache-2.0
"""One table over several runs, their arms and their seeds.

  python -m tgt_jax.compare runs/a runs/b --metric=balanced,few --baseline=kd
  python -m tgt_jax.compare runs/1 runs/10 runs/100 --curve=curve.png
  python -m tgt_jax.compare runs/mrpc runs/rte --across

Every number is read from the `results.json` of a run. With a baseline, each
arm is compared with it seed by seed: the mean of the paired differences and
its 95 % t-interval, over the seeds that both have. Equal seeds mean equal
data order and equal initialisation, which is why pairs say more than two
separate means do. Runs on other data, another evaluation split or another
teacher are listed and said to be different; no difference is taken over them.
The second draws the metrics over the number of labelled images, or with --over
over any number of the runs' configs. The third has a column for each run, by
the metric that the run puts first.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tgt_jax import (
  across,
  checks,
  curves,
  files,
  measures,
  tables,
)
from tgt_jax.pairing import (
  CONFIDENCE,
  Difference,
  Run,
  differing,
  load_runs,
  only,
  paired_difference,
  pool,
)
from tgt_jax.results import LEAK, ArmResult

FORMATS = (*tables.FORMATS, "json")


class Row(NamedTuple):
  """One arm of one run, with its difference to the baseline if there is one."""

  run: Run
  arm: ArmResult
  baseline: str | None
  difference: Difference | None
  is_baseline: bool = False


def compare(
  runs: Sequence[Run], *, metric: str, baseline: str | None = None
) -> tuple[list[Row], list[str]]:
  """Returns a row per arm, and what has to be said about them.

  Args:
    runs: at least one.
    metric: what the differences are of.
    baseline: `ARM`, which each run takes from itself if it has it and from
      the first comparable run otherwise, or `RUN:ARM`.

  Raises:
    ValueError: no run has the metric or the baseline; lists what there is.
  """
  _check_metric(runs, metric)
  if baseline is not None:
    _find_baseline(runs, baseline, None)
  rows = []
  for run in runs:
    found = baseline and _find_baseline(runs, baseline, run)
    for arm in run.results.arms:
      name = difference = None
      is_baseline = False
      if found:
        other, base = found
        name = f"{other.name}:{base.name}" if len(runs) > 1 else base.name
        is_baseline = base is arm
        if not is_baseline:
          difference = paired_difference(
            arm.values(metric), base.values(metric)
          )
      rows.append(Row(run, arm, name, difference, is_baseline))
  return rows, _notes(runs, rows)


def _check_metric(runs: Sequence[Run], metric: str) -> None:
  known = {
    name
    for run in runs
    for arm in run.results.arms
    for seed in arm.seeds
    for name in seed.metrics
  }
  checks.one_of(known, metric=metric)


def _find_baseline(
  runs: Sequence[Run], baseline: str, run: Run | None
) -> tuple[Run, ArmResult] | None:
  """Returns the baseline of `run`, None if there is no comparable one.

  With no run, returns any, and raises `ValueError` if there is none at all.
  """
  choices = [(r, a) for r in runs for a in r.results.arms]
  exact = [(r, a) for r, a in choices if f"{r.name}:{a.name}" == baseline]
  found = exact or [(r, a) for r, a in choices if a.name == baseline]
  if run is None:
    names = [a.name for _, a in choices] + [
      f"{r.name}:{a.name}" for r, a in choices
    ]
    if not found:
      checks.one_of(set(names), baseline=baseline)
    return found[0]
  found.sort(key=lambda choice: choice[0] is not run)
  return next(
    (c for c in found if not differing(c[0].results, run.results)), None
  )


def _notes(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
  """Returns sentences on what differs between runs."""
  first, *others = runs
  notes = []
  for run in others:
    different = differing(first.results, run.results)
    if different:
      notes.append(
        f"{run.name} is not comparable with {first.name}: it differs in"
        f" {', '.join(different)}."
      )
  leaks = [run.name for run in runs if run.results.leaks]
  if leaks:
    notes.append(f"Warning: {', '.join(leaks)}: {LEAK}.")
  steps = sorted({row.arm.steps for row in rows})
  if len(steps) > 1:
    notes.append(f"Steps differ: {', '.join(f'{s:,}' for s in steps)}.")
  selections = sorted({run.results.selection for run in runs})
  if len(selections) > 1:
    notes.append(
      f"The step that was evaluated differs: {', '.join(selections)}."
    )
  based = [row for row in rows if row.baseline]
  for text, names in (
    (
      "Not every seed has a partner in the baseline",
      [_name(r) for r in based if r.difference and _unpaired(r)],
    ),
    (
      "No seed in common with the baseline",
      [_name(r) for r in based if not r.difference and not r.is_baseline],
    ),
  ):
    if names:
      notes.append(f"{text}: {', '.join(names)}.")
  return notes


def _name(row: Row) -> str:
  return f"{row.run.name}:{row.arm.name}"


def _unpaired(row: Row) -> bool:
  pairs = row.difference.seeds if row.difference else ()
  return len(pairs) < len(row.arm.seeds)


def format_difference(metric: str, difference: Difference | None) -> str:
  """Returns `+1.9 [+0.8, +3.0]` in the metric's unit, or a dash."""
  if difference is None:
    return "–"

  def signed(value: float) -> str:
    text = measures.format_value(metric, abs(value))
    return ("−" if value < 0 else "+") + text

  text = signed(difference.mean)
  if not math.isnan(difference.low):
    text += f" [{signed(difference.low)}, {signed(difference.high)}]"
  return text


def comparison_table(
  rows: Sequence[Row],
  notes: Sequence[str],
  *,
  metrics: Sequence[str],
  per_seed: bool = False,
) -> tables.Table:
  """Returns the table of `compare`.

  Args:
    rows: of `compare`.
    notes: of `compare`.
    metrics: columns; the first is the one that the differences are of.
    per_seed: whether every seed gets a line of its own as well.
  """
  based = any(row.baseline for row in rows)
  header = ["run", "arm", "seeds", *map(measures.label, metrics)]
  header += [f"Δ {measures.label(metrics[0])}"] if based else []
  header += ["steps", "ms/step"]
  lines: list[list[str]] = []
  rules: list[int] = []
  for number, row in enumerate(rows):
    arm = row.arm
    if number and rows[number - 1].run is not row.run:
      rules.append(len(lines))
    line = [row.run.name, arm.name + (" (reference)" if arm.reference else "")]
    line.append(str(len(arm.seeds)))
    line += [
      measures.format_spread(m, list(arm.values(m).values())) for m in metrics
    ]
    if based:
      line.append(format_difference(metrics[0], row.difference))
    ms = "–" if arm.ms_per_step is None else f"{arm.ms_per_step:.2f}"
    lines.append([*line, f"{arm.steps:,}", ms])
    for seed in arm.seeds if per_seed else ():
      values = [measures.format_value(m, seed.metrics.get(m)) for m in metrics]
      rest = [""] * (len(header) - 3 - len(values))
      lines.append(["", f"  seed {seed.seed}", "", *values, *rest])
  notes = [f"Mean ± sd over seeds; {_based_note(rows)}", *notes]
  return tables.Table(header, lines, left=(0, 1), rules=rules, notes=notes)


def _based_note(rows: Sequence[Row]) -> str:
  names = list(dict.fromkeys(row.baseline for row in rows if row.baseline))
  if not names:
    return "no baseline."
  return (
    f"Δ is the paired difference to {', '.join(names)} with its"
    f" {100 * CONFIDENCE:.0f} % t-interval."
  )


def as_json(
  rows: Sequence[Row], notes: Sequence[str], *, metrics: Sequence[str]
) -> dict[str, Any]:
  """Returns the comparison as what strict JSON can hold."""
  listed = []
  for row in rows:
    arm, difference = row.arm, row.difference
    entry: dict[str, Any] = {
      "run": row.run.name,
      "path": str(row.run.path),
      "arm": arm.name,
      "reference": arm.reference,
      "steps": arm.steps,
      "ms_per_step": arm.ms_per_step,
      "metrics": {},
      "baseline": row.baseline,
      "difference": None if difference is None else difference._asdict(),
    }
    for metric in metrics:
      values = arm.values(metric)
      spread = measures.spread(list(values.values()))
      entry["metrics"][metric] = {"values": values, **spread._asdict()}
    listed.append(entry)
  content = {"metrics": list(metrics), "rows": listed, "notes": list(notes)}
  plain: dict[str, Any] = files.plain_json(content)
  return plain


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.compare",
    description="One table over several runs, their arms and their seeds.",
    epilog="Example: python -m tgt_jax.compare runs/* --baseline=kd",
  )
  parser.add_argument("dirs", nargs="+", metavar="DIR", help="workdir of a run")
  parser.add_argument(
    "--metric",
    help="metric, or several with commas; differences are of the first"
    " (default: the first of the first run's table)",
  )
  parser.add_argument(
    "--arms", metavar="ARM,...", help="these arms alone (default: all)"
  )
  parser.add_argument(
    "--baseline",
    metavar="ARM",
    help="arm, or RUN:ARM, that the others are compared with seed by seed",
  )
  parser.add_argument(
    "--format", default="text", choices=FORMATS, help="default: %(default)s"
  )
  parser.add_argument(
    "--per-seed", action="store_true", help="add a line for every seed"
  )
  parser.add_argument(
    "--pool",
    action="store_true",
    help="take runs that differ in nothing but seeds as one run",
  )
  parser.add_argument(
    "--curve",
    metavar="FILE",
    help="also draw the metrics over the number of labelled images: a PNG",
  )
  parser.add_argument(
    "--over",
    default="",
    metavar="KEY",
    help="draw it over this number of the runs' configs, such as data.share",
  )
  parser.add_argument(
    "--across",
    action="store_true",
    help="arms by runs, as tasks; --metric is that of every run, or one for"
    " each, or several of one run joined by +; by default each run's first",
  )
  return parser


def _runs(args: argparse.Namespace) -> list[Run]:
  runs = load_runs(args.dirs)
  return only(runs, args.arms.split(",")) if args.arms else runs


def _across(
  args: argparse.Namespace, runs: Sequence[Run], metrics: Sequence[str]
) -> str:
  """Arms by runs, rendered."""
  others = args.curve, args.baseline, args.per_seed, args.pool, args.over
  if args.format == "json" or any(others):
    raise ValueError(
      "--across makes a table: it goes with --arms, --metric and --format text,"
      " markdown or html"
    )
  if args.metric is not None and len(metrics) == 1:
    metrics = [*metrics] * len(runs)
  given = None if args.metric is None else metrics
  return _rendered(across.table(runs, metrics=given), args.format)


def _rendered(table: tables.Table, style: str) -> str:
  """A table, without Unicode where the console lacks a sign."""
  text = tables.render(table, style=style)
  if not tables.console_lacks(text):
    return text
  return tables.render(table, style=style, ascii_only=True)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the comparison."""
  parser = _parser()
  args = parser.parse_args(argv)
  named = args.metric
  try:
    runs = _runs(args)
    named = runs[0].results.columns[0] if named is None else named
    metrics = [m.strip() for m in named.split(",") if m.strip()]
    if args.across:
      sys.stdout.write(_across(args, runs, metrics) + "\n")
      return
    if not metrics:
      raise ValueError("--metric needs the name of a metric")
    runs = [pool(runs)] if args.pool else runs
    for metric in metrics:
      _check_metric(runs, metric)
    rows, notes = compare(runs, metric=metrics[0], baseline=args.baseline)
    if args.curve:
      picture = curves.draw(runs, metrics=metrics, over=args.over)
      files.atomic_write(args.curve, picture)
  except (OSError, ValueError) as error:
    parser.exit(2, f"{parser.prog}: error: {error}\n")
  if args.format == "json":
    text = json.dumps(as_json(rows, notes, metrics=metrics), indent=2)
  else:
    table = comparison_table(
      rows, notes, metrics=metrics, per_seed=args.per_seed
    )
    text = _rendered(table, args.format)
  sys.stdout.write(text + "\n")


if __name__ == "__main__":
  main()
