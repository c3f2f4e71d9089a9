# SPDX-License-Identifier: Apache-2.0
"""From what a method says of its participants to how they are updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optax

from tgt_jax import rng as rng_lib, training
from tgt_jax.methods import (
  Course,
  Learner,
  Recipe,
  from_course,
  from_loss,
  partitioned,
)
from tgt_jax.settings import Config
from tgt_jax.types import Method, Network


def optimizer(spec: Mapping[str, Any], steps: int) -> Any:
  """An optax optimiser from a spec; one without state for no updates."""
  if not steps:
    return optax.identity()
  kwargs = dict(spec)
  return training.make_optimizer(kwargs.pop("name"), steps=steps, **kwargs)


def student_init(student: Network) -> Callable:
  """`(rng, batch) -> (params, model_state)` keyed by participant."""

  def init(rng, batch):
    params, state = student.init(rng, batch["input"])
    return {"student": params}, {"student": state}

  return init


def method(
  name: str,
  made: Recipe | Course,
  student: Network,
  config: Config,
) -> Method:
  """The updates of an arm.

  Args:
    name: of the arm, for errors.
    made: its participants and how they learn.
    student: who learns.
    config: as the arm sees it.

  Raises:
    ValueError: what learners in turns cannot have.
  """
  if isinstance(made, Course):
    return _course(name, made, student, config)
  return _recipe(made, student, config)


def _learner(spec: Mapping[str, Any], steps: int) -> Learner:
  keys = ("learning_rate", "schedule", "warmup_steps")
  rate = training.make_schedule(
    steps=steps, **{key: spec[key] for key in keys if key in spec}
  )
  return Learner(optimizer(spec, steps), rate)


def _course(
  name: str, course: Course, student: Network, config: Config
) -> Method:
  train = config["training"]
  if train["ema_decay"] or train["accumulate"] > 1:
    raise ValueError(
      f"arms.{name}: {config['method']['name']} updates its learners in turns,"
      " without a running mean and in one batch: set training.ema_decay to 0"
      " and training.accumulate to 1"
    )
  learners = {
    who: _learner(config[section], train["steps"])
    for who, section in (
      ("student", "optimizer"),
      *((who, "teacher_optimizer") for who in course.others),
    )
  }
  init = _everyone(student_init(student), course.others)
  return from_course(course, init, learners)


def _recipe(recipe: Recipe, student: Network, config: Config) -> Method:
  train = config["training"]
  tx = optimizer(config["optimizer"], train["steps"])
  init = student_init(student)
  if recipe.others:
    each = dict.fromkeys(("student", *recipe.others), tx)
    # Not even by weight decay.
    tx = partitioned(each | dict.fromkeys(recipe.still, optax.set_to_zero()))
    init = _everyone(init, recipe.others)
  return from_loss(
    recipe.loss,
    init,
    tx,
    ema_decay=train["ema_decay"],
    accumulate=train["accumulate"],
  )


def _everyone(student: Callable, others: Mapping[str, Callable]) -> Callable:
  """The student's first arrays as they always are, and the others'."""

  def init(rng, batch):
    params, state = student(rng, batch)
    for name, one in others.items():
      found = one(rng_lib.stream(rng, name), batch)
      params, state = {**params, name: found[0]}, {**state, name: found[1]}
    return params, state

  return init
