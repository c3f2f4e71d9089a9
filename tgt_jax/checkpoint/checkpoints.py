# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or are not used.

A checkpoint is a directory named by its step and holds

  state/         every array leaf of the state, written by Orbax, asynchronously
  host.json      iterator state, metrics, and the path, dtype and shape of
                 every leaf
  manifest.json  size and SHA-256 of every other file

The directory gets its name only when all three are written, so a process that
is killed leaves either a whole checkpoint or none. A disk that later loses or
flips bytes is noticed by the manifest (compressed array chunks carry no
checksum of their own): such a checkpoint is set aside and the one before it is
used, with a warning.

Leaves are stored under their path in the tree, not with their containers: the
containers (optax's NamedTuples, empty dicts, `None`) come from the target of
`restore`, and a target of another structure is an error that names the leaves
that differ.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from tgt_jax.checkpoint import integrity, leaves as leaves_lib, manager

PyTree = Any

_ASIDE = ".unreadable"


class Restored(NamedTuple):
  """What `Checkpoints.restore` returns.

  Attributes:
    step: the step the checkpoint was saved at.
    state: a tree like the target, with the saved values.
    iterator_state: what was given to `save`, as JSON keeps it (a tuple comes
      back as a list).
    metrics: the metrics given to `save`, or `{}`.
  """

  step: int
  state: PyTree
  iterator_state: dict[str, Any]
  metrics: dict[str, float]


class Checkpoints:
  """The checkpoints of one run: saved while training goes on, read verified.

  Every process of a run makes one and calls its methods in the same order; the
  directory must be one that all of them see.

  Args:
    directory: made if missing, unless `read_only`.
    keep: how many of the latest checkpoints stay.
    best_metric: name of a metric; the checkpoint with the best value of it
      stays too.
    best_mode: whether `"max"` or `"min"` of that metric is best.
    read_only: never writes, renames or deletes: for opening a run from a
      notebook, be it finished or still training elsewhere.

  Raises:
    ValueError: `keep` below 1, or an unknown `best_mode`.
    FileNotFoundError: `read_only` and there is no such directory.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 2,
    best_metric: str | None = None,
    best_mode: Literal["max", "min"] = "max",
    read_only: bool = False,
  ):
    if keep < 1:
      raise ValueError(f"keep must be >= 1, got {keep}")
    if best_mode not in ("max", "min"):
      raise ValueError(f"best_mode must be 'max' or 'min', got {best_mode!r}")
    self.directory = epath.Path(directory).expanduser().resolve()
    if read_only and not self.directory.is_dir():
      raise FileNotFoundError(f"no checkpoint directory at {self.directory}")
    self._keep, self._read_only = keep, read_only
    self._best_metric, self._best_mode = best_metric, best_mode
    # Written beside the arrays by Orbax's background thread; `save` replaces
    # it only after that thread has ended.
    self._pending: tuple[int, str] = (-1, "")
    self._quiet = manager.Quiet()
    logging.getLogger("absl").addFilter(self._quiet)
    try:
      self._manager = self._open(clean=not read_only)
    except OSError as error:
      logging.getLogger("absl").removeFilter(self._quiet)
      raise integrity.write_error(self.directory, None, error) from error

  def _open(self, *, clean: bool) -> ocp.CheckpointManager:
    return manager.open_manager(
      self.directory,
      kept=self._kept,
      before_rename=self._seal,
      clean=clean,
      read_only=self._read_only,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
    try:
      self.close()
    except integrity.CheckpointError as error:
      if value is None:
        raise
      # The error that ended the block says more than this consequence.
      warnings.warn(str(error), RuntimeWarning, stacklevel=2)

  def close(self) -> None:
    """Waits for the save under way and lets go of the directory."""
    try:
      self.wait()
    finally:
      self._manager.close()
      logging.getLogger("absl").removeFilter(self._quiet)

  @property
  def steps(self) -> list[int]:
    """All steps saved or being saved, in increasing order; not verified."""
    return sorted(self._manager.all_steps())

  @property
  def latest_step(self) -> int | None:
    """The last of `steps`."""
    return max(self.steps, default=None)

  def save(
    self,
    step: int,
    state: PyTree,
    *,
    iterator_state: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
  ) -> bool:
    """Copies `state` to the host and writes it while training goes on.

    The state may be donated or changed as soon as this returns. An earlier
    save is waited for, and its failure is raised here.

    Args:
      step: not below the latest step.
      state: tree of arrays and numbers; no PRNG keys.
      iterator_state: JSON-able; the main process's is kept for all processes.
      metrics: numbers to keep with the checkpoint.

    Returns:
      False where a checkpoint of this step is there already (nothing is
      written), True otherwise.

    Raises:
      ValueError: `step` below the latest one, or `best_metric` not among the
        metrics given.
      TypeError: `iterator_state` is not JSON-able, a leaf is not an array.
      CheckpointError: the disk is full or not writable.
    """
    if self._read_only:
      raise ValueError(f"{self.directory} was opened with read_only=True")
    leaves = leaves_lib.named_leaves(state)
    if metrics and self._best_metric and self._best_metric not in metrics:
      raise ValueError(
        f"best_metric {self._best_metric!r} is not among the metrics given:"
        f" {', '.join(sorted(metrics))}"
      )
    host = integrity.host_text(
      leaves_lib.described(leaves), iterator_state, metrics or {}
    )
    self.wait()
    latest = -1 if self.latest_step is None else self.latest_step
    if step == latest:
      return False
    if step < latest:
      raise ValueError(
        f"step {step} is below the latest checkpoint {latest} in"
        f" {self.directory}; continue from that one, or use another directory"
      )
    self._pending = (step, host)
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(leaves_lib.to_store(leaves))
        ),
        force=True,  # When to save is the caller's business.
      )
    except Exception as error:
      raise self._failed(error) from error
    return True

  def wait(self) -> None:
    """Waits for the save under way.

    Raises:
      CheckpointError: it failed: disk full, or not writable.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise self._failed(error) from error

  def restore(self, target: PyTree) -> Restored | None:
    """Reads the latest checkpoint that is whole.

    Args:
      target: tree of arrays or `jax.ShapeDtypeStruct`s. Leaves with a sharding
        are restored to it, others to the first local device; numpy leaves
        come back as numpy. Values are not looked at.

    Returns:
      What was saved, or None in a directory without checkpoints.

    Warns:
      RuntimeWarning: a damaged checkpoint was passed over (and, unless
        `read_only`, renamed so that its step can be saved again).

    Raises:
      CheckpointError: there are checkpoints and none is readable.
      ValueError: the checkpoint holds a state of another structure.
    """
    self.wait()
    return self._first_readable(sorted(self.steps, reverse=True), target)

  def restore_best(self, target: PyTree) -> Restored | None:
    """Like `restore`, for the checkpoint with the best `best_metric`.

    A run that validates keeps the checkpoint with the best "eval/balanced"
    beside the latest ones. Results are of the last step; this opens the best
    one afterwards, in a notebook for instance:

      with Checkpoints(
        folder, best_metric="eval/balanced", read_only=True
      ) as checkpoints:
        best = checkpoints.restore_best(target)

    Returns:
      What was saved, or None where no checkpoint carries that metric.

    Raises:
      ValueError: made without `best_metric`.
    """
    if self._best_metric is None:
      raise ValueError("restore_best needs Checkpoints(best_metric=...)")
    self.wait()
    return self._first_readable(self._best_first(self.steps), target)

  def _first_readable(
    self, steps: Sequence[int], target: PyTree
  ) -> Restored | None:
    problems: dict[int, str] = {}
    for step in steps:
      problem = self._agreed_problem(step)
      if problem is None:
        restored = self._load(step, target)
        # Only now: were none readable, the next start must find them too and
        # not begin anew in silence.
        self._set_aside(list(problems))
        return restored
      problems[step] = problem
      warnings.warn(
        f"checkpoint of step {step} in {self.directory} is unreadable"
        f" ({problem}); trying the next",
        RuntimeWarning,
        stacklevel=3,
      )
    if problems:
      each = "; ".join(f"step {step}: {why}" for step, why in problems.items())
      raise integrity.CheckpointError(
        f"no readable checkpoint in {self.directory}: {each}. Restore the files"
        " from a copy, or start anew in another directory"
      )
    return None

  def _load(self, step: int, target: PyTree) -> Restored:
    host = json.loads((self.directory / str(step) / integrity.HOST).read_text())
    wanted = leaves_lib.named_leaves(target)
    leaves_lib.check_same_leaves(
      leaves_lib.described(wanted), host["leaves"], self.directory / str(step)
    )
    abstract = leaves_lib.to_read(wanted)
    try:
      read = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      ).state
    except Exception as error:
      raise integrity.CheckpointError(
        f"cannot read the checkpoint of step {step} in {self.directory}: {error}"
      ) from error
    leaves = leaves_lib.filled(wanted, read)
    state = jax.tree.unflatten(jax.tree.structure(target), leaves)
    return Restored(step, state, host["iterator_state"], host["metrics"])

  def _agreed_problem(self, step: int) -> str | None:
    """Why the checkpoint cannot be used, the same on every process."""
    problem = None
    if jax.process_index() == 0:
      problem = integrity.problem(self.directory / str(step))
    if jax.process_count() > 1:
      bad = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
      problem = (problem or "see the main process") if int(bad) else None
    return problem

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again."""
    if self._read_only or not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        aside = self.directory / f"{step}{_ASIDE}"
        aside.rmtree(missing_ok=True)
        (self.directory / str(step)).rename(aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside checkpoints {steps}")
    self._manager.reload()

  def _seal(self) -> None:
    """Writes host.json and the manifest into the directory being saved."""
    step, host = self._pending
    found = sorted(self.directory.glob(f"{step}{manager.TEMPORARY}*"))
    # Object stores have no rename; there Orbax writes to the final place and
    # marks the end with a file of its own.
    place = found[-1] if found else self.directory / str(step)
    integrity.seal(place, host)

  def _failed(self, error: Exception) -> integrity.CheckpointError:
    """Clears away what a failed save left; returns the error to raise."""
    step = self._pending[0]
    if jax.process_count() == 1:
      # The manager keeps the failure; with one process a fresh one is safe
      # (with several the others would be waited for in vain). Threads of the
      # failed save may still be writing: what cannot be removed now is removed
      # at the next start.
      for path in self.directory.glob(f"{step}{manager.TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
      self._manager = self._open(clean=False)
    return integrity.write_error(self.directory, step, error)

  def _kept(self, steps: Sequence[int]) -> set[int]:
    """Which of these steps stay on disk."""
    kept = set(sorted(steps)[-self._keep :])
    if self._best_metric is not None:
      kept.update(self._best_first(steps)[:1])
    return kept

  def _metric(self, step: int) -> float:
    """The metric of a step for ranking; NaN where there is none."""
    try:
      if step == self._pending[0]:
        text = self._pending[1]
      else:
        text = (self.directory / str(step) / integrity.HOST).read_text()
      return float(json.loads(text)["metrics"][self._best_metric])
    except (OSError, KeyError, ValueError, TypeError):
      return math.nan

  def _best_first(self, steps: Sequence[int]) -> list[int]:
    sign = -1.0 if self._best_mode == "max" else 1.0
    ranked = [(sign * self._metric(step), -step) for step in steps]
    # Of equals the later one; a NaN is nobody's best.
    return [-s for m, s in sorted(r for r in ranked if not math.isnan(r[0]))]
