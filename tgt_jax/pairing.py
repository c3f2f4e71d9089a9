# SPDX-License-Identifier: Apache-2.0
"""Runs, when two may be compared, and what the comparison says."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tgt_jax import checks, results as results_lib
from tgt_jax.results import ArmResult, Results

CONFIDENCE = 0.95


class Run(NamedTuple):
  """A run and what it is called in the table."""

  name: str
  path: pathlib.Path
  results: Results


def load_runs(folders: Sequence[str | pathlib.Path]) -> list[Run]:
  """Returns the runs, each under the shortest name that tells it apart.

  Raises:
    FileNotFoundError: a folder without results; names sub-folders with some.
    ValueError: a damaged file, or the same folder twice.
  """
  paths = [pathlib.Path(folder) for folder in folders]
  loaded = []
  for path in paths:
    try:
      loaded.append(results_lib.read_results(path))
    except FileNotFoundError as error:
      below = sorted(path.glob(f"*/{results_lib.FILENAME}"))[:3]
      hint = ", ".join(str(found.parent) for found in below)
      raise FileNotFoundError(
        f"{error}" + (f". Did you mean {hint}?" if below else "")
      ) from error
  whole = [path.resolve() for path in paths]
  if len(set(whole)) < len(whole):
    twice = next(p for i, p in enumerate(whole) if p in whole[:i])
    raise ValueError(f"{twice} is given twice")
  names = [_short_name(path, [p for p in whole if p != path]) for path in whole]
  return [Run(*run) for run in zip(names, paths, loaded, strict=True)]


def _short_name(path: pathlib.Path, others: Sequence[pathlib.Path]) -> str:
  """Returns as many last parts of `path` as no other path ends with."""
  for length in range(1, len(path.parts)):
    tail = path.parts[-length:]
    if all(other.parts[-length:] != tail for other in others):
      return "/".join(tail)
  return str(path)


def only(runs: Sequence[Run], arms: Sequence[str]) -> list[Run]:
  """Returns the runs with some of their arms, in the order of the runs.

  Raises:
    ValueError: no run has such an arm; lists those that there are.
  """
  wanted = [name.strip() for name in arms]
  known = {arm.name for run in runs for arm in run.results.arms}
  for name in wanted:
    checks.one_of(known, arms=name)
  return [
    run._replace(
      results=dataclasses.replace(
        run.results, arms=[a for a in run.results.arms if a.name in wanted]
      )
    )
    for run in runs
  ]


class Difference(NamedTuple):
  """A paired difference over the seeds that two arms share.

  Attributes:
    mean: of arm minus baseline.
    low: lower end of the t-interval; NaN with fewer than two pairs.
    high: upper end.
    seeds: the shared seeds with a value on both sides.
  """

  mean: float
  low: float
  high: float
  seeds: tuple[int, ...]


def differing(first: Results, second: Results) -> list[str]:
  """Returns in what two runs differ that makes their numbers incomparable."""
  found = []
  for key in ("data", "teacher"):
    ours, theirs = first.fingerprints.get(key), second.fingerprints.get(key)
    if ours != theirs:
      found.append(f"{key} ({theirs} against {ours})")
  ours, theirs = first.splits.get("eval"), second.splits.get("eval")
  if ours != theirs:
    found.append(f"evaluation split ({theirs!r} against {ours!r})")
  return found


def paired_difference(
  values: Mapping[int, float | None],
  baseline: Mapping[int, float | None],
  *,
  confidence: float = CONFIDENCE,
) -> Difference | None:
  """Returns the mean difference over shared seeds with its t-interval.

  Args:
    values: seed to value; None where there is none.
    baseline: seed to value.
    confidence: probability of the interval, in (0, 1).

  Returns:
    None when no seed has a value on both sides. The interval is
    mean ± t(n - 1) * sd / sqrt(n) over n pairs.
  """
  from scipy import special  # scipy.stats takes a second to import.

  seeds = tuple(
    seed
    for seed, value in sorted(values.items())
    if value is not None and baseline.get(seed) is not None
  )
  if not seeds:
    return None
  pairs = np.array([(values[s], baseline[s]) for s in seeds], np.float64)
  differences = pairs[:, 0] - pairs[:, 1]
  mean, half = float(differences.mean()), math.nan
  if len(seeds) > 1:
    quantile = special.stdtrit(len(seeds) - 1, 0.5 + confidence / 2)
    half = float(quantile * differences.std(ddof=1) / math.sqrt(len(seeds)))
  return Difference(mean, mean - half, mean + half, seeds)


def pool(runs: Sequence[Run]) -> Run:
  """Returns runs that differ in nothing but seeds as one run.

  Raises:
    ValueError: runs that are not comparable, arms that differ in steps or
      size, or a seed that an arm has twice.
  """
  first = runs[0].results
  arms: dict[str, ArmResult] = {}
  for run in runs:
    if different := differing(first, run.results):
      raise ValueError(
        f"{run.name} cannot be pooled with {runs[0].name}: it differs in"
        f" {', '.join(different)}"
      )
    for arm in run.results.arms:
      arms[arm.name] = _pool_arm(arms.get(arm.name), arm, run.name)
  results = dataclasses.replace(first, arms=list(arms.values()))
  return Run(f"{len(runs)} runs", runs[0].path, results)


def _pool_arm(known: ArmResult | None, arm: ArmResult, run: str) -> ArmResult:
  if known is None:
    return arm
  for field in ("method", "steps", "parameters", "reference"):
    if getattr(known, field) != getattr(arm, field):
      raise ValueError(
        f"{run}: arm {arm.name!r} cannot be pooled, its {field} is"
        f" {getattr(arm, field)!r} and not {getattr(known, field)!r}"
      )
  twice = {s.seed for s in known.seeds} & {s.seed for s in arm.seeds}
  if twice:
    raise ValueError(
      f"{run}: arm {arm.name!r} cannot be pooled, another run has seed"
      f" {min(twice)} too; leave one of them out"
    )
  return dataclasses.replace(known, seeds=[*known.seeds, *arm.seeds])
