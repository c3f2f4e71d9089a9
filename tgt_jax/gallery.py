# SPDX-License-Identifier: Apache-2.0
"""Looking at explorations: numbers during training, pictures at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tgt_jax import (
  build,
  data,
  export,
  metrics,
  rng as rng_lib,
  settings,
  training,
)
from tgt_jax.experiment import Experiment, student_folder
from tgt_jax.exploration import diagnose
from tgt_jax.methods import Context, Parts, Trace, start_points, trace
from tgt_jax.pictures import Gallery

_PROBED = 256  # Examples that the diagnostics look at, at most.


def explores(arm: settings.Config) -> bool:
  """Whether an arm moves latents."""
  return arm["method"]["name"] in settings.EXPLORING


def _examples(source: data.Source, number: int) -> np.ndarray:
  """Ids of `number` examples, the classes in turn."""
  by_class = [
    np.flatnonzero(source.labels == k) for k in range(source.num_classes)
  ]
  turns = max(map(len, by_class))
  ids = [
    rows[turn] for turn in range(turns) for rows in by_class if turn < len(rows)
  ]
  return np.asarray(ids[:number])


def make_probe(
  experiment: Experiment, arm: build.Arm
) -> Callable[[Any, jax.Array], Mapping[str, np.ndarray]]:
  """Diagnostics of an arm's exploration on a fixed set of examples.

  They are held out from training where there is a validation split.

  Args:
    experiment: the run.
    arm: the arm; one that does not explore is probed for nothing, and none
      is without a gallery.

  Returns:
    `(variables, step) -> {"explore/...": [S]}`, see `exploration.diagnose`.
  """
  if not explores(arm.config) or not experiment.config["gallery_examples"]:
    return lambda variables, step: {}
  source = experiment.sets.validation or experiment.sets.train
  ids = _examples(source, _PROBED)
  # As many at a time as training has room for.
  size = min(arm.config["training"]["batch_size"], len(ids))
  batches = [
    source.fetch(ids[at : at + size])
    for at in range(0, len(ids) - size + 1, size)
  ]
  frozen = experiment.prepared.frozen
  key = rng_lib.stream(jax.random.key(experiment.config["seed"]), "probe")

  def one(variables, step, frozen, batch):
    found = _trace(arm.parts, variables, frozen, batch, key, step)
    return diagnose(
      z=found.z[0],
      moved_z=found.z[1],
      x=found.x[0],
      moved_x=found.x[1],
      disagreement=found.disagreement[0],
      moved_disagreement=found.disagreement[1],
      teacher_logits=found.teacher[0],
      moved_teacher_logits=found.teacher[1],
      where=arm.parts.teacher.where(batch["input"]),
    )

  many = training.jit_once(jax.vmap(one, in_axes=(0, 0, None, None)))

  def probe(variables, step):
    found = [
      jax.device_get(many(variables, step, frozen, batch)) for batch in batches
    ]
    return {
      name: sum(one[name].total for one in found)
      / sum(one[name].count for one in found)
      for name in found[0]
    }

  return probe


def _trace(
  parts: Parts,
  variables: Any,
  frozen: Any,
  batch: Mapping[str, Any],
  key: jax.Array,
  step: Any,
) -> Trace:
  params, state = variables
  starts = start_points(batch, key, 1, parts.exploration.needs_partner)
  return trace(parts, Context(params, state, frozen, step), starts)


def make(experiment: Experiment) -> Gallery | None:
  """What every exploring arm does to some test examples.

  The student is the delivered one, so that the views differ by exploration
  alone; where its arm does not explore, that of the first arm that does.

  Returns:
    `None` where no arm explores.
  """
  config, sets = experiment.config, experiment.sets
  arms = [build.arm(config, name, sets.counts) for name in config["arms"]]
  arms = [arm for arm in arms if explores(arm.config)]
  if not arms:
    return None
  main = next((a for a in arms if a.name == config["main_arm"]), arms[0])
  student = export.load_student(
    student_folder(experiment.workdir, main.name, config["seed"]),
    allow_imports=True,  # Of the factory that this run's config names.
  )
  variables = (student.params, student.model_state)
  batch = sets.test.fetch(_examples(sets.test, config["gallery_examples"]))
  key = rng_lib.stream(jax.random.key(config["seed"]), "gallery")
  frozen = experiment.runtime.gather(experiment.prepared.frozen)
  steps = main.config["training"]["steps"]
  traces = {
    # The delivered student, the arm's exploration.
    arm.name: training.jit_once(
      functools.partial(_trace, arm.parts._replace(student=main.parts.student))
    )(variables, frozen, batch, key, steps)
    for arm in arms
  }
  return _gallery(main, traces, variables, frozen, batch, sets.test)


def _gallery(
  main: build.Arm,
  traces: Mapping[str, Trace],
  variables: Any,
  frozen: Any,
  batch: Mapping[str, Any],
  source: data.Source,
) -> Gallery:
  """Puts the views side by side: x, its reconstruction, the neighbours."""
  x = batch["input"]
  params, state = variables
  student, _ = main.parts.student.apply(params, state, x, train=False)
  teacher = main.parts.teacher.label(frozen, x)
  distance = main.parts.disagreement(student.logits, teacher.logits)
  views = {"x": (x, student.logits, teacher.logits, distance)}
  for name, found in traces.items():
    ends = list(
      zip(
        found.x,
        found.student,
        found.teacher,
        found.disagreement,
        strict=True,
      )
    )
    views.setdefault("reconstruction", ends[0])
    views[name] = ends[1]
  inputs, student_logits, teacher_logits, distances = (
    np.stack([np.asarray(view[i]) for view in views.values()]) for i in range(4)
  )
  if source.text is not None:
    inputs = np.array([source.text.tokenizer.decode(ids) for ids in inputs])
  return Gallery(
    views=tuple(views),
    inputs=inputs,
    student=np.asarray(jax.nn.softmax(student_logits)),
    teacher=np.asarray(jax.nn.softmax(teacher_logits)),
    labels=np.asarray(metrics.nearest(batch["label"])),
    class_names=source.class_names,
    disagreement=distances,
  )
