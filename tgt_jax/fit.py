# SPDX-License-Identifier: Apache-2.0
"""The one training loop: generators, labelers and students all run on it.

Nothing in it waits for the device: metrics are summed there, and the sums of
one window are fetched after the next window's first step is under way.
"""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from tgt_jax import data, distributed, training
from tgt_jax.checkpoint import Checkpoints, PreemptionGuard
from tgt_jax.progress import Progress
from tgt_jax.teachers import Frozen
from tgt_jax.types import Method, Params, TrainState
from tgt_jax.writers import Writer


class Preempted(Exception):
  """A signal asked to stop; everything is saved."""


class Diverged(RuntimeError):
  """A loss is no longer a number."""


class Runtime(NamedTuple):
  """What every job of a run shares.

  Attributes:
    mesh: the devices; `None` for one device, where nothing is split.
    rules: (regex, spec) pairs that split parameters, see
      `distributed.state_shardings`.
    guard: answers whether to stop.
    writer: receives metrics.
    quick: compile quickly instead of well, for a few updates and images.
  """

  mesh: jax.sharding.Mesh | None
  rules: tuple
  guard: PreemptionGuard
  writer: Writer
  quick: bool = False

  @property
  def shard(self) -> tuple[int, int]:
    """(index, count) of this process, for reading data."""
    return jax.process_index(), jax.process_count()

  @property
  def per_example(self) -> Callable[[Callable], Callable]:
    """See `distributed.per_example`."""
    return distributed.per_example(self.mesh)

  def jit(self, function: Callable, **options: Any) -> Callable:
    """`jax.jit`, compiled as this run wants it."""
    quick = training.quick_options() if self.quick else {}
    return jax.jit(function, **options, **quick)

  def put(self, batch: Any, *, seeds: bool = True) -> Any:
    """Moves a host batch, [S, B, ...] or [B, ...], to the devices."""
    if self.mesh is None:
      return distributed.put_batch(batch, None)
    sharding = distributed.batch_sharding(self.mesh, leading_seeds=seeds)
    return distributed.put_batch(batch, sharding)

  def replicate(self, tree: Any) -> Any:
    """A whole copy on every device."""
    if self.mesh is None:
      return jax.device_put(tree)
    return distributed.replicate(tree, self.mesh)

  def shardings(self, tree: Any) -> Any:
    """Where the leaves of a state live; `None` on one device."""
    if self.mesh is None:
      return None
    return distributed.state_shardings(tree, self.mesh, self.rules)

  def gather(self, tree: Any) -> Any:
    """Whole arrays on this process's host."""
    if jax.process_count() > 1:
      return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


class Cadence(NamedTuple):
  """Updates between two of each; 0 means at the end alone."""

  log: int
  evaluate: int
  checkpoint: int

  def due(self, what: str, step: int, last: int) -> bool:
    """Whether `what` is due after `step` updates of `last`."""
    every = getattr(self, what)
    return step == last or bool(every and step % every == 0)


class Job(NamedTuple):
  """One thing to train.

  Attributes:
    name: the arm, or the part of the teacher.
    method: how one batch changes it.
    seeds: trained together as one program; each has its own axis entry.
    batches: index-addressed; element i is the batch of update i, every leaf
      [S, B, ...].
    steps: updates in all; 0 leaves the state as it begins.
    directory: where checkpoints go.
    cadence: how often to log, evaluate and save.
    evaluate: `state -> {metric: [S]}`, written and kept with checkpoints;
      without metrics nothing is.
    best_metric: the metric whose best checkpoint is kept too.
    start: arrays to begin with instead of drawn ones, by participant; `None`
      in place of a leaf leaves the drawn one.
    stream: of random numbers; see `training.roots`.
  """

  name: str
  method: Method
  seeds: tuple[int, ...]
  batches: Any
  steps: int
  directory: pathlib.Path
  cadence: Cadence
  evaluate: Callable[[TrainState], Mapping[str, np.ndarray]] | None = None
  best_metric: str | None = None
  start: Mapping[str, Frozen] | None = None
  stream: str = ""


class Fitted(NamedTuple):
  """What training leaves.

  Attributes:
    state: after the last update, every leaf [S, ...].
    ms_per_step: median milliseconds of an update of all seeds together,
      without compilation, evaluation and saving; NaN where nothing was left
      to time.
    seconds: wall time of this process on the job.
  """

  state: TrainState
  ms_per_step: float
  seconds: float


def fit(job: Job, frozen: Params, runtime: Runtime) -> Fitted:
  """Trains until `job.steps`, resuming from the latest checkpoint.

  Args:
    job: what to train.
    frozen: the teacher's arrays, an argument of every step.
    runtime: devices, signals, writer.

  Raises:
    Preempted: asked to stop; the state is saved.
    Diverged: a loss is not finite; names the window and the last checkpoint.
  """
  began = time.monotonic()
  roots = runtime.replicate(training.roots(job.seeds, job.stream))
  batch = runtime.put(job.batches[0])
  state, shardings = _initial_state(job, batch, roots, runtime)
  state = _begin(state, job.start or {})
  if not job.steps:
    return Fitted(state, float("nan"), time.monotonic() - began)
  with Checkpoints(
    job.directory / "checkpoints", best_metric=job.best_metric
  ) as checkpoints:
    iterator = data.iterate(job.batches, start_step=0)
    restored = checkpoints.restore(state)
    start = 0
    if restored is not None:
      start, state = restored.step, restored.state
      iterator.set_state(restored.iterator_state)
      print(f"{job.name}: resumed at update {start}", flush=True)
    runtime.writer.rewind(start, arm=job.name, seed=job.seeds)
    loop = _Loop(job, frozen, runtime, checkpoints, iterator, roots)
    state = loop.run(state, shardings, start)
  seconds = time.monotonic() - began
  return Fitted(state, loop.clock.median_ms(), seconds)


def _begin(state: TrainState, start: Mapping[str, Frozen]) -> TrainState:
  """Puts arrays in the place of drawn ones, the same for every seed."""

  def put(drawn, given):
    if given is None:
      return drawn
    whole = np.broadcast_to(np.asarray(given, drawn.dtype), drawn.shape)
    return distributed.place(whole, drawn.sharding)

  def fill(tree, part):
    given = {name: getattr(arrays, part) for name, arrays in start.items()}
    filled = {
      name: jax.tree.map(put, tree[name], arrays)
      for name, arrays in given.items()
    }
    return {**tree, **filled}

  params = fill(state.params, "params")
  return state._replace(
    params=params,
    model_state=fill(state.model_state, "state"),
    ema=None if state.ema is None else fill(state.ema, "params"),
  )


def _initial_state(job, batch, roots, runtime):
  """The state on its devices, and the shardings that keep it there."""
  init = training.initializer(job.method)
  shapes = jax.eval_shape(init, roots, batch)
  shardings = runtime.shardings(shapes)
  return training.jit_once(init, out_shardings=shardings)(
    roots, batch
  ), shardings


class _Clock:
  """Milliseconds per update, without what is not training."""

  def __init__(self):
    self._windows: list[tuple[float, int]] = []
    self._mark = time.perf_counter()
    self._step = -1
    self._aside = 0.0

  def pause(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Runs `function` off the clock."""
    start = time.perf_counter()
    try:
      return function(*args, **kwargs)
    finally:
      self._aside += time.perf_counter() - start

  def window(self, step: int) -> None:
    """Ends a window at update `step`; the first one compiles and is left out."""
    now = time.perf_counter()
    if self._step >= 0 and step > self._step:
      spent = now - self._mark - self._aside
      self._windows.append((spent, step - self._step))
    self._mark, self._step, self._aside = now, step, 0.0

  def median_ms(self) -> float:
    """Median over the windows."""
    if not self._windows:
      return float("nan")
    return 1e3 * statistics.median(s / n for s, n in self._windows)


class _Loop:
  """One run of the loop; only the host's bookkeeping has state."""

  def __init__(self, job, frozen, runtime, checkpoints, iterator, roots):
    self.job, self.frozen, self.runtime = job, frozen, runtime
    self.checkpoints, self.iterator = checkpoints, iterator
    self.roots = roots
    self.clock = _Clock()
    self.logged = 0

  def run(self, state: TrainState, shardings: Any, start: int) -> TrainState:
    """Updates `state` from update `start` to the last."""
    job = self.job
    self.logged = start
    if start >= job.steps:
      return state
    totals = training.empty_totals(
      job.method,
      state,
      self.frozen,
      self.runtime.put(job.batches[0]),
      self.roots,
    )
    options = {} if shardings is None else {"out_shardings": (shardings, None)}
    if self.runtime.quick:
      options |= training.quick_options()
    step = training.make_step(job.method, **options)
    empty = lambda: jax.tree.map(jnp.zeros_like, totals)
    window, waiting = empty(), None
    with Progress(
      job.steps, job.name, initial=start, idle=training.compile_seconds
    ) as progress:
      for done in range(start + 1, job.steps + 1):
        # The step before still runs; the iterator is never ahead of `done`,
        # so that its state belongs to the checkpoint of this update.
        batch = self.runtime.put(next(self.iterator))
        state, window = step(state, window, self.frozen, batch, self.roots)
        if waiting:
          self.log(*waiting)
          waiting = None
        progress.update(done)
        if job.cadence.due("log", done, job.steps):
          waiting, window = (done, window), empty()
        stop = self.runtime.guard.requested(done)
        scores = {}
        if job.evaluate and job.cadence.due("evaluate", done, job.steps):
          scores = self.evaluate(state, done)
        if stop or job.cadence.due("checkpoint", done, job.steps):
          if waiting:
            self.log(*waiting)
            waiting = None
          self.save(state, window, done, scores)
        if stop and done < job.steps:
          self.checkpoints.wait()
          raise Preempted(f"{job.name}: saved at update {done}")
    return state

  def log(self, step: int, totals: Any) -> None:
    """Fetches one window's sums and writes their means."""
    totals = jax.device_get(totals)
    self.clock.window(step)
    with np.errstate(invalid="ignore"):  # What no update counted is NaN.
      means = {name: m.total / m.count for name, m in totals.items()}
    self.check_finite(means, step)
    self.runtime.writer.write(
      step, means, arm=self.job.name, seed=self.job.seeds
    )
    self.logged = step

  def check_finite(self, means: Mapping[str, np.ndarray], step: int) -> None:
    """Raises `Diverged` unless the loss of every seed is a number."""
    finite = np.isfinite(means["loss/total"])
    if np.all(finite):
      return
    bad = [s for s, ok in zip(self.job.seeds, finite, strict=True) if not ok]
    saved = self.checkpoints.latest_step
    where = (
      f"the last good checkpoint is update {saved} in"
      f" {self.checkpoints.directory}"
      if saved
      else "no checkpoint was saved yet"
    )
    raise Diverged(
      f"{self.job.name}: the loss is not finite between updates"
      f" {self.logged + 1} and {step} (seeds {bad}); {where}. Lower"
      " optimizer.learning_rate, set optimizer.clip_norm, or look for bad"
      " values in the data"
    )

  def evaluate(self, state: TrainState, step: int) -> dict[str, float]:
    """Scores and writes them; returns their means over the seeds."""
    scores = self.clock.pause(self.job.evaluate, state)
    if not scores:
      return {}
    self.runtime.writer.write(
      step, scores, arm=self.job.name, seed=self.job.seeds
    )
    return {name: float(np.mean(value)) for name, value in scores.items()}

  def save(
    self,
    state: TrainState,
    window: Any,
    step: int,
    scores: Mapping[str, float],
  ) -> None:
    """Saves a state whose losses so far are finite."""
    count = jax.device_get(window["loss/total"].count)
    if np.all(count > 0):
      total = jax.device_get(window["loss/total"].total)
      self.check_finite({"loss/total": total / count}, step)
    # An update can end in a NaN whose loss nobody has seen yet.
    if not bool(training.jit_once(_all_finite)(state.params)):
      self.check_finite(
        {"loss/total": np.full(len(self.job.seeds), np.nan)}, step
      )
    self.clock.pause(
      self.checkpoints.save,
      step,
      state,
      iterator_state=self.iterator.get_state(),
      metrics=dict(scores) or None,
    )


def _all_finite(params: Params) -> jax.Array:
  leaves = jax.tree.leaves(params)
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
