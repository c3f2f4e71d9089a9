# SPDX-License-Identifier: Apache-2.0
"""Strengths that may change over training: number, schedule or its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from tgt_jax import checks, registry
from tgt_jax.types import Array

Schedule = Callable[[Any], Array]
Strength = float | Mapping[str, Any] | Schedule


def linear(start: float, end: float, steps: int) -> Schedule:
  """Moves from `start` to `end` over `steps` updates, then stays."""
  return optax.linear_schedule(start, end, steps)


def cosine(start: float, end: float, steps: int) -> Schedule:
  """Moves from `start` to `end` along half a cosine, then stays."""
  fraction = optax.cosine_decay_schedule(1.0, steps)
  return lambda step: end + (start - end) * fraction(step)


def ramp(end: float, start_step: int, steps: int) -> Schedule:
  """Zero until `start_step`, then linear to `end` within `steps` updates."""
  return optax.linear_schedule(0.0, end, steps, transition_begin=start_step)


SCHEDULES = {"linear": linear, "cosine": cosine, "ramp": ramp}


def as_schedule(strength: Strength, *, name: str) -> Schedule:
  """Returns a function of the update count.

  Args:
    strength: a number >= 0, a function of the step, or a mapping
      `{"name": one of SCHEDULES, **arguments}`.
    name: what the strength is called, for errors.

  Raises:
    ValueError: negative or not finite, unknown schedule or unknown argument.
  """
  if isinstance(strength, Mapping):
    return registry.build(SCHEDULES, strength, family=f"schedule of {name}")
  if callable(strength):
    return strength
  checks.non_negative(**{name: strength})
  return lambda step: jnp.asarray(strength, jnp.float32)
