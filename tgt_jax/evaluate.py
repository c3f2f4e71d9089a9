# SPDX-License-Identifier: Apache-2.0
"""`python -m tgt_jax.evaluate --workdir=...`: a finished run, scored anew."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import (
  alignment,
  data,
  experiment,
  export,
  fit,
  networks,
  results as results_lib,
  scoring,
  settings,
  splits,
  teach,
  writers,
)
from tgt_jax.checkpoint import PreemptionGuard
from tgt_jax.results import SeedResult
from tgt_jax.types import Network


def evaluate_run(workdir: pathlib.Path) -> results_lib.Results:
  """Scores the exported students of a finished run anew.

  Args:
    workdir: the run's folder.

  Returns:
    `Results` as in results.json, with the new scores.

  Raises:
    FileNotFoundError: no finished run there.
    ValueError: the data have changed, or a file is damaged.
  """
  old = results_lib.read_results(workdir)
  config = experiment.read_config(workdir)["config"]
  sets = splits.load_sets(config)
  if sets.train.fingerprint != old.fingerprints["data"]:
    raise ValueError(
      f"the data of {workdir} are not those that it was trained on: fingerprint"
      f" {old.fingerprints['data']} then, {sets.train.fingerprint} now. Point"
      " config.data in its config.json to where they are"
    )
  runtime = fit.Runtime(None, (), PreemptionGuard(), writers.MultiWriter())
  used = {
    settings.arm_config(config, n)["student_reads"] for n in config["arms"]
  }
  frozen, given = None, None
  if config["embedding_shape"]:
    frozen = teach.encoder(config, workdir, runtime)
    given = teach.embeddings(config, sets.test, frozen, workdir, runtime)
  views = {
    reads: _view(config, sets, reads, frozen, workdir, runtime)
    for reads in used
  }
  arms = []
  for arm in old.arms:
    fresh = []
    for seed in arm.seeds:
      folder = experiment.student_folder(workdir, arm.name, seed.seed)
      # The run's own config names the factory.
      student = export.load_student(folder, allow_imports=True)
      mine = settings.arm_config(config, arm.name)
      network, reads = student.network, mine["student_reads"]
      if reads == "input":
        network = networks.reading(config, mine["student"], network)
      variables = jax.tree.map(
        lambda a: jnp.asarray(a)[None], (student.params, student.model_state)
      )
      scores = _scores(config, views[reads], sets, network, variables, runtime)
      if given is not None:
        source, size = views[reads]["test"], config["evaluation_batch_size"]
        own = alignment.embeddings(network, variables, source, runtime, size)
        scores |= alignment.of_students(own, given)
      new = scoring.seed_results(scores, (seed.seed,))[0]
      # Agreement needs the teacher, which a student's folder does not hold; nor
      # does it hold the compressor.
      fresh.append(
        SeedResult(seed.seed, {**seed.metrics, **new.metrics}, new.per_class)
      )
    arms.append(dataclasses.replace(arm, seeds=fresh))
  return dataclasses.replace(old, arms=arms)


def _view(
  config: settings.Config,
  sets: splits.Sets,
  reads: str,
  frozen: Any,
  workdir: pathlib.Path,
  runtime: fit.Runtime,
) -> dict[str, data.Source]:
  """The test splits as those see them who read inputs, or embeddings."""
  found = {"test": sets.test, **sets.others}
  if reads == "input":
    return found
  return {
    name: teach.view(config, source, frozen, workdir, runtime)
    for name, source in found.items()
  }


def _scores(
  config: settings.Config,
  view: Mapping[str, data.Source],
  sets: splits.Sets,
  network: Network,
  variables: Any,
  runtime: fit.Runtime,
) -> scoring.Scores:
  """Scores on all test splits."""
  logits = scoring.network_logits(network)
  return sets.scores(
    lambda split: experiment.score(
      config, view[split], sets.counts, variables, logits, runtime
    )
  )


def main(arguments: list[str] | None = None) -> int:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.evaluate",
    description=(
      "Scores the students of a finished run on its test split. Agreement with"
      " the teacher and the columns of compressors are the run's own."
    ),
  )
  parser.add_argument("--workdir", required=True, type=pathlib.Path)
  parser.add_argument(
    "--format", default="text", choices=["text", "markdown", "html"]
  )
  options = parser.parse_args(arguments)
  try:
    found = evaluate_run(options.workdir)
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(results_lib.format_table(found, style=options.format))
  return 0


if __name__ == "__main__":
  sys.exit(main())
