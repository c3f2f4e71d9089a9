# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or are not used, and a polite stop on a signal."""

from __future__ import annotations

from tgt_jax.checkpoint.checkpoints import Checkpoints, Restored
from tgt_jax.checkpoint.integrity import CheckpointError
from tgt_jax.checkpoint.preemption import PreemptionGuard

__all__ = ["CheckpointError", "Checkpoints", "PreemptionGuard", "Restored"]
