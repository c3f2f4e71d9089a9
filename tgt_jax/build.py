# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects of an experiment; configs stop here.

A section with a `name` is a spec: the name selects a function from a table and
the other keys are its arguments.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tgt_jax import (
  data,
  generators,
  losses,
  models,
  registry,
  rng as rng_lib,
  settings,
  teachers,
  training,
)
from tgt_jax.exploration import from_spec
from tgt_jax.methods import (
  METHODS,
  Course,
  Learner,
  Parts,
  Recipe,
  from_course,
  from_loss,
  generator_loss,
  labeler_loss,
  partitioned,
)
from tgt_jax.settings import Config
from tgt_jax.types import Generator, Method, Network, input_struct


class Arm(NamedTuple):
  """One way to train the student.

  Attributes:
    name: the key in `config.arms`.
    config: the config with this arm's overrides applied.
    parts: the functions that its method puts together.
    method: how one batch changes the student.
    others: who learns beside the student.
    feedback: whether its batches need held-out examples.
  """

  name: str
  config: Config
  parts: Parts
  method: Method
  others: tuple[str, ...] = ()
  feedback: bool = False


@functools.cache
def _network(spec: str, num_classes: int) -> Network:
  return models.from_spec(
    models.MODELS, json.loads(spec), num_classes=num_classes
  )


@functools.cache
def _translated(
  made: Network, data_spec: str, path: str, length: int
) -> Network:
  @functools.cache
  def translation() -> Callable[[np.ndarray], np.ndarray]:
    dataset = registry.build(
      data.DATASETS, json.loads(data_spec), family="data set"
    )
    ours = dataset.train.text.tokenizer
    return data.translation(ours, data.load_tokenizer(path), length)

  # Read where it is used: a config is built without data.
  return models.with_translation(made, lambda ids: translation()(ids), length)


def own_words(
  config: Config, spec: Mapping[str, Any]
) -> tuple[dict[str, Any], str, tuple[int, ...]]:
  """What a network's spec says of its tokenizer.

  Returns:
    The spec of the network itself, the path of its tokenizer ("": it reads
    the data's), and the shape of its inputs.
  """
  inside = dict(spec)
  path = inside.pop("tokenizer", "")
  length = inside.pop("length", config["input_shape"][0]) if path else 0
  shape = (length,) if path else tuple(config["input_shape"])
  return inside, path, shape


def reading(
  config: Config, spec: Mapping[str, Any], inside: Network
) -> Network:
  """A network of a spec as one that reads the data's inputs."""
  _, path, shape = own_words(config, spec)
  if not path:
    return inside
  return _translated(inside, json.dumps(dict(config["data"])), path, shape[0])


def network(config: Config, spec: Mapping[str, Any]) -> Network:
  """A classifier for the config's classes.

  The same spec gives the same object, so that what is compiled for one arm
  serves the others. Of texts a spec may have a "tokenizer", the path of one
  that is not the data's, and the "length" of texts in its words.
  """
  inside, _, _ = own_words(config, spec)
  made = _network(json.dumps(inside), config["num_classes"])
  return reading(config, spec, made)


def generator(config: Config) -> Generator:
  """The teacher's generator."""
  return generators.from_spec(
    generators.GENERATORS,
    config["generator"],
    input_shape=config["input_shape"],
  )


def label_function(config: Config) -> Callable:
  """The teacher's labeler, an ensemble where `num_labelers` is above one."""
  one = network(config, config["labeler"])
  return teachers.labeler([one] * config["num_labelers"])


def teacher(config: Config) -> teachers.Teacher:
  """The teacher triple; `pixel_space` leaves the generator out."""
  label = label_function(config)
  if config["pixel_space"]:
    return teachers.without_generator(label)
  return teachers.triple(generator(config), label)


def class_counts(config: Config) -> np.ndarray:
  """Training examples per class as the config states them, without data."""
  tail = config["long_tail"]
  if tail["profile"] in ("", "fraction"):
    return np.full(config["num_classes"], tail["head"] or 1)
  # Without data, as if every class had plenty.
  return data.long_tail_counts(
    np.full(config["num_classes"], 10**9),
    profile=tail["profile"],
    imbalance_ratio=tail["imbalance_ratio"],
    head=tail["head"] or 1000,
  )


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


def arm(
  config: Config,
  name: str,
  counts: np.ndarray,
  per_example: Callable = lambda function: function,
) -> Arm:
  """Builds one arm.

  Args:
    config: the experiment's plain config.
    name: a key of `config["arms"]`.
    counts: training examples per class, for priors and margins.
    per_example: see `Parts`.

  Raises:
    ValueError: unknown name or argument anywhere in the arm's sections.
  """
  mine = settings.arm_config(config, name)
  distance = lambda section: registry.build(
    losses.DISTANCES, mine[section], family="distance", class_counts=counts
  )
  student = network(mine, mine["student"])
  parts = Parts(
    student=student,
    teacher=teacher(mine),
    label_loss=registry.build(
      losses.LABEL_LOSSES,
      mine["label_loss"],
      family="label loss",
      class_counts=counts,
    ),
    distance=distance("distance"),
    generated_distance=distance("generated_distance"),
    disagreement=distance("disagreement"),
    exploration=from_spec(mine["exploration"]),
    labeler=network(mine, mine["labeler"])
    if mine["num_labelers"] == 1
    else None,
    per_example=per_example,
  )
  made = registry.build(METHODS, mine["method"], family="method", parts=parts)
  if isinstance(made, Course):
    method = _from_course(name, made, student, mine)
    return Arm(name, mine, parts, method, tuple(made.others), made.feedback)
  recipe = made if isinstance(made, Recipe) else Recipe(made)
  method = _from_recipe(recipe, student, mine)
  return Arm(name, mine, parts, method, tuple(recipe.others))


def _learner(spec: Mapping[str, Any], steps: int) -> Learner:
  keys = ("learning_rate", "schedule", "warmup_steps")
  rate = training.make_schedule(
    steps=steps, **{key: spec[key] for key in keys if key in spec}
  )
  return Learner(optimizer(spec, steps), rate)


def _from_course(
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


def _from_recipe(recipe: Recipe, student: Network, config: Config) -> Method:
  train = config["training"]
  tx = optimizer(config["optimizer"], train["steps"])
  init = student_init(student)
  if recipe.others:
    tx = partitioned(dict.fromkeys(("student", *recipe.others), tx))
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


def generator_method(config: Config) -> Method:
  """Trains the generator; no labels."""
  made, train = generator(config), config["generator_training"]

  def init(rng, batch):
    params, state = made.init(rng, batch["input"])
    return {"generator": params}, {"generator": state}

  return from_loss(
    generator_loss(made), init, optimizer(train["optimizer"], train["steps"])
  )


def labeler_method(config: Config, counts: np.ndarray) -> Method:
  """Trains one labeler, on labels and (by option) on reconstructions."""
  train = config["labeler_training"]
  one = network(config, config["labeler"])
  loss = labeler_loss(
    one,
    registry.build(
      losses.LABEL_LOSSES,
      train["label_loss"],
      family="label loss",
      class_counts=counts,
    ),
    teachers.triple(generator(config), label_function(config)),
    reconstruction=train["reconstruction"],
    sigma=train["reconstruction_sigma"],
  )
  return from_loss(
    loss, student_init(one), optimizer(train["optimizer"], train["steps"])
  )


def init_frozen(config: Config, rng: jax.Array, x: jax.Array) -> dict:
  """A teacher's arrays with random values: shapes, names, a starting point."""
  one = network(config, config["labeler"])
  keys = jax.random.split(rng, config["num_labelers"] + 1)
  return {
    "generator": teachers.Frozen(*generator(config).init(keys[0], x)),
    "labeler": tuple(teachers.Frozen(*one.init(key, x)) for key in keys[1:]),
  }


def example_batch(config: Config, *, feedback: bool = False) -> dict[str, Any]:
  """A batch of zeros shaped as the config says, for shapes and tracing."""
  size = config["training"]["batch_size"]
  shape = input_struct(config["input_shape"], size)
  batch: dict[str, Any] = {
    "input": jnp.zeros(shape.shape, shape.dtype),
    "label": jnp.zeros((size,), jnp.int32),
    "id": jnp.zeros((size,), jnp.int32),
  }
  starts = dict(batch)
  if config["starts"]["strong"]:
    starts["strong"] = batch["input"]
  held = {"feedback": batch} if feedback else {}
  if config["starts"]["source"] != "batch":
    return {**batch, "starts": starts, **held}
  return {**starts, **held}


def abstract(config: Any) -> dict[str, Any]:
  """Builds everything and traces one step of each arm; no data, no compute.

  Args:
    config: a ConfigDict or a plain nested dict.

  Returns:
    `{arm: (state, metrics)}` as trees of `jax.ShapeDtypeStruct`, and under
    "teacher" the frozen arrays.

  Raises:
    ValueError, TypeError: anything in the config that does not fit.
  """
  config = settings.checked(config)
  counts = class_counts(config)
  rng = jax.eval_shape(lambda: jax.random.key(0))

  def frozen_of(key):
    return init_frozen(config, key, example_batch(config)["input"])

  frozen = jax.eval_shape(frozen_of, rng)
  shapes: dict[str, Any] = {"teacher": frozen}

  def one_step(method, batch):
    def step(key, frozen):
      return method.update(method.init(key, batch), frozen, batch, key)

    return jax.eval_shape(step, rng, frozen)

  for part, method in (
    ("generator", generator_method(config)),
    ("labeler", labeler_method(config, counts)),
  ):
    if config[f"{part}_training"]["steps"]:  # Else it is used as it is.
      shapes[part] = one_step(method, example_batch(config))
  for name in config["arms"]:
    built = arm(config, name, counts)
    batch = example_batch(built.config, feedback=built.feedback)
    shapes[name] = one_step(built.method, batch)
  return shapes
