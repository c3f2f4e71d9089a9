# SPDX-License-Identifier: Apache-2.0
"""What all arms of a run share: data, teacher, devices, a folder."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import (
  answers,
  data,
  distributed,
  files,
  fit,
  metrics,
  networks,
  plan,
  reading,
  results as results_lib,
  scoring,
  settings,
  splits,
  teach,
  writers,
)
from tgt_jax.methods import METHODS

CONFIG = "config.json"


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """What `config.json` of a run holds.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is not one.
  """
  path = pathlib.Path(workdir) / CONFIG
  found: dict[str, Any] = files.read_json(
    path, hint="expected the --workdir of a run"
  )
  missing = {"config", "fingerprint", "versions"} - set(found)
  if missing:
    raise ValueError(
      f"{path} has no {', '.join(sorted(missing))}: it is not the record of a"
      " run. Use another --workdir, or delete that folder to start anew"
    )
  return found


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    keys = sorted(set(old) | set(new))
    return [
      line
      for key in keys
      for line in _differences(
        old.get(key, "(missing)"),
        new.get(key, "(missing)"),
        f"{path}.{key}" if path else key,
      )
    ]
  return [] if old == new else [f"{path}: {old!r} there, {new!r} now"]


def claim_workdir(
  workdir: pathlib.Path, config: settings.Config, train_ids: str
) -> None:
  """Writes config.json, or checks that it is this experiment's.

  Args:
    workdir: the run's folder.
    config: the experiment.
    train_ids: see `splits.Sets.ids_hash`.

  Raises:
    ValueError: the folder belongs to a run of another config, or of other
      files under the same names; lists which.
  """
  path = workdir / CONFIG
  held = plan.student_files(config)
  now = json.loads(json.dumps(config))
  if distributed.is_main_process() and not path.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    record = {
      "config": now,
      "fingerprint": plan.fingerprint(now),
      "train_ids": train_ids,
      "student_files": held,
      "versions": results_lib.package_versions(),
      "commit": _commit(),
      "command": command_line(),
      "hardware": hardware(),
    }
    files.write_json(path, record)
  # Always: whoever comes late finds the file, and must wait all the same.
  distributed.barrier("config is written")
  found = read_config(workdir)
  lines = _differences(found["config"], now)
  before = found.get("student_files", held)  # Runs of old do not say.
  lines += [
    f"{name} holds something else than when the run began"
    for name, digest in held.items()
    if before.get(name, digest) != digest
  ]
  if lines:
    shown = "; ".join(lines[:6]) + ("; ..." if len(lines) > 6 else "")
    raise ValueError(
      f"{workdir} holds a run of another config ({shown}). Use another"
      " --workdir, or delete that folder to start anew"
    )


def _commit() -> str:
  """The package's git commit, where it runs from a checkout."""
  here = pathlib.Path(__file__).parent
  command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
  try:
    found = subprocess.run(command, capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return found.stdout.strip()


def command_line() -> str:
  """The command that started this process."""
  return shlex.join(["python", "-m", "tgt_jax.main", *sys.argv[1:]])


def hardware() -> str:
  """Devices in words."""
  kinds = [device.device_kind for device in jax.devices()]
  return ", ".join(
    f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds))
  )


def score(
  config: settings.Config,
  source: data.Source,
  counts: np.ndarray,
  variables: Any,
  logits: scoring.Logits,
  runtime: fit.Runtime,
  *,
  columns: Mapping[str, np.ndarray] | None = None,
) -> scoring.Scores:
  """Scores on one source by the config's batch size and groups.

  Where classes are grades, correlations of the mean grade are among them; where
  they are tags, scores are those of `scoring.score_tags`.
  """
  size = config["evaluation_batch_size"]
  if source.tags is not None:
    said = answers.of_seeds(logits, variables, source, runtime, size)
    return scoring.score_tags(said, source.tags)
  batches = data.evaluation_batches(
    source,
    batch_size=size,
    columns=columns,
    buckets=data.buckets(source),
    shard=runtime.shard,
  )
  found = scoring.score(
    variables,
    (runtime.put(batch, seeds=False) for batch in batches),
    logits=logits,
    class_counts=counts,
    groups=thresholds(config),
    jit=runtime.jit,
  )
  if source.grades is not None:
    grade = lambda one, x: metrics.expected_grade(logits(one, x))[:, None]
    said = answers.of_seeds(grade, variables, source, runtime, size)
    found |= scoring.score_grades(said[..., 0], source.grades)
  return found


def thresholds(config: settings.Config) -> tuple[float, float]:
  """Of the groups of classes, as `longtail.many_medium_few` takes them."""
  return config["groups"]["many_above"], config["groups"]["few_below"]


def open_writer(
  config: settings.Config, workdir: pathlib.Path
) -> writers.Writer:
  """Metrics of the main process; the others write nothing."""
  if not distributed.is_main_process():
    return writers.MultiWriter()
  chosen: list[writers.Writer] = [
    writers.JsonlWriter(workdir / "metrics.jsonl")
  ]
  if config["tensorboard"]:
    chosen.append(writers.TensorBoardWriter(workdir / "tensorboard"))
  if config["wandb_project"]:
    chosen.append(
      writers.WandbWriter(project=config["wandb_project"], dir=str(workdir))
    )
  return writers.MultiWriter(*chosen)


def student_folder(workdir: pathlib.Path, arm: str, seed: int) -> pathlib.Path:
  """Where the student of one arm and seed is exported."""
  return pathlib.Path(workdir) / "arms" / arm / f"seed{seed}"


class Experiment(NamedTuple):
  """What all arms of a run share."""

  config: settings.Config
  workdir: pathlib.Path
  sets: splits.Sets
  prepared: teach.Prepared
  columns: dict[str, dict[str, np.ndarray]]
  runtime: fit.Runtime
  embedded: Mapping[str, data.Source] = types.MappingProxyType({})

  def source(self, split: str, reads: str = "input") -> data.Source:
    """A split as those see it who read inputs, or embeddings."""
    return self.sets.named(split) if reads == "input" else self.embedded[split]

  def embeddings(self, split: str) -> np.ndarray | None:
    """Embeddings of a split, [N, T, 1, D], where they were asked for."""
    return self.columns.get(split, {}).get("embedding")

  def score(
    self,
    split: str,
    variables: Any,
    logits: scoring.Logits,
    reads: str = "input",
  ) -> scoring.Scores:
    """Scores on a split, agreement with the teacher included."""
    said = self.columns[split]["teacher_logits"]
    return score(
      self.config,
      self.source(split, reads),
      self.sets.counts,
      variables,
      logits,
      self.runtime,
      columns={"teacher_logits": said},
    )

  def test(
    self, variables: Any, logits: scoring.Logits, reads: str = "input"
  ) -> scoring.Scores:
    """Scores on all test splits."""
    return self.sets.scores(
      lambda split: self.score(split, variables, logits, reads)
    )

  def row(
    self,
    logits: Mapping[str, np.ndarray],
    description: str,
    parameters: int | None = None,
  ) -> results_lib.TeacherResult:
    """A row of the table for what was said of the test splits, [N, K] each."""
    scores = self.sets.scores(
      lambda split: scoring.score_answers(
        logits[split],
        self.columns[split]["teacher_logits"],
        self.sets.named(split).labels,
        targets=self.sets.named(split).targets,
        class_counts=self.sets.counts,
        groups=thresholds(self.config),
      )
    )
    found = scoring.seed_results(scores, (self.config["seed"],))[0]
    return results_lib.TeacherResult(
      description=description,
      parameters=parameters,
      metrics=found.metrics,
      per_class=found.per_class,
    )


def _reads_answers(arm: settings.Config) -> bool:
  """Whether an arm's method reads what the teacher says of start points.

  Others ask anew, of what they make of them, or not at all.
  """
  name = arm["method"]["name"]
  known = (*settings.EXPLORING, "unlabelled_kd")
  return bool(arm["embedding_shape"]) or name in known or name not in METHODS


def _asked_splits(
  config: settings.Config, sets: splits.Sets, arms: list[settings.Config]
) -> list[str]:
  """The splits that the teacher is asked about, in one order everywhere."""
  wanted = ["test", *sets.others]
  if sets.validation is not None:
    wanted.append("validation")
  # What the teacher says of an image need not hold for its augmented form.
  kept = reading.kept_of_augmented(config)
  probed = any(arm["student_reads"] == "embedding" for arm in arms)
  if not config["augment"] or kept or probed:
    wanted.append("train")
  starts = [arm["starts"] for arm in arms if _reads_answers(arm)]
  used = {
    one["source"]
    for one in starts
    if one["source"] != "batch"
    and (kept or not (config["augment"] and one["augment"]))
  }
  # Every process waits for the others at each split.
  return wanted + sorted(used - set(wanted))


# Bytes of Enc(x) of a split that are kept; of more, the step encodes anew.
_KEPT_LATENTS = 4 << 30


def _keeps_latents(
  config: settings.Config, teacher: Any, frozen: Any, source: data.Source
) -> bool:
  """Whether the latents of a split are few enough to be kept."""
  x = networks.zeros(config, "input")
  z = jax.eval_shape(teacher.encode, frozen, x)
  size = len(source) * z.size // z.shape[0] * z.dtype.itemsize
  if size > _KEPT_LATENTS:
    print(
      f"{source.name}: {size / 2**30:,.0f} GiB of latents are not kept but made"
      " anew in every step",
      flush=True,
    )
  return size <= _KEPT_LATENTS


def ask_teacher(
  config: settings.Config,
  workdir: pathlib.Path,
  sets: splits.Sets,
  prepared: teach.Prepared,
  runtime: fit.Runtime,
) -> Experiment:
  """Asks the teacher about every split that needs it."""
  plain = {**config, "pixel_space": False}
  teacher, prober = networks.teacher(plain), networks.prober(plain)
  arms = [settings.arm_config(config, name) for name in config["arms"]]
  # Of the methods here only these look at latents, those of start points.
  explored = {
    "train" if arm["starts"]["source"] == "batch" else arm["starts"]["source"]
    for arm in arms
    if arm["method"]["name"] in settings.EXPLORING
    or arm["method"]["name"] not in METHODS
  }
  columns: dict[str, answers.Columns] = {}
  embedded: dict[str, data.Source] = {}
  for split in _asked_splits(config, sets, arms):
    source, one, found = sets.named(split), teacher, {}
    if config["embedding_shape"]:
      found["embedding"] = teach.embeddings(
        config, source, prepared.frozen, workdir, runtime
      )
      embedded[split] = data.embedded(source, found["embedding"])
      if config["labeler_reads"] == "embedding" and split not in explored:
        source, one = embedded[split], prober
    columns[split] = found | answers.columns(
      one,
      prepared,
      source,
      workdir / "teacher",
      runtime,
      batch_size=config["evaluation_batch_size"],
      latents=split in explored
      and _keeps_latents(plain, teacher, prepared.frozen, source),
    )
  return Experiment(config, workdir, sets, prepared, columns, runtime, embedded)
