# SPDX-License-Identifier: Apache-2.0
"""Which training examples help the student, and which harm it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import (
  answers,
  build,
  data,
  distributed,
  influence,
  metrics,
  pictures,
)
from tgt_jax.experiment import Experiment
from tgt_jax.methods import Parts
from tgt_jax.pictures import Ranked
from tgt_jax.types import Array, Batch, Network, Params

FILENAME = "influence.npz"
_ASKED = 2048  # Training examples at most, evenly from all.

Learned = tuple[Params, Any]  # Parameters and the rest of a network's state.


def keep(experiment: Experiment, arm: build.Arm, state: Any) -> None:
  """Writes the hardest and easiest examples of an arm's first seed.

  Nothing is written for an arm without held-out examples, or for a run without
  a gallery.

  Args:
    experiment: the run.
    arm: whose method hears of held-out examples.
    state: at the last step, with a leading axis of seeds.
  """
  number = experiment.config["gallery_examples"]
  if not arm.feedback or not number:
    return
  found = _rank(experiment, arm, state, number)
  if distributed.is_main_process():
    folder = experiment.workdir / "arms" / arm.name
    pictures.save_ranked(folder / FILENAME, found)


def _rank(
  experiment: Experiment, arm: build.Arm, state: Any, number: int
) -> Ranked:
  """Influences of training examples on the whole held-out split."""
  runtime, sets = experiment.runtime, experiment.sets
  size = experiment.config["evaluation_batch_size"]
  first = lambda name: jax.tree.map(
    lambda a: a[0], (state.params[name], state.model_state[name])
  )
  student = first("student")
  direction = _held_out_gradient(experiment, arm.parts, student)
  rows = np.unique(
    np.linspace(0, len(sets.train) - 1, _ASKED).round().astype(int)
  )
  source = data.subset(sets.train, rows)
  given = experiment.prepared.frozen
  if "teacher" in arm.others:
    given = first("teacher")

  def judge(arrays: Any, x: Array) -> dict[str, Array]:
    student, direction, given = arrays
    said = _said(arm, given, x)
    logits, moved = influence.tangents(
      lambda params: _answer(arm.parts.student, (params, student[1]), x),
      student[0],
      direction,
    )
    each = influence.per_example(arm.parts.distance, logits, moved, said)
    return {"student": logits, "teacher": said, "influence": each}

  found = answers.compute(
    judge,
    (student, direction, given),
    source,
    runtime,
    size,
  )
  return _ends(source, found, number)


def _answer(network: Network, learned: Learned, x: Array) -> Array:
  params, model_state = learned
  logits = network.apply(params, model_state, x, train=False)[0].logits
  return influence.wide(logits)


def _said(arm: build.Arm, given: Any, x: Array) -> Array:
  """What the teacher says: one that has learned along, or the frozen one."""
  if "teacher" not in arm.others:
    return arm.parts.teacher.label(given, x).logits
  assert arm.parts.labeler is not None
  return _answer(arm.parts.labeler, given, x)


def _held_out_gradient(
  experiment: Experiment, parts: Parts, student: Learned
) -> Params:
  """The gradient of the mean loss over the held-out split."""
  source, runtime = experiment.sets.feedback, experiment.runtime
  assert source is not None
  params, model_state = student

  def slope(params: Params, model_state: Any, batch: Batch) -> Params:
    def loss(params: Params) -> Array:
      logits = _answer(parts.student, (params, model_state), batch["input"])
      values = parts.label_loss(logits, batch["label"])
      return metrics.mean(values, batch["mask"]).total / len(source)

    return jax.grad(loss)(params)

  compiled, total = runtime.jit(slope), None
  for batch in data.evaluation_batches(
    source,
    batch_size=experiment.config["evaluation_batch_size"],
    buckets=data.buckets(source),
    shard=runtime.shard,
  ):
    new = compiled(params, model_state, runtime.put(batch, seeds=False))
    total = new if total is None else jax.tree.map(jnp.add, total, new)
  return total


def _ends(source: data.Source, found: answers.Columns, number: int) -> Ranked:
  """The first and the last `number` by influence."""
  values = found["influence"]
  order = np.argsort(-values, kind="stable")
  half = min(number, len(order) // 2)
  chosen = np.concatenate([order[:half], order[len(order) - half :]])
  inputs = source.read(chosen)
  if source.text is not None:
    inputs = np.array(source.text.tokenizer.decode(inputs))
  softmax = lambda name: np.asarray(jax.nn.softmax(found[name][chosen]))
  spread = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
  return Ranked(
    inputs=inputs,
    labels=source.labels[chosen],
    student=softmax("student"),
    teacher=softmax("teacher"),
    influence=values[chosen] / (spread or 1.0),
    class_names=source.class_names,
    asked=len(values),
    positive=float(np.mean(values > 0)),
  )
