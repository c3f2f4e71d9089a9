# SPDX-License-Identifier: Apache-2.0
"""Reading a config: what each arm sees, and what is wrong with it.

A config describes one experiment: a data set, a teacher, and one or more named
arms. An arm is a set of overrides of the sections in `ARM_SECTIONS`. An
override that has a `name` replaces a whole section, and one that does not
changes single keys.

Everything that can be said without data is said here, before anything is
trained or written.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from tgt_jax import (
  checks,
  config as config_lib,
  data,
  generators,
  measures,
  methods,
  models,
  reading,
  registry,
)

Config = dict[str, Any]

# Sections whose factories may want to know of the vocabulary.
_KNOW_WORDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
  "generator": (generators.GENERATORS, "generator"),
  "labeler": (models.MODELS, "model"),
  "assistants": (models.MODELS, "model"),
  "encoder": (models.MODELS, "model"),
  "student": (models.MODELS, "model"),
  "method": (methods.METHODS, "method"),
}

# What an arm may override; everything else is shared by all arms.
ARM_SECTIONS = (
  "method",
  "exploration",
  "label_loss",
  "distance",
  "generated_distance",
  "disagreement",
  "starts",
  "student",
  "student_weights",
  "student_reads",
  "compressor",
  "compressor_start",
  "embedding_distance",
  "optimizer",
  "teacher_optimizer",
  "teacher_start",
  "training",
  "pixel_space",
)
# Methods that move latents.
EXPLORING = ("tgt", "influenced_tgt")
_STARTS = ("trained", "untrained")
_TOGETHER = ("auto", "always", "never")
_ARM_NAME = re.compile(r"[^/\\.][^/\\]*")


def plain(config: Any) -> Config:
  """A ConfigDict (or mapping) as a plain nested dict, a copy."""
  to_dict = getattr(config, "to_dict", None)
  return to_dict() if to_dict else copy.deepcopy(dict(config))


def merge(base: Any, override: Any, *, path: str) -> Any:
  """Applies an arm's override to one section.

  Args:
    base: the section of the config.
    override: what the arm says of it.
    path: where we are, for errors.

  Raises:
    ValueError: a key that the section does not have.
    TypeError: a value of another type than the section's.
  """
  if isinstance(base, Mapping) and isinstance(override, Mapping):
    if "name" in override:
      return dict(override)
    merged = dict(base)
    for key, value in override.items():
      # The arguments of a spec are checked by the function it names.
      if key not in base and "name" not in base:
        raise ValueError(registry.no_key(path, key, base))
      old = base.get(key)
      merged[key] = (
        merge(old, value, path=f"{path}.{key}") if key in base else value
      )
    return merged
  number = (int, float)
  same = isinstance(override, type(base)) or (
    isinstance(base, float) and isinstance(override, number)
  )
  if base is not None and not same:
    raise TypeError(
      f"{path} is a {type(base).__name__} ({base!r}); the arm gives"
      f" {override!r}"
    )
  return override


def arm_config(config: Config, name: str) -> Config:
  """The config as the arm `name` sees it."""
  result = copy.deepcopy(config)
  arm = config["arms"][name]
  if not isinstance(arm, Mapping):
    raise TypeError(f"arms.{name}: expected sections to override, got {arm!r}")
  for section, override in arm.items():
    path = f"arms.{name}.{section}"
    if section not in ARM_SECTIONS:
      raise ValueError(registry.no_key(f"arms.{name}", section, ARM_SECTIONS))
    result[section] = merge(config[section], override, path=path)
  return with_vocabulary(result)


def word_arguments(
  config: Config, section: str, spec: Mapping[str, Any]
) -> dict[str, Any]:
  """What a spec's function takes of the vocabulary, with its defaults."""
  if section not in _KNOW_WORDS or not spec.get("name", ""):
    return {}
  table, family = _KNOW_WORDS[section]
  factory = registry.resolve(table, spec["name"], family=family)
  return {
    key: registry.default(factory, key)
    for key in config["vocabulary"]
    if registry.takes(factory, key)
  }


def with_vocabulary(config: Config) -> Config:
  """The config with the vocabulary in the specs of what reads texts.

  A spec that gives a value keeps it; one with a "tokenizer" reads another
  vocabulary than the data's and gets none of it.
  """
  if len(config["input_shape"]) != 1:
    return config

  def fill(section: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    if "tokenizer" in spec:
      return dict(spec)
    known = word_arguments(config, section, spec)
    return {**{key: config["vocabulary"][key] for key in known}, **spec}

  return {
    section: tuple(fill(section, spec) for spec in value)
    if section == "assistants"
    else fill(section, value)
    if section in _KNOW_WORDS
    else value
    for section, value in config.items()
  }


def _check_keys(
  section: Mapping[str, Any], default: Mapping[str, Any], path: str
) -> None:
  """Keys of all sections but arms and specs, which are checked elsewhere."""
  for key, value in section.items():
    if key not in default:
      raise ValueError(registry.no_key(path, key, default))
    base = default[key]
    if isinstance(base, Mapping) and "name" not in base and key != "arms":
      here = f"{path}.{key}" if path else key
      if not isinstance(value, Mapping):
        raise TypeError(f"{here}: expected a section, got {value!r}")
      _check_keys(value, base, here)


def checked(config: Any) -> Config:
  """The config as a plain dict, or what is wrong with it.

  Args:
    config: a ConfigDict or a mapping.

  Raises:
    ValueError: a value that cannot be, with the path of its key.
    TypeError: an arm's value of another type than the config's.
  """
  config = plain(config)
  _check_keys(config, plain(config_lib.default()), "")
  registry.resolve(
    data.DATASETS, config["data"].get("name", ""), family="data set"
  )
  _at_least(1, config, "", "seeds", "num_labelers", "evaluation_batch_size")
  _at_least(
    0, config, "", "validation_per_class", "gallery_examples", "anchors"
  )
  _at_least(1, config, "cadence", "log")
  _at_least(0, config, "cadence", "evaluate", "checkpoint")
  _at_least(0, config, "groups", "few_below", "many_above")
  for axis, size in config["mesh"].items():
    if size != -1 and size < 1:
      raise ValueError(f"mesh.{axis} must be -1 or >= 1, got {size}")
  for number, rule in enumerate(config["sharding_rules"]):
    if len(rule) != 2 or not isinstance(rule[0], str):
      raise ValueError(
        f"sharding_rules[{number}]: expected (regex, axes), got {rule!r}"
      )
  profile = config["long_tail"]["profile"]
  checks.one_of(("", *data.PROFILES), **{"long_tail.profile": profile})
  checks.positive(
    **{"long_tail.imbalance_ratio": config["long_tail"]["imbalance_ratio"]}
  )
  _augmentations(config, config["augment"], "augment")
  feedback = config["feedback"]
  checks.one_of(("train", "test"), **{"feedback.source": feedback["source"]})
  checks.in_range(0.0, 0.5, **{"feedback.share": feedback["share"]})
  if feedback["source"] == "test" and feedback["share"]:
    raise ValueError(
      "feedback.share holds out training examples, and feedback.source 'test'"
      " uses none of them: set the share to 0"
    )
  for name in config["columns"]:
    checks.one_of(measures.METRICS, columns=measures.plain(name))
  if config["bag_of_words"] and len(config["input_shape"]) != 1:
    raise ValueError("bag_of_words counts the words of texts; set it to False")
  for part in ("generator_training", "labeler_training"):
    _at_least(0, config, part, "steps")
    _at_least(1, config, part, "batch_size")
    checks.one_of(
      ("full", "train"), **{f"{part}.source": config[part]["source"]}
    )
  labeler = config["labeler_training"]
  if labeler["reconstruction"] and not config["generator"]["name"]:
    raise ValueError(
      "labeler_training.reconstruction needs a generator: set it to 0, or"
      " name one"
    )
  _check_input(config)
  reading.check(config, [arm_config(config, n) for n in config["arms"]])
  config = with_vocabulary(config)
  _check_arms(config)
  return config


def _check_input(config: Config) -> None:
  """The shape of an input, and the vocabulary of texts."""
  shape, words = config["input_shape"], config["vocabulary"]
  if len(shape) not in (1, 3) or min(shape) < 1:
    raise ValueError(
      "input_shape: expected (height, width, channels) of images or (length,)"
      f" of texts, got {tuple(shape)}"
    )
  if len(shape) == 3:
    return
  size = words["vocab_size"]
  checks.positive(**{"vocabulary.vocab_size": size})
  for name, value in words.items():
    if name != "vocab_size":
      checks.in_range(0, size - 1, **{f"vocabulary.{name}": value})


def _check_arms(config: Config) -> None:
  """Names, and the sections of every arm that building it does not check."""
  arms = config["arms"]
  if not arms:
    raise ValueError("config.arms is empty; name at least one arm")
  for name, key in (
    (config["main_arm"], "main_arm"),
    *((name, "reference_arms") for name in config["reference_arms"]),
  ):
    if name not in arms:
      raise ValueError(
        f"{key} {name!r} is not among the arms: {', '.join(arms)}"
      )
  readers: dict[str, Any] = {}
  for name in arms:
    if not _ARM_NAME.fullmatch(name):
      raise ValueError(
        f"arms: {name!r} is to name a folder, so it cannot be empty, begin with"
        " a dot or hold a slash"
      )
    mine, path = arm_config(config, name), f"arms.{name}."
    train, starts = mine["training"], mine["starts"]
    _at_least(1, mine, "training", "steps", "batch_size", "accumulate")
    if train["batch_size"] % train["accumulate"]:
      raise ValueError(
        f"{path}training.batch_size {train['batch_size']} is not divisible by"
        f" accumulate {train['accumulate']}"
      )
    checks.one_of(_STARTS, **{f"{path}teacher_start": mine["teacher_start"]})
    reading.check_arm(mine, path, readers)
    if mine["student_reads"] == "embedding":
      readers[name] = mine["student"]
    checks.one_of(_TOGETHER, **{f"{path}training.together": train["together"]})
    checks.one_of(
      ("batch", "full", "train"), **{f"{path}starts.source": starts["source"]}
    )
    _at_least(1, mine, "starts", "ratio")
    if starts["source"] == "batch" and starts["ratio"] > 1:
      raise ValueError(
        f"{path}starts.ratio {starts['ratio']}: where the batch's own examples"
        " are the start points there is one for each; set starts.source to"
        " 'train' or 'full', or method.num_generated"
      )
    for section in ("training", "starts"):
      sampler = mine[section]["sampler"]
      checks.one_of(data.SAMPLERS, **{f"{path}{section}.sampler": sampler})
    _augmentations(config, starts["strong"], f"{path}starts.strong")
    _check_words(mine, name)
    if len(config["input_shape"]) == 1 and mine["student_reads"] == "input":
      _check_text(mine, name)
    explores = mine["method"]["name"] in EXPLORING and not mine["pixel_space"]
    if explores and not mine["generator"]["name"]:
      raise ValueError(
        f"arms.{name}: {mine['method']['name']} explores with a generator, and"
        " generator.name is empty: name one of GENERATORS"
      )


def _check_words(mine: Config, name: str) -> None:
  """Soft tokens mean nothing to a network with words of its own."""
  soft = mine["method"]["name"] in ("mixup_kd", "mate_kd") or (
    mine["method"]["name"] in EXPLORING and _ascends(mine["exploration"])
  )
  for part in ("labeler", "student"):
    if soft and "tokenizer" in mine[part]:
      raise ValueError(
        f"arms.{name}: the {part} has a tokenizer of its own, and no gradient"
        " passes from one vocabulary to another: gradient exploration and"
        " mixup need networks that share the generator's words. Use random"
        " exploration, or such a network"
      )


def _check_text(mine: Config, name: str) -> None:
  """Raises where an arm would do to token ids what is done to pixels."""
  method = mine["method"]["name"]
  if method == "noise_kd" or mine["pixel_space"]:
    raise ValueError(
      f"arms.{name}: noise on pixels and pixel_space are for images; of texts"
      " augmented_kd shows others, by config.starts.strong"
    )
  if method == "uda" and not mine["starts"]["strong"]:
    raise ValueError(
      f"arms.{name}: uda compares two views of an example, and of texts there is"
      " only one: name augmentations in config.starts.strong"
    )


def _ascends(exploration: Any) -> bool:
  """Whether an exploration, or a part of it, follows a gradient."""
  parts = [*exploration.get("parts", ())]
  parts += [exploration["inner"]] if "inner" in exploration else []
  return exploration.get("name") == "gradient_ascent" or any(
    map(_ascends, parts)
  )


def _at_least(low: int, config: Config, section: str, *keys: str) -> None:
  values = config[section] if section else config
  for key in keys:
    if not values[key] >= low:
      path = f"{section}.{key}" if section else key
      raise ValueError(f"{path} must be >= {low}, got {values[key]}")


def _augmentations(config: Config, specs: Any, path: str) -> None:
  texts = len(config["input_shape"]) == 1
  kind = "text" if texts else "image"
  table = data.TEXT_AUGMENTATIONS if texts else data.IMAGE_AUGMENTATIONS
  for spec in specs:
    try:
      factory, arguments = registry.read_spec(
        table, spec, family=f"{kind} augmentation"
      )
      # One that asks for the data is built when they have been read.
      if not registry.takes(factory, "source"):
        factory(**arguments)
    except (TypeError, ValueError) as error:
      raise ValueError(f"{path}: {error}") from error
