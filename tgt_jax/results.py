# SPDX-License-Identifier: Apache-2.0
r"""What a run found: `results.json`, its schema, and its table.

The file is strict JSON of this form (`…` stands for more of the same):

  {
    "schema": 1,
    "title": "Digits, long-tailed",
    "main_arm": "tgt_gradient",        // whose first seed is student.*
    "columns": ["balanced", …],        // metrics of the table, in order
    "leaks": false,                    // whether a teacher heard of "eval"
    "selection": "last step",          // which step was evaluated: never the
                                       // best one on the evaluation split
    "splits": {"train": "…", "eval": "…"},           // what they are, in words
    "class_names": ["0", …],           // K strings
    "class_counts": [150, …],          // K training counts
    "groups": ["many", "medium", …],   // K strings: "many", "medium", "few"
    "fingerprints": {"config": "…", "data": "…", "teacher": "…"},
    "versions": {"tgt_jax": "…", "jax": "…", …},
    "hardware": "2 x CPU, …",
    "command": "python -m tgt_jax.main …",
    "teacher": {"description": "…", "parameters": 1, "metrics": {…},
                "per_class": […]},                               // or null
    "beside": [{…}, …],                // classifiers of other kinds, as "teacher"
    "arms": [
      {
        "name": "tgt_gradient", "method": "TGT, gradient ascent, …",
        "parameters": 9610, "steps": 1500, "ms_per_step": 4.2,
        "wall_seconds": 8.1, "reference": false,
        "seeds": [{"seed": 0, "metrics": {"balanced": 0.91, …},
                   "per_class": [0.99, …]}, …]
      }, …
    ]
  }

Metrics are fractions in [0, 1] (`accuracy`, `balanced`, `many`, `medium`,
`few`, `macro_f1`, with two classes `f1`, `agreement`, `ece`, with more than ten classes `top5`) or nats (`nll`);
others may stand beside them.
`null` stands for what is not defined: a group without classes, a diverged
seed. `ms_per_step` and `wall_seconds` are of one seed; seeds that were trained
as one program share them out evenly. `reference` marks an arm that uses what
the others do not have, so that it does not compete.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from tgt_jax import files, measures, tables

SCHEMA = 1
PROBES = "transfer.json"
FILENAME = "results.json"
# Said of a run whose teachers hear of the evaluation split.
LEAK = (
  "teachers learn from labels of the evaluation split (feedback.source 'test',"
  " as the published experiments do): these numbers are not held out"
)
COLUMNS = ("balanced", "many", "medium", "few", "agreement")

_PACKAGES = ("tgt_jax", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class SeedResult:
  """One student at its last step.

  Attributes:
    seed: the seed.
    metrics: name to value; see the module's docstring for units.
    per_class: accuracy per class, average precision per tag, or empty.
  """

  seed: int
  metrics: Mapping[str, float | None]
  per_class: Sequence[float | None] = ()


@dataclasses.dataclass(frozen=True)
class ArmResult:
  """The students of one arm.

  Attributes:
    name: the arm's name in the config.
    method: what it is, in words.
    parameters: the student's trainable numbers.
    steps: training steps.
    ms_per_step: milliseconds per step, without compilation and evaluation.
    wall_seconds: seconds for one seed, all included.
    seeds: one entry per seed.
    reference: whether it uses what the other arms do not have.
  """

  name: str
  method: str
  parameters: int
  steps: int
  ms_per_step: float | None
  wall_seconds: float | None
  seeds: Sequence[SeedResult]
  reference: bool = False

  def values(self, metric: str) -> dict[int, float | None]:
    """Returns `{seed: value}`; None where it is not defined."""
    return {s.seed: measures.defined(s.metrics.get(metric)) for s in self.seeds}


@dataclasses.dataclass(frozen=True)
class TeacherResult:
  """A classifier that is no student, on the evaluation split."""

  description: str
  parameters: int | None
  metrics: Mapping[str, float | None]
  per_class: Sequence[float | None] = ()


@dataclasses.dataclass(frozen=True)
class Results:
  """Everything in `results.json`; see the module's docstring."""

  title: str
  main_arm: str
  splits: Mapping[str, str]
  class_names: Sequence[str]
  class_counts: Sequence[int]
  fingerprints: Mapping[str, str]
  arms: Sequence[ArmResult]
  teacher: TeacherResult | None = None
  beside: Sequence[TeacherResult] = ()
  leaks: bool = False
  columns: Sequence[str] = COLUMNS
  groups: Sequence[str] = ()
  selection: str = "last step"
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  hardware: str = ""
  command: str = ""

  def arm(self, name: str) -> ArmResult:
    """Returns the arm of that name.

    Raises:
      ValueError: no such arm; lists the arms.
    """
    for arm in self.arms:
      if arm.name == name:
        return arm
    names = ", ".join(arm.name for arm in self.arms)
    raise ValueError(f"no arm {name!r}; the run has {names}")


def _best(
  arms: Sequence[ArmResult], columns: Sequence[str]
) -> frozenset[tuple[int, int]]:
  """Returns the cells with the best mean of each metric."""
  best = set()
  for column, metric in enumerate(columns, 1):
    means = {
      row: measures.spread(list(arm.values(metric).values())).mean
      for row, arm in enumerate(arms)
      if not arm.reference
    }
    means = {row: mean for row, mean in means.items() if not math.isnan(mean)}
    if len(set(means.values())) > 1:  # Not where all are equal.
      pick = min if measures.lower_is_better(metric) else max
      top = pick(means.values())
      best |= {(row, column) for row, mean in means.items() if mean == top}
  return frozenset(best)


def results_table(
  results: Results, *, columns: Sequence[str] | None = None
) -> tables.Table:
  """Returns the table: arms, reference arms, the teacher, others beside.

  Args:
    results: the run.
    columns: metrics to show; by default those of the run.
  """
  columns = results.columns if columns is None else columns
  arms = sorted(results.arms, key=lambda arm: arm.reference)
  rows, rules = [], []
  for number, arm in enumerate(arms):
    if arm.reference and not any(a.reference for a in arms[:number]):
      rules.append(number)
    cells = [
      measures.format_spread(m, list(arm.values(m).values())) for m in columns
    ]
    ms = "–" if arm.ms_per_step is None else f"{arm.ms_per_step:.2f}"
    name = arm.name + (" (reference)" if arm.reference else "")
    rows.append([name, *cells, f"{arm.parameters:,}", ms])
  others = [("teacher", results.teacher)] if results.teacher else []
  others += [(one.description, one) for one in results.beside]
  if others:
    rules.append(len(rows))
  for name, one in others:
    cells = [measures.format_value(m, one.metrics.get(m)) for m in columns]
    size = "–" if one.parameters is None else f"{one.parameters:,}"
    rows.append([name, *cells, size, "–"])
  header = ["arm", *map(measures.label, columns), "parameters", "ms/step"]
  best = _best(arms, columns)
  return tables.Table(
    header, rows, rules=rules, best=best, notes=_notes(results, bool(best))
  )


def _notes(results: Results, starred: bool) -> list[str]:
  """Returns what the numbers are: seeds, step, split."""
  counts = sorted({len(arm.seeds) for arm in results.arms}) or [0]
  steps = sorted({arm.steps for arm in results.arms}) or [0]
  several = counts[-1] > 1
  notes = [
    (
      f"{'Mean ± sd over' if several else 'From'} {_range(counts)}"
      f" seed{'s' if several else ''}, {results.selection} of"
      f" {_range(steps)}; evaluated on"
      f" {results.splits.get('eval', 'an unnamed split')}."
    )
  ]
  if results.leaks:
    notes.append(f"Warning: {LEAK}.")
  if starred:
    notes.append("* Best mean in its column, reference arms left out.")
  said = results.teacher.metrics if results.teacher else {}
  for metric, sentence in (
    ("words_recovered", "Dec(Enc(x)) recovers {} % of the words."),
    ("reconstruction_rms", "Dec(Enc(x)) is off x by {} (RMS of pixels)."),
  ):
    if metric in said:
      notes.append(sentence.format(measures.format_value(metric, said[metric])))
  return notes


def _range(numbers: Sequence[int]) -> str:
  low, high = numbers[0], numbers[-1]
  return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def format_table(
  results: Results,
  *,
  style: str = "text",
  columns: Sequence[str] | None = None,
  ascii_only: bool | None = None,
) -> str:
  """Returns the run's table as text, Markdown or HTML.

  Args:
    results: the run.
    style: `text`, `markdown` or `html`.
    columns: metrics to show; by default those of the run.
    ascii_only: without Unicode; by default, where the console lacks a sign.
  """
  table = results_table(results, columns=columns)
  text = tables.render(table, style=style, ascii_only=bool(ascii_only))
  if ascii_only is None and tables.console_lacks(text):
    text = tables.render(table, style=style, ascii_only=True)
  return text


def package_versions() -> dict[str, str]:
  """Returns Python's version and those of the packages that numbers hang on."""
  versions = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def write_results(
  workdir: str | pathlib.Path, results: Results
) -> pathlib.Path:
  """Writes `results.json`, whole or not at all, and returns its path."""
  path = pathlib.Path(workdir) / FILENAME
  content = {"schema": SCHEMA} | dataclasses.asdict(results)
  files.write_json(path, files.plain_json(content))
  return path


def read_results(workdir: str | pathlib.Path) -> Results:
  """Returns the results of a run.

  Args:
    workdir: the run's folder, or the file itself.

  Raises:
    FileNotFoundError: the run has no results.
    ValueError: not JSON, another schema, or keys that do not fit.
  """
  path = pathlib.Path(workdir)
  path = path / FILENAME if path.suffix != ".json" else path
  found = files.read_json(
    path, hint="expected the --workdir of a finished run of tgt_jax.main"
  )
  try:
    results = _parse(dict(found))
  except (TypeError, KeyError, AttributeError, ValueError) as error:
    raise ValueError(
      f"{path} is not a results file of schema {SCHEMA}: {error}. Delete"
      " it and give the command of the run again: what is done is not redone."
    ) from error
  return _with_probes(results, path.parent / PROBES)


Probes = Mapping[str, Mapping[int, Mapping[str, float]]]


def add_probes(workdir: pathlib.Path, split: str, probes: Probes) -> None:
  """Keeps what students of a finished run know of other data.

  `read_results` has it as metrics with the split's name in front.

  Args:
    workdir: the run's folder.
    split: of the other data.
    probes: metrics by arm and seed.
  """
  path = workdir / PROBES
  files.write_json(path, {**_probes(path), split: probes})


def _probes(path: pathlib.Path) -> dict[str, Any]:
  """What `add_probes` has kept: by split, arm, seed and metric."""
  if not path.exists():
    return {}
  advice = "delete it and give the commands of tgt_jax.transfer again"
  found = files.read_json(path, hint=advice)
  if not isinstance(found, dict):
    raise ValueError(f"{path} holds no probes: {advice}")
  return found


def _with_probes(results: Results, path: pathlib.Path) -> Results:
  known = _probes(path)

  def of_seed(arm: str, seed: SeedResult) -> SeedResult:
    more = {
      f"{split}/{name}": value
      for split, probes in known.items()
      for name, value in probes.get(arm, {}).get(str(seed.seed), {}).items()
    }
    return dataclasses.replace(seed, metrics={**seed.metrics, **more})

  arms = [
    dataclasses.replace(arm, seeds=[of_seed(arm.name, s) for s in arm.seeds])
    for arm in results.arms
  ]
  return dataclasses.replace(results, arms=arms)


def _parse(found: dict[str, Any]) -> Results:
  schema = found.pop("schema", None)
  if schema != SCHEMA:
    raise ValueError(f"expected schema {SCHEMA}, got {schema!r}")
  teacher = found.pop("teacher", None)
  beside = [TeacherResult(**one) for one in found.pop("beside", ())]
  arms = [
    ArmResult(**{**arm, "seeds": [SeedResult(**s) for s in arm["seeds"]]})
    for arm in found.pop("arms")
  ]
  return Results(
    arms=arms,
    teacher=None if teacher is None else TeacherResult(**teacher),
    beside=beside,
    **found,
  )
