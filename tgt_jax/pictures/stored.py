# SPDX-License-Identifier: Apache-2.0
"""Arrays that a page is made from, as `.npz` files."""

from __future__ import annotations

import io
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tgt_jax import files


def save(path: str | pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes arrays, whole or not at all.

  Args:
    path: of the file.
    arrays: numbers, strings or tuples of them. Images, "inputs" that are no
      strings, are kept to eight bits, which is what a screen shows.
  """
  kept: dict[str, Any] = {
    name: np.asarray(value) for name, value in arrays.items()
  }
  if kept["inputs"].dtype.kind != "U":
    pixels = np.round(255 * np.clip(kept["inputs"], 0, 1))
    kept["inputs"] = pixels.astype(np.uint8)
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **kept)
  files.atomic_write(path, buffer.getvalue())


def load(
  path: str | pathlib.Path, names: Sequence[str], *, what: str
) -> dict[str, np.ndarray]:
  """Returns what `save` wrote, images as float32 in [0, 1].

  Args:
    path: of the file.
    names: of the arrays.
    what: the file is expected to be, for messages.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another file, or one cut short.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no file {path}")
  try:
    # From memory: of a damaged file numpy would leave the handle open.
    content = io.BytesIO(path.read_bytes())
    with np.load(content, allow_pickle=False) as stored:
      arrays = {name: stored[name] for name in names}
  except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
    raise ValueError(
      f"{path} is not {what} ({error}); remove it, and give the command of the"
      " run again to have a new one"
    ) from error
  if arrays["inputs"].dtype.kind != "U":
    arrays["inputs"] = arrays["inputs"].astype(np.float32) / 255
  return arrays
