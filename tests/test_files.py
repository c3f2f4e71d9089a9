# SPDX-License-Identifier: Apache-2.0
"""Files are whole or not there, also when the disk is full."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat

import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tgt_jax import files


def test_atomic_write_makes_folders_and_replaces(tmp_path: pathlib.Path):
  path = tmp_path / "a" / "b.bin"
  files.atomic_write(path, b"one")
  files.atomic_write(path, b"two")
  assert path.read_bytes() == b"two"
  assert os.listdir(path.parent) == ["b.bin"]


def test_atomic_write_obeys_the_umask(tmp_path: pathlib.Path):
  mask = os.umask(0o027)
  try:
    files.atomic_write(tmp_path / "x", b"")
  finally:
    os.umask(mask)
  assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_file(tmp_path: pathlib.Path):
  path = tmp_path / "x"
  files.atomic_write(path, b"old")
  with (
    helpers.small_disk(1000),
    pytest.raises(OSError, match="Free some space") as caught,
  ):
    files.atomic_write(path, bytes(5000))
  assert caught.value.errno == errno.EFBIG
  assert str(path) in str(caught.value)
  assert path.read_bytes() == b"old"
  assert os.listdir(tmp_path) == ["x"]


def test_other_errors_are_not_called_a_full_disk(tmp_path: pathlib.Path):
  (tmp_path / "x").mkdir()
  with pytest.raises(IsADirectoryError):
    files.atomic_write(tmp_path / "x", b"data")
  assert os.listdir(tmp_path) == ["x"]


def test_plain_json():
  value = {
    "a": np.float32(0.5),
    "b": jnp.arange(3),
    "c": (1, np.nan, float("inf"), None, True, np.bool_(False)),
    4: {"d": np.array([[1.0, np.nan]])},
  }
  assert files.plain_json(value) == {
    "a": 0.5,
    "b": [0, 1, 2],
    "c": [1, None, None, None, True, False],
    "4": {"d": [[1.0, None]]},
  }


def test_json_round_trip_is_strict(tmp_path: pathlib.Path):
  path = tmp_path / "x.json"
  files.write_json(path, {"ü": [1, 2.5]})
  assert files.read_json(path) == {"ü": [1, 2.5]}
  with pytest.raises(ValueError, match="JSON"):
    files.write_json(path, {"x": float("nan")})
  assert files.read_json(path) == {"ü": [1, 2.5]}


def test_read_json_says_what_is_wrong(tmp_path: pathlib.Path):
  with pytest.raises(FileNotFoundError, match=r"no file .*; look elsewhere"):
    files.read_json(tmp_path / "x.json", hint="look elsewhere")
  (tmp_path / "x.json").write_text(json.dumps({"a": [1, 2]})[:-3])
  with pytest.raises(ValueError, match=r"x\.json is not JSON"):
    files.read_json(tmp_path / "x.json")
