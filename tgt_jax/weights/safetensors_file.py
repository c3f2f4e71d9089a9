# SPDX-License-Identifier: Apache-2.0
"""Reader of safetensors files, single or in shards, mapped to memory.

Eight bytes hold the length of a JSON header, `{name: {dtype, shape,
data_offsets}}`; the arrays follow without gaps.

References:
  https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from tgt_jax.weights.raw import bad_file, map_bytes

DTYPES = {
  "BOOL": np.bool_,
  "U8": np.uint8,
  "U16": np.uint16,
  "U32": np.uint32,
  "U64": np.uint64,
  "I8": np.int8,
  "I16": np.int16,
  "I32": np.int32,
  "I64": np.int64,
  "F8_E4M3": ml_dtypes.float8_e4m3fn,
  "F8_E5M2": ml_dtypes.float8_e5m2,
  "BF16": ml_dtypes.bfloat16,
  "F16": np.float16,
  "F32": np.float32,
  "F64": np.float64,
}
INDEX_SUFFIX = ".safetensors.index.json"


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of one file.

  Raises:
    ValueError: not a safetensors file, one that is cut short, or one whose
      header contradicts itself.
  """
  data = map_bytes(path)
  length = int.from_bytes(data[:8].tobytes(), "little")
  if data.size < 8 or 8 + length > data.size:
    raise bad_file(
      path,
      expected=f"a safetensors file with a header of {length} bytes",
      got=f"{data.size} bytes in all",
    )
  header = _header(path, data[8 : 8 + length].tobytes())
  header.pop("__metadata__", None)
  content = data[8 + length :]
  arrays, end = {}, 0
  for name, entry in header.items():
    arrays[name], stop = _array(path, name, entry, content)
    end = max(end, stop)
  if end != content.size:
    raise bad_file(
      path,
      expected=f"{end} bytes of arrays",
      got=f"{content.size}",
    )
  return arrays


def _header(path: pathlib.Path, text: bytes) -> dict[str, Any]:
  try:
    header = json.loads(text)
  except ValueError as error:
    raise bad_file(
      path, expected="a safetensors file with a JSON header", got=error
    ) from error
  if not isinstance(header, dict):
    raise bad_file(path, expected="an object as header", got=type(header))
  return header


def _array(
  path: pathlib.Path, name: str, entry: Any, content: np.ndarray
) -> tuple[np.ndarray, int]:
  """Returns an array and the end of its bytes."""
  try:
    dtype, shape = entry["dtype"], [int(size) for size in entry["shape"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
  except (KeyError, TypeError, ValueError) as error:
    raise bad_file(
      path, expected=f"dtype, shape and data_offsets of {name}", got=entry
    ) from error
  if dtype not in DTYPES:
    raise bad_file(
      path,
      expected=f"{name} of a dtype among {', '.join(DTYPES)}",
      got=dtype,
      remedy="save the file again in another dtype",
    )
  size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
  if min(shape, default=0) < 0 or end - begin != size:
    raise bad_file(
      path,
      expected=f"{size} bytes for {name}, {dtype} of shape {shape}",
      got=f"{end - begin}",
    )
  if not 0 <= begin <= end <= content.size:
    raise bad_file(
      path,
      expected=f"{name} at bytes {begin} to {end} of the arrays",
      got=f"{content.size} bytes in all",
    )
  return content[begin:end].view(DTYPES[dtype]).reshape(shape), end


def shard_paths(index: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files that an index names, sorted."""
  return [index.with_name(name) for name in sorted(set(_map(index).values()))]


def _map(index: pathlib.Path) -> dict[str, str]:
  """Returns which file holds an array."""
  try:
    content = json.loads(index.read_bytes())
    shards = {str(k): str(v) for k, v in content["weight_map"].items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise bad_file(
      index,
      expected="JSON with a weight_map from names to files",
      got=f"{type(error).__name__}: {error}",
    ) from error
  for name in shards.values():
    if pathlib.PurePath(name).name != name:
      raise bad_file(index, expected="files beside the index", got=name)
  return shards


def read_sharded(index: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of all the files that an index names.

  Raises:
    FileNotFoundError: one of them is not there.
    ValueError: a damaged file, or an array that is not where the index says.
  """
  shards = _map(index)
  found = {}
  for path in shard_paths(index):
    if not path.is_file():
      raise FileNotFoundError(
        f"no file {path}, which {index} names; download it to the same folder"
      )
    found[path.name] = read_safetensors(path)
  missing = [n for n, shard in shards.items() if n not in found[shard]]
  if missing:
    raise bad_file(
      index,
      expected=f"{missing[0]} in {shards[missing[0]]}",
      got=f"{len(missing)} arrays that are not where the index says",
      remedy="download the index and its files again, from one revision",
    )
  return {name: found[shard][name] for name, shard in shards.items()}
