# SPDX-License-Identifier: Apache-2.0
"""Several streams of batches as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from tgt_jax.data import lengths


def zip_batches(
  streams: Mapping[str, grain.MapDataset], *, pad_id: int | None = None
) -> grain.MapDataset:
  """Returns batches that carry other streams' batches under their names.

  Args:
    streams: the stream named "" gives the batch itself; each other one becomes
      `batch[name]`, a dict of its own. All have the same length.
    pad_id: fills texts up to the longest part of a step; None for images.

  Raises:
    ValueError: no main stream, or streams of different lengths; on use, texts
      of different lengths without a `pad_id`.
  """
  if "" not in streams:
    raise ValueError(
      f"zip_batches: the main stream '' is missing; got {sorted(streams)}"
    )
  steps = {name: len(stream) for name, stream in streams.items()}
  if len(set(steps.values())) != 1:
    raise ValueError(
      f"zip_batches: streams must have equal lengths, got {steps}"
    )
  main = streams[""]
  others = {name: stream for name, stream in streams.items() if name}

  def batch_at(index: int) -> dict[str, Any]:
    batch = dict(main[index])
    for name, stream in others.items():
      if name in batch:
        raise ValueError(f"zip_batches: a batch already has {name!r}")
      batch[name] = stream[index]
    return lengths.equal_lengths([batch], pad_id)[0]

  return grain.MapDataset.range(len(main)).map(batch_at)


def stack_batches(
  streams: Sequence[grain.MapDataset], *, pad_id: int | None = None
) -> grain.MapDataset:
  """Returns batches with a new leading axis, one entry per stream.

  For several seeds trained as one program: every array [B, ...] becomes
  [S, B, ...].

  Args:
    streams: one per seed.
    pad_id: as for `zip_batches`.

  Raises:
    ValueError: no stream, or streams of different lengths; on use, texts of
      different lengths without a `pad_id`.
  """
  streams = list(streams)
  if len({len(stream) for stream in streams}) != 1:
    raise ValueError(
      "stack_batches: expected one or more streams of equal length, got"
      f" lengths {[len(stream) for stream in streams]}"
    )

  def batch_at(index: int) -> dict[str, Any]:
    batches = [stream[index] for stream in streams]
    return _stack(lengths.equal_lengths(batches, pad_id))

  return grain.MapDataset.range(len(streams[0])).map(batch_at)


def _stack(trees: list[Any]) -> Any:
  if isinstance(trees[0], Mapping):
    return {name: _stack([tree[name] for tree in trees]) for name in trees[0]}
  return np.stack(trees)
