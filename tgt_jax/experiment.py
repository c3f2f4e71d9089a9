# SPDX-License-Identifier: Apache-2.0
"""What all arms of a run share: data, teacher, devices, a folder."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import (
  data,
  distributed,
  files,
  fit,
  longtail,
  models,
  plan,
  registry,
  results as results_lib,
  scoring,
  settings,
  teach,
  writers,
)

CONFIG = "config.json"


class Sets(NamedTuple):
  """The data of an experiment.

  Attributes:
    train: what students train on, with labels.
    full: all training images, before the long tail was cut.
    validation: held out from training, or `None`.
    test: what is reported.
    feedback: what a learning teacher hears of, or `None`.
    counts: training examples per class, [K].
    ids_hash: of the ids of `train` where the tail was cut, else "".
  """

  train: data.Source
  full: data.Source
  validation: data.Source | None
  test: data.Source
  counts: np.ndarray
  ids_hash: str
  feedback: data.Source | None = None


def load_sets(config: settings.Config) -> Sets:
  """Reads the data and cuts the tail.

  Raises:
    ValueError: the data are not what the config says.
  """
  dataset = registry.build(data.DATASETS, config["data"], family="data set")
  full, ids_hash = dataset.train_full, ""
  shape, classes = tuple(config["input_shape"]), config["num_classes"]
  if full.input_shape != shape or full.num_classes != classes:
    raise ValueError(
      f"{full.name} has inputs of shape {full.input_shape} and"
      f" {full.num_classes} classes; the config says input_shape {shape} and"
      f" num_classes {classes}"
    )
  if full.text is not None:
    _check_vocabulary(full.name, full.text.tokenizer, config["vocabulary"])
    _check_tokenizers(config)
    sizes = data.buckets(full, config["buckets"] or None) or ()
    longest = int(np.sum(full.text.lengths == shape[0]))
    print(
      f"{full.name}: {longest} of {len(full)} texts have all {shape[0]} token"
      " ids that data.max_length allows; what is longer is cut",
      flush=True,
    )
    print(
      f"{full.name}: batches are padded to {', '.join(map(str, sizes))} token"
      f" ids, so a program is compiled at most {len(sizes)} times",
      flush=True,
    )
  train, tail = dataset.train, config["long_tail"]
  if tail["profile"]:
    train, ids_hash = data.long_tail(
      full,
      profile=tail["profile"],
      imbalance_ratio=tail["imbalance_ratio"],
      head=tail["head"] or None,
      fraction=tail["fraction"],
      selection=tail["selection"],
    )
  validation, feedback = None, None
  # No part of the teacher may see what is held out either.
  without = lambda held: data.subset(
    full, np.setdiff1d(np.arange(len(full)), np.searchsorted(full.ids, held))
  )
  if config["validation_per_class"]:
    held = data.holdout(full, train, per_class=config["validation_per_class"])
    validation, train = held.validation, held.train
    full = without(validation.ids)
  if config["feedback"]["source"] == "test":
    feedback = dataset.test
    print(f"warning: {results_lib.LEAK}", file=sys.stderr)
  elif config["feedback"]["share"]:
    train, feedback = data.split_off(train, share=config["feedback"]["share"])
    full = without(feedback.ids)
  if ids_hash:
    ids_hash = longtail.ids_hash(train.ids)
  counts = train.class_counts()
  return Sets(train, full, validation, dataset.test, counts, ids_hash, feedback)


def _check_vocabulary(
  name: str, tokenizer: Any, said: Mapping[str, int]
) -> None:
  """Raises `ValueError` where the config's vocabulary is not the data's.

  A network's embedding may have more rows than there are words, not fewer.
  """
  lines = []
  for key, value in said.items():
    found = getattr(tokenizer, key)
    if found > value if key == "vocab_size" else found != value:
      lines.append(f"{key}: {found} there, {value} in the config")
  if lines:
    raise ValueError(
      f"{name}: the tokenizer is not the one that the networks are made for"
      f" ({'; '.join(lines)}). Name theirs, or set config.vocabulary (or the"
      " network's own arguments) to what this one has"
    )


def _check_tokenizers(config: settings.Config) -> None:
  """Raises unless networks with a tokenizer of their own fit it.

  Raises:
    FileNotFoundError: there is none at its path.
    ValueError: its ids are not those that the network expects.
  """
  arms = [settings.arm_config(config, name) for name in config["arms"]]
  specs = [config["labeler"], *(arm["student"] for arm in arms)]
  for spec in specs:
    if "tokenizer" not in spec:
      continue
    words = data.load_tokenizer(spec["tokenizer"])
    table = models.MODELS
    factory = registry.resolve(table, spec["name"], family="model")
    keys = [k for k in config["vocabulary"] if registry.takes(factory, k)]
    said = {k: spec.get(k, registry.default(factory, k)) for k in keys}
    _check_vocabulary(str(spec["tokenizer"]), words, said)


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
    train_ids: see `Sets.ids_hash`.

  Raises:
    ValueError: the folder belongs to a run of another config; lists the keys.
  """
  path = workdir / CONFIG
  now = json.loads(json.dumps(config))
  if distributed.is_main_process() and not path.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    record = {
      "config": now,
      "fingerprint": plan.fingerprint(now),
      "train_ids": train_ids,
      "versions": results_lib.package_versions(),
      "commit": _commit(),
      "command": command_line(),
      "hardware": hardware(),
    }
    files.write_json(path, record)
  # Always: whoever comes late finds the file, and must wait all the same.
  distributed.barrier("config is written")
  lines = _differences(read_config(workdir)["config"], now)
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
  """Scores on one source by the config's batch size and groups."""
  batches = data.evaluation_batches(
    source,
    batch_size=config["evaluation_batch_size"],
    columns=columns,
    buckets=data.buckets(source, config["buckets"] or None),
    shard=runtime.shard,
  )
  return scoring.score(
    variables,
    (runtime.put(batch, seeds=False) for batch in batches),
    logits=logits,
    class_counts=counts,
    groups=thresholds(config),
    jit=runtime.jit,
  )


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
  sets: Sets
  prepared: teach.Prepared
  columns: dict[str, dict[str, np.ndarray]]
  runtime: fit.Runtime

  def score(
    self, split: str, variables: Any, logits: scoring.Logits
  ) -> scoring.Scores:
    """Scores on "validation" or "test", agreement with the teacher included."""
    said = self.columns[split]["teacher_logits"]
    return score(
      self.config,
      getattr(self.sets, split),
      self.sets.counts,
      variables,
      logits,
      self.runtime,
      columns={"teacher_logits": said},
    )

  def row(
    self, logits: np.ndarray, description: str, parameters: int | None = None
  ) -> results_lib.TeacherResult:
    """A row of the table for what was said of the test split, [N, K]."""
    scores = scoring.score_answers(
      logits,
      self.columns["test"]["teacher_logits"],
      self.sets.test.labels,
      class_counts=self.sets.counts,
      groups=thresholds(self.config),
    )
    found = scoring.seed_results(scores, (self.config["seed"],))[0]
    return results_lib.TeacherResult(
      description=description,
      parameters=parameters,
      metrics=found.metrics,
      per_class=found.per_class,
    )
