# SPDX-License-Identifier: Apache-2.0
"""What is asked of Orbax's checkpoint manager, and what is asked of it not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

TEMPORARY = ".orbax-checkpoint-tmp"  # In the name of what is being written.
_PLACE = os.path.dirname(ocp.__file__)


def open_manager(
  directory: epath.Path,
  *,
  kept: Callable[[Sequence[int]], set[int]],
  before_rename: Callable[[], None],
  clean: bool,
  read_only: bool,
) -> ocp.CheckpointManager:
  """An asynchronous manager of all checkpoints in a directory.

  Args:
    directory: made if missing, unless `read_only`.
    kept: of these steps, those that stay.
    before_rename: called in the background when the arrays of a checkpoint are
      written, before it gets its final name.
    clean: remove what an interrupted save left behind.
    read_only: write, rename and delete nothing.
  """
  return _Manager(
    directory,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=_Preserve(kept),
      async_options=ocp.options.AsyncOptions(
        post_finalization_callback=before_rename
      ),
      cleanup_tmp_directories=clean,
      create=not read_only,
      save_interval_steps=0 if read_only else 1,
      read_only=read_only,
    ),
  )


class _Manager(ocp.CheckpointManager):
  """Orbax's, but for a question that only `PreemptionGuard` may ask."""

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class _Preserve(preservation_policy.PreservationPolicy):
  """Which checkpoints stay, as a function of their steps."""

  def __init__(self, kept: Callable[[Sequence[int]], set[int]]):
    self._kept = kept

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Answers for each checkpoint, in order."""
    del context
    kept = self._kept([info.step for info in checkpoints])
    return [info.step in kept for info in checkpoints]


class Quiet(logging.Filter):
  """Drops Orbax's own log records; what matters is raised as an error."""

  def filter(self, record: logging.LogRecord) -> bool:
    """False for a record that Orbax wrote."""
    return not record.pathname.startswith(_PLACE)
