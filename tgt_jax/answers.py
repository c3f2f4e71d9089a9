# SPDX-License-Identifier: Apache-2.0
"""What the teacher says of a whole split, kept on disk.

The teacher dominates the cost of a step. Where nothing augments the images,
h(x) and Enc(x) are computed once. They are written in parts as they come, so
that a killed run goes on where it stopped.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import data, distributed, fit, trees
from tgt_jax.data.sources import digest
from tgt_jax.plan import fingerprint
from tgt_jax.progress import Progress
from tgt_jax.teach import Prepared
from tgt_jax.teachers import Teacher

_PART_ROWS = 8192

Columns = dict[str, np.ndarray]


class _Part(NamedTuple):
  """Examples `start` to `stop` of a split."""

  path: pathlib.Path
  start: int
  stop: int


def columns(
  teacher: Teacher,
  prepared: Prepared,
  source: data.Source,
  folder: pathlib.Path,
  runtime: fit.Runtime,
  *,
  batch_size: int,
  latents: bool = True,
  part_rows: int = _PART_ROWS,
) -> Columns:
  """h(x) and Enc(x) for every example of a source, from disk where it can.

  The folder's name is the fingerprint of teacher and source, so that a stale
  cache is never found.

  Args:
    teacher: encodes and labels.
    prepared: its arrays.
    source: the examples.
    folder: where the cache's folder is made.
    runtime: devices.
    batch_size: examples at a time.
    latents: whether Enc(x) is asked for too; of texts it is large.
    part_rows: examples per file, about.

  Returns:
    "teacher_logits" [N, K] and, with `latents`, "latent" [N, ...].

  Raises:
    ValueError: a file does not hold what it should.
  """
  asked = () if latents else ("without latents",)
  key = fingerprint(prepared.fingerprint, source.fingerprint, *asked)
  rows = max(1, part_rows // batch_size) * batch_size
  parts = [
    _Part(
      folder / f"cache-{key}" / f"{start:09d}.safetensors",
      start,
      min(start + rows, len(source)),
    )
    for start in range(0, len(source), rows)
  ]
  missing = [part for part in parts if not part.path.exists()]
  distributed.barrier(f"cache {key} is looked at")
  if missing:
    ask = runtime.jit(_asker(teacher, runtime.mesh, latents))
    _write(missing, key, ask, prepared, source, runtime, batch_size)
  found = [_read(part, key) for part in parts]
  return {
    name: np.concatenate([part[name] for part in found]) for name in found[0]
  }


def _write(
  parts: list[_Part],
  key: str,
  ask: Callable,
  prepared: Prepared,
  source: data.Source,
  runtime: fit.Runtime,
  batch_size: int,
) -> None:
  """Computes the parts that are not there."""
  total = sum(part.stop - part.start for part in parts)
  seen = 0
  with Progress(total, f"teacher on {source.name}", unit="example") as progress:

    def tick(count: int) -> None:
      nonlocal seen
      seen = min(total, seen + count)
      progress.update(seen)

    for part in parts:
      view = data.subset(source, np.arange(part.start, part.stop))
      found = compute(ask, prepared.frozen, view, runtime, batch_size, tick)
      if distributed.is_main_process():
        metadata = {"fingerprint": key, "digest": _digest(found)}
        trees.save_tree(part.path, found, metadata)
      if runtime.guard.requested(seen):
        raise fit.Preempted(
          f"teacher on {source.name}: {seen} of {total} answers are kept"
        )
  distributed.barrier(f"cache {key} is written")


def _read(part: _Part, key: str) -> Columns:
  tree, metadata = trees.load_tree(part.path)
  found = {name: np.asarray(array) for name, array in tree.items()}
  expected = {"fingerprint": key, "digest": _digest(found)}
  rows = {len(array) for array in found.values()}
  said = {name: metadata.get(name) for name in expected}
  if said != expected or rows != {part.stop - part.start}:
    raise ValueError(
      f"{part.path} does not hold what it should (rows {sorted(rows)},"
      f" expected {part.stop - part.start}; recorded {said}, found"
      f" {expected}); delete it to compute it anew"
    )
  return found


def _digest(found: Columns) -> str:
  return digest(*(found[name] for name in sorted(found)))


@functools.cache
def _asker(
  teacher: Teacher, mesh: jax.sharding.Mesh | None, latents: bool
) -> Callable:
  """One function for all splits, so that it is compiled once."""

  def ask(frozen: Any, x: jax.Array) -> dict[str, jax.Array]:
    said = {"teacher_logits": teacher.label(frozen, x).logits}
    return {**said, "latent": teacher.encode(frozen, x)} if latents else said

  return distributed.per_example(mesh)(ask)


def compute(
  ask: Callable,
  frozen: Any,
  source: data.Source,
  runtime: fit.Runtime,
  batch_size: int,
  tick: Callable[[int], None] = lambda count: None,
) -> Columns:
  """Runs `ask(frozen, x) -> {name: [B, ...]}` over a source.

  Args:
    ask: compiled; of texts [B, l] what it gives with two axes or more per
      example has an entry per token.
    frozen: the teacher's arrays.
    source: the examples.
    runtime: devices.
    batch_size: examples at a time.
    tick: called with the number of examples of every batch.
  """
  found: Columns = {}
  for batch in data.iterate(
    data.evaluation_batches(
      source,
      batch_size=batch_size,
      buckets=data.buckets(source),
      shard=runtime.shard,
    )
  ):
    given = {name: batch[name] for name in ("input", "id")}
    on_device = runtime.put(given, seeds=False)
    rows, ids = runtime.gather(
      (ask(frozen, on_device["input"]), on_device["id"])
    )
    for name, values in rows.items():
      shape, view = values.shape[1:], [slice(None)]
      if source.text is not None and len(shape) > 1:
        view.append(slice(shape[0]))
        shape = (*source.input_shape, *shape[1:])
      if name not in found:
        found[name] = np.zeros((len(source), *shape), values.dtype)
      found[name][tuple(view)][ids[ids >= 0]] = values[ids >= 0]
    tick(batch_size)
  return found
