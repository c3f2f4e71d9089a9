# SPDX-License-Identifier: Apache-2.0
"""Who reads embeddings in the place of inputs, as a config says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgt_jax import checks

Config = Mapping[str, Any]

_READS = ("input", "embedding")
DRAWN = ("random", "pca")  # Compressors that no arm has trained.


def kept_of_augmented(config: Config) -> tuple[str, ...]:
  """What an image's cached answers still say of its augmented form.

  Its embedding, unless it is to be embedded anew; and what a probe of that
  makes of it. An example keeps its label too.
  """
  if not config["embedding_shape"] or config["embed_augmented"]:
    return ()
  probes = config["labeler_reads"] == "embedding"
  return ("embedding", "teacher_logits") if probes else ("embedding",)


def check(config: Config, arms: Sequence[Config]) -> None:
  """The shape of an embedding, and whether there is one for who reads it.

  Args:
    config: the experiment.
    arms: as each arm sees it.

  Raises:
    ValueError: they do not go together.
  """
  shape, reads = config["embedding_shape"], config["labeler_reads"]
  if shape and (len(shape) != 3 or min(shape) < 1 or shape[1] != 1):
    raise ValueError(
      "embedding_shape: expected (frames, 1, numbers), or () where there is no"
      f" embedding, got {tuple(shape)}"
    )
  checks.one_of(_READS, labeler_reads=reads)
  readers = [reads, *(arm["student_reads"] for arm in arms)]
  if not shape and ("embedding" in readers or config["encoder"]["name"]):
    raise ValueError(
      "embedding_shape is (), and the config has an encoder or somebody who"
      " reads embeddings: set it to (frames, 1, numbers)"
    )
  if config["embed_augmented"] and not config["encoder"]["name"]:
    raise ValueError(
      "embed_augmented needs a network that embeds: name one in"
      " config.encoder.name, or set it to False"
    )
  if config["encoder"]["name"] and shape[0] != 1:
    raise ValueError(
      "embedding_shape: an encoder gives one frame, (1, 1, numbers), got"
      f" {tuple(shape)}"
    )


def check_arm(mine: Config, path: str, readers: Mapping[str, Any]) -> None:
  """Who reads embeddings, and with what a compressor begins.

  Args:
    mine: the config as an arm sees it.
    path: of the arm's keys, for errors.
    readers: students of earlier arms that read embeddings, by arm.

  Raises:
    ValueError: what cannot be.
  """
  start, fixed = mine["compressor_start"], mine["compressor"].get("fixed")
  checks.one_of(_READS, **{f"{path}student_reads": mine["student_reads"]})
  checks.one_of((*DRAWN, *readers), **{f"{path}compressor_start": start})
  if start in readers and mine["compressor"] != readers[start]:
    raise ValueError(
      f"{path}compressor_start: {start} has trained {dict(readers[start])}, and"
      f" the compressor is {dict(mine['compressor'])}: make them alike"
    )
  if start == "pca" and not fixed:
    raise ValueError(
      f"{path}compressor_start 'pca' is for a bottleneck that is fixed: set"
      " compressor.fixed to True"
    )
  if mine["student_reads"] == "embedding" and mine["method"]["name"] not in (
    "supervised",
    "kd",
  ):
    raise ValueError(
      f"{path}student_reads: a student that reads embeddings is a probe, which"
      f" learns by supervised or kd, not by {mine['method']['name']}"
    )
