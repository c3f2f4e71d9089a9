# SPDX-License-Identifier: Apache-2.0
"""Distillation in stages: by an assistant, or along the teacher's own way.

Both are plain distillation from other arrays than the labeler's: the frozen
tree also holds "assistants", networks between teacher and student, and
"anchors", what the labeler was after equal shares of its training.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from tgt_jax import teachers
from tgt_jax.methods.base import LossFn
from tgt_jax.methods.guided import guided, read_weights
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, Params

_TERMS = ("label", "distill")


def _without_answers(batch: Batch) -> Batch:
  """The cached answers are the labeler's."""
  return {k: v for k, v in batch.items() if k != "teacher_logits"}


def takd(parts: Parts, *, weights: Mapping[str, float] | None = None) -> LossFn:
  """Distillation from the last assistant (Mirzadeh et al., 1902.03393).

  `config.assistants` names them, from the teacher down; each is distilled from
  the one before, the first from the labeler.

  Args:
    parts: see `Parts`.
    weights: "label" and "distill"; 1 each where not given.

  Raises:
    ValueError: there is no assistant.
  """
  if not parts.assistants:
    raise ValueError(
      "takd learns from an assistant: name one in config.assistants, for"
      ' example ({"name": "mlp", "widths": (64,)},)'
    )
  last = teachers.single(parts.assistants[-1].apply)
  teacher = parts.teacher._replace(
    label=lambda frozen, x: last(frozen["assistants"][-1], x)
  )
  given = read_weights(weights, _TERMS)
  loss = guided(parts._replace(teacher=teacher), given._replace(generated=0.0))

  def of_assistant(params, model_state, frozen, batch, rng, step):
    batch = _without_answers(batch)
    return loss(params, model_state, frozen, batch, rng, step)

  return of_assistant


def anchor(anchors: Params, step: Array, *, steps: int, number: int) -> Params:
  """The anchor of an update: each serves for the same number of them.

  Args:
    anchors: trees with leaves [A, ...], from the first to the last.
    step: updates done.
    steps: updates in all.
    number: A.
  """
  index = jnp.minimum(step * number // steps, number - 1)
  return jax.tree.map(lambda a: a[index], anchors)


def rco(
  parts: Parts,
  *,
  steps: int,
  anchors: int,
  weights: Mapping[str, float] | None = None,
) -> LossFn:
  """Route-constrained optimisation: the teacher's checkpoints in turn.

  The student learns from the teacher as it was early in its training, then
  from later ones, and at last from the teacher itself (Jin et al., 2019, arXiv
  1904.09149; anchors at equal intervals).

  Args:
    parts: see `Parts`.
    steps: updates of the student; the config's, not a key of the method.
    anchors: number of checkpoints; the config's.
    weights: "label" and "distill"; 1 each where not given.

  Raises:
    ValueError: fewer than two anchors, more than updates, or no one network.
  """
  if parts.labeler is None:
    raise ValueError(
      "rco follows the training of one network that reads inputs: set"
      " num_labelers to 1 and labeler_reads to 'input'"
    )
  if anchors < 2:
    raise ValueError(
      "rco learns from checkpoints of the labeler's training: set"
      " config.anchors to 2 or more, and labeler_training.steps above 0; got"
      f" {anchors} anchors"
    )
  if steps < anchors:
    raise ValueError(
      f"rco: {anchors} anchors do not fit into {steps} updates, and the teacher"
      " itself comes last: lower config.anchors or raise training.steps"
    )
  given = read_weights(weights, _TERMS)
  loss = guided(parts, given._replace(generated=0.0))

  def on_the_way(params, model_state, frozen, batch, rng, step):
    now = anchor(frozen["anchors"], step, steps=steps, number=anchors)
    frozen = {**frozen, "labeler": (now,)}
    batch = _without_answers(batch)
    return loss(params, model_state, frozen, batch, rng, step)

  return on_the_way
