# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file, and the one form of an error about it."""

from __future__ import annotations

import pathlib

import numpy as np


def bad_file(
  path: str | pathlib.Path,
  *,
  expected: object,
  got: object,
  remedy: str = "download it again",
) -> ValueError:
  """Returns the error that says what is wrong with a file and what to do."""
  return ValueError(f"{path}: expected {expected}, got {got}; {remedy}")


def map_bytes(path: pathlib.Path) -> np.ndarray:
  """Returns the bytes of a file, read from the disk where they are used."""
  if not path.stat().st_size:  # Which cannot be mapped.
    return np.zeros(0, np.uint8)
  return np.asarray(np.memmap(path, np.uint8, "r"))
