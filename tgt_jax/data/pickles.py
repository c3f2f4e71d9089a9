# SPDX-License-Identifier: Apache-2.0
"""Arrays out of pickles and .npz files, without trusting the files.

A pickle may call anything. This one may rebuild arrays and plain values, and
is refused where it asks for more.
"""

from __future__ import annotations

import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np

_ALLOWED = frozenset(
  {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
  }
)


class Unpickler(pickle.Unpickler):
  """Rebuilds arrays and plain values; every other name is refused."""

  def find_class(self, module: str, name: str) -> Any:
    """Returns an allowed global; `numpy.core` has moved to `numpy._core`."""
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(f"refused to load {module}.{name}")
    return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_strings(path: pathlib.Path, name: str) -> list[str]:
  """Returns an array of strings, [N], of an .npz file.

  Args:
    path: the file.
    name: the array, of strings or of Python objects.

  Raises:
    ValueError: there is no such array, or it is something else.
  """
  try:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
      version = np.lib.format.read_magic(file)
      if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(file)
      else:
        header = np.lib.format.read_array_header_2_0(file)
      if header[2] == np.dtype(object):
        # The strings of Python 2 are bytes there.
        values = Unpickler(file, encoding="latin1").load()
      else:
        with np.load(path) as content:
          values = content[name]
  except Exception as error:  # A damaged file may raise almost anything.
    raise ValueError(
      f"{path}: {name}: cannot be read ({type(error).__name__}: {error})"
    ) from error
  values = np.asarray(values).tolist()
  if not isinstance(values, list) or not all(
    isinstance(value, str | bytes) for value in values
  ):
    raise ValueError(f"{path}: {name}: expected strings [N]")
  return [v.decode() if isinstance(v, bytes) else v for v in values]
