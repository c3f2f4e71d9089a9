# SPDX-License-Identifier: Apache-2.0
"""From a loss to a method: gradient, optimiser, running mean.

A loss is `(params, model_state, frozen, batch, rng, step) -> (scalar, Aux)`;
everything that learns is in `params`, keyed by participant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tgt_jax import metrics
from tgt_jax.types import (
  Array,
  Batch,
  Mean,
  Method,
  Metrics,
  ModelState,
  Params,
  TrainState,
)


class Aux(NamedTuple):
  """What a loss returns beside its scalar.

  Attributes:
    metrics: (sum, count) pairs.
    model_state: the forward pass's new state, shaped like the old one.
  """

  metrics: Metrics
  model_state: ModelState


LossFn = Callable[..., tuple[Array, Aux]]
InitFn = Callable[[Array, Batch], tuple[Params, ModelState]]


class Recipe(NamedTuple):
  """A loss, and who else learns from it beside the student.

  Attributes:
    loss: see the module docstring.
    others: `(rng, batch) -> (params, model_state)` by participant. Each has
      the student's optimiser to itself.
    feedback: whether a batch needs "feedback", held-out examples.
    untaught: those of `others` whose logits learn from nothing; they are not
      scored.
    still: those of `others` whose parameters stay as they begin.
  """

  loss: LossFn
  others: Mapping[str, InitFn] = {}
  feedback: bool = False
  untaught: tuple[str, ...] = ()
  still: tuple[str, ...] = ()


def descend(
  tx: optax.GradientTransformation,
  grads: Params,
  opt_state: Any,
  params: Params,
) -> tuple[Params, Any]:
  """Parameters and state of the optimiser after one step.

  The arrays that go in and come out of a compiled step have an axis of seeds.
  An optimiser that works without it makes XLA on a CPU compute its moments
  twice, for the state and for the update, and copy the old ones first: of a
  BERT of two layers an update took 55 ms instead of 47. So it always works with
  such an axis, one of its own where there is no other.
  """

  def step(grads: Params, opt_state: Any, params: Params) -> tuple[Params, Any]:
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  @jax.custom_batching.custom_vmap
  def alone(*trees: Any) -> Any:
    first = jax.tree.map(lambda a: a[None], trees)
    return jax.tree.map(lambda a: a[0], jax.vmap(step)(*first))

  @alone.def_vmap
  def together(axis_size: int, batched: Any, *trees: Any) -> Any:
    axes = jax.tree.map(lambda found: 0 if found else None, batched)
    found = jax.vmap(step, axes, axis_size=axis_size)(*trees)
    return found, jax.tree.map(lambda _: True, found)

  return alone(grads, opt_state, params)


class Learner(NamedTuple):
  """How one participant of a `Course` learns.

  Attributes:
    tx: its optimiser.
    rate: its learning rate by the number of updates done.
  """

  tx: optax.GradientTransformation
  rate: optax.Schedule

  def update(
    self, grads: Params, opt_state: Any, params: Params
  ) -> tuple[Params, Any]:
    """Parameters and state of the optimiser after one step."""
    return descend(self.tx, grads, opt_state, params)


class Course(NamedTuple):
  """Participants whose updates hang on each other: no one loss is descended.

  Attributes:
    update: `learners -> Method.update`, of the student and the others.
    others: as in `Recipe`; a "teacher" begins as the experiment's labeler.
    feedback: whether a batch needs "feedback", held-out examples.
    untaught: as in `Recipe`.
  """

  update: Callable[[Mapping[str, Learner]], Callable]
  others: Mapping[str, InitFn]
  feedback: bool
  untaught: tuple[str, ...] = ()


def weighted_mean(values: Array, mask: Array | None = None) -> Array:
  """The one reduction from examples to a scalar.

  Args:
    values: one value per example, [B].
    mask: weights, [B]; padding has weight zero.

  Returns:
    sum(mask * values) / sum(mask), and zero where the mask is all zero.
  """
  total, count = metrics.mean(values, mask)
  return total / jnp.maximum(count, 1e-9)


def interleave(real: Array, extra: Array) -> Array:
  """Joins two batches into one, each example followed by its extra ones.

  One forward pass over both is cheaper than two, and this order (unlike one
  batch behind the other) leaves every example on the device where it is.

  Args:
    real: [B, ...].
    extra: [M, ...], M a multiple of B.

  Returns:
    [B + M, ...]; `deinterleave` takes it apart.
  """
  if extra.shape[0] % real.shape[0]:
    raise ValueError(
      f"{extra.shape[0]} extra examples do not divide evenly among"
      f" {real.shape[0]}"
    )
  tail = real.shape[1:]
  extra = extra.reshape((real.shape[0], -1, *tail))
  joined = jnp.concatenate([real[:, None], extra], axis=1)
  return joined.reshape((-1, *tail))


def deinterleave(joined: Array, size: int) -> tuple[Array, Array]:
  """[B + M, ...] to [B, ...] and [M, ...]; B is `size`."""
  tail = joined.shape[1:]
  parts = joined.reshape((size, -1, *tail))
  return parts[:, 0], parts[:, 1:].reshape((-1, *tail))


def _microbatches(batch: Batch, number: int) -> Batch:
  """[B, ...] to [number, B / number, ...], taking every number-th example.

  Striding keeps each device's examples on that device when B is sharded.
  """

  def split(array: Array) -> Array:
    if array.shape[0] % number:
      raise ValueError(
        f"a batch of {array.shape[0]} does not split into {number}"
        " accumulation steps; choose a divisor of the batch size"
      )
    tail = array.shape[1:]
    return array.reshape((-1, number) + tail).swapaxes(0, 1)

  return jax.tree.map(split, batch)


def _gradient(loss: LossFn, number: int) -> Callable:
  """`value_and_grad` of `loss`, over `number` microbatches in turn."""
  slope = jax.value_and_grad(loss, has_aux=True)
  if number == 1:
    return slope

  def accumulated(params, model_state, frozen, batch, rng, step):
    def body(carry, inputs):
      state, total, grads = carry
      part, key = inputs
      (value, aux), new = slope(params, state, frozen, part, key, step)
      grads = jax.tree.map(jnp.add, grads, new)
      return (aux.model_state, total + value, grads), aux.metrics

    parts = _microbatches(batch, number)
    keys = jax.random.split(rng, number)
    zeros = jax.tree.map(jnp.zeros_like, params)
    carry = (model_state, jnp.zeros(()), zeros)
    (state, total, grads), parts_of = jax.lax.scan(body, carry, (parts, keys))
    sums = jax.tree.map(lambda m: jnp.sum(m, axis=0), parts_of)
    grads = jax.tree.map(lambda g: g / number, grads)
    return (total / number, Aux(sums, state)), grads

  return accumulated


def partitioned(
  optimizers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
  """One optimiser per participant, over the top-level keys of `params`."""

  def labels(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
      key: jax.tree.map(lambda _, k=key: k, params[key]) for key in params
    }

  return optax.partition(dict(optimizers), labels)


def from_loss(
  loss: LossFn,
  init: InitFn,
  tx: optax.GradientTransformation,
  *,
  ema_decay: float = 0.0,
  accumulate: int = 1,
) -> Method:
  """The ordinary method: one loss, one gradient, one optimiser step.

  Args:
    loss: see the module docstring.
    init: `(rng, batch) -> (params, model_state)`.
    tx: the optimiser; for several participants see `partitioned`.
    ema_decay: decay of the running mean of the parameters, 0 for none.
    accumulate: number of microbatches whose gradients are averaged; must
      divide the batch size.
  """
  if not 0.0 <= ema_decay < 1.0:
    raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay}")
  if accumulate < 1:
    raise ValueError(f"accumulate must be >= 1, got {accumulate}")
  slope = _gradient(loss, accumulate)

  def start(rng: Array, batch: Batch) -> TrainState:
    params, model_state = init(rng, batch)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state=tx.init(params),
      ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
    )

  def update(state, frozen, batch, rng):
    (value, aux), grads = slope(
      state.params, state.model_state, frozen, batch, rng, state.step
    )
    params, opt_state = descend(tx, grads, state.opt_state, state.params)
    ema = state.ema
    if ema_decay:
      ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
    sums = {
      **aux.metrics,
      "loss/total": Mean(value, jnp.ones(())),
      "loss/gradient_norm": Mean(optax.tree.norm(grads), jnp.ones(())),
    }
    new_state = TrainState(
      state.step + 1, params, aux.model_state, opt_state, ema
    )
    return new_state, sums

  return Method(start, update)


def from_course(
  course: Course, init: InitFn, learners: Mapping[str, Learner]
) -> Method:
  """A method whose participants are updated in turns.

  Args:
    course: see `Course`.
    init: of all participants, `(rng, batch) -> (params, model_state)`.
    learners: by participant.
  """

  def start(rng: Array, batch: Batch) -> TrainState:
    params, model_state = init(rng, batch)
    opt_state = {
      name: one.tx.init(params[name]) for name, one in learners.items()
    }
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state)

  return Method(start, course.update(learners))
