# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there, and strict JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def clear_disk_errors(path: str | pathlib.Path) -> Iterator[None]:
  """Turns "no space left" on `path` into one error that says what to do."""
  try:
    yield
  except OSError as error:
    if error.errno not in _FULL:
      raise
    raise OSError(
      error.errno,
      f"cannot write {path}: the disk is full or the quota is used up"
      f" ({os.strerror(error.errno)}). Free some space or choose another"
      " --workdir and run the same command again; what was saved before is"
      " intact.",
    ) from error


def atomic_write(path: str | pathlib.Path, data: bytes) -> None:
  """Writes `data` to `path`, whole or not at all, and on the disk on return.

  Raises:
    OSError: the disk is full, for example; `path` is then as it was before.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with clear_disk_errors(path):
    descriptor, temporary = tempfile.mkstemp(
      dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
    )
    try:
      with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600.
      os.replace(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
      raise


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def plain_json(value: Any) -> Any:
  """Returns `value` as what strict JSON can hold.

  Mappings become dicts with string keys; sequences and arrays become lists;
  numbers of numpy and jax become Python's; what is not finite becomes None.
  """
  if isinstance(value, Mapping):
    return {str(key): plain_json(child) for key, child in value.items()}
  if isinstance(value, str | bool | int) or value is None:
    return value
  if hasattr(value, "tolist"):
    return plain_json(value.tolist())
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Sequence):
    return [plain_json(child) for child in value]
  return value


def json_bytes(value: Any) -> bytes:
  """Returns `value` as indented strict JSON.

  Raises:
    ValueError: a NaN or an infinity, which strict JSON cannot hold.
    TypeError: something else that JSON cannot hold.
  """
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  return (text + "\n").encode()


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes `json_bytes(value)` to `path`, whole or not at all."""
  atomic_write(path, json_bytes(value))


def read_json(path: str | pathlib.Path, *, hint: str = "") -> Any:
  """Returns what the JSON file `path` holds.

  Args:
    path: the file.
    hint: what to do when it is not there, for the error message.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not JSON, or cut short.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no file {path}" + (f"; {hint}" if hint else ""))
  try:
    return json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(
      f"{path} is not JSON ({error}); restore it from a copy or write it again"
    ) from error
