# SPDX-License-Identifier: Apache-2.0
"""Texts of a batch are padded to one of a few lengths, its bucket.

Every length is a shape that a step is compiled for, so there are few: at most
four for a source. What a batch is padded to depends on the whole global batch,
so all processes agree, and joined streams are padded to the longest of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tgt_jax.data.sources import Dataset, Source

MOST = 4


def buckets(
  source: Source, chosen: Sequence[int] | None = None
) -> tuple[int, ...] | None:
  """Returns the lengths that batches of a source may have, in order.

  Args:
    source: its input_shape is (L,) if it holds text.
    chosen: at most four lengths, the last being L; by default the source's
      own, or else L / 8, L / 4, L / 2 and L, rounded up.

  Returns:
    The lengths; None for a source of images, which have one shape.

  Raises:
    ValueError: lengths for images, too many, not increasing, or without L.
  """
  if source.text is None:
    if chosen is not None:
      raise ValueError(f"{source.name} holds images: buckets are for text")
    return None
  (full,) = source.input_shape
  chosen = source.text.buckets if chosen is None else chosen
  if chosen is None:
    return tuple(sorted({-(-full // part) for part in (8, 4, 2, 1)}))
  found = tuple(chosen)
  increasing = found == tuple(sorted(set(found)))
  if not increasing or not 1 <= len(found) <= MOST or found[-1] != full:
    raise ValueError(
      f"{source.name}: buckets: expected at most {MOST} increasing lengths that"
      f" end with {full}, got {found}"
    )
  return found


def with_buckets(dataset: Dataset, chosen: Sequence[int]) -> Dataset:
  """Returns texts whose batches have these lengths, see `buckets`.

  Args:
    dataset: of texts; images are left as they are.
    chosen: the lengths; () for those by default.
  """

  def change(source: Source) -> Source:
    if source.text is None or not chosen:
      return source
    text = source.text._replace(buckets=buckets(source, chosen))
    return dataclasses.replace(source, text=text)

  return Dataset(
    train=change(dataset.train),
    test=change(dataset.test),
    train_full=change(dataset.train_full),
    others={name: change(split) for name, split in dataset.others.items()},
  )


def bucket(lengths: np.ndarray, choices: Sequence[int]) -> int:
  """Returns the smallest of the choices that holds all lengths."""
  longest = int(lengths.max(initial=0))
  return next(size for size in choices if size >= longest)


def per_token(column: np.ndarray, full: int) -> bool:
  """Whether a column holds a vector for every token: [N, L, D].

  Of a column [N, L] one could not tell whether its second axis is that of
  tokens or that of L classes; it is left as it is.
  """
  return column.ndim >= 3 and column.shape[1] == full


def equal_lengths(
  batches: Sequence[Mapping[str, Any]], pad_id: int | None
) -> list[dict[str, Any]]:
  """Pads batches of text to the longest of them, those inside them included.

  Token ids are filled up by `pad_id`, vectors of tokens by zeros. Batches of
  images come back as they are.

  Raises:
    ValueError: lengths differ and no `pad_id` is given.
  """
  found = {size for batch in batches for size in _lengths(batch)}
  if len(found) < 2:
    return [dict(batch) for batch in batches]
  if pad_id is None:
    raise ValueError(
      f"batches of text have lengths {sorted(found)}; give the pad_id of"
      " source.text to make them equal"
    )
  return [_lengthen(batch, max(found), pad_id) for batch in batches]


def _is_text(batch: Mapping[str, Any]) -> bool:
  ids = batch.get("input")
  return ids is not None and ids.ndim == 2 and ids.dtype.kind == "i"


def _lengths(batch: Mapping[str, Any]) -> Iterable[int]:
  if _is_text(batch):
    yield batch["input"].shape[1]
  for value in batch.values():
    if isinstance(value, Mapping):
      yield from _lengths(value)


def _lengthen(
  batch: Mapping[str, Any], length: int, pad_id: int
) -> dict[str, Any]:
  old = batch["input"].shape[1] if _is_text(batch) else -1
  out = {}
  for name, value in batch.items():
    if isinstance(value, Mapping):
      out[name] = _lengthen(value, length, pad_id)
    elif value.ndim >= 2 and value.shape[1] == old:
      ids = value.ndim == 2 and value.dtype.kind == "i"
      if ids or per_token(value, old):
        wide = [(0, 0)] * value.ndim
        wide[1] = (0, length - old)
        value = np.pad(value, wide, constant_values=pad_id if ids else 0)
      out[name] = value
    else:
      out[name] = value
  return out
