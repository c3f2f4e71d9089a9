# SPDX-License-Identifier: Apache-2.0
"""Sounds as arrays on disk: a spectrogram per clip, and its embeddings.

A collection of music is larger than memory: 20,000 clips of ten seconds are
5 GB of spectrograms in half precision. A batch reads the files of its clips,
on all cores; what was read lately is in the memory of the operating system.

Embeddings lie below `embeddings/` of the collection's folder: `NAME/KEY.npy` of
each clip, or one array `NAME.npy` with a row per clip and the keys of its rows
in `NAME.json`. Those of a clip are [D], or [T, D] over time.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks, files
from tgt_jax.data import sources, threads

Array = np.ndarray


class Clips(NamedTuple):
  """One array per clip, all of one shape.

  Attributes:
    shape: of one clip's.
    read: rows [B] to float32 [B, *shape]; a fresh array.
    content: stands for the values in a fingerprint.
  """

  shape: tuple[int, ...]
  read: Callable[[Array], Array]
  content: str


class Scaling(NamedTuple):
  """Embeddings are read as `(value - offset) / scale`."""

  offset: float = 0.0
  scale: float = 1.0


# As students of audio embeddings were given them (arXiv:2306.17424). Others are
# read as they are.
SCALINGS = {"openl3": Scaling(2.24), "vggish": Scaling(128.0, 256.0)}


def load(path: pathlib.Path) -> Array:
  """Returns the array of an .npy file.

  Raises:
    ValueError: it is not a whole one, or holds Python objects.
  """
  try:
    return np.load(path)
  except (EOFError, OSError, ValueError) as error:
    raise ValueError(f"{path}: not a whole .npy file: {error}") from error


def _clips(
  get: Callable[[int], Array],
  where: Callable[[int], str],
  convert: Callable[[Array], Array],
  *content: Any,
) -> Clips:
  """Puts arrays together that `get` returns one at a time."""

  def one(row: int) -> Array:
    try:
      return convert(get(row))
    except ValueError as error:
      raise ValueError(f"{where(row)}: {error}") from error

  first = one(0)
  shape = first.shape

  def read(rows: Array) -> Array:
    out = np.empty((len(rows), *shape), np.float32)

    def fill(piece: slice) -> None:
      for place, row in zip(out[piece], rows[piece].tolist(), strict=True):
        value = one(row)
        if value.shape != shape:
          raise ValueError(
            f"{where(row)}: expected the shape {shape} of {where(0)}, got"
            f" {value.shape}"
          )
        place[...] = value

    threads.for_rows(fill, len(rows), pixels=math.prod(shape))
    return out

  return Clips(
    shape, read, sources.digest(*content, np.ascontiguousarray(first))
  )


def of_files(
  folder: pathlib.Path,
  keys: Sequence[str],
  *,
  convert: Callable[[Array], Array],
  advice: str,
) -> Clips:
  """Returns the arrays of `folder/KEY.npy`.

  Their content is known by their names and sizes, and the first.

  Args:
    folder: of the files.
    keys: N of them; row i of the result is that of key i.
    convert: what is done to each.
    advice: where the files come from, for the error that they are not there.

  Raises:
    FileNotFoundError: a file is missing; names the first.
    ValueError: the first is not an array, or `convert` refuses it.
  """
  paths = [folder / f"{key}.npy" for key in keys]
  sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
  if -1 in sizes:
    raise FileNotFoundError(
      f"there is no {paths[sizes.index(-1)]} ({sizes.count(-1)} of"
      f" {len(paths)} files are missing). {advice}"
    )
  return _clips(
    lambda row: load(paths[row]),
    lambda row: str(paths[row]),
    convert,
    list(keys),
    sizes,
  )


def of_array(
  values: Array,
  known: Sequence[str],
  keys: Sequence[str],
  *,
  convert: Callable[[Array], Array],
  content: str,
  what: str,
) -> Clips:
  """Returns rows of an array, [M, ...], which may be mapped from a file.

  Args:
    values: the array.
    known: M keys of its rows.
    keys: N of them; row i of the result is that of key i.
    convert: what is done to each.
    content: stands for the values in a fingerprint.
    what: the array, for messages.

  Raises:
    ValueError: a key that is not known, or numbers that differ.
  """
  if not isinstance(known, (list, tuple)):
    raise ValueError(
      f"{what}: expected a list of the keys of its rows in order, got a"
      f" {type(known).__name__}"
    )
  if len(values) != len(known):
    raise ValueError(f"{what}: {len(values)} rows but {len(known)} keys")
  if len(set(known)) < len(known):
    twice = next(key for key in known if known.count(key) > 1)
    raise ValueError(f"{what}: two rows for {twice}")
  place = {key: row for row, key in enumerate(known)}
  absent = [key for key in keys if key not in place]
  if absent:
    raise ValueError(
      f"{what}: no row for {absent[0]} ({len(absent)} of {len(keys)} keys are"
      " missing)"
    )
  rows = [place[key] for key in keys]
  return _clips(
    lambda row: values[rows[row]],
    lambda row: f"{what}: {keys[row]}",
    convert,
    list(keys),
    content,
  )


def spectrogram(value: Array) -> Array:
  """Returns an image [mels, frames, 1] of a file's [mels, frames].

  Raises:
    ValueError: another shape, or values that are not finite.
  """
  if value.ndim != 2 or not value.size:
    raise ValueError(f"expected an array [mels, frames], got {value.shape}")
  if not np.isfinite(value).all():
    raise ValueError(
      "a value is not finite: is the sound damaged? Delete this file and prepare"
      " the clip again from a whole one"
    )
  return value[..., None]


def framed(scaling: Scaling, frames: int) -> Callable[[Array], Array]:
  """Returns a function of a clip's embeddings, [D] or [T, D], to [T, 1, D].

  Args:
    scaling: of the values.
    frames: cut to that many, or the last one repeated; 0 leaves them.
  """

  def convert(value: Array) -> Array:
    if value.ndim not in (1, 2) or not value.size:
      raise ValueError(f"expected embeddings [D] or [T, D], got {value.shape}")
    value = np.atleast_2d(np.asarray(value, np.float32))
    if frames:
      value = value[np.minimum(np.arange(frames), len(value) - 1)]
    scaled = (value - np.float32(scaling.offset)) / np.float32(scaling.scale)
    return scaled[:, None]

  return convert


def scaling(name: str, offset: float | None, scale: float | None) -> Scaling:
  """Returns the scaling of embeddings; what is None is that of their name."""
  known = SCALINGS.get(name, Scaling())
  found = Scaling(
    known.offset if offset is None else offset,
    known.scale if scale is None else scale,
  )
  checks.finite(embedding_offset=found.offset)
  checks.positive(embedding_scale=found.scale)
  return found


def embeddings(
  folder: pathlib.Path,
  name: str,
  keys: Sequence[str],
  *,
  convert: Callable[[Array], Array],
) -> Clips:
  """Returns embeddings [T, 1, D] from below `folder / "embeddings"`.

  Args:
    folder: of the collection.
    name: of the embeddings.
    keys: N of them; row i of the result is that of key i.
    convert: see `framed`.

  Raises:
    FileNotFoundError: they are not there, or not of every clip.
    ValueError: arrays of another shape.
  """
  place = folder / "embeddings"
  path = place / f"{name}.npy"
  if path.is_file():
    known = files.read_json(
      path.with_suffix(".json"), hint=f"expected the keys of {path}'s rows"
    )
    with path.open("rb") as file:
      content = hashlib.file_digest(file, "sha256").hexdigest()
    try:
      values = np.load(path, mmap_mode="r")
    except (EOFError, OSError, ValueError) as error:
      raise ValueError(f"{path}: not a whole .npy file: {error}") from error
    return of_array(
      values, known, keys, convert=convert, content=content, what=str(path)
    )
  return of_files(
    place / name,
    keys,
    convert=convert,
    advice=f"Embeddings are computed elsewhere, by the network they are named"
    f" after: write [D] or [T, D] of each clip there, or an array {path} with"
    f" the list of its keys in {path.with_suffix('.json').name}",
  )


def source(
  name: str,
  inputs: Clips,
  tags: Array,
  class_names: Sequence[str],
  *,
  embedded: Clips | None = None,
  options: Mapping[str, Any],
) -> sources.Source:
  """Returns a source of tagged clips that are read when they are asked for.

  Args:
    name: what messages and the fingerprint call it.
    inputs: N spectrograms.
    tags: float [N, K], 1, 0, or -1 for unknown.
    class_names: K names.
    embedded: N embeddings, or None.
    options: whatever else should change the fingerprint.
  """
  tags = sources.check_tags(tags, len(class_names), what=name)
  contents = [
    clips.content for clips in (inputs, embedded) if clips is not None
  ]
  return sources.Source(
    name=name,
    labels=tags.argmax(axis=1),
    num_classes=len(class_names),
    class_names=tuple(class_names),
    input_shape=inputs.shape,
    read=inputs.read,
    fingerprint=sources.digest(name, dict(options), contents, tags),
    ids=np.arange(len(tags)),
    targets=tags,
    embed=embedded.read if embedded else None,
  )
