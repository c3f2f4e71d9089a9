# SPDX-License-Identifier: Apache-2.0
"""From a config to the objects of an experiment; configs stop here.

A section with a `name` is a spec: the name selects a function from a table and
the other keys are its arguments.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import (
  data,
  influence,
  learners,
  losses,
  networks,
  registry,
  settings,
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
from tgt_jax.networks import network
from tgt_jax.settings import Config
from tgt_jax.types import Method, Network


class Arm(NamedTuple):
  """One way to train the student.

  Attributes:
    name: the key in `config.arms`.
    config: the config with this arm's overrides applied.
    parts: the functions that its method puts together.
    method: how one batch changes the student.
    others: who learns beside the student.
    feedback: whether its batches need held-out examples.
    untaught: those of `others` that cannot be scored.
  """

  name: str
  config: Config
  parts: Parts
  method: Method
  others: tuple[str, ...] = ()
  feedback: bool = False
  untaught: tuple[str, ...] = ()


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
    ValueError, TypeError: unknown name or argument anywhere in the arm's
      sections; begins with its name.
  """
  with naming(name):
    return _arm(config, name, counts, per_example)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
  """Begins errors of what an arm does with its name."""
  try:
    yield
  except (TypeError, ValueError) as error:
    if f"arms.{name}" in str(error):
      raise
    kind = TypeError if isinstance(error, TypeError) else ValueError
    raise kind(f"arms.{name}: {error}") from error


def _arm(
  config: Config, name: str, counts: np.ndarray, per_example: Callable
) -> Arm:
  mine = settings.arm_config(config, name)
  of = lambda spec: registry.build(
    losses.DISTANCES, spec, family="distance", class_counts=counts
  )
  distance = lambda section: of(mine[section])
  student = network(mine, mine["student"])
  parts = Parts(
    student=student,
    teacher=networks.teacher(mine),
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
    if mine["num_labelers"] == 1 and mine["labeler_reads"] == "input"
    else None,
    assistants=tuple(network(mine, spec) for spec in mine["assistants"]),
    compressor=network(mine, mine["compressor"])
    if mine["compressor"]["name"]
    else None,
    embedding_distance=registry.build(
      losses.EMBEDDING_DISTANCES,
      mine["embedding_distance"],
      family="embedding distance",
    ),
    embedding_shape=tuple(mine["embedding_shape"]),
    pull=of(_exchanged(mine["distance"])),
    per_example=per_example,
  )
  made = registry.build(
    METHODS,
    mine["method"],
    family="method",
    offered={
      "steps": mine["training"]["steps"],
      "anchors": networks.anchors(mine),
      "num_examples": _remembered(mine, counts),
    },
    parts=parts,
  )
  if not isinstance(made, (Recipe, Course)):
    made = Recipe(made)
  method = learners.method(name, made, student, mine)
  _check_part(mine, name, student)
  batch = example_batch(mine, feedback=made.feedback)
  for init in made.others.values():  # What does not fit shows here.
    jax.eval_shape(init, jax.random.key(0), batch)
  rest = tuple(made.others), made.feedback, made.untaught
  return Arm(name, mine, parts, method, *rest)


def _exchanged(spec: Config) -> Config:
  """A distance whose two sides have each other's priors."""
  own = spec.get("priors", False)
  other = spec.get("teacher_priors")
  if other is None or other == own:
    return spec
  return {**spec, "priors": other, "teacher_priors": own}


def _check_part(config: Config, name: str, student: Network) -> None:
  """Raises `ValueError` where a method's part of the student is none."""
  pattern = config["method"].get("within")
  if not pattern:
    return
  x = networks.zeros(config, config["student_reads"])
  params, _ = jax.eval_shape(student.init, jax.random.key(0), x)
  try:
    influence.matching(params, pattern)
  except (ValueError, re.error) as error:
    raise ValueError(f"arms.{name}.method.within: {error}") from error


def _remembered(config: Config, counts: np.ndarray) -> int:
  """Examples that a batch's "id" counts; 0 where `counts` do not tell."""
  if config["tags"] or config["starts"]["source"] != "batch":
    return 0
  return int(np.sum(counts))


def generator_method(config: Config) -> Method:
  """Trains the generator; no labels."""
  made, train = networks.generator(config), config["generator_training"]

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
    networks.teacher({**config, "pixel_space": False}),
    reconstruction=train["reconstruction"],
    sigma=train["reconstruction_sigma"],
  )
  return from_loss(
    loss,
    learners.student_init(one),
    learners.optimizer(train["optimizer"], train["steps"]),
  )


def encoder_method(config: Config) -> Method:
  """Holds the encoder, which does not learn here."""
  one = network(config, config["encoder"])
  loss = labeler_loss(one, losses.LABEL_LOSSES["cross_entropy"]())
  return from_loss(loss, learners.student_init(one), learners.optimizer({}, 0))


def assistant_method(config: Config, number: int, counts: np.ndarray) -> Method:
  """Distils one assistant from the one before, or from the labeler.

  Args:
    config: as the arm sees it that learns from the last one.
    number: of the assistant.
    counts: training examples per class.
  """
  train = config["labeler_training"]
  specs = config["assistants"]
  one = network(config, specs[number])
  made = lambda table, spec, family: registry.build(
    table, spec, family=family, class_counts=counts
  )
  distance = made(losses.DISTANCES, config["distance"], "distance")
  parts = Parts(
    student=one,
    teacher=networks.teacher(config),
    label_loss=made(losses.LABEL_LOSSES, train["label_loss"], "label loss"),
    distance=distance,
    generated_distance=distance,
    disagreement=distance,
    assistants=tuple(network(config, spec) for spec in specs[:number]),
  )
  options = {k: v for k, v in config["method"].items() if k != "name"}
  loss = takd(parts, **options) if number else kd(parts, **options)
  return from_loss(
    loss,
    learners.student_init(one),
    learners.optimizer(train["optimizer"], train["steps"]),
  )


def example_batch(config: Config, *, feedback: bool = False) -> dict[str, Any]:
  """A batch of zeros shaped as the config says, for shapes and tracing."""
  size = config["training"]["batch_size"]
  batch: dict[str, Any] = {
    "input": networks.zeros(config, config["student_reads"], size),
    "label": jnp.zeros((size,), jnp.int32),
    "id": jnp.zeros((size,), jnp.int32),
  }
  if config["tags"]:
    batch["label"] = jnp.zeros((size, config["num_classes"]))
  if config["embedding_shape"]:
    batch["embedding"] = networks.zeros(config, "embedding", size)
  # Nobody can be asked in the step.
  given = config["labeler_reads"] == "embedding" and not networks.has_encoder(
    config
  )
  if given or config["student_reads"] == "embedding":
    batch["teacher_logits"] = jnp.zeros((size, config["num_classes"]))
  starts = dict(batch)
  if config["starts"]["strong"]:
    starts["strong"] = batch["input"]
  held = {"feedback": batch} if feedback else {}
  if config["starts"]["source"] != "batch":
    ratio = config["starts"]["ratio"]
    starts = jax.tree.map(lambda a: jnp.repeat(a, ratio, axis=0), starts)
    return {**batch, "starts": starts, **held}
  return {**batch, **starts, **held}


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
    return networks.init_frozen(config, key, networks.zeros(config, "input"))

  frozen = jax.eval_shape(frozen_of, rng)
  networks.check_encoder(config, frozen)
  shapes: dict[str, Any] = {"teacher": frozen}

  def one_step(method, batch):
    def step(key, frozen):
      return method.update(method.init(key, batch), frozen, batch, key)

    return jax.eval_shape(step, rng, frozen)

  trained = {"labeler": labeler_method(config, counts)}
  if networks.has_generator(config):
    trained["generator"] = generator_method(config)
  for part, method in trained.items():
    if config[f"{part}_training"]["steps"]:  # Else it is used as it is.
      reads = config["labeler_reads"] if part == "labeler" else "input"
      batch = example_batch({**config, "student_reads": reads})
      shapes[part] = one_step(method, batch)
  for name in config["arms"]:
    built = arm(config, name, counts)
    batch = example_batch(built.config, feedback=built.feedback)
    shapes[name] = one_step(built.method, batch)
  return shapes
