# SPDX-License-Identifier: Apache-2.0
"""The files of one checkpoint: are they whole, and do they fit a target."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

HOST, MANIFEST = "host.json", "manifest.json"
# Orbax stamps the time of completion into it after the manifest is written;
# nothing that is restored depends on it.
_STAMP = "_CHECKPOINT_METADATA"
_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left", "File too large", "Disk quota exceeded")


class CheckpointError(OSError):
  """A checkpoint could not be written, or none could be read."""


def host_text(
  leaves: Mapping[str, list],
  iterator_state: Mapping[str, Any],
  metrics: Mapping[str, float],
) -> str:
  """The text of `host.json`: all of a checkpoint that is not an array.

  Raises:
    TypeError: `iterator_state` is not JSON-able.
  """
  numbers = {name: float(value) for name, value in metrics.items()}
  try:
    iterator_text = json.dumps(dict(iterator_state))
  except (TypeError, ValueError) as error:
    raise TypeError(
      f"iterator_state must be JSON-able, got {iterator_state!r}: {error}"
    ) from error
  return json.dumps(
    {
      "iterator_state": json.loads(iterator_text),
      "metrics": numbers,
      "leaves": leaves,
    }
  )


def seal(place: epath.Path, host: str) -> None:
  """Writes `host.json`, then the manifest of everything below `place`."""
  (place / HOST).write_text(host)
  names = sorted(set(_files(place)) - {MANIFEST, _STAMP})
  files = {name: _fingerprint(place / name) for name in names}
  (place / MANIFEST).write_text(json.dumps(files, indent=0))


def problem(place: epath.Path) -> str | None:
  """Says why a checkpoint is not whole; None where it is.

  Reads every file of the manifest once. Files it does not name are ignored:
  storage systems add marks of their own.
  """
  try:
    manifest = json.loads((place / MANIFEST).read_text())
    entries = [(name, *entry) for name, entry in manifest.items()]
    if HOST not in manifest:
      return f"{MANIFEST} does not name {HOST}"
    for name, size, digest in entries:
      if not (place / name).exists():
        return f"{name} is missing"
      found = _fingerprint(place / name)
      if found[0] != size:
        return f"{name} has {found[0]} bytes instead of {size}"
      if found[1] != digest:
        return f"{name} has changed since it was written"
  except FileNotFoundError:
    return f"{MANIFEST} is missing"
  except (ValueError, TypeError, AttributeError):
    return f"{MANIFEST} is damaged"
  except OSError as error:
    return f"cannot be read: {error}"
  return None


def steps_on_disk(directory: epath.Path) -> list[int]:
  """Steps that have a directory of their final name, in increasing order."""
  if not directory.is_dir():
    return []
  names = [path.name for path in directory.iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def write_error(
  directory: epath.Path, step: int | None, error: Exception
) -> CheckpointError:
  """The one error for a save that failed, whatever it was raised as.

  Args:
    directory: of all checkpoints.
    step: the one being saved; None where the directory could not be opened.
    error: what the storage library raised.
  """
  what = "open" if step is None else f"write the checkpoint of step {step} in"
  if _is_full(error):
    why, remedy = "the disk is full or over quota", "Make room"
  else:
    why, remedy = f"{type(error).__name__}: {error}", "Remove the cause"
  intact = [s for s in steps_on_disk(directory) if s != step]
  left = (
    f"earlier checkpoints are intact (steps {intact})"
    if intact
    else "there is no earlier checkpoint"
  )
  return CheckpointError(
    f"cannot {what} {directory}: {why}; {left}. {remedy}, then run the same"
    " command again to continue"
  )


def _is_full(error: BaseException | None) -> bool:
  """Whether an error, or one that caused it, is a full disk or quota.

  The storage library reports the system's words in errors of other types, so
  both the number and the words are looked at.
  """
  while error is not None:
    if isinstance(error, OSError) and error.errno in _FULL:
      return True
    if any(words in str(error) for words in _FULL_WORDS):
      return True
    error = error.__cause__ or error.__context__
  return False


def _files(place: epath.Path, below: str = "") -> Iterator[str]:
  for path in (place / below).iterdir():
    name = f"{below}/{path.name}" if below else path.name
    if path.is_dir():
      yield from _files(place, name)
    else:
      yield name


def _fingerprint(path: epath.Path) -> list[Any]:
  """[size in bytes, SHA-256] of a file, read in pieces."""
  size, digest = 0, hashlib.sha256()
  with path.open("rb") as file:
    while piece := file.read(_CHUNK):
      size += len(piece)
      digest.update(piece)
  return [size, digest.hexdigest()]
