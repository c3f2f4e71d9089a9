# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: how they find each other, who writes, who waits."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

import jax
from jax.experimental import multihost_utils

_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_COUNT, _INDEX = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_TPU_METADATA = (
  "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
  "worker-network-endpoints"
)


def initialize(
  multihost: Literal["auto", "on", "off"] = "auto",
  *,
  timeout_seconds: int = 300,
) -> bool:
  """Joins the other processes of this run; call it before any other JAX call.

  The addresses come from `JAX_COORDINATOR_ADDRESS` (host:port of process 0),
  `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` where they are set (JAX itself reads
  only the first), and for the rest from what JAX knows of TPU pods, Slurm,
  Open MPI and Kubernetes.

  Args:
    multihost: "auto" joins where one of these environments is detected, and
      does nothing on a plain host; "on" always joins; "off" never.
    timeout_seconds: how long to wait for the others.

  Returns:
    Whether this process is one of a joined run.

  Raises:
    ValueError: an unknown `multihost`.
    RuntimeError: joining failed. Never swallowed: several processes that each
      believe to be alone would train several models into one directory.
  """
  if multihost not in ("auto", "on", "off"):
    raise ValueError(
      f"multihost must be 'auto', 'on' or 'off', got {multihost!r}"
    )
  if jax.distributed.is_initialized():
    return True
  if multihost == "off":
    return False
  found = detect_cluster()
  if multihost == "auto" and found is None:
    return False
  _join(
    f"multihost={multihost} ({found or 'no cluster detected'})", timeout_seconds
  )
  return True


def detect_cluster() -> str | None:
  """Names the cluster environment this process was started in, if any.

  A job of a single process does not count. Reads environment variables; on a
  machine with TPU chips also asks Google's metadata server.
  """
  env = os.environ
  if {_ADDRESS, _COUNT, _INDEX} & set(env):
    return f"{_ADDRESS} and its like"
  # A shell inside an allocation has some of Slurm's variables; only a task
  # started by srun has these.
  if "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", 1)) > 1:
    return "Slurm"
  # Open MPI before and since version 5 (which JAX does not know, and then says
  # so), and the others.
  for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
    if int(env.get(variable, 1)) > 1:
      return "MPI"
  # A pod of its own (a notebook) is no cluster; one of an indexed job is.
  if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
    return "Kubernetes"
  return "TPU pod" if _tpu_hosts() > 1 else None


def _tpu_hosts() -> int:
  """Number of hosts of the TPU slice (or slices) this host belongs to."""
  if int(os.environ.get("MEGASCALE_NUM_SLICES") or 1) > 1:
    return 2
  for variable in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
    if os.environ.get(variable):
      return len(os.environ[variable].split(","))
  chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
  if not chips or "TPU_SKIP_MDS_QUERY" in os.environ:
    return 0
  request = urllib.request.Request(
    _TPU_METADATA, headers={"Metadata-Flavor": "Google"}
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as reply:
      return len(reply.read().decode().split(","))
  except (urllib.error.URLError, TimeoutError):
    return 0  # Not a virtual machine of Google's.


def _join(where: str, timeout_seconds: int) -> None:
  missing = [v for v in (_ADDRESS, _COUNT, _INDEX) if v not in os.environ]
  remedy = (
    (f"Not set: {', '.join(missing)}. " if missing else "")
    + f"Start every process with {_ADDRESS}=HOST:PORT of process 0, {_COUNT}"
    f" and {_INDEX}, or under Slurm, Open MPI, Kubernetes or on a TPU pod; for"
    " one process alone use --multihost=off"
  )
  # Past the deadline JAX ends the process with a stack trace of its own, which
  # Python cannot catch; so the explanation comes a little before.
  complaint = threading.Timer(
    0.9 * timeout_seconds,
    lambda: os.write(
      2,
      f"{where}: the other processes have not come in"
      f" {0.9 * timeout_seconds:.0f} s; giving up soon. {remedy}\n".encode(),
    ),
  )
  complaint.daemon = True
  complaint.start()
  try:
    jax.distributed.initialize(
      coordinator_address=os.environ.get(_ADDRESS),
      num_processes=_integer_variable(_COUNT),
      process_id=_integer_variable(_INDEX),
      initialization_timeout=timeout_seconds,
    )
  except Exception as error:
    raise RuntimeError(
      f"{where}: could not join the other processes:"
      f" {str(error).rstrip('.')}. {remedy}"
    ) from error
  finally:
    complaint.cancel()


def _integer_variable(name: str) -> int | None:
  text = os.environ.get(name)
  if text is None:
    return None
  try:
    return int(text)
  except ValueError as error:
    raise ValueError(f"{name} must be a whole number, got {text!r}") from error


def is_main_process() -> bool:
  """Whether this process writes what a run writes once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has called this with the same name."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
