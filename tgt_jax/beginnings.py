# SPDX-License-Identifier: Apache-2.0
"""What networks begin with: files, the teacher's arrays, the data's axes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tgt_jax import build, networks, reading, settings, trees, weights
from tgt_jax.teachers import Frozen


@functools.cache
def say_once(message: str, file: Any = None) -> None:
  """Prints; all arms and seeds begin with the same file."""
  print(message, file=file, flush=True)


def starting_arrays(
  path: str,
  spec: dict[str, Any],
  shapes: tuple[Any, Any],
  class_names: Sequence[str] = (),
) -> Frozen | None:
  """What a network begins with; `None` where all of it is drawn.

  Args:
    path: converted weights, or "".
    spec: of the network.
    shapes: of its params and model state.
    class_names: see `weights.start_from`.
  """
  if not path:
    return None
  params, state = shapes
  inside = state["generator"] if spec.get("whitened") else state
  template = {"params": params, "model_state": inside}
  found = weights.start_from(path, template, spec, class_names)
  drawn = set(trees.flatten_names(template)) - set(trees.flatten_names(found))
  if drawn:
    say_once(
      f"{path}: drawn at random, as the file lacks them or has them for other"
      f" classes: {', '.join(sorted(drawn))}"
    )
  state = found["model_state"]
  if spec.get("whitened"):  # The file knows nothing of the moments.
    moments = dict.fromkeys(("mean", "std"))
    state = {"generator": state, "latent": moments}
  return Frozen(found["params"], state)


def of_arm(
  config: settings.Config,
  arm: build.Arm,
  frozen: Mapping[str, Any] | None = None,
  embeddings: np.ndarray | None = None,
  learned: Callable[[str], Frozen] | None = None,
) -> Any:
  """What participants begin with instead of drawn arrays, by their names.

  Args:
    config: as the arm sees it.
    arm: what is trained.
    frozen: the teacher's arrays; without them only files are looked at.
    embeddings: of the training examples, [N, T, 1, D], where there are any.
    learned: the first student of an earlier arm, by its name.

  Raises:
    ValueError: a file that does not fit its network.
  """
  start = {}

  def given(network, section):
    path = config[f"{section}_weights"]
    x = networks.zeros(config, config[f"{section}_reads"])
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return starting_arrays(path, config[section], shapes)

  if config["student_weights"]:
    start["student"] = given(arm.parts.student, "student")
  begins = config["compressor_start"]
  if embeddings is not None and begins == "pca":
    start["compressor"] = _principal(arm, embeddings)
  elif learned is not None and begins not in reading.DRAWN:
    start["compressor"] = learned(begins)
  if "teacher" not in arm.others:
    return start
  if config["teacher_start"] == "trained":
    if frozen is not None:
      start["teacher"] = frozen["labeler"][0]
  elif config["labeler_weights"]:
    start["teacher"] = given(arm.parts.labeler, "labeler")
  return start


def _principal(arm: build.Arm, embeddings: np.ndarray) -> Frozen:
  """A fixed bottleneck as the principal components of what it reads."""
  network = arm.parts.compressor
  assert network is not None
  shapes = jax.eval_shape(
    network.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *embeddings.shape[1:]), np.float32),
  )
  params, state = jax.tree.map(lambda _: None, shapes)
  width = shapes[1]["fixed"]["kernel"].shape[1]
  rows = embeddings.mean(axis=(1, 2), dtype=np.float64)
  if width > min(rows.shape):
    raise ValueError(
      f"compressor.width {width} is more than the principal components that"
      f" {rows.shape[0]} embeddings of {rows.shape[1]} numbers have"
    )
  mean = rows.mean(axis=0)
  # From the largest to the smallest.
  _, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
  fixed = {"mean": mean, "kernel": vectors[:, ::-1][:, :width]}
  return Frozen(params, {**state, "fixed": fixed})
