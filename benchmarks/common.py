# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: taking turns, tables, and what ran where.

Contenders take turns in every round, so that a busy machine slows all of them,
and a ratio is the median of the rounds' own ratios. On a machine that others
use at the same time wall time says little; `--clock=cpu --threads=1` then
counts the processor time of one core, which waiting does not enter.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch")
_PACKAGES += ("transformers",)
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Timings:
  """Milliseconds per call of several contenders, one entry per round."""

  def __init__(self, rounds: Mapping[str, Sequence[float]]):
    self.rounds = {name: list(values) for name, values in rounds.items()}

  def __contains__(self, name: str) -> bool:
    return name in self.rounds

  def ms(self, name: str) -> float:
    """Median over the rounds."""
    return statistics.median(self.rounds[name])

  def best(self, name: str) -> float:
    """The fastest round: what an idle machine would show."""
    return min(self.rounds[name])

  def ratio(self, name: str, *to: str) -> float:
    """How many times the sum of `to` one call of `name` takes."""
    pairs = zip(self.rounds[name], *(self.rounds[t] for t in to), strict=True)
    return statistics.median(first / sum(rest) for first, *rest in pairs)

  def fastest(self, names: Sequence[str]) -> str:
    """The contender among `names` with the smallest median."""
    return min(names, key=self.ms)

  def report(self) -> dict[str, dict[str, float]]:
    """For JSON."""
    return {
      name: {
        "median_ms": self.ms(name),
        "best_ms": self.best(name),
        "rounds": len(values),
      }
      for name, values in self.rounds.items()
    }


def take_turns(
  contenders: Mapping[str, Callable[[], Any]],
  *,
  rounds: int,
  seconds: float,
  clock: str = "wall",
) -> Timings:
  """Times functions that wait for their own result.

  Args:
    contenders: by name; each is called three times before the first round.
    rounds: how often every contender has its turn.
    seconds: length of one turn, about; at least one call.
    clock: "wall", or "cpu" for the processor time of this process.
  """
  now, calls = _CLOCKS[clock], {}
  for name, function in contenders.items():
    for _ in range(3):
      start = time.perf_counter()
      function()
    spent = time.perf_counter() - start
    calls[name] = max(1, round(seconds / max(spent, 1e-6)))
  times: dict[str, list[float]] = {name: [] for name in contenders}
  for _ in range(rounds):
    for name, function in contenders.items():
      start = now()
      for _ in range(calls[name]):
        function()
      times[name].append((now() - start) / calls[name] * 1e3)
  return Timings(times)


def parser(doc: str) -> argparse.ArgumentParser:
  """A parser with the options that every benchmark here has."""
  options = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--json", help="file to write the numbers to")
  options.add_argument("--rounds", type=int, default=15)
  options.add_argument(
    "--seconds", type=float, default=0.2, help="one turn of one contender"
  )
  options.add_argument("--clock", choices=sorted(_CLOCKS), default="wall")
  options.add_argument(
    "--threads", type=int, default=0, help="cores to use; 0 takes all"
  )
  return options


def prepare(threads: int) -> int:
  """Pins the process, so that every library has the same number of threads.

  Freed memory is kept, as `tgt_jax.main` does; GLIBC_TUNABLES or MALLOC_*
  settings decide otherwise. Must run before JAX starts its backend. Returns
  the number of cores.

  Args:
    threads: cores to use; 0 takes all.
  """
  from tgt_jax import distributed

  distributed.keep_freed_memory()
  if not hasattr(os, "sched_getaffinity"):  # macOS has no affinity.
    return os.cpu_count() or 1
  if threads:
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
      raise ValueError(
        f"--threads={threads}: this process may use {len(allowed)} cores"
      )
    os.sched_setaffinity(0, allowed[-threads:])
  return len(os.sched_getaffinity(0))


def load_config(path: str, arg: str) -> Any:
  """The config of an experiment file, `get_config(arg)`."""
  spec = importlib.util.spec_from_file_location("experiment", path)
  if spec is None or spec.loader is None:
    raise ValueError(f"--config: {path} is no Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


def _cpu_name() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  if info.is_file():
    for line in info.read_text().splitlines():
      if line.startswith("model name"):
        return line.split(":", 1)[1].strip()
  return platform.processor() or platform.machine()


def _commit() -> str:
  def git(*command: str) -> str:
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
      ["git", *command], cwd=here, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

  try:
    changed = "+changes" if git("status", "--porcelain") else ""
    return git("rev-parse", "--short=12", "HEAD") + changed
  except (OSError, subprocess.CalledProcessError):
    return "unknown"


def environment(cores: int) -> dict[str, Any]:
  """What ran where: commit, versions, hardware, load of the machine."""
  import jax

  versions = {"python": platform.python_version()}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  device = jax.devices()[0]
  load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
  return {
    "commit": _commit(),
    "versions": versions,
    "cpu": _cpu_name(),
    "cores": cores,
    "device": f"{device.platform} ({device.device_kind})",
    "load_average": load,
  }


def describe(where: Mapping[str, Any]) -> str:
  """The environment as two lines."""
  versions = " ".join(f"{k} {v}" for k, v in where["versions"].items())
  return (
    f"{where['cpu']}, {where['cores']} cores, {where['device']}, load"
    f" {where['load_average']:.1f}\ncommit {where['commit']}, {versions}"
  )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Aligned text; numbers are given already formatted."""
  cells = [[str(c) for c in row] for row in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = []
  for row in cells:
    first = row[0].ljust(widths[0])
    rest = (c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))
    lines.append("  ".join((first, *rest)))
  return "\n".join(lines)


def finish(path: str | None, report: Mapping[str, Any]) -> None:
  """Writes the JSON file where one was asked for."""
  if path:
    pathlib.Path(path).write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwrote {path}")
