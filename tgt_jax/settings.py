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
import difflib
import re
from collections.abc import Mapping
from typing import Any

from tgt_jax import checks, data, registry

Config = dict[str, Any]

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
  "optimizer",
  "training",
  "pixel_space",
)
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
        near = difflib.get_close_matches(key, list(base), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
          f"{path} has no key {key!r}; it has {', '.join(sorted(base))}.{hint}"
        )
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
  for section, override in config["arms"][name].items():
    path = f"arms.{name}.{section}"
    if section not in ARM_SECTIONS:
      near = difflib.get_close_matches(section, ARM_SECTIONS, n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"{path} cannot be overridden by an arm; an arm may set"
        f" {', '.join(ARM_SECTIONS)}.{hint}"
      )
    result[section] = merge(config[section], override, path=path)
  return result


def checked(config: Any) -> Config:
  """The config as a plain dict, or what is wrong with it.

  Args:
    config: a ConfigDict or a mapping.

  Raises:
    ValueError: a value that cannot be, with the path of its key.
    TypeError: an arm's value of another type than the config's.
  """
  config = plain(config)
  registry.resolve(
    data.DATASETS, config["data"].get("name", ""), family="data set"
  )
  _at_least(1, config, "", "seeds", "num_labelers", "evaluation_batch_size")
  _at_least(0, config, "", "validation_per_class", "gallery_examples")
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
  _augmentations(config["augment"], "augment")
  for part in ("generator_training", "labeler_training"):
    _at_least(0, config, part, "steps")
    _at_least(1, config, part, "batch_size")
    checks.one_of(
      ("full", "train"), **{f"{part}.source": config[part]["source"]}
    )
  _check_arms(config)
  return config


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
    checks.one_of(_TOGETHER, **{f"{path}training.together": train["together"]})
    checks.one_of(
      ("batch", "full", "train"), **{f"{path}starts.source": starts["source"]}
    )
    for section in ("training", "starts"):
      sampler = mine[section]["sampler"]
      checks.one_of(data.SAMPLERS, **{f"{path}{section}.sampler": sampler})
    _augmentations(starts["strong"], f"{path}starts.strong")


def _at_least(low: int, config: Config, section: str, *keys: str) -> None:
  values = config[section] if section else config
  for key in keys:
    if not values[key] >= low:
      path = f"{section}.{key}" if section else key
      raise ValueError(f"{path} must be >= {low}, got {values[key]}")


def _augmentations(specs: Any, path: str) -> None:
  for spec in specs:
    try:
      registry.build(data.AUGMENTATIONS, spec, family="augmentation")
    except (TypeError, ValueError) as error:
      raise ValueError(f"{path}: {error}") from error
