# SPDX-License-Identifier: Apache-2.0
"""The networks of a config, and the teacher that they make up."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import (
  data,
  generators,
  methods,
  models,
  registry,
  settings,
  teachers,
)
from tgt_jax.settings import Config
from tgt_jax.types import Generator, Network, input_struct


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
    text = data.loaded(json.loads(data_spec)).train.text
    assert text is not None
    return data.translation(text.tokenizer, data.load_tokenizer(path), length)

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


def has_encoder(config: Config) -> bool:
  """Whether there is one: a name."""
  return bool(config["encoder"]["name"])


def prober(config: Config) -> teachers.Teacher:
  """Labels what it is given: embeddings, where the labeler reads these."""
  return teachers.without_generator(label_function(config))


def teacher(config: Config) -> teachers.Teacher:
  """The teacher triple; `pixel_space` leaves the generator out."""
  label = label_function(config)
  if config["pixel_space"] or not has_generator(config):
    made = teachers.without_generator(label)
  else:
    made = teachers.triple(generator(config), label)
  probes = config["labeler_reads"] == "embedding"
  if not has_encoder(config):
    return made._replace(label=teachers.no_embedding) if probes else made
  encoder = network(config, config["encoder"])
  return teachers.with_encoder(made, encoder, label if probes else None)


def _arms_by(config: Config, method: Callable) -> dict[str, Config]:
  """The arms of a method, each config as the arm sees it."""
  arms = {name: settings.arm_config(config, name) for name in config["arms"]}
  of = lambda mine: registry.resolve(
    methods.METHODS, mine["method"]["name"], family="method"
  )
  return {name: mine for name, mine in arms.items() if of(mine) is method}


def anchors(config: Config) -> int:
  """Checkpoints of the labeler's training that somebody learns from.

  None of one that is not trained.
  """
  wanted = config["labeler_training"]["steps"] and _arms_by(config, methods.rco)
  return config["anchors"] if wanted else 0


def chain(config: Config) -> Config | None:
  """The config as those arms see it that learn from assistants, if any do.

  Raises:
    ValueError: nothing would train an assistant, or two arms differently.
  """
  mine = _arms_by(config, methods.takd)
  if not mine:
    return None
  number, files = len(config["assistants"]), len(config["assistant_weights"])
  if files not in (0, number):
    raise ValueError(
      f"assistant_weights: {files} files for {number} assistants: name one for"
      " each, or none"
    )
  if not files and not config["labeler_training"]["steps"]:
    raise ValueError(
      f"arms.{next(iter(mine))}: its assistants are trained as long as the"
      " labeler is, labeler_training.steps 0: they would answer at random."
      " Raise it, or name assistant_weights"
    )
  taught = lambda arm: (
    arm["distance"],
    {key: arm["method"][key] for key in arm["method"] if key != "name"},
  )
  first = next(iter(mine.values()))
  for name, other in mine.items():
    if taught(other) != taught(first):
      raise ValueError(
        f"arms.{name}: a run has one line of assistants, taught by the distance"
        f" and weights of arms.{next(iter(mine))}, and these differ: make them"
        " alike, or use two runs"
      )
  return first


def read_struct(
  config: Config, reads: str, batch_size: int = 1
) -> jax.ShapeDtypeStruct:
  """Shape and dtype of a batch of what a network reads.

  Args:
    config: the experiment, as an arm sees it.
    reads: "input" or "embedding".
    batch_size: B.
  """
  shape = "embedding_shape" if reads == "embedding" else "input_shape"
  return input_struct(config[shape], batch_size)


def zeros(config: Config, reads: str, batch_size: int = 1) -> jax.Array:
  """A batch of zeros as a network reads them; see `read_struct`."""
  shape = read_struct(config, reads, batch_size)
  return jnp.zeros(shape.shape, shape.dtype)


def init_frozen(config: Config, rng: jax.Array, x: jax.Array) -> dict:
  """A teacher's arrays with random values: shapes, names, a starting point."""
  one = network(config, config["labeler"])
  keys = jax.random.split(rng, config["num_labelers"] + 1)
  drawn = lambda made, key, x=x: teachers.Frozen(*made.init(key, x))
  read = x
  if config["labeler_reads"] == "embedding":
    read = zeros(config, "embedding")
  arrays: dict[str, Any] = {
    "labeler": tuple(drawn(one, key, read) for key in keys[1:]),
  }
  if has_encoder(config):
    arrays["encoder"] = drawn(network(config, config["encoder"]), rng)
  if has_generator(config):
    arrays["generator"] = drawn(generator(config), keys[0])
  if chain(config):
    arrays["assistants"] = tuple(
      drawn(network(config, spec), rng) for spec in config["assistants"]
    )
  if number := anchors(config):
    arrays["anchors"] = jax.tree.map(
      lambda a: jnp.repeat(a[None], number, axis=0), arrays["labeler"][0]
    )
  return arrays


def check_encoder(config: Config, frozen: Any) -> None:
  """Raises `ValueError` unless the encoder gives what the config says.

  Args:
    config: the experiment.
    frozen: the teacher's arrays, or their shapes.
  """
  if not has_encoder(config):
    return
  embed = teacher({**config, "pixel_space": True}).embed
  shape = jax.eval_shape(embed, frozen, zeros(config, "input")).shape[1:]
  if shape != tuple(config["embedding_shape"]):
    raise ValueError(
      f"embedding_shape: {config['encoder']['name']} gives {shape}, the config"
      f" says {tuple(config['embedding_shape'])}"
    )
