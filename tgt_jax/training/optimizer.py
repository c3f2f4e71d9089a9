# SPDX-License-Identifier: Apache-2.0
"""Optimisers by name, with a learning-rate schedule, clipping and decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tgt_jax import checks, registry


def _decay_mask(params: Any) -> Any:
  """Decay matrices and kernels, not biases, scales or codebooks' counts."""
  return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def adam(
  rate: Any,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  eps_root: float = 0.0,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Adam; AdamW where `weight_decay` is above zero."""
  own = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
  if weight_decay:
    return optax.adamw(rate, **own, weight_decay=weight_decay, mask=_decay_mask)
  return optax.adam(rate, **own)


def sgd(
  rate: Any,
  *,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """SGD with momentum; `weight_decay` is added to the gradient (L2)."""
  step = optax.sgd(rate, momentum=momentum or None, nesterov=nesterov)
  decay = optax.add_decayed_weights(weight_decay, mask=_decay_mask)
  return optax.chain(decay, step) if weight_decay else step


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  "adam": adam,
  "sgd": sgd,
}

SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
  "constant": lambda rate, steps: optax.constant_schedule(rate),
  "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
  "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
}


def make_schedule(
  *,
  learning_rate: float,
  steps: int,
  schedule: str = "cosine",
  warmup_steps: int = 0,
) -> optax.Schedule:
  """The learning rate by the number of updates done.

  Args:
    learning_rate: the highest rate, > 0.
    steps: updates in all; schedules end there.
    schedule: a key of SCHEDULES, what the rate does after the warm-up.
    warmup_steps: updates of linear warm-up from zero.

  Raises:
    ValueError: unknown schedule, or a value out of range.
  """
  checks.positive(learning_rate=learning_rate, steps=steps)
  checks.non_negative(warmup_steps=warmup_steps)
  if warmup_steps >= steps:
    raise ValueError(
      f"warmup_steps must be below steps, got {warmup_steps} >= {steps}"
    )
  shape = registry.resolve(SCHEDULES, schedule, family="learning-rate schedule")
  rate = shape(learning_rate, steps - warmup_steps)
  if not warmup_steps:
    return rate
  warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  return optax.join_schedules([warmup, rate], [warmup_steps])


def make_optimizer(
  name: str,
  *,
  learning_rate: float,
  steps: int,
  schedule: str = "cosine",
  warmup_steps: int = 0,
  clip_norm: float = 0.0,
  **hyper: Any,
) -> optax.GradientTransformation:
  """Builds an optimiser.

  Args:
    name: a key of OPTIMIZERS or `"module:function"`.
    learning_rate: see `make_schedule`, as the next three.
    steps: updates in all.
    schedule: what the rate does after the warm-up.
    warmup_steps: updates of linear warm-up.
    clip_norm: largest global gradient norm, 0 for no clipping.
    **hyper: further arguments of the optimiser.

  Raises:
    ValueError: unknown name or argument, or a value out of range.
  """
  checks.non_negative(clip_norm=clip_norm)
  rate = make_schedule(
    learning_rate=learning_rate,
    steps=steps,
    schedule=schedule,
    warmup_steps=warmup_steps,
  )
  factory = registry.resolve(OPTIMIZERS, name, family="optimizer")
  registry.check_arguments(factory, hyper, what=f"optimizer {name!r}")
  optimizer = factory(rate, **hyper)
  if clip_norm:
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
  return optimizer
