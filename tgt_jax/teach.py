# SPDX-License-Identifier: Apache-2.0
"""Getting a teacher: trained on first use, kept, and what it says cached."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import shutil
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import (
  build,
  data,
  distributed,
  fit,
  generators,
  settings,
  trees,
  weights,
)
from tgt_jax.teachers import Frozen
from tgt_jax.types import Method, input_struct

# Images over which the spread of a latent is measured.
_MEASURED = 5000


class Prepared(NamedTuple):
  """A teacher that is ready.

  Attributes:
    frozen: its arrays, on every device.
    fingerprint: of everything that made it.
  """

  frozen: dict[str, Any]
  fingerprint: str


class Part(NamedTuple):
  """One network of the teacher.

  Attributes:
    name: of its file.
    seed: of its training.
    method: how it learns.
    participant: key of its parameters in the state.
    training: its section of the config.
    fingerprint: of everything that makes it.
    weights: converted file that it begins with, or "".
    model: its section of the config.
  """

  name: str
  seed: int
  method: Method
  participant: str
  training: dict[str, Any]
  fingerprint: str
  weights: str
  model: dict[str, Any]


def fingerprint(*parts: Any) -> str:
  """A short digest of JSON-able values."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _made_of(section: dict[str, Any], path: str, *data_and_others: Any) -> Any:
  """What a part's fingerprint says of its training and its weights."""
  trained = data_and_others if section["steps"] else ()
  return *trained, *([weights.sha256_of(path)] if path else [])


@functools.cache
def _say_once(message: str) -> None:
  """Prints; all arms and seeds begin with the same file."""
  print(message, flush=True)


def starting_arrays(
  path: str, spec: dict[str, Any], shapes: tuple[Any, Any]
) -> Frozen | None:
  """What a network begins with; `None` where all of it is drawn.

  Args:
    path: converted weights, or "".
    spec: of the network.
    shapes: of its params and model state.
  """
  if not path:
    return None
  params, state = shapes
  inside = state["generator"] if spec.get("whitened") else state
  template = {"params": params, "model_state": inside}
  found = weights.start_from(path, template, spec)
  drawn = set(trees.flatten_names(template)) - set(trees.flatten_names(found))
  if drawn:
    _say_once(
      f"{path}: drawn at random, as the file lacks them or has them for other"
      f" classes: {', '.join(sorted(drawn))}"
    )
  state = found["model_state"]
  if spec.get("whitened"):  # The file knows nothing of the moments.
    moments = dict.fromkeys(("mean", "std"))
    state = {"generator": state, "latent": moments}
  return Frozen(found["params"], state)


def beginnings(
  config: settings.Config,
  arm: build.Arm,
  prepared: Prepared | None = None,
) -> Any:
  """What participants begin with instead of drawn arrays, by their names.

  Args:
    config: as the arm sees it.
    arm: what is trained.
    prepared: the teacher; without it only files are looked at.

  Raises:
    ValueError: a file that does not fit its network.
  """
  x, start = build.example_batch(config)["input"], {}

  def given(network, section):
    path = config[f"{section}_weights"]
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return starting_arrays(path, config[section], shapes)

  if config["student_weights"]:
    start["student"] = given(arm.parts.student, "student")
  if "teacher" not in arm.others:
    return start
  if config["teacher_start"] == "trained":
    if prepared is not None:
      start["teacher"] = prepared.frozen["labeler"][0]
  elif config["labeler_weights"]:
    start["teacher"] = given(arm.parts.labeler, "labeler")
  return start


def _measure(
  config: settings.Config, source: data.Source, arrays: tuple[Any, Any]
) -> Any:
  """The state of a whitened generator with the moments of its latents."""
  params, state = arrays
  size = config["evaluation_batch_size"]
  rows = np.unique(np.linspace(0, len(source) - 1, _MEASURED).astype(np.int64))
  generator = build.generator(config)
  encode = jax.jit(generator.encode)
  statistics = generators.latent_statistics(
    lambda x: encode(params, state, x),
    (
      source.fetch(rows[i : i + size])["input"]
      for i in range(0, len(rows), size)
    ),
    generator.where,
  )
  return generators.with_statistics(state, statistics)


def plan(
  config: settings.Config, sources: Any, counts: np.ndarray
) -> list[Part]:
  """The teacher's parts in the order they are trained.

  Args:
    config: the experiment.
    sources: an object with `.train` and `.full` sources.
    counts: training examples per class of `.train`.
  """
  pick = lambda section: getattr(sources, section["source"])
  section, path = config["generator_training"], config["generator_weights"]
  made = fingerprint(
    config["generator"],
    section,
    config["seed"],
    *_made_of(section, path, pick(section).fingerprint),
  )
  parts = [
    Part(
      "generator",
      config["seed"],
      build.generator_method(config),
      "generator",
      section,
      made,
      path,
      config["generator"],
    )
  ]
  section, path = config["labeler_training"], config["labeler_weights"]
  source = pick(section)
  if section["source"] == "full":
    counts = source.class_counts()
  for number in range(config["num_labelers"]):
    seed = config["seed"] + number
    # A labeler that sees reconstructions depends on who made them.
    seen = made if section["reconstruction"] else ""
    parts.append(
      Part(
        f"labeler-{number}",
        seed,
        build.labeler_method(config, counts),
        "student",
        section,
        fingerprint(
          config["labeler"],
          section,
          seed,
          *_made_of(section, path, source.fingerprint, seen),
        ),
        path,
        config["labeler"],
      )
    )
  return parts


def prepare(
  config: settings.Config,
  sources: Any,
  counts: np.ndarray,
  workdir: pathlib.Path,
  runtime: fit.Runtime,
) -> Prepared:
  """Loads the teacher's parts, training those that are missing.

  Raises:
    ValueError: a part on disk was made by another config or from other data;
      names both fingerprints.
  """
  folder = pathlib.Path(config["teacher_dir"] or workdir / "teacher")
  frozen: dict[str, Any] = {"labeler": ()}
  parts = plan(config, sources, counts)
  shapes = jax.eval_shape(
    lambda key, x: build.init_frozen(config, key, x),
    jax.random.key(0),
    input_struct(config["input_shape"]),
  )
  for number, part in enumerate(parts):
    expected = (
      shapes["generator"] if not number else shapes["labeler"][number - 1]
    )
    path = folder / f"{part.name}.safetensors"
    if not path.exists():
      source = getattr(sources, part.training["source"])
      _train(part, expected, source, frozen, folder, runtime, config)
    arrays = runtime.replicate(_load(path, part, expected))
    if number:
      frozen["labeler"] = (*frozen["labeler"], arrays)
    else:
      frozen["generator"] = arrays
  return Prepared(frozen, fingerprint([part.fingerprint for part in parts]))


def _train(
  part: Part,
  expected: Frozen,
  source: data.Source,
  frozen: Any,
  folder: pathlib.Path,
  runtime: fit.Runtime,
  config: settings.Config,
) -> None:
  """Trains one part and writes its file."""
  section = part.training
  batches = data.training_batches(
    source,
    batch_size=section["batch_size"],
    seed=part.seed,
    num_steps=max(1, section["steps"]),
    buckets=config["buckets"] or None,
    shard=runtime.shard,
  )
  begin = starting_arrays(part.weights, part.model, expected)
  if begin is None and not section["steps"]:
    print(
      f"warning: {part.name} has no weights and 0 steps of training: it is"
      " random. Convert public weights (python -m tgt_jax.weights) and name the"
      " file in the config",
      file=sys.stderr,
    )
  cadence = fit.Cadence(
    config["cadence"]["log"], 0, config["cadence"]["checkpoint"]
  )
  job = fit.Job(
    name=part.name,
    method=part.method,
    seeds=(part.seed,),
    batches=data.stack_batches([batches]),
    steps=section["steps"],
    directory=folder / part.name,
    cadence=cadence,
    start=begin and {part.participant: begin},
    stream=part.name,
  )
  state = fit.fit(job, frozen, runtime).state
  first = lambda tree: jax.tree.map(
    lambda a: np.asarray(a[0]), tree[part.participant]
  )
  arrays = runtime.gather((state.params, state.model_state))
  params, model_state = first(arrays[0]), first(arrays[1])
  if part.model.get("whitened"):
    model_state = _measure(config, source, (params, model_state))
  if distributed.is_main_process():
    trees.save_tree(
      folder / f"{part.name}.safetensors",
      {"params": params, "state": model_state},
      {"fingerprint": part.fingerprint},
    )
    shutil.rmtree(job.directory, ignore_errors=True)
  distributed.barrier(f"{part.name} is written")


def _load(path: pathlib.Path, part: Part, expected: Frozen) -> Frozen:
  """Reads one part and checks that it is the one the config means."""
  tree, metadata = trees.load_tree(path)
  found = metadata.get("fingerprint", "none")
  if found != part.fingerprint:
    raise ValueError(
      f"{path} has the fingerprint {found}, this config and data make"
      f" {part.fingerprint}: it was trained with other settings, seed or"
      " images. Use another --workdir (or --config.teacher_dir), or delete"
      " the file to train it anew"
    )
  whole = {"params": expected.params, "state": expected.state}
  tree = trees.check_tree(tree, whole, what=str(path))
  return Frozen(tree["params"], tree["state"])
