# SPDX-License-Identifier: Apache-2.0
"""Trees of arrays as flat names, and as safetensors files.

A tree is made of mappings with string keys, tuples or lists, and arrays as
leaves. A leaf's name is its path: `{"params": {"Dense_0": {"bias": b}}}` has
the name `params/Dense_0/bias`; the third item of a sequence is `[2]`. Empty
mappings have no name, so `check_tree` gives back the structure of the tree it
compares with.

A file holds the arrays exactly as they are, bfloat16 included, and a flat
table of strings about them. It is read by any safetensors reader.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from tgt_jax import files

_INDEX = re.compile(r"\[(\d+)\]")
_METADATA = "tgt_jax"
_DTYPES = {
  "BOOL": np.bool_,
  "U8": np.uint8,
  "U16": np.uint16,
  "U32": np.uint32,
  "U64": np.uint64,
  "I8": np.int8,
  "I16": np.int16,
  "I32": np.int32,
  "I64": np.int64,
  "BF16": ml_dtypes.bfloat16,
  "F16": np.float16,
  "F32": np.float32,
  "F64": np.float64,
}
_STORABLE = frozenset(np.dtype(dtype) for dtype in _DTYPES.values())


def flatten_names(tree: Any, *, sep: str = "/") -> dict[str, Any]:
  """Returns `{name: leaf}` in sorted order of the names.

  Args:
    tree: mappings with string keys, sequences, and leaves.
    sep: what stands between two levels of a name.

  Raises:
    TypeError: a key that is not a string.
    ValueError: a key that is empty, contains `sep` or looks like an index.
  """
  flat: dict[str, Any] = {}

  def visit(node: Any, path: tuple[str, ...]) -> None:
    if isinstance(node, Mapping):
      for key, child in node.items():
        _check_key(key, path, sep)
        visit(child, (*path, key))
    elif isinstance(node, list | tuple):
      for index, child in enumerate(node):
        visit(child, (*path, f"[{index}]"))
    elif node is not None:
      if not path:
        raise TypeError(
          f"expected a mapping or a sequence of arrays, got {type(node)}"
        )
      flat[sep.join(path)] = node

  visit(tree, ())
  return dict(sorted(flat.items()))


def _check_key(key: Any, path: tuple[str, ...], sep: str) -> None:
  where = sep.join(path) or "the root"
  if not isinstance(key, str):
    raise TypeError(f"keys must be strings, got {key!r} under {where}")
  if not key or sep in key or _INDEX.fullmatch(key):
    raise ValueError(
      f"key {key!r} under {where} cannot be part of a name: it must not be"
      f" empty, contain {sep!r} or look like an index; rename it"
    )


def unflatten_names(flat: Mapping[str, Any], *, sep: str = "/") -> Any:
  """Inverse of `flatten_names`; sequences come back as tuples.

  Raises:
    ValueError: a name that is also the prefix of another one, or sequence
      indices that are not 0, 1, ....
  """
  nested: dict[str, Any] = {}
  for name, leaf in flat.items():
    node = nested
    *parents, last = name.split(sep)
    for part in parents:
      node = node.setdefault(part, {})
      if not isinstance(node, dict):
        raise ValueError(f"{name!r} lies below another array's name")
    if last in node:
      raise ValueError(f"{name!r} is also the beginning of other names")
    node[last] = leaf
  return _tuples(nested)


def _tuples(node: Any) -> Any:
  if not isinstance(node, dict):
    return node
  children = {key: _tuples(child) for key, child in node.items()}
  matches = [_INDEX.fullmatch(key) for key in children]
  if not children or not any(matches):
    return children
  names = [f"[{index}]" for index in range(len(children))]
  if set(names) != set(children):
    raise ValueError(
      f"sequence indices must be 0 to n - 1, got {', '.join(children)}"
    )
  return tuple(children[name] for name in names)


def check_tree(loaded: Any, expected: Any, *, what: str = "tree") -> Any:
  """Returns the arrays of `loaded` in the structure of `expected`.

  Args:
    loaded: a tree as `load_tree` returns it.
    expected: a tree of arrays or of `jax.ShapeDtypeStruct`, for example from
      `jax.eval_shape`.
    what: what the tree is, for the error message.

  Raises:
    ValueError: names, shapes or dtypes differ; lists the missing and the
      unexpected names, and for the others what was expected and what came.
  """
  have, want = flatten_names(loaded), flatten_names(expected)
  problems = []
  for title, names in (
    ("missing", [n for n in want if n not in have]),
    ("unexpected", [n for n in have if n not in want]),
  ):
    if names:
      problems.append(f"{title} ({len(names)}): {_some(names)}")
  different = [
    f"{name} expected {_kind(want[name])}, got {_kind(have[name])}"
    for name in want
    if name in have and _kind(want[name]) != _kind(have[name])
  ]
  if different:
    problems.append(f"different ({len(different)}): {_some(different, 4)}")
  if problems:
    raise ValueError(
      f"{what} does not fit: {'; '.join(problems)}. Expected {len(want)}"
      f" arrays, got {len(have)}; was it written for another model?"
    )
  return fill_names(expected, have)


def _some(names: list[str], limit: int = 12) -> str:
  rest = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(names[:limit]) + rest


def _kind(leaf: Any) -> str:
  dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
  return f"{np.dtype(dtype).name}{list(np.shape(leaf))}"


def fill_names(template: Any, flat: Mapping[str, Any]) -> Any:
  """Returns the structure of `template` with the leaves named in `flat`."""

  def fill(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, Mapping):
      return {k: fill(child, (*path, k)) for k, child in node.items()}
    if isinstance(node, list | tuple):
      items = [fill(c, (*path, f"[{i}]")) for i, c in enumerate(node)]
      named = hasattr(node, "_fields")
      return type(node)(*items) if named else type(node)(items)
    return None if node is None else flat["/".join(path)]

  return fill(template, ())


def tree_bytes(tree: Any, metadata: Mapping[str, str] | None = None) -> bytes:
  """Returns `tree` as the bytes of a safetensors file.

  The same tree and metadata give the same bytes in every process.

  Raises:
    TypeError: a leaf whose dtype the format lacks, or metadata that are not
      strings.
  """
  metadata = dict(metadata or {})
  for key, value in metadata.items():
    if not isinstance(key, str) or not isinstance(value, str):
      raise TypeError(f"metadata must be strings, got {key!r}: {value!r}")
  flat = {}
  for name, leaf in flatten_names(jax.device_get(tree)).items():
    array = np.asarray(leaf)
    if array.dtype.newbyteorder("=") not in _STORABLE:
      raise TypeError(f"{name}: dtype {array.dtype} cannot be stored")
    # safetensors writes the memory of a transposed array as it lies there,
    # silently permuting the values, so it must be contiguous and native.
    flat[name] = np.array(array, array.dtype.newbyteorder("="), order="C")
  # Several metadata keys would come out in an order of their own each time.
  packed = {_METADATA: json.dumps(metadata, sort_keys=True)}
  return safetensors.numpy.save(flat, metadata=packed)


def save_tree(
  path: str | pathlib.Path,
  tree: Any,
  metadata: Mapping[str, str] | None = None,
) -> bytes:
  """Writes `tree` to `path`, whole or not at all; returns the bytes written."""
  data = tree_bytes(tree, metadata)
  files.atomic_write(path, data)
  return data


def load_tree(path: str | pathlib.Path) -> tuple[Any, dict[str, str]]:
  """Returns the tree of numpy arrays and the metadata that `path` holds.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a safetensors file, or one that is cut short.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no file {path}")
  return parse_tree(path.read_bytes(), name=str(path))


def parse_tree(data: bytes, *, name: str) -> tuple[Any, dict[str, str]]:
  """Returns what `load_tree` returns, from the bytes of the file `name`."""
  flat = {}
  try:
    for key, entry in safetensors.deserialize(data):
      dtype = _DTYPES[entry["dtype"]]
      flat[key] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    metadata = _metadata(data)
  except KeyError as error:
    raise ValueError(f"{name}: dtype {error} cannot be read") from error
  except (safetensors.SafetensorError, ValueError) as error:
    raise ValueError(
      f"{name} is not a whole safetensors file ({error}); restore it from a"
      " copy or write it again"
    ) from error
  return unflatten_names(dict(sorted(flat.items()))), metadata


def _metadata(data: bytes) -> dict[str, str]:
  length = int.from_bytes(data[:8], "little")
  stored = json.loads(data[8 : 8 + length]).get("__metadata__", {})
  packed = stored.pop(_METADATA, None)
  return {**stored, **(json.loads(packed) if packed else {})}
