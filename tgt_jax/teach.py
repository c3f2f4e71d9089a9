# SPDX-License-Identifier: Apache-2.0
"""Getting a teacher: trained on first use, kept, and what it says cached."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import (
  answers,
  beginnings,
  data,
  distributed,
  fit,
  generators,
  networks,
  plan,
  settings,
  trees,
)
from tgt_jax.answers import Prepared
from tgt_jax.teachers import Frozen

# Images over which the spread of a latent is measured.
_MEASURED = 5000


def _measure(
  config: settings.Config, source: data.Source, arrays: tuple[Any, Any]
) -> Any:
  """The state of a whitened generator with the moments of its latents."""
  params, state = arrays
  size = config["evaluation_batch_size"]
  rows = np.unique(np.linspace(0, len(source) - 1, _MEASURED).astype(np.int64))
  generator = networks.generator(config)
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


def prepare(
  config: settings.Config,
  sources: Any,
  counts: np.ndarray,
  workdir: pathlib.Path,
  runtime: fit.Runtime,
) -> Prepared:
  """Loads the teacher's parts, training those that are missing.

  Raises:
    ValueError: a part on disk was made by another config or from other data
      (names both fingerprints), or begins with weights that do not fit it.
  """
  frozen: dict[str, Any] = {}
  parts = plan.parts(config, sources, counts)
  folder = folder_of(config, workdir)
  file = lambda part: folder / f"{part.name}.safetensors"
  made_of = lambda part: getattr(sources, part.training["source"])
  left = {
    group: iter((found,) if isinstance(found, Frozen) else found)
    for group, found in _shapes(config).items()
  }
  pairs = [(part, next(left[part.group])) for part in parts]
  # The last one's weights are looked at before the first one trains.
  for part, expected in pairs:
    if not file(part).exists():
      _beginning(part, expected, made_of(part))
  for part, expected in pairs:
    before, path = frozen.get(part.group, ()), file(part)
    if not path.exists():
      source = made_of(part)
      if part.reads == "embedding":
        source = view(config, source, frozen, workdir, runtime)
      _train(part, expected, source, frozen, folder, runtime, config)
    arrays = runtime.replicate(_load(path, part, expected))
    frozen[part.group] = arrays if part.alone else (*before, arrays)
    number = networks.anchors(config)
    if part.name == "labeler-0" and number:
      frozen["anchors"] = runtime.replicate(
        _anchors(folder, part, expected, number)
      )
  return Prepared(
    frozen, plan.fingerprint([part.fingerprint for part in parts])
  )


def folder_of(config: settings.Config, workdir: pathlib.Path) -> pathlib.Path:
  """Where a run's teacher is."""
  return pathlib.Path(config["teacher_dir"] or workdir / "teacher")


def _shapes(config: settings.Config) -> dict[str, Any]:
  return jax.eval_shape(
    lambda key: networks.init_frozen(
      config, key, networks.zeros(config, "input")
    ),
    jax.random.key(0),
  )


def encoder(
  config: settings.Config, workdir: pathlib.Path, runtime: fit.Runtime
) -> dict[str, Any]:
  """The encoder of a finished run, as a part of its frozen arrays.

  Raises:
    FileNotFoundError: there is none.
    ValueError: another one than the config means.
  """
  if not networks.has_encoder(config):
    return {}
  part = plan.encoder(config)
  path = folder_of(config, workdir) / f"{part.name}.safetensors"
  arrays = _load(path, part, _shapes(config)[part.group])
  return {part.group: runtime.replicate(arrays)}


def embeddings(
  config: settings.Config,
  source: data.Source,
  frozen: Any,
  workdir: pathlib.Path,
  runtime: fit.Runtime,
) -> np.ndarray:
  """Embeddings of every example, [N, T, 1, D]; see `answers.embeddings`.

  Raises:
    ValueError: they are not of the shape that the config says.
  """
  one, made = None, ""
  if networks.has_encoder(config):
    one = networks.network(config, config["encoder"])
    made = plan.encoder(config).fingerprint
  found = answers.embeddings(
    one,
    Prepared(frozen, made),
    source,
    workdir / "teacher",
    runtime,
    batch_size=config["evaluation_batch_size"],
  )
  said = tuple(config["embedding_shape"])
  if found.shape[1:] != said:
    raise ValueError(
      f"embeddings of {source.name} have the shape {found.shape[1:]} (frames,"
      f" 1, numbers); config.embedding_shape says {said}"
    )
  return found


def view(
  config: settings.Config,
  source: data.Source,
  frozen: Any,
  workdir: pathlib.Path,
  runtime: fit.Runtime,
) -> data.Source:
  """A source as those see it who read embeddings."""
  found = embeddings(config, source, frozen, workdir, runtime)
  return data.embedded(source, found)


def _anchor_file(
  folder: pathlib.Path, part: plan.Part, step: int
) -> pathlib.Path:
  return folder / f"{part.name}-anchors" / f"{step}.safetensors"


def _anchors(
  folder: pathlib.Path, part: plan.Part, expected: Frozen, number: int
) -> Frozen:
  """What the labeler was after equal shares of its training, [A, ...].

  Raises:
    FileNotFoundError: it was trained without keeping them.
  """
  last, found = part.training["steps"], []
  for i in range(1, number + 1):
    path = _anchor_file(folder, part, last * i // number)
    if not path.exists():
      raise FileNotFoundError(
        f"{path}: {part.name} was trained without {number} anchors. Use"
        f" another --workdir, or delete {folder / part.name}.safetensors to"
        " train it anew"
      )
    found.append(_load(path, part, expected))
  return jax.tree.map(lambda *arrays: np.stack(arrays), *found)


def _train(
  part: plan.Part,
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
    shard=runtime.shard,
  )
  begin = _beginning(part, expected, source)
  number = networks.anchors(config) if part.name == "labeler-0" else 0
  if number and section["steps"] % number:
    raise ValueError(
      f"labeler_training.steps {section['steps']} does not split into"
      f" {number} equal parts: choose another number of anchors"
    )
  cadence = fit.Cadence(
    config["cadence"]["log"],
    section["steps"] // number if number else 0,
    config["cadence"]["checkpoint"],
  )
  job = fit.Job(
    name=part.name,
    method=part.method,
    seeds=(part.seed,),
    batches=data.stack_batches([batches]),
    steps=section["steps"],
    directory=folder / part.name,
    cadence=cadence,
    evaluate=_keeper(part, folder, runtime) if number else None,
    start=begin and {part.participant: begin},
    stream=part.name,
  )
  state = fit.fit(job, frozen, runtime).state
  params, model_state = _arrays(part, state, runtime)
  if part.model.get("whitened"):
    model_state = _measure(config, source, (params, model_state))
  if distributed.is_main_process():
    _save(folder / f"{part.name}.safetensors", (params, model_state), part)
    shutil.rmtree(job.directory, ignore_errors=True)
  distributed.barrier(f"{part.name} is written")


def _beginning(
  part: plan.Part, expected: Frozen, source: data.Source
) -> Frozen | None:
  """What a part begins with; says so, or raises, where it stays random."""
  labels = part.group in ("labeler", "assistants")
  begin = beginnings.starting_arrays(
    part.weights,
    part.model,
    expected,
    source.class_names if labels else (),
  )
  if part.training["steps"]:
    return begin
  if begin is None:
    beginnings.say_once(
      f"warning: {part.name} has no weights and 0 steps of training: it is"
      " random. Convert public weights (python -m tgt_jax.weights) and name the"
      " file in the config",
      file=sys.stderr,
    )
    return None
  none = lambda leaf: leaf is None
  leaves = jax.tree.leaves((begin.params, begin.state), is_leaf=none)
  if labels and (drawn := sum(map(none, leaves))):
    raise ValueError(
      f"{part.weights} lacks {drawn} arrays of {part.name}, or has them for"
      " another number of classes: its answers would be random. Train it"
      " (labeler_training.steps), or name a file with a classifier of this"
      " task's classes"
    )
  return begin


def _arrays(part: plan.Part, state: Any, runtime: fit.Runtime) -> Any:
  """Params and model state of what was trained, on the host."""
  trees_of = runtime.gather((state.params, state.model_state))
  return tuple(
    jax.tree.map(lambda a: np.asarray(a[0]), tree[part.participant])
    for tree in trees_of
  )


def _keeper(
  part: plan.Part, folder: pathlib.Path, runtime: fit.Runtime
) -> Callable[[Any], dict[str, Any]]:
  """Writes anchors where a job would evaluate; there are no scores."""

  def keep(state: Any) -> dict[str, Any]:
    arrays = _arrays(part, state, runtime)
    step = int(np.ravel(runtime.gather(state.step))[0])
    if distributed.is_main_process():
      _save(_anchor_file(folder, part, step), arrays, part)
    return {}

  return keep


def _save(path: pathlib.Path, arrays: tuple[Any, Any], part: plan.Part) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  tree = dict(zip(("params", "state"), arrays, strict=True))
  trees.save_tree(path, tree, {"fingerprint": part.fingerprint})


def _load(path: pathlib.Path, part: plan.Part, expected: Frozen) -> Frozen:
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
