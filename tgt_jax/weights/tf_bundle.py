# SPDX-License-Identifier: Apache-2.0
"""Reader of TensorFlow checkpoints ("tensor bundles"), without TensorFlow.

`prefix.index` maps a name to dtype, shape, shard, offset, size and checksum;
`prefix.data-00000-of-00001` and its siblings hold the bytes. TF-Hub modules
and SavedModels have theirs at `variables/variables`. Strings (names of files,
the object graph) are left out: they are no weights.

References:
  tensorflow/core/protobuf/tensor_bundle.proto and
  tensorflow/core/util/tensor_bundle/tensor_bundle.h
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

from tgt_jax.weights.crc32c import crc32c, masked
from tgt_jax.weights.leveldb_table import read_table, read_varint
from tgt_jax.weights.raw import bad_file, map_bytes

# tensorflow/core/framework/types.proto; quantised types are left out.
DTYPES: Mapping[int, np.dtype] = {
  code: np.dtype(dtype)
  for code, dtype in {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    8: np.complex64,
    9: np.int64,
    10: np.bool_,
    14: ml_dtypes.bfloat16,
    17: np.uint16,
    18: np.complex128,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
  }.items()
}
_STRING = 7

_Message = dict[int, list]


class _Entry(NamedTuple):
  """What the index says about one tensor."""

  dtype: int
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  checksum: int
  sliced: bool


def _message(data: bytes) -> _Message:
  """Returns the fields of a protocol buffer message by number."""
  fields: _Message = {}
  position = 0
  while position < len(data):
    tag, position = read_varint(data, position)
    value: int | bytes
    if tag & 7 == 0:
      value, position = read_varint(data, position)
    else:
      if tag & 7 == 2:
        size, position = read_varint(data, position)
      elif tag & 7 in (1, 5):
        size = 8 if tag & 7 == 1 else 4
      else:
        raise ValueError(f"a field of wire type {tag & 7}")
      if position + size > len(data):
        raise ValueError("a field that is cut short")
      value = data[position : position + size]
      position += size
    fields.setdefault(tag >> 3, []).append(value)
  return fields


def _entry(data: bytes) -> _Entry:
  fields = _message(data)

  def number(field: int) -> int:
    return fields.get(field, [0])[-1]

  dimensions = _message(fields.get(2, [b""])[-1]).get(2, [])
  return _Entry(
    dtype=number(1),
    shape=tuple(_message(d).get(1, [0])[-1] for d in dimensions),
    shard=number(3),
    offset=number(4),
    size=number(5),
    checksum=int.from_bytes(fields.get(6, [b""])[-1], "little"),
    sliced=7 in fields,
  )


def shard_paths(index: pathlib.Path, count: int) -> list[pathlib.Path]:
  """Returns the data files that belong to an index."""
  prefix = index.name.removesuffix(".index")
  return [
    index.with_name(f"{prefix}.data-{i:05d}-of-{count:05d}")
    for i in range(count)
  ]


def _read_index(index: pathlib.Path) -> tuple[int, dict[str, _Entry]]:
  """Returns the number of shards and the entries."""
  entries, shards, order = {}, 0, 0
  for key, value in read_table(index):
    try:
      if not key:
        header = _message(value)
        shards = header.get(1, [0])[-1]
        order = header.get(2, [0])[-1]
      else:
        # Keys of the parts of a sliced tensor are no text.
        entries[key.decode("utf-8", "replace")] = _entry(value)
    except ValueError as error:
      raise bad_file(
        index, expected=f"an entry of {key!r}", got=error
      ) from error
  if not shards:
    raise bad_file(index, expected="a header that counts shards", got="none")
  if order:
    raise bad_file(
      index,
      expected="little-endian numbers",
      got="big-endian",
      remedy="save the checkpoint again on a little-endian machine",
    )
  sliced = [name for name, entry in entries.items() if entry.sliced]
  if sliced:
    raise bad_file(
      index,
      expected="whole variables",
      got=f"{len(sliced)} stored in slices ({', '.join(sliced[:3])})",
      remedy="save the checkpoint again without a partitioner",
    )
  return shards, entries


def bundle_files(index: pathlib.Path) -> list[pathlib.Path]:
  """Returns the index and its data files."""
  return [index, *shard_paths(index, _read_index(index)[0])]


def read_bundle(index: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint, mapped to its files.

  Args:
    index: the file `prefix.index`.

  Raises:
    FileNotFoundError: a data file is not there.
    ValueError: damaged files, sliced variables, an unknown dtype.
  """
  shards, entries = _read_index(index)
  paths = shard_paths(index, shards)
  data = []
  for path in paths:
    if not path.is_file():
      raise FileNotFoundError(
        f"no file {path}, one of the {shards} data files of {index}; put it"
        " beside the index"
      )
    data.append(map_bytes(path))
  arrays = {}
  for name, entry in entries.items():
    if entry.dtype != _STRING:
      if entry.shard >= shards:
        raise bad_file(
          index, expected=f"{shards} data files", got=f"shard {entry.shard}"
        )
      path, stored = paths[entry.shard], data[entry.shard]
      arrays[name] = _tensor(path, stored, name, entry)
  return arrays


def _tensor(
  path: pathlib.Path, data: np.ndarray, name: str, entry: _Entry
) -> np.ndarray:
  """Returns one array, checked against its size and checksum."""
  if entry.dtype not in DTYPES:
    raise bad_file(
      path,
      expected=f"{name} of a dtype among {sorted(DTYPES)}",
      got=f"TensorFlow's number {entry.dtype}",
      remedy="cast the variable before saving",
    )
  dtype = DTYPES[entry.dtype]
  size = math.prod(entry.shape) * dtype.itemsize
  end = entry.offset + entry.size
  if size != entry.size or end > data.size:
    raise bad_file(
      path,
      expected=f"{size} bytes for {name} of shape {entry.shape} at byte"
      f" {entry.offset}",
      got=f"{entry.size} of a file of {data.size} bytes",
    )
  stored = data[entry.offset : end]
  actual = masked(crc32c(stored))
  if actual != entry.checksum:
    raise bad_file(
      path,
      expected=f"checksum {entry.checksum:#010x} of {name}",
      got=f"{actual:#010x}",
    )
  return stored.view(dtype).reshape(entry.shape)
