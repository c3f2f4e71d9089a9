# SPDX-License-Identifier: Apache-2.0
"""What a teacher is made of, and a digest of everything that makes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import build, data, networks, settings, weights
from tgt_jax.types import Method


class Part(NamedTuple):
  """One network of the teacher.

  Attributes:
    name: of its file.
    group: of the frozen tree: "encoder", "generator", "labeler" or
      "assistants".
    seed: of its training.
    method: how it learns.
    participant: key of its parameters in the state.
    training: its section of the config.
    fingerprint: of everything that makes it.
    weights: converted file that it begins with, or "".
    model: its section of the config.
    reads: "input" or "embedding".
  """

  name: str
  group: str
  seed: int
  method: Method
  participant: str
  training: dict[str, Any]
  fingerprint: str
  weights: str
  model: dict[str, Any]
  reads: str = "input"

  @property
  def alone(self) -> bool:
    """Whether it is the only one of its group."""
    return self.group in ("encoder", "generator")


def fingerprint(*parts: Any) -> str:
  """A short digest of JSON-able values."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _made_of(section: dict[str, Any], path: str, *data_and_others: Any) -> Any:
  """What a part's fingerprint says of its training and its weights."""
  trained = data_and_others if section["steps"] else ()
  return *trained, *([weights.sha256_of(path)] if path else [])


def _words(spec: dict[str, Any]) -> list[str]:
  """What the tokenizer of a network holds, where it has one of its own."""
  path = spec.get("tokenizer")
  return [data.load_tokenizer(path).fingerprint] if path else []


def student_files(config: settings.Config) -> dict[str, str]:
  """What the files hold that students begin with and read by, by their paths.

  Args:
    config: the experiment.
  """
  found = {}
  for name in config["arms"]:
    arm = settings.arm_config(config, name)
    if path := arm["student_weights"]:
      found[path] = weights.sha256_of(path)
    for digest in _words(arm["student"]):
      found[arm["student"]["tokenizer"]] = digest
  return found


def parts(
  config: settings.Config, sources: Any, counts: np.ndarray
) -> list[Part]:
  """The teacher's parts in the order they are trained.

  Args:
    config: the experiment.
    sources: an object with `.train` and `.full` sources.
    counts: training examples per class of `.train`.
  """
  found: list[Part] = []
  made = ""
  reads = config["labeler_reads"]
  if networks.has_encoder(config):
    found.append(encoder(config))
  read = [found[0].fingerprint] if found and reads == "embedding" else []
  if networks.has_generator(config):
    found.append(_generator(config, sources))
    made = found[-1].fingerprint
  section, path = config["labeler_training"], config["labeler_weights"]
  source = getattr(sources, section["source"])
  if section["source"] == "full":
    counts = source.class_counts()
  for number in range(config["num_labelers"]):
    seed = config["seed"] + number
    # A labeler that sees reconstructions depends on who made them.
    seen = made if section["reconstruction"] else ""
    found.append(
      Part(
        f"labeler-{number}",
        "labeler",
        seed,
        build.labeler_method(config, counts),
        "student",
        section,
        fingerprint(
          config["labeler"],
          section,
          seed,
          *_made_of(section, path, source.fingerprint, seen),
          *read,
          *_words(config["labeler"]),
        ),
        path,
        config["labeler"],
        reads,
      )
    )
  return found + _assistants(config, sources, counts, found)


def encoder(config: settings.Config) -> Part:
  """The network whose embedding teaches; it is used as it is."""
  spec, path = config["encoder"], config["encoder_weights"]
  return Part(
    "encoder",
    "encoder",
    config["seed"],
    build.encoder_method(config),
    "student",
    {"source": "train", "steps": 0, "batch_size": 1},
    fingerprint(
      spec,
      config["seed"],
      weights.sha256_of(path) if path else "",
      *_words(spec),
    ),
    path,
    spec,
  )


def _generator(config: settings.Config, sources: Any) -> Part:
  section, path = config["generator_training"], config["generator_weights"]
  source = getattr(sources, section["source"])
  # The moments of a whitened one are the data's, trained on them or not.
  measured = config["generator"].get("whitened") and not section["steps"]
  made = fingerprint(
    config["generator"],
    section,
    config["seed"],
    *_made_of(section, path, source.fingerprint),
    *([source.fingerprint] if measured else []),
  )
  return Part(
    "generator",
    "generator",
    config["seed"],
    build.generator_method(config),
    "generator",
    section,
    made,
    path,
    config["generator"],
  )


def _assistants(
  config: settings.Config,
  sources: Any,
  counts: np.ndarray,
  labelers: Sequence[Part],
) -> list[Part]:
  """The networks between labeler and student, each made by the one before."""
  section, found = config["labeler_training"], []
  made: Any = [part.fingerprint for part in labelers]
  mine = networks.chain(config)
  if mine is None:
    return []
  files = config["assistant_weights"] or ("",) * len(config["assistants"])
  for number, spec in enumerate(config["assistants"]):
    source = getattr(sources, section["source"])
    made = fingerprint(
      spec,
      section,
      mine["distance"],
      mine["method"],
      config["seed"],
      *_made_of(section, files[number], source.fingerprint),
      made,
      *_words(spec),
    )
    method = build.assistant_method(mine, number, counts)
    name = f"assistant-{number}"
    found.append(
      Part(
        name,
        "assistants",
        config["seed"],
        method,
        "student",
        section,
        made,
        files[number],
        spec,
      )
    )
  return found
