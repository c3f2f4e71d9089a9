# SPDX-License-Identifier: Apache-2.0
"""Optimisers and the compiled training step."""

from __future__ import annotations

from tgt_jax.training.optimizer import (
  OPTIMIZERS,
  SCHEDULES,
  make_optimizer,
  make_schedule,
)
from tgt_jax.training.step import (
  compile_seconds,
  empty_totals,
  init_state,
  initializer,
  jit_once,
  make_step,
  quick_options,
  roots,
)

__all__ = [
  "OPTIMIZERS",
  "SCHEDULES",
  "compile_seconds",
  "empty_totals",
  "init_state",
  "initializer",
  "jit_once",
  "make_optimizer",
  "make_schedule",
  "make_step",
  "quick_options",
  "roots",
]
