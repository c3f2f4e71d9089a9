# SPDX-License-Identifier: Apache-2.0
"""Programs run in processes of their own: many devices, several hosts."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

from absl import flags

ROOT = pathlib.Path(__file__).resolve().parents[1]


def forget_flags() -> None:
  """Brings the program's flags to before they were read."""
  flags.FLAGS.unparse_flags()
  for name in [n for n in flags.FLAGS if n.startswith("config.")]:
    delattr(flags.FLAGS, name)  # An argument that changed the experiment.


def start(
  code: str, *arguments: object, devices: int = 1, **environment: str
) -> subprocess.Popen[str]:
  """Starts Python on `code`, with its output to be read from both pipes.

  Args:
    code: a program; common indentation is removed.
    *arguments: its `sys.argv[1:]`.
    devices: how many CPU devices JAX shows it.
    **environment: variables beside the inherited ones.
  """
  return subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "PYTHONUNBUFFERED": "1",
      "PYTHONWARNINGS": "error",
      "JAX_PLATFORMS": "cpu",
      "JAX_NUMPY_RANK_PROMOTION": "raise",
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']}"
      f" --xla_force_host_platform_device_count={devices}",
      **environment,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
  """Waits for the end; returns stdout, or raises with all that was printed."""
  try:
    out, err = process.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    process.kill()
    out, err = process.communicate()
    raise AssertionError(f"no end after {timeout} s:\n{out}\n{err}") from None
  assert process.returncode == 0, f"exit {process.returncode}:\n{out}\n{err}"
  return out


def run_with_devices(
  code: str, devices: int, *arguments: object, timeout: float = 120
) -> str:
  """Runs `code` in a process that sees so many CPU devices; its stdout.

  Raises:
    AssertionError: with its output, where it fails (warnings are errors there
      too) or takes longer than `timeout` seconds.
  """
  return finish(start(code, *arguments, devices=devices), timeout)


def start_processes(
  code: str, count: int, *arguments: object, devices: int = 1
) -> list[subprocess.Popen[str]]:
  """Starts `count` copies of `code` that can join by `initialize("auto")`."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  return [
    start(
      code,
      *arguments,
      devices=devices,
      JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
      JAX_NUM_PROCESSES=str(count),
      JAX_PROCESS_ID=str(index),
    )
    for index in range(count)
  ]


def run_processes(
  code: str,
  count: int,
  *arguments: object,
  devices: int = 1,
  timeout: float = 120,
) -> list[str]:
  """Runs `count` joined copies of `code`; their stdouts, in order."""
  processes = start_processes(code, count, *arguments, devices=devices)
  try:
    return [finish(process, timeout) for process in processes]
  finally:
    stop(processes)


def stop(processes: list[subprocess.Popen[str]]) -> None:
  """Ends what still runs of the processes started here."""
  for process in processes:
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
    process.communicate()


@contextlib.contextmanager
def small_disk(limit: int) -> Iterator[None]:
  """Lets no file grow beyond `limit` bytes; the system says so by EFBIG."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
