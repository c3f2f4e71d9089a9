# SPDX-License-Identifier: Apache-2.0
"""Devices and processes: start-up, memory, mesh, where arrays live."""

from __future__ import annotations

from tgt_jax.distributed.host_memory import (
  give_back_memory,
  keep_freed_memory,
)
from tgt_jax.distributed.local import collectives, per_example
from tgt_jax.distributed.processes import (
  barrier,
  detect_cluster,
  initialize,
  is_main_process,
)
from tgt_jax.distributed.sharding import (
  BATCH_AXES,
  batch_sharding,
  make_mesh,
  place,
  process_batch_size,
  put_batch,
  replicate,
  state_shardings,
)

__all__ = [
  "BATCH_AXES",
  "barrier",
  "batch_sharding",
  "collectives",
  "detect_cluster",
  "give_back_memory",
  "initialize",
  "is_main_process",
  "keep_freed_memory",
  "make_mesh",
  "per_example",
  "place",
  "process_batch_size",
  "put_batch",
  "replicate",
  "state_shardings",
]
