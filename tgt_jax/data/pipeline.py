# SPDX-License-Identifier: Apache-2.0
"""From a source to batches: element i of a data set is the batch of step i.

`training_batches` returns a `grain.MapDataset` over steps, not over examples.
The ids of a step are computed from (seed, step) by a few vectorised numpy
calls and read in one call, which costs tens of microseconds for a small
in-memory source where shuffling and batching example by example costs a
millisecond. Nothing is remembered from step to step: a run that resumes at step n
asks for element n.

With several processes each takes a contiguous block of rows of the same global
batch, the layout that `jax.make_array_from_process_local_data` expects; what
is drawn for an example, augmentation included, does not depend on how many
processes there are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from tgt_jax import checks, longtail
from tgt_jax.data import draws, threads
from tgt_jax.data.augment import Augmentation
from tgt_jax.data.sources import Source

# Global position of an example in the run's stream to its id.
Order = Callable[[int, int], np.ndarray]

# Draws with replacement are made this many at a time.
_BLOCK = 4096

_RESERVED = frozenset({"input", "label", "id", "mask"})


def _order(block: Callable[[int], np.ndarray], size: int) -> Order:
  """Joins blocks of `size` ids into one stream; keeps the latest few."""
  cached = functools.lru_cache(maxsize=4)(block)

  def order(start: int, stop: int) -> np.ndarray:
    parts = []
    while start < stop:
      index, offset = divmod(start, size)
      part = cached(index)[offset : offset + stop - start]
      parts.append(part)
      start += len(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

  return order


def natural(labels: np.ndarray, *, seed: int) -> Order:
  """Every example once per epoch, in a new random order each epoch.

  The stream is continuous: a batch may hold the end of one epoch and the start
  of the next, and no example is dropped at the border.
  """
  size = len(labels)
  return _order(
    lambda epoch: draws.permutation(seed, "order/natural", epoch, size), size
  )


def _weighted(labels: np.ndarray, *, seed: int, scheme: str) -> Order:
  """Draws with replacement by the probabilities of `longtail`."""
  probabilities = longtail.sampling_probabilities(
    labels, int(labels.max()) + 1, scheme=scheme
  )
  edges = np.cumsum(probabilities)[:-1]  # What lies beyond is the last one's.

  def block(index: int) -> np.ndarray:
    draw = draws.uniforms(seed, f"order/{scheme}", index, (_BLOCK,))
    return np.searchsorted(edges, draw, side="right")

  return _order(block, _BLOCK)


def class_balanced(labels: np.ndarray, *, seed: int) -> Order:
  """Draws a class uniformly among those present, then one of its examples."""
  return _weighted(labels, seed=seed, scheme="class_balanced")


def square_root(labels: np.ndarray, *, seed: int) -> Order:
  """Draws a class in proportion to the root of its count, then an example."""
  return _weighted(labels, seed=seed, scheme="square_root")


SAMPLERS: dict[str, Callable[..., Order]] = {
  "natural": natural,
  "class_balanced": class_balanced,
  "square_root": square_root,
}


def _check_columns(
  source: Source, columns: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
  columns = dict(columns or {})
  for name, column in columns.items():
    if name in _RESERVED:
      raise ValueError(
        f"columns: {name!r} is taken; a batch already has"
        f" {', '.join(sorted(_RESERVED))}"
      )
    if len(column) != len(source):
      raise ValueError(
        f"columns[{name!r}]: expected one row per example of"
        f" {source.name}, {len(source)}, got {len(column)}; for a view take"
        " the rows array[view.ids]"
      )
  return columns


def _check_shard(shard: tuple[int, int], batch_size: int) -> slice:
  """Returns the rows of the global batch that a process reads."""
  index, count = shard
  if not 0 <= index < count:
    raise ValueError(
      f"shard: expected (index, count) with 0 <= index < count, got {shard}"
    )
  if batch_size % count:
    raise ValueError(
      f"batch_size {batch_size} is not divisible by the {count} processes"
    )
  rows = batch_size // count
  return slice(index * rows, (index + 1) * rows)


def _augment(
  images: np.ndarray,
  augment: Sequence[Augmentation],
  *,
  seed: int,
  stream: str,
  step: int,
  rows: slice,
  batch_size: int,
) -> np.ndarray:
  """Applies augmentations; draws for the global batch and uses own rows."""
  total = sum(augmentation.draws for augmentation in augment)
  uniforms = draws.uniforms(seed, stream, step, (batch_size, total))[rows]
  ends = np.cumsum([augmentation.draws for augmentation in augment])
  columns = np.split(uniforms, ends[:-1], axis=1)
  out = np.empty_like(images)

  def apply(piece: slice) -> None:
    some = images[piece]
    for augmentation, numbers in zip(augment, columns, strict=True):
      some = augmentation.apply(some, numbers[piece])
    out[piece] = some

  threads.for_rows(apply, len(images), pixels=math.prod(images.shape[1:3]))
  return out


def training_batches(
  source: Source,
  *,
  batch_size: int,
  seed: int,
  num_steps: int,
  sampler: str = "natural",
  augment: Sequence[Augmentation] = (),
  views: Mapping[str, Sequence[Augmentation]] | None = None,
  columns: Mapping[str, np.ndarray] | None = None,
  shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
  """Returns the batches of a run, addressed by step.

  Args:
    source: the training examples.
    batch_size: of the global batch, over all processes.
    seed: of order and augmentation; with the step it determines the batch.
    num_steps: length of the result.
    sampler: a key of `SAMPLERS`: "natural" (epochs), "class_balanced" or
      "square_root" (draws with replacement).
    augment: applied to "input", in order.
    views: further augmented copies of the image by name, drawn independently,
      such as the strong view of a consistency loss.
    columns: arrays with one row per example of `source`, such as a teacher's
      cached logits; what a teacher said about an image as stored does not hold
      for its augmented form.
    shard: (index, count) of this process; it reads its block of rows of every
      global batch.

  Returns:
    A data set of dicts of numpy arrays, b = batch_size / count rows each:
    "input" float32 [b, H, W, C], "label" int32 [b], "id" int32 [b] (position
    in `source`), and one entry per view and column.

  Raises:
    ValueError: an empty source, a size that is not positive, an unknown
      sampler, or columns or a shard that do not fit.
  """
  checks.positive(batch_size=batch_size, num_steps=num_steps)
  checks.non_negative(seed=seed)
  checks.one_of(SAMPLERS, sampler=sampler)
  if len(source) == 0:
    raise ValueError(f"{source.name} is empty: there is nothing to train on")
  columns = _check_columns(source, columns)
  views = dict(views or {})
  for name in views:
    if name in _RESERVED or name in columns:
      raise ValueError(f"views: the name {name!r} is taken")
  rows = _check_shard(shard, batch_size)
  order = SAMPLERS[sampler](source.labels, seed=seed)

  def batch_of_step(step: int) -> dict[str, np.ndarray]:
    ids = order(step * batch_size, (step + 1) * batch_size)[rows]
    batch = source.fetch(ids)
    stored = batch["input"]
    for name, chain in {"input": augment, **views}.items():
      stream = f"augment/{name}"
      batch[name] = stored
      if chain:
        batch[name] = _augment(
          stored,
          chain,
          seed=seed,
          stream=stream,
          step=step,
          rows=rows,
          batch_size=batch_size,
        )
    batch["id"] = ids.astype(np.int32)
    for name, column in columns.items():
      batch[name] = np.take(column, ids, axis=0)
    return batch

  return grain.MapDataset.range(num_steps).map(batch_of_step)


def evaluation_batches(
  source: Source,
  *,
  batch_size: int,
  columns: Mapping[str, np.ndarray] | None = None,
  shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
  """Returns every example once, in order; the last batch is padded.

  Args:
    source: the examples.
    batch_size: of the global batch, over all processes.
    columns: arrays with one row per example of `source`.
    shard: (index, count) of this process. Every process gets the same number
      of batches, some of which may hold padding only.

  Returns:
    A data set of dicts as of `training_batches`, with "mask" float32 [b]: 1
    for an example, 0 for padding. Padded rows are zeros, and -1 as "id".

  Raises:
    ValueError: a size that is not positive, or columns or a shard that do not
      fit.
  """
  checks.positive(batch_size=batch_size)
  columns = _check_columns(source, columns)
  rows = _check_shard(shard, batch_size)

  def batch_at(index: int) -> dict[str, np.ndarray]:
    start = index * batch_size
    ids = np.arange(start + rows.start, start + rows.stop)
    valid = ids[ids < len(source)]
    batch = source.fetch(valid)
    batch["id"] = valid.astype(np.int32)
    batch["mask"] = np.ones(len(valid), np.float32)
    for name, column in columns.items():
      batch[name] = np.take(column, valid, axis=0)
    if len(valid) < len(ids):
      pad = len(ids) - len(valid)
      batch = {name: _pad(array, pad) for name, array in batch.items()}
      batch["id"][len(valid) :] = -1
    return batch

  return grain.MapDataset.range(-(-len(source) // batch_size)).map(batch_at)


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1))


def zip_batches(streams: Mapping[str, grain.MapDataset]) -> grain.MapDataset:
  """Returns batches that carry other streams' batches under their names.

  Args:
    streams: the stream named "" gives the batch itself; each other one becomes
      `batch[name]`, a dict of its own. All have the same length.

  Raises:
    ValueError: no main stream, or streams of different lengths.
  """
  if "" not in streams:
    raise ValueError(
      f"zip_batches: the main stream '' is missing; got {sorted(streams)}"
    )
  lengths = {name: len(stream) for name, stream in streams.items()}
  if len(set(lengths.values())) != 1:
    raise ValueError(
      f"zip_batches: streams must have equal lengths, got {lengths}"
    )
  main = streams[""]
  others = {name: stream for name, stream in streams.items() if name}

  def batch_at(index: int) -> dict[str, Any]:
    batch = dict(main[index])
    for name, stream in others.items():
      if name in batch:
        raise ValueError(f"zip_batches: a batch already has {name!r}")
      batch[name] = stream[index]
    return batch

  return grain.MapDataset.range(len(main)).map(batch_at)


def stack_batches(streams: Sequence[grain.MapDataset]) -> grain.MapDataset:
  """Returns batches with a new leading axis, one entry per stream.

  For several seeds trained as one program: every array [B, ...] becomes
  [S, B, ...].

  Raises:
    ValueError: no stream, or streams of different lengths.
  """
  streams = list(streams)
  if len({len(stream) for stream in streams}) != 1:
    raise ValueError(
      "stack_batches: expected one or more streams of equal length, got"
      f" lengths {[len(stream) for stream in streams]}"
    )

  def batch_at(index: int) -> dict[str, Any]:
    return _stack([stream[index] for stream in streams])

  return grain.MapDataset.range(len(streams[0])).map(batch_at)


def _stack(trees: list[Any]) -> Any:
  if isinstance(trees[0], Mapping):
    return {name: _stack([tree[name] for tree in trees]) for name in trees[0]}
  return np.stack(trees)


def iterate(
  dataset: grain.MapDataset,
  *,
  start_step: int = 0,
  prefetch: int = 2,
  threads: int = 1,
) -> grain.DatasetIterator:
  """Returns an iterator that reads ahead and can be checkpointed.

  `get_state()` is `{"next_index": n}`, n being the number of batches handed
  out, not those read ahead; `set_state` continues there.

  Args:
    dataset: batches by step.
    start_step: index of the first batch to return.
    prefetch: batches to hold ready; 0 reads in the caller's thread.
    threads: threads that read; more than one helps where reading waits for a
      disk or decodes images, and costs where everything is in memory.

  Raises:
    ValueError: a negative number, or a start beyond the end.
  """
  checks.non_negative(prefetch=prefetch)
  checks.positive(threads=threads)
  checks.in_range(0, len(dataset), start_step=start_step)
  options = grain.ReadOptions(
    num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch
  )
  iterator = iter(dataset.to_iter_dataset(options))
  iterator.set_state({"next_index": start_step})
  return iterator
