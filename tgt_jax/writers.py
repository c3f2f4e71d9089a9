# SPDX-License-Identifier: Apache-2.0
"""Where a run's numbers go while it runs: files, TensorBoard, the console.

A metric writer has four methods: `write(step, scalars, *, arm, seed)`,
`rewind(step, *, arm, seed)`, `flush()` and `close()`. `scalars` maps names
such as `loss/total` to numbers; with `seed` a sequence of seeds, a value may
also be a sequence of as many numbers. Values are converted here, so that a
caller may hand over device arrays when they are ready.

A resumed run calls `rewind` once per arm with the step that it restored: what
was written beyond that step is about to be written again.

`metrics.jsonl` holds one JSON object a line, in the order of writing:

  {"step": 100, "arm": "tgt", "seed": 0, "time": 1.7e9, "loss/total": 0.31}
  {"step": 100, "arm": "kd", "seeds": [0, 1], "time": …, "loss/total": [1, 2]}

`time` is in seconds since 1970, and a number that is not finite is `null`.
"""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tgt_jax.files import atomic_write, clear_disk_errors
from tgt_jax.progress import Progress

__all__ = [
  "JsonlWriter",
  "MultiWriter",
  "Progress",
  "TensorBoardWriter",
  "WandbWriter",
  "Writer",
  "atomic_write",
  "plain",
  "read_metrics",
]

Scalars = Mapping[str, Any]
Seeds = int | Sequence[int] | None

_RESERVED = frozenset({"step", "arm", "seed", "seeds", "time"})


class Writer(Protocol):
  """What receives the metrics of a run."""

  def write(
    self, step: int, scalars: Scalars, *, arm: str, seed: Seeds = None
  ) -> None:
    """Records the numbers of one step of an arm."""

  def rewind(self, step: int, *, arm: str, seed: Seeds = None) -> None:
    """Forgets what was recorded of an arm beyond a step."""

  def flush(self) -> None:
    """Hands everything to the system."""

  def close(self) -> None:
    """Ends the writing."""


def plain(value: Any) -> float | list[float | None] | None:
  """Returns a number or a vector as what strict JSON can hold.

  Nine significant digits keep every float32; infinities and NaN become None.

  Raises:
    ValueError: an array of more than one axis.
  """
  array = np.asarray(value).astype(np.float64)
  if array.ndim > 1:
    raise ValueError(f"expected a number or a vector, got shape {array.shape}")

  def digits(number: Any) -> float | None:
    return float(f"{number:.9g}") if np.isfinite(number) else None

  return [digits(n) for n in array] if array.ndim else digits(array)


def _record(step: int, scalars: Scalars, arm: str, seed: Seeds) -> dict:
  """Returns one line of `metrics.jsonl` as a mapping, checked."""
  record: dict[str, Any] = {"step": int(step), "arm": arm}
  count = None
  if isinstance(seed, int | np.integer):
    record["seed"] = int(seed)
  elif seed is not None:
    record["seeds"] = [int(s) for s in seed]
    count = len(record["seeds"])
  record["time"] = round(time.time(), 3)
  for name, value in scalars.items():
    if name in _RESERVED:
      raise ValueError(f"a metric cannot be called {name!r}; add a prefix")
    value = plain(value)
    if isinstance(value, list) and len(value) != count:
      raise ValueError(
        f"{name}: {len(value)} values for seed={seed!r}; expected one number"
        " or one number per seed"
      )
    record[name] = value
  return record


def _seeds_of(record: Mapping[str, Any]) -> tuple[int, ...]:
  return tuple(record.get("seeds", ())) or (
    (record["seed"],) if "seed" in record else ()
  )


class JsonlWriter:
  """Appends one line per `write` to a file, each whole when it returns.

  Args:
    path: the file; a last line that was cut short by a crash is removed.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path)
    self.path.parent.mkdir(parents=True, exist_ok=True)
    if self.path.is_file():
      data = self.path.read_bytes()
      if data and not data.endswith(b"\n"):
        os.truncate(self.path, data.rfind(b"\n") + 1)
    with clear_disk_errors(self.path):
      self.path.open("ab").close()  # A folder that is read-only fails now.

  def write(
    self, step: int, scalars: Scalars, *, arm: str, seed: Seeds = None
  ) -> None:
    """Appends one line.

    Raises:
      OSError: the disk is full.
      ValueError: a value that is neither a number nor one number per seed.
    """
    record = _record(step, scalars, arm, seed)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    data = memoryview(line.encode())
    # Opened anew each time: about 30 microseconds, and nothing to leave open.
    with (
      clear_disk_errors(self.path),
      open(self.path, "ab", buffering=0) as file,
    ):
      while data:
        data = data[file.write(data) :]

  def rewind(self, step: int, *, arm: str, seed: Seeds = None) -> None:
    """Drops the lines of `arm` beyond `step`; with `seed`, only of that one."""
    wanted = (seed,) if isinstance(seed, int) else tuple(seed or ())

    def beyond(record: Mapping[str, Any]) -> bool:
      seeds = _seeds_of(record)
      return (
        record["arm"] == arm
        and record["step"] > step
        and (not wanted or not seeds or bool(set(wanted) & set(seeds)))
      )

    kept = [line for line, record in _lines(self.path) if not beyond(record)]
    atomic_write(self.path, b"".join(kept))

  def flush(self) -> None:
    """Does nothing: every line is with the system when `write` returns."""

  def close(self) -> None:
    """Does nothing: no file stays open."""


def _lines(path: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Yields each whole line of a metrics file, with what it says."""
  for number, line in enumerate(path.read_bytes().splitlines(True), 1):
    if not line.endswith(b"\n"):
      return  # The process died while it wrote this one.
    try:
      record = json.loads(line)
      record["step"], record["arm"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{path}, line {number} is not a line of metrics ({error!r}); remove"
        " it, or the file"
      ) from error
    yield line, record


def read_metrics(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Returns the lines of a metrics file; a last one cut short is left out.

  Raises:
    FileNotFoundError: no such file.
    ValueError: a line that is no JSON object with a step and an arm.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no file {path}")
  return [record for _, record in _lines(path)]


class TensorBoardWriter:
  """Event files, one folder per arm and seed (the extra `tensorboard`).

  Args:
    path: the folder, for `tensorboard --logdir`.

  Raises:
    ImportError: tensorboardX is not installed.
  """

  def __init__(self, path: str | pathlib.Path):
    try:
      import tensorboardX
    except ImportError as error:
      raise ImportError(
        "TensorBoard output needs tensorboardX: pip install"
        " 'tgt_jax[tensorboard]', or switch the writer off"
      ) from error
    self._make = tensorboardX.SummaryWriter
    self._path = pathlib.Path(path)
    self._purge: dict[str, int] = {}
    self._writers: dict[tuple[str, int | None], Any] = {}

  def _writer(self, arm: str, seed: int | None) -> Any:
    key = (arm, seed)
    if key not in self._writers:
      folder = self._path / arm
      if seed is not None:
        folder = folder / f"seed{seed}"
      self._writers[key] = self._make(
        str(folder), purge_step=self._purge.get(arm)
      )
    return self._writers[key]

  def write(
    self, step: int, scalars: Scalars, *, arm: str, seed: Seeds = None
  ) -> None:
    """Adds one point to every curve of every seed."""
    record = _record(step, scalars, arm, seed)
    seeds = _seeds_of(record) or (None,)
    with clear_disk_errors(self._path):
      for index, one in enumerate(seeds):
        writer = self._writer(arm, one)
        for name in scalars:
          value = record[name]
          value = value[index] if isinstance(value, list) else value
          value = float("nan") if value is None else value
          writer.add_scalar(name, value, step, walltime=record["time"])

  def rewind(self, step: int, *, arm: str, seed: Seeds = None) -> None:
    """Tells TensorBoard to forget points beyond `step`; before any `write`."""
    del seed  # A purge concerns the event files of one arm.
    self._purge[arm] = step + 1

  def flush(self) -> None:
    """Writes what is still queued."""
    for writer in self._writers.values():
      writer.flush()

  def close(self) -> None:
    """Closes every event file."""
    for writer in self._writers.values():
      writer.close()
    self._writers.clear()


class WandbWriter:
  """Weights & Biases (the extra `wandb`); every arm has a step of its own.

  Args:
    **options: arguments of `wandb.init`, such as `project` and `mode`.

  Raises:
    ImportError: wandb is not installed.
  """

  def __init__(self, **options: Any):
    try:
      import wandb
    except ImportError as error:
      raise ImportError(
        "W&B output needs wandb: pip install 'tgt_jax[wandb]', or switch the"
        " writer off"
      ) from error
    self._run = wandb.init(**options)
    self._defined: set[str] = set()

  def write(
    self, step: int, scalars: Scalars, *, arm: str, seed: Seeds = None
  ) -> None:
    """Logs `arm/seed/name`; the arms of a run share no global step."""
    record = _record(step, scalars, arm, seed)
    for index, one in enumerate(_seeds_of(record) or (None,)):
      prefix = arm if one is None else f"{arm}/seed{one}"
      if prefix not in self._defined:
        self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
        self._defined.add(prefix)
      values = {f"{prefix}/step": step}
      for name in scalars:
        value = record[name]
        value = value[index] if isinstance(value, list) else value
        if value is not None:
          values[f"{prefix}/{name}"] = value
      self._run.log(values)

  def rewind(self, step: int, *, arm: str, seed: Seeds = None) -> None:
    """Does nothing: W&B cannot forget points."""

  def flush(self) -> None:
    """Does nothing: W&B uploads on its own."""

  def close(self) -> None:
    """Ends the W&B run."""
    self._run.finish()


class MultiWriter:
  """Hands everything to several writers, in order."""

  def __init__(self, *writers: Writer):
    self.writers = writers

  def write(
    self, step: int, scalars: Scalars, *, arm: str, seed: Seeds = None
  ) -> None:
    """Writes to each."""
    for writer in self.writers:
      writer.write(step, scalars, arm=arm, seed=seed)

  def rewind(self, step: int, *, arm: str, seed: Seeds = None) -> None:
    """Rewinds each."""
    for writer in self.writers:
      writer.rewind(step, arm=arm, seed=seed)

  def flush(self) -> None:
    """Flushes each."""
    for writer in self.writers:
      writer.flush()

  def close(self) -> None:
    """Closes each."""
    for writer in self.writers:
      writer.close()
