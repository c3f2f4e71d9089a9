# SPDX-License-Identifier: Apache-2.0
"""Curves: what runs that differ in one number found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tgt_jax import files, measures, pictures
from tgt_jax.pairing import Run
from tgt_jax.results import ArmResult

_IMAGES = "labelled images"


def _number(run: Run, over: str) -> float:
  """Where a run stands on the axis.

  Raises:
    ValueError: its config has no such number.
  """
  if not over:
    return sum(run.results.class_counts)
  found = files.read_json(run.path / "config.json", hint="expected a run")
  found = found["config"]
  for key in over.split("."):
    found = found.get(key) if isinstance(found, Mapping) else None
  if isinstance(found, bool) or not isinstance(found, int | float):
    raise ValueError(
      f"{run.path}: config.{over} is no number there, but {found!r}"
    )
  return found


def draw(
  runs: Sequence[Run], *, metrics: Sequence[str], over: str = ""
) -> bytes:
  """Returns metrics over the number of labelled images: PNG bytes.

  Args:
    runs: at least two, no two with as many images.
    metrics: one panel each.
    over: a key of the config, "data.share", whose number is the axis instead.

  Raises:
    ValueError: fewer runs, or two at the same place.
  """
  places = [(_number(run, over), run) for run in runs]
  sizes = {number: run.results for number, run in places}
  if len(sizes) < max(2, len(runs)):
    found = [f"{run.name}: {number:,}" for number, run in places]
    raise ValueError(
      "a curve needs two or more runs, each with another number of"
      f" {over or _IMAGES}, got {', '.join(found)}"
    )
  # By arm and sample size; an arm need not be in every run.
  arms: dict[str, dict[float, ArmResult]] = {}
  for size, run in sorted(sizes.items()):
    for arm in run.arms:
      arms.setdefault(arm.name, {})[size] = arm
  panels = {
    measures.label(metric): {
      name: _curve(
        {size: arm.values(metric) for size, arm in found.items()},
        measures.shown(metric),
      )
      for name, found in arms.items()
    }
    for metric in metrics
  }
  return pictures.curves(
    panels, columns=2, height=3.6, over=over or _IMAGES, log=not over
  )


def _curve(
  values: Mapping[float, Mapping[int, float | None]], unit: float
) -> pictures.Curve:
  """Returns `{size: {seed: value}}` as a curve, NaN where a seed is missing."""
  seeds = sorted(set().union(*values.values()))
  rows = [[of.get(seed) for of in values.values()] for seed in seeds]
  return pictures.Curve(np.array(list(values)), unit * np.array(rows, float))
