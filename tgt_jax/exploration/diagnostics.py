# SPDX-License-Identifier: Apache-2.0
"""What an exploration did: how far it went and what it found there."""

from __future__ import annotations

import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.exploration import geometry
from tgt_jax.types import Array, Mean


def diagnose(
  *,
  z: Array,
  moved_z: Array,
  x: Array,
  moved_x: Array,
  disagreement: Array,
  moved_disagreement: Array,
  teacher_logits: Array,
  moved_teacher_logits: Array,
  mask: Array | None = None,
  where: Array | None = None,
) -> dict[str, Mean]:
  """Per-batch means of everything worth watching in an exploration.

  Args:
    z: latents before, [B, ...].
    moved_z: latents after, [B, ...].
    x: what is shown of z, [B, ...].
    moved_x: the same of z', [B, ...].
    disagreement: student-teacher distance at x, [B].
    moved_disagreement: the same at x', [B].
    teacher_logits: h(x), [B, K].
    moved_teacher_logits: h(x'), [B, K].
    mask: weights of the examples, [B]; all ones where not given. An example
      of weight zero enters nothing, not even a NaN of its own.
    where: the coordinates of z that count, see `geometry`.

  Returns:
    `explore/latent_step` (RMS of z' - z, the unit of sigma),
    `explore/input_step` (see `geometry.distance`), `explore/disagreement_before`,
    `explore/disagreement_after`, `explore/label_kept` (share of examples whose
    teacher label did not change; logits with a NaN name no label), `explore/diversity` (RMS distance between
    neighbouring examples of x', relative to the same between those of x: 1
    means that exploring kept the spread of the batch).
  """
  checks.same_shape(z=z, moved_z=moved_z)
  checks.same_shape(x=x, moved_x=moved_x)
  checks.same_leading(z=z, x=x, disagreement=disagreement)

  weights = jnp.ones(z.shape[0]) if mask is None else mask
  kept = jnp.argmax(teacher_logits, -1) == jnp.argmax(moved_teacher_logits, -1)
  kept &= ~jnp.any(jnp.isnan(teacher_logits + moved_teacher_logits), -1)
  values = {
    "explore/latent_step": geometry.rms(moved_z - z, where),
    "explore/input_step": geometry.distance(x, moved_x, where),
    "explore/disagreement_before": disagreement,
    "explore/disagreement_after": moved_disagreement,
    "explore/label_kept": kept.astype(jnp.float32),
  }
  total = lambda v: jnp.sum(jnp.where(weights > 0, weights * v, 0.0))
  metrics = {
    name: Mean(total(v), jnp.sum(weights)) for name, v in values.items()
  }
  metrics["explore/diversity"] = Mean(
    total(_spread(moved_x)), total(_spread(x))
  )
  return metrics


def _spread(x: Array) -> Array:
  """Distance of each example to the next one in the batch, [B]."""
  return geometry.distance(x, jnp.roll(x, 1, axis=0))
