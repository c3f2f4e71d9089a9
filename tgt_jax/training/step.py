# SPDX-License-Identifier: Apache-2.0
"""The compiled step: one jit, the state donated, many seeds as one program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import rng as rng_lib
from tgt_jax.types import Array, Batch, Method, Metrics, Params, TrainState

Step = Callable[..., tuple[TrainState, Metrics]]

# The seeds of an arm that take turns share what is traced and compiled: JAX
# keeps programs by function, so the same method has to give the same one.
_kept = functools.lru_cache(maxsize=2)


def quick_options() -> dict[str, Any]:
  """Options of `jax.jit` for a quick compilation, where there are any.

  The older emitters of fusions compile in half the time of the newer ones.
  """
  if jax.default_backend() != "cpu":
    return {}
  options = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
  }
  return {"compiler_options": options}


def jit_once(function: Callable, **options: Any) -> Callable:
  """`jax.jit` for a program that runs once or twice, such as an initialiser.

  On a CPU it is compiled without optimisation: compiling costs more than
  running (an initialiser of three dense layers: 0.8 s instead of 6 s).
  """
  return jax.jit(function, **options, **quick_options())


@functools.cache
def _compilations() -> list[float]:
  """Seconds of every compilation from now on; the list grows by itself."""
  seconds: list[float] = []

  def listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      seconds.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return seconds


def compile_seconds() -> float:
  """Returns what this process compiled since the first call, in seconds."""
  return sum(_compilations())


def roots(seeds: tuple[int, ...], stream: str = "") -> Array:
  """One root key for each seed, shape [S].

  Args:
    seeds: of the things that are trained together.
    stream: sets apart what is trained with the same seed, such as a teacher
      and its student: networks of one kind would begin alike.
  """
  keys = [jax.random.key(seed) for seed in seeds]
  if stream:
    keys = [rng_lib.stream(key, stream) for key in keys]
  return jnp.stack(keys)


@_kept
def initializer(method: Method) -> Callable:
  """`init_state` of a method: the same function for the same method."""
  return functools.partial(init_state, method)


def init_state(method: Method, root: Array, batch: Batch) -> TrainState:
  """The states of all seeds, every leaf [S, ...].

  Args:
    method: what is trained.
    root: keys, [S].
    batch: the first batch, every leaf [S, B, ...].
  """
  return jax.vmap(method.init)(root, batch)


@_kept
def _traced_once(method: Method) -> Any:
  """The update as a function of its own, whose trace is kept.

  Tracing large networks takes as long as compiling small ones, and the step is
  traced for the shapes of its metrics too.
  """
  return jax.jit(method.update)


def make_step(method: Method, **jit_options: Any) -> Step:
  """Returns `step(state, totals, frozen, batch, root) -> (state, totals)`.

  State, totals, batch and root carry a leading axis of seeds, [S, ...]; with
  S > 1 the seeds are one vmapped program, with S = 1 the axis is taken off and
  put back. `totals` are metrics summed since the caller last emptied them, so
  that nothing waits for the device between two logs; a NaN in any step shows
  in the sum. `state` and `totals` are donated.

  Args:
    method: what is trained.
    **jit_options: passed to `jax.jit`, e.g. shardings.
  """
  step = _step_of(method)
  return jax.jit(step, donate_argnames=("state", "totals"), **jit_options)


@_kept
def _step_of(method: Method) -> Step:
  """The step of `make_step`, not jitted."""
  update = _traced_once(method)

  def one(state, totals, frozen, batch, root):
    rng = jax.random.fold_in(root, state.step)
    state, metrics = update(state, frozen, batch, rng)
    return state, jax.tree.map(jnp.add, totals, metrics)

  many = jax.vmap(one, in_axes=(0, 0, None, 0, 0))

  def step(state, totals, frozen, batch, root):
    if root.shape[0] > 1:
      return many(state, totals, frozen, batch, root)
    # A convolution vmapped over one seed would still become a grouped one.
    first = lambda tree: jax.tree.map(lambda a: a[0], tree)
    state, totals = one(
      first(state), first(totals), frozen, first(batch), root[0]
    )
    return jax.tree.map(lambda a: a[None], (state, totals))

  return step


def empty_totals(
  method: Method,
  state: TrainState,
  frozen: Params,
  batch: Batch,
  root: Array,
) -> Metrics:
  """Zeros of the shape of `make_step`'s totals; runs nothing."""
  one = lambda tree: jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree
  )
  shapes = jax.eval_shape(
    _traced_once(method), one(state), frozen, one(batch), one(root)
  )[1]
  seeds = root.shape[0]
  return jax.tree.map(lambda s: jnp.zeros((seeds, *s.shape), s.dtype), shapes)
