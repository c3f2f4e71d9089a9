# SPDX-License-Identifier: Apache-2.0
"""Results and run folders that tests of reports and comparisons read."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tgt_jax import pictures, results, writers

NAMES = ("zero", "one", "two")


def arm(
  name: str, balanced: Sequence[float | None], *, first_seed: int = 0, **changes
) -> results.ArmResult:
  """An arm with one seed per value of `balanced`."""
  seeds = [
    results.SeedResult(
      first_seed + i,
      {
        "balanced": value,
        "few": None if value is None else value / 2,
        "nll": 1.5 if value is None else 1 - value,
      },
      [0.9, None, 0.3],
    )
    for i, value in enumerate(balanced)
  ]
  result = results.ArmResult(
    name, f"method of {name}", 1234, 100, 2.5, 9.0, seeds
  )
  return dataclasses.replace(result, **changes)


def run(*arms: results.ArmResult, **changes) -> results.Results:
  """Results of a run with these arms."""
  found = results.Results(
    title="Digits",
    main_arm=arms[0].name,
    splits={"train": "60 images", "eval": "the test images"},
    class_names=NAMES,
    class_counts=(40, 15, 5),
    groups=("many", "medium", "few"),
    fingerprints={"config": "c0", "data": "d0", "teacher": "t0"},
    arms=list(arms),
    versions={"jax": "1.2.3"},
    hardware="2 cores",
    command="python -m tgt_jax.main",
  )
  return dataclasses.replace(found, **changes)


def gallery(examples: int = 3, size: int = 8, channels: int = 1):
  """A gallery of random images, with K = 3 classes."""
  rng = np.random.default_rng(0)
  views = ("x", "reconstruction", "random", "gradient")
  shape = (len(views), examples, size, size, channels)
  student = rng.dirichlet(np.ones(3), (len(views), examples))
  teacher = np.tile([0.7, 0.2, 0.1], (len(views), examples, 1))
  teacher[3, 0] = [0.1, 0.2, 0.7]
  return pictures.Gallery(
    views,
    rng.uniform(size=shape).astype(np.float32),
    student,
    teacher,
    np.arange(examples) % 3,
    NAMES,
    rng.uniform(0.1, 1, (len(views), examples)),
  )


def write_run(folder: pathlib.Path, found: results.Results) -> pathlib.Path:
  """Writes what a finished run leaves for the report."""
  results.write_results(folder, found)
  writer = writers.JsonlWriter(folder / "metrics.jsonl")
  for result in found.arms:
    for seed in result.seeds:
      for step in (10, 20):
        scalars = {"loss/total": 1 / step, "eval/balanced": 0.1}
        writer.write(step, scalars, arm=result.name, seed=seed.seed)
  writer.write(5, {"loss/elbo": 3.0}, arm="generator", seed=None)
  pictures.save_gallery(folder / "gallery.npz", gallery())
  (folder / "config.json").write_text(json.dumps({"lr": 0.1}))
  (folder / "student.json").write_text("{}")
  return folder
