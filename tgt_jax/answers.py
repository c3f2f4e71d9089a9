# SPDX-License-Identifier: Apache-2.0
"""What the teacher says of a whole split, kept on disk.

The teacher dominates the cost of a step. Where nothing augments the images,
h(x), Enc(x) and embeddings are computed once. They are written in parts as they
come, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import data, distributed, fit, teachers, trees
from tgt_jax.data.sources import digest
from tgt_jax.plan import fingerprint
from tgt_jax.progress import Progress
from tgt_jax.teachers import Teacher
from tgt_jax.types import Network

_PART_ROWS = 8192

Columns = dict[str, np.ndarray]


class Prepared(NamedTuple):
  """A teacher that is ready.

  Attributes:
    frozen: its arrays, on every device.
    fingerprint: of everything that made it.
  """

  frozen: dict[str, Any]
  fingerprint: str


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
  ask = _asker(teacher, runtime.mesh, latents)
  return _kept(
    ask, prepared.frozen, key, source, folder, runtime, batch_size, part_rows
  )


def embeddings(
  encoder: Network | None,
  prepared: Prepared,
  source: data.Source,
  folder: pathlib.Path,
  runtime: fit.Runtime,
  *,
  batch_size: int,
) -> np.ndarray:
  """Embeddings of every example of a source, [N, T, 1, D].

  Args:
    encoder: None where they come with the data.
    prepared: its arrays, `frozen["encoder"]`, and what made them.
    source: the examples.
    folder: where the cache's folder is made.
    runtime: devices.
    batch_size: examples at a time.

  Raises:
    ValueError: there are none, or a file does not hold what it should.
  """
  if encoder is None:
    if source.embed is None:
      raise ValueError(
        f"{source.name} brings no embeddings along: name a network in"
        " config.encoder, or set config.embedding_shape to () where none are"
        " needed"
      )
    return source.embed(np.arange(len(source)))
  key = fingerprint("embedding", prepared.fingerprint, source.fingerprint)
  ask = _embedder(encoder, runtime.mesh)
  found = _kept(ask, prepared.frozen, key, source, folder, runtime, batch_size)
  return found["embedding"][:, None, None]


def _kept(
  ask: Callable,
  frozen: Any,
  key: str,
  source: data.Source,
  folder: pathlib.Path,
  runtime: fit.Runtime,
  batch_size: int,
  part_rows: int = _PART_ROWS,
) -> Columns:
  """What `ask(frozen, x)` says of a source, from disk where it can."""
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
    _write(missing, key, ask, frozen, source, runtime, batch_size)
  found = [_read(part, key) for part in parts]
  return {
    name: np.concatenate([part[name] for part in found]) for name in found[0]
  }


def _write(
  parts: list[_Part],
  key: str,
  ask: Callable,
  frozen: Any,
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
      found = compute(ask, frozen, view, runtime, batch_size, tick)
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


@functools.cache
def _embedder(encoder: Network, mesh: jax.sharding.Mesh | None) -> Callable:
  """One function for all splits, so that it is compiled once."""
  of = teachers.embedding(encoder)

  def ask(frozen: Any, x: jax.Array) -> dict[str, jax.Array]:
    return {"embedding": of(frozen["encoder"], x)[:, 0, 0]}

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
    ask: of texts [B, l] what it gives with two axes or more per example has an
      entry per token. It is compiled once for every function that is given.
    frozen: the teacher's arrays.
    source: the examples.
    runtime: devices.
    batch_size: examples at a time.
    tick: called with the number of examples of every batch.
  """
  found: Columns = {}
  ask = runtime.jit(ask)
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


def of_seeds(
  one: Callable[[Any, jax.Array], jax.Array],
  variables: Any,
  source: data.Source,
  runtime: fit.Runtime,
  batch_size: int,
) -> np.ndarray:
  """What every seed's network says of a source, [S, N, D].

  Args:
    one: `(variables of one seed, x) -> [B, D]`.
    variables: tree with leaves [S, ...].
    source: the examples.
    runtime: devices.
    batch_size: examples at a time.
  """
  ask = jax.vmap(one, in_axes=(0, None), out_axes=1)

  def flat(many: Any, x: jax.Array) -> dict[str, jax.Array]:
    said = ask(many, x)
    return {"said": said.reshape(said.shape[0], -1)}

  found = compute(flat, variables, source, runtime, batch_size)
  seeds = jax.tree.leaves(variables)[0].shape[0]
  rows = found["said"].reshape(len(source), seeds, -1)
  return np.moveaxis(rows, 1, 0)
