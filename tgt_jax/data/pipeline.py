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

import math
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, lengths, orders, threads
from tgt_jax.data.augment import Augmentation
from tgt_jax.data.orders import SAMPLERS
from tgt_jax.data.sources import Source

_RESERVED = frozenset({"input", "label", "id", "mask"})


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


def _fetch(
  source: Source,
  ids: np.ndarray,
  columns: Mapping[str, np.ndarray],
  everyone: np.ndarray,
  sizes: Sequence[int] | None,
) -> dict[str, np.ndarray]:
  """Reads examples with their columns.

  Args:
    source: the examples.
    ids: of those that this process reads.
    columns: arrays with one row per example of the source.
    everyone: ids of the global batch, whose texts share a length.
    sizes: the lengths it may have; None for the full one.
  """
  batch = source.fetch(ids)
  batch["id"] = ids.astype(np.int32)
  cut, full = slice(None), -1
  if sizes is not None and source.text is not None:
    cut = slice(lengths.bucket(source.text.lengths[everyone], sizes))
    full = source.input_shape[0]
    batch["input"] = batch["input"][:, cut]
  for name, column in columns.items():
    if lengths.per_token(column, full):
      column = column[:, cut]
    batch[name] = np.take(column, ids, axis=0)
  return batch


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
  buckets: Sequence[int] | None = None,
  window: int | None = None,
  shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
  """Returns the batches of a run, addressed by step.

  A batch of text is padded to the smallest bucket that holds it, and texts of
  similar length come together (`orders.similar_lengths`).

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
      for its augmented form. Of text, columns [N, L, ...] of three axes or more
      have an entry per token, and are cut as the tokens are.
    buckets: see `lengths.buckets`; None for images.
    window: among how many batches texts are exchanged, by default `orders.window`
      of this stream; see there.
    shard: (index, count) of this process; it reads its block of rows of every
      global batch.

  Returns:
    A data set of dicts of numpy arrays, b = batch_size / count rows each:
    "input" float32 [b, H, W, C] or int32 [b, l], l one of the buckets, "label"
    int32 [b], "id" int32 [b] (position in `source`), and one entry per view
    and column.

  Raises:
    ValueError: an empty source, a size that is not positive, an unknown
      sampler, or columns, buckets or a shard that do not fit.
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
  sizes = lengths.buckets(source, buckets)
  if source.text is not None:
    order = orders.similar_lengths(
      order,
      source.text.lengths,
      batch_size=batch_size,
      window=window or orders.window(len(source), batch_size),
    )

  def batch_of_step(step: int) -> dict[str, np.ndarray]:
    everyone = order(step * batch_size, (step + 1) * batch_size)
    ids = everyone[rows]
    batch = _fetch(source, ids, columns, everyone, sizes)
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
    return batch

  return grain.MapDataset.range(num_steps).map(batch_of_step)


def evaluation_batches(
  source: Source,
  *,
  batch_size: int,
  columns: Mapping[str, np.ndarray] | None = None,
  buckets: Sequence[int] | None = None,
  shard: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
  """Returns every example once; the last batch is padded.

  They come in order, texts at their full length; or, with buckets, by length,
  where "id" says which is which.

  Args:
    source: the examples.
    batch_size: of the global batch, over all processes.
    columns: arrays with one row per example of `source`.
    buckets: see `lengths.buckets`; None leaves texts at their full length.
    shard: (index, count) of this process. Every process gets the same number
      of batches, some of which may hold padding only.

  Returns:
    A data set of dicts as of `training_batches`, with "mask" float32 [b]: 1
    for an example, 0 for padding. Padded rows are zeros (of text, its first
    example: networks may not be asked about nothing), and -1 as "id".

  Raises:
    ValueError: a size that is not positive, or columns, buckets or a shard
      that do not fit.
  """
  checks.positive(batch_size=batch_size)
  columns = _check_columns(source, columns)
  rows = _check_shard(shard, batch_size)
  order, sizes = np.arange(len(source)), None
  if buckets is not None and source.text is not None:
    order = np.argsort(source.text.lengths, kind="stable")
    sizes = lengths.buckets(source, buckets)

  def batch_at(index: int) -> dict[str, np.ndarray]:
    everyone = order[index * batch_size : (index + 1) * batch_size]
    valid = everyone[rows]
    batch = _fetch(source, valid, columns, everyone, sizes)
    batch["mask"] = np.ones(len(valid), np.float32)
    pad = rows.stop - rows.start - len(valid)
    if pad:
      batch = {name: _pad(array, pad) for name, array in batch.items()}
      batch["id"][len(valid) :] = -1
      if source.text is not None:
        length = batch["input"].shape[1]
        batch["input"][len(valid) :] = source.read(order[:1])[:, :length]
    return batch

  return grain.MapDataset.range(-(-len(source) // batch_size)).map(batch_at)


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1))


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
