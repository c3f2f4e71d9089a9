# SPDX-License-Identifier: Apache-2.0
"""Embeddings of which a known share has nothing to do with the labels.

Every example has task factors u, nuisance factors v and factors w of the
input, all independent and standard normal. The label is the largest of K
outputs of a frozen network on u; the input is an image rendered from (u, w) by
another; the embedding that comes with it is

  e = R [sqrt(1 - share) u ; sqrt(share) v],

u and v scaled to the same variance and R orthogonal. So `share` says how much
of the variance of e a student that learns the labels does better without. At 0
the embedding is that of a teacher who was trained on the task; close to 1 it is
that of one who was trained on something else. Inputs, labels and the order of
examples do not depend on `share`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, sources

_REFERENCE_POINTS = 4096
_HIDDEN = 128  # Units of the frozen networks.


class Factors(NamedTuple):
  """What a split is made of, float64.

  Attributes:
    task: u, [N, P].
    nuisance: v, [N, Q].
    input: w, [N, S].
  """

  task: np.ndarray
  nuisance: np.ndarray
  input: np.ndarray


def _normals(seed: int, stream: str, *shape: int) -> np.ndarray:
  """Returns standard normal numbers, by the method of Box and Muller."""
  radius, angle = draws.uniforms(seed, f"nuisance/{stream}", 0, (2, *shape))
  return np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)


def factors(
  split: str,
  size: int,
  *,
  task_factors: int,
  nuisance_factors: int,
  input_factors: int,
  seed: int = 0,
) -> Factors:
  """Returns the factors of the examples of a split; see `nuisance`."""
  return Factors(
    _normals(seed, f"{split}/task", size, task_factors),
    _normals(seed, f"{split}/nuisance", size, nuisance_factors),
    _normals(seed, f"{split}/input", size, input_factors),
  )


def _layer(seed: int, name: str, inputs: int, outputs: int) -> np.ndarray:
  return _normals(seed, f"weights/{name}", inputs, outputs) / math.sqrt(inputs)


def _hidden(x: np.ndarray, name: str, seed: int, gain: float) -> np.ndarray:
  """Returns the hidden units of a frozen network, [N, M]."""
  weight = _layer(seed, f"{name}/inner", x.shape[1], _HIDDEN)
  bias = _normals(seed, f"weights/{name}/bias", _HIDDEN)
  return np.tanh(gain * (x @ weight + bias))


def _label(
  task: np.ndarray, classes: int, sharpness: float, seed: int
) -> np.ndarray:
  """Returns the classes of task factors, [N].

  Every output has mean 0 and deviation 1 over the factors, which keeps the
  classes of one size class of magnitude.
  """
  outer = _layer(seed, "label/outer", _HIDDEN, classes)
  score = lambda u: _hidden(u, "label", seed, sharpness) @ outer
  known = score(_normals(seed, "reference", _REFERENCE_POINTS, task.shape[1]))
  return ((score(task) - known.mean(axis=0)) / known.std(axis=0)).argmax(axis=1)


def _orthogonal(size: int, width: int, seed: int) -> np.ndarray:
  """Returns `size` orthonormal rows of `width` numbers, uniform among such."""
  basis, upper = np.linalg.qr(_normals(seed, "rotation", width, size))
  return (basis * np.sign(np.diag(upper))).T


def _embed(found: Factors, share: float, width: int, seed: int) -> np.ndarray:
  """Returns embeddings, float32 [N, 1, 1, D], of unit variance per number."""
  task = found.task / math.sqrt(found.task.shape[1])
  nuisance = found.nuisance / math.sqrt(found.nuisance.shape[1])
  parts = np.hstack([math.sqrt(1 - share) * task, math.sqrt(share) * nuisance])
  rotated = parts @ _orthogonal(parts.shape[1], width, seed)
  return (math.sqrt(width) * rotated).astype(np.float32)[:, None, None]


def _render(
  found: Factors, shape: tuple[int, int, int], seed: int
) -> np.ndarray:
  """Returns images in (0, 1), float32 [N, H, W, C]."""
  visible = np.hstack([found.task, found.input])
  hidden = _hidden(visible, "render", seed, 1.0)
  pixels = hidden @ _layer(seed, "render/outer", _HIDDEN, math.prod(shape))
  images = 0.5 + 0.5 * np.tanh(2 * pixels)
  return images.astype(np.float32).reshape(-1, *shape)


def nuisance(
  *,
  share: float = 0.5,
  task_factors: int = 8,
  nuisance_factors: int = 64,
  input_factors: int = 24,
  embedding_width: int = 128,
  input_shape: tuple[int, int, int] = (16, 16, 1),
  num_classes: int = 10,
  train_size: int = 500,
  test_size: int = 2000,
  sharpness: float = 0.5,
  seed: int = 0,
) -> sources.Dataset:
  """Images with embeddings of which a known share is of no use.

  Args:
    share: of the variance of the embeddings that is nuisance, in [0, 1).
    task_factors: P, numbers that the label is a function of.
    nuisance_factors: Q, numbers that the embedding has besides.
    input_factors: S, numbers that the image shows besides; more make labels
      harder to learn from few images.
    embedding_width: D, numbers of an embedding, at least P + Q.
    input_shape: (H, W, C) of an image.
    num_classes: K.
    train_size: number of training examples.
    test_size: number of test examples.
    sharpness: how finely the labels cut the task factors.
    seed: of weights and factors.

  Raises:
    ValueError: a number out of its range.
  """
  checks.positive(
    task_factors=task_factors,
    nuisance_factors=nuisance_factors,
    input_factors=input_factors,
    num_classes=num_classes,
    train_size=train_size,
    test_size=test_size,
    sharpness=sharpness,
  )
  if not 0 <= share < 1:
    raise ValueError(f"share must be in [0, 1), got {share}")
  if len(input_shape) != 3:
    raise ValueError(f"input_shape: expected (H, W, C), got {input_shape}")
  if embedding_width < task_factors + nuisance_factors:
    raise ValueError(
      f"embedding_width must be >= task_factors + nuisance_factors,"
      f" {task_factors} + {nuisance_factors}, got {embedding_width}"
    )
  numbers = {
    "task_factors": task_factors,
    "nuisance_factors": nuisance_factors,
    "input_factors": input_factors,
    "seed": seed,
  }
  splits = []
  for split, size in (("train", train_size), ("test", test_size)):
    found = factors(split, size, **numbers)
    splits.append(
      sources.from_arrays(
        _render(found, input_shape, seed),
        _label(found.task, num_classes, sharpness, seed),
        name=f"nuisance/{split}",
        num_classes=num_classes,
        options={**numbers, "share": share},
        embeddings=_embed(found, share, embedding_width, seed),
      )
    )
  return sources.Dataset(splits[0], splits[1], splits[0])
