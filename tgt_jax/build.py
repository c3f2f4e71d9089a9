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

from tgt_jax import (
  data,
  generators,
  learners,
  losses,
  models,
  registry,
  settings,
  teachers,
)
from tgt_jax.exploration import from_spec
from tgt_jax.methods import (
  METHODS,
  Course,
  Parts,
  Recipe,
  from_loss,
  generator_loss,
  kd,
  labeler_loss,
  takd,
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


def has_generator(config: Config) -> bool:
  """Whether there is one: a name."""
  return bool(config["generator"]["name"])


def teacher(config: Config) -> teachers.Teacher:
  """The teacher triple; `pixel_space` leaves the generator out."""
  label = label_function(config)
  if config["pixel_space"] or not has_generator(config):
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
    assistants=tuple(network(mine, spec) for spec in mine["assistants"]),
    per_example=per_example,
  )
  made = registry.build(
    METHODS,
    mine["method"],
    family="method",
    offered={"steps": mine["training"]["steps"], "anchors": mine["anchors"]},
    parts=parts,
  )
  if not isinstance(made, (Recipe, Course)):
    made = Recipe(made)
  method = learners.method(name, made, student, mine)
  return Arm(name, mine, parts, method, tuple(made.others), made.feedback)


def generator_method(config: Config) -> Method:
  """Trains the generator; no labels."""
  made, train = generator(config), config["generator_training"]

  def init(rng, batch):
    params, state = made.init(rng, batch["input"])
    return {"generator": params}, {"generator": state}

  return from_loss(
    generator_loss(made),
    init,
    learners.optimizer(train["optimizer"], train["steps"]),
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
    teacher({**config, "pixel_space": False}),
    reconstruction=train["reconstruction"],
    sigma=train["reconstruction_sigma"],
  )
  return from_loss(
    loss,
    learners.student_init(one),
    learners.optimizer(train["optimizer"], train["steps"]),
  )


def assistant_method(config: Config, number: int, counts: np.ndarray) -> Method:
  """Distils one assistant from the one before, or from the labeler."""
  train = config["labeler_training"]
  specs = config["assistants"]
  one = network(config, specs[number])
  made = lambda table, spec, family: registry.build(
    table, spec, family=family, class_counts=counts
  )
  distance = made(losses.DISTANCES, config["distance"], "distance")
  parts = Parts(
    student=one,
    teacher=teacher(config),
    label_loss=made(losses.LABEL_LOSSES, train["label_loss"], "label loss"),
    distance=distance,
    generated_distance=distance,
    disagreement=distance,
    assistants=tuple(network(config, spec) for spec in specs[:number]),
  )
  loss = takd(parts) if number else kd(parts)
  return from_loss(
    loss,
    learners.student_init(one),
    learners.optimizer(train["optimizer"], train["steps"]),
  )


def init_frozen(config: Config, rng: jax.Array, x: jax.Array) -> dict:
  """A teacher's arrays with random values: shapes, names, a starting point."""
  one = network(config, config["labeler"])
  keys = jax.random.split(rng, config["num_labelers"] + 1)
  drawn = lambda made, key: teachers.Frozen(*made.init(key, x))
  arrays: dict[str, Any] = {
    "labeler": tuple(drawn(one, key) for key in keys[1:]),
  }
  if has_generator(config):
    arrays["generator"] = drawn(generator(config), keys[0])
  if config["assistants"]:
    arrays["assistants"] = tuple(
      drawn(network(config, spec), rng) for spec in config["assistants"]
    )
  if number := config["anchors"]:
    arrays["anchors"] = jax.tree.map(
      lambda a: jnp.repeat(a[None], number, axis=0), arrays["labeler"][0]
    )
  return arrays


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

  trained = {"labeler": labeler_method(config, counts)}
  if has_generator(config):
    trained["generator"] = generator_method(config)
  for part, method in trained.items():
    if config[f"{part}_training"]["steps"]:  # Else it is used as it is.
      shapes[part] = one_step(method, example_batch(config))
  for name in config["arms"]:
    built = arm(config, name, counts)
    batch = example_batch(built.config, feedback=built.feedback)
    shapes[name] = one_step(built.method, batch)
  return shapes
