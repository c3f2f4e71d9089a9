# SPDX-License-Identifier: Apache-2.0
"""Moving latents: random, gradient ascent, interpolation, chains."""

from __future__ import annotations

from tgt_jax.exploration.diagnostics import diagnose
from tgt_jax.exploration.explorations import (
  EXPLORATIONS,
  Exploration,
  chain,
  from_spec,
  gradient_ascent,
  interpolate,
  mixture,
  random,
  some_places,
  stay,
)
from tgt_jax.exploration.geometry import (
  distance,
  gaussian,
  project,
  rms,
  unit,
)
from tgt_jax.exploration.schedules import SCHEDULES, Schedule, as_schedule

__all__ = [
  "EXPLORATIONS",
  "SCHEDULES",
  "Exploration",
  "Schedule",
  "as_schedule",
  "chain",
  "diagnose",
  "distance",
  "from_spec",
  "gaussian",
  "gradient_ascent",
  "interpolate",
  "mixture",
  "project",
  "random",
  "rms",
  "some_places",
  "stay",
  "unit",
]
