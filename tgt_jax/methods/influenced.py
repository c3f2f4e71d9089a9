# SPDX-License-Identifier: Apache-2.0
"""Teacher-guided training that weighs generated examples by their influence.

A generated example helps where a step on it lowers the student's loss on
held-out examples. That is LGTM's distillation influence, taken of x' instead
of x; it costs a gradient on the held-out batch and one forward-mode pass. Not
published; an ablation of both papers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import influence, registry
from tgt_jax.methods import neighbours as neighbours_lib
from tgt_jax.methods.base import Recipe, weighted_mean
from tgt_jax.methods.guided import guided, read_weights
from tgt_jax.methods.neighbours import Shown
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, ModelState, Params


def generated_influence(
  parts: Parts,
  params: Params,
  model_state: ModelState,
  feedback: Batch,
  shown: Shown,
) -> Array:
  """Influence of each generated example on the held-out loss, [M].

  <grad l_i, v>, v the gradient of the held-out loss of the student as it is;
  dropout is off in both.

  Args:
    parts: see `Parts`.
    params: the student's.
    model_state: the student's.
    feedback: held-out "input" and "label".
    shown: generated examples and their targets.
  """

  def answer(params: Params, x: Array) -> Array:
    return parts.student.apply(params, model_state, x)[0].logits

  def held_out(params: Params) -> Array:
    logits = influence.wide(answer(params, feedback["input"]))
    return weighted_mean(parts.label_loss(logits, feedback["label"]))

  logits, moved = influence.tangents(
    lambda p: answer(p, shown.x), params, jax.grad(held_out)(params)
  )
  return influence.per_example(
    parts.generated_distance, logits, moved, shown.targets
  )


def influenced_tgt(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  num_generated: int = 1,
  weighting: str | Mapping[str, Any] = "softmax",
) -> Recipe:
  """`tgt` whose generated examples count by their influence.

  Args:
    parts: see `Parts`.
    weights: "label", "distill", "generated"; 1 each where not given.
    num_generated: new examples per start point.
    weighting: a key of `influence.WEIGHTINGS`, or a spec with its arguments,
      such as `{"name": "softmax", "temperature": 2.0}`. Weights below zero count
      as zero; with "sign" half the examples or so are left out.

  Raises:
    ValueError: no such weighting, or not with these arguments.
  """
  spec = {"name": weighting} if isinstance(weighting, str) else weighting
  function, options = registry.read_spec(
    influence.WEIGHTINGS, spec, family="weighting"
  )
  weigh = functools.partial(function, **options)
  jax.eval_shape(weigh, jnp.zeros(2))  # A bad argument fails here.

  def factors(
    params: Params, model_state: ModelState, batch: Batch, shown: Shown
  ) -> Array:
    found = generated_influence(
      parts,
      params["student"],
      model_state["student"],
      batch["feedback"],
      shown,
    )
    return jnp.maximum(weigh(found), 0.0)

  loss = guided(
    parts,
    read_weights(weights),
    neighbours_lib.explored(parts),
    num_generated=num_generated,
    reweigh=factors,
  )
  return Recipe(loss, feedback=True)
