# SPDX-License-Identifier: Apache-2.0
"""How an array of a public file becomes a leaf of ours, and back.

Our layout is flax's: dense kernels [in, out], convolutions [height, width, in,
out], images channels last. PyTorch has [out, in], [out, in, height, width] and
channels first. A transform only moves numbers, so its inverse is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Transform(NamedTuple):
  """A change of layout in both directions.

  Attributes:
    forward: from the file's array to ours; raises `ValueError` on an array of
      the wrong rank or size.
    inverse: from ours to the file's.
    name: for error messages.
  """

  forward: Callable[[np.ndarray], np.ndarray]
  inverse: Callable[[np.ndarray], np.ndarray]
  name: str


def _check_rank(array: np.ndarray, rank: int, name: str) -> None:
  if array.ndim != rank:
    raise ValueError(
      f"{name} expects an array of rank {rank}, got shape {array.shape}"
    )


def _permute(
  array: np.ndarray, *, axes: tuple[int, ...], name: str
) -> np.ndarray:
  _check_rank(array, len(axes), name)
  return array.transpose(axes)


def permutation(*axes: int, name: str) -> Transform:
  """Returns the transform that `np.transpose` with `axes` is."""
  inverse = tuple(int(axis) for axis in np.argsort(axes))
  return Transform(
    functools.partial(_permute, axes=axes, name=name),
    functools.partial(_permute, axes=inverse, name=name),
    name,
  )


def _squeeze(array: np.ndarray) -> np.ndarray:
  _check_rank(array, 4, "conv1x1")
  if array.shape[2:] != (1, 1):
    raise ValueError(f"conv1x1 expects a 1x1 kernel, got shape {array.shape}")
  return array[:, :, 0, 0].T


def _unsqueeze(array: np.ndarray) -> np.ndarray:
  _check_rank(array, 2, "conv1x1")
  return array.T[:, :, None, None]


def _squeeze_hwio(array: np.ndarray) -> np.ndarray:
  _check_rank(array, 4, "conv1x1_hwio")
  if array.shape[:2] != (1, 1):
    raise ValueError(
      f"conv1x1_hwio expects a 1x1 kernel, got shape {array.shape}"
    )
  return array[0, 0]


def _from_transposed(array: np.ndarray) -> np.ndarray:
  _check_rank(array, 4, "conv_transpose")
  return array.transpose(2, 3, 0, 1)[::-1, ::-1]


def _to_transposed(array: np.ndarray) -> np.ndarray:
  _check_rank(array, 4, "conv_transpose")
  return array[::-1, ::-1].transpose(2, 3, 0, 1)


def _reorder(
  array: np.ndarray, *, shape: tuple[int, int, int], order: tuple[int, ...]
) -> np.ndarray:
  """Reorders the last axis, a flattened map of `shape`."""
  size = int(np.prod(shape))
  if not array.ndim or array.shape[-1] != size:
    raise ValueError(
      f"a flattened map of {shape} has {size} values, got shape {array.shape}"
    )
  rank = array.ndim - 1
  axes = (*range(rank), *(rank + axis for axis in order))
  unfolded = array.reshape(*array.shape[:-1], *shape)
  return unfolded.transpose(axes).reshape(array.shape)


def linear_reads_map(height: int, width: int, channels: int) -> Transform:
  """Of a linear layer behind a flattened image.

  From [out, C*H*W], which reads channels first, to [H*W*C, out].
  """
  chw, hwc = (channels, height, width), (height, width, channels)

  def forward(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 2, "linear_reads_map")
    return _reorder(array, shape=chw, order=(1, 2, 0)).T

  def inverse(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 2, "linear_reads_map")
    return _reorder(array.T, shape=hwc, order=(2, 0, 1))

  return Transform(forward, inverse, "linear_reads_map")


def linear_writes_map(height: int, width: int, channels: int) -> Transform:
  """Of a linear layer whose output is reshaped to an image.

  From [C*H*W, in], channels first, to [in, H*W*C].
  """
  chw, hwc = (channels, height, width), (height, width, channels)

  def forward(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 2, "linear_writes_map")
    return _reorder(array.T, shape=chw, order=(1, 2, 0))

  def inverse(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 2, "linear_writes_map")
    return _reorder(array, shape=hwc, order=(2, 0, 1)).T

  return Transform(forward, inverse, "linear_writes_map")


def vector_of_map(height: int, width: int, channels: int) -> Transform:
  """Of the bias of `linear_writes_map`: from [C*H*W] to [H*W*C]."""
  chw, hwc = (channels, height, width), (height, width, channels)

  def forward(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 1, "vector_of_map")
    return _reorder(array, shape=chw, order=(1, 2, 0))

  def inverse(array: np.ndarray) -> np.ndarray:
    _check_rank(array, 1, "vector_of_map")
    return _reorder(array, shape=hwc, order=(2, 0, 1))

  return Transform(forward, inverse, "vector_of_map")


# What a rule may name. "conv" is right for depthwise and grouped convolutions
# too: PyTorch's [C, 1, k, k] becomes flax's [k, k, 1, C].
TRANSFORMS = {
  "identity": Transform(np.asarray, np.asarray, "identity"),
  "linear": permutation(1, 0, name="linear"),
  "conv": permutation(2, 3, 1, 0, name="conv"),
  # Flax does not flip the kernel of a transposed convolution, PyTorch does.
  "conv_transpose": Transform(
    _from_transposed, _to_transposed, "conv_transpose"
  ),
  # A 1x1 convolution of the file that is a dense layer here.
  "conv1x1": Transform(_squeeze, _unsqueeze, "conv1x1"),
  # The same of a file that has [1, 1, in, out].
  "conv1x1_hwio": Transform(
    _squeeze_hwio, lambda array: array[None, None], "conv1x1_hwio"
  ),
}
