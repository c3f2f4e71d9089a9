# SPDX-License-Identifier: Apache-2.0
"""Learning curves: what runs of different sample sizes found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tgt_jax import measures, pictures
from tgt_jax.pairing import Run
from tgt_jax.results import ArmResult


def draw(runs: Sequence[Run], *, metrics: Sequence[str]) -> bytes:
  """Returns metrics over the number of labelled images: PNG bytes.

  Args:
    runs: at least two, no two with as many images.
    metrics: one panel each.

  Raises:
    ValueError: fewer runs, or two with as many images.
  """
  sizes = {sum(run.results.class_counts): run.results for run in runs}
  if len(sizes) < max(2, len(runs)):
    found = [f"{r.name}: {sum(r.results.class_counts):,}" for r in runs]
    raise ValueError(
      "a curve needs two or more runs, each with another number of labelled"
      f" images, got {', '.join(found)}"
    )
  # By arm and sample size; an arm need not be in every run.
  arms: dict[str, dict[int, ArmResult]] = {}
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
    panels, columns=2, height=3.6, over="labelled images", log=True
  )


def _curve(
  values: Mapping[int, Mapping[int, float | None]], unit: float
) -> pictures.Curve:
  """Returns `{size: {seed: value}}` as a curve, NaN where a seed is missing."""
  seeds = sorted(set().union(*values.values()))
  rows = [[of.get(seed) for of in values.values()] for seed in seeds]
  return pictures.Curve(np.array(list(values)), unit * np.array(rows, float))
