# SPDX-License-Identifier: Apache-2.0
"""Distillation on real and on generated examples: one loss, many methods.

The student's loss has up to three terms,

  label * l(f(x), y) + distill * d(f(x), h(x)) + generated * d(f(x'), t(x')),

x real, x' made from start points by a `Neighbours`, t its targets. A term of
weight zero is not built, so that a method with `generated = 0` is plain
distillation to the bit, and one with `distill = 0` on top supervised learning.
The label of a start point is not used at x', which may have left the class.

A batch holds "input" [B, ...] and "label" [B]; where the caller has them
cached, "teacher_logits" [B, K] and "latent" [B, ...]; optionally "mask" [B];
and optionally "starts", a batch of start points of its own (the batch itself
serves otherwise), whose "strong" is a second view of "input" for `uda`.

References:
  Zaheer et al., Teacher Guided Training, 2022, arXiv 2208.06825.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks, losses, metrics as metrics_lib, rng as rng_lib
from tgt_jax.methods import neighbours as neighbours_lib
from tgt_jax.methods.base import (
  Aux,
  LossFn,
  deinterleave,
  interleave,
  weighted_mean,
)
from tgt_jax.methods.neighbours import Context, Neighbours, Shown, Starts
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, Metrics, ModelState, Network, Params


class Weights(NamedTuple):
  """Weights of the three terms, each >= 0."""

  label: float = 1.0
  distill: float = 1.0
  generated: float = 1.0


def read_weights(
  values: Mapping[str, float] | None, names: Sequence[str] = Weights._fields
) -> Weights:
  """Weights as a config gives them, 1 where it is silent.

  Args:
    values: by name.
    names: those that may be given.

  Raises:
    ValueError: another name, or a negative weight.
  """
  values = dict(values or {})
  for key in values:
    checks.one_of(names, weights=key)
  weights = Weights(**values)
  checks.non_negative(**weights._asdict())
  return weights


def start_points(
  batch: Batch, rng: Array, number: int, needs_partner: bool
) -> Starts:
  """`number` start points per example of the batch, each with its key."""
  points = batch.get("starts", batch)

  def again(array: Any) -> Any:
    return None if array is None else jnp.repeat(array, number, axis=0)

  # The partner is the batch's next example, found before the batch is split.
  other = lambda a: again(None if a is None else jnp.roll(a, 1, axis=0))
  image, latent = points["input"], points.get("latent")
  return Starts(
    x=again(image),
    rng=rng_lib.split_examples(rng, image.shape[0] * number),
    latent=again(latent),
    teacher_logits=again(points.get("teacher_logits")),
    strong=again(points.get("strong")),
    partner_x=other(image) if needs_partner else None,
    partner_latent=other(latent) if needs_partner else None,
  )


def teacher_logits(parts: Parts, frozen: Params, batch: Batch) -> Array:
  """h(x), from the cache where the batch carries it."""
  if "teacher_logits" in batch:
    return batch["teacher_logits"]
  label = lambda arrays, x: parts.teacher.label(arrays, x).logits
  logits = parts.per_example(label)(frozen, batch["input"])
  return jax.lax.stop_gradient(logits)


def make_neighbours(
  parts: Parts,
  neighbours: Neighbours,
  params: Params,
  model_state: ModelState,
  frozen: Params,
  batch: Batch,
  rng: Array,
  step: Array,
  *,
  number: int = 1,
) -> Shown:
  """New examples for the student, constants to its gradient.

  Args:
    parts: see `Parts`.
    neighbours: where they come from.
    params: the student's parameters, read by gradient exploration.
    model_state: the student's batch statistics.
    frozen: the teacher's arrays.
    batch: see the module docstring.
    rng: a key.
    step: updates done, for schedules.
    number: new examples per start point.
  """
  starts = start_points(batch, rng, number, neighbours.needs_partner)
  context = Context(params, model_state, frozen, step)
  # Stopping on the way in keeps the outer gradient from being traced through
  # the exploration at all.
  context, starts = jax.lax.stop_gradient((context, starts))
  shown = parts.per_example(neighbours.make)(context, starts)
  return jax.lax.stop_gradient(shown)


def guided(
  parts: Parts,
  weights: Weights,
  neighbours: Neighbours | None = None,
  *,
  num_generated: int = 1,
  reweigh: Callable[..., Array] | None = None,
) -> LossFn:
  """The loss of the module docstring.

  Args:
    parts: see `Parts`.
    weights: of the three terms.
    neighbours: where generated examples come from; needed unless
      `weights.generated` is zero.
    num_generated: generated examples per start point, >= 1.
    reweigh: `(params, model_state, batch, shown) -> [M]`, factors of the
      generated examples' weights, constants to the gradient.
  """
  if num_generated < 1:
    raise ValueError(f"num_generated must be >= 1, got {num_generated}")
  if weights.generated and neighbours is None:
    raise ValueError("weights.generated needs neighbours to generate from")

  def loss(params, model_state, frozen, batch, rng, step):
    x, labels, mask = batch["input"], batch["label"], batch.get("mask")
    shown = None
    if weights.generated and neighbours is not None:
      shown = make_neighbours(
        parts,
        neighbours,
        params["student"],
        model_state["student"],
        frozen,
        batch,
        rng_lib.stream(rng, "explore"),
        step,
        number=num_generated,
      )
      if reweigh is not None:
        shown = _scaled(shown, reweigh(params, model_state, batch, shown))
    (logits, generated_logits), student_state = _forward(
      parts.student,
      params["student"],
      model_state["student"],
      x,
      None if shown is None else shown.x,
      rng_lib.stream(rng, "dropout"),
    )

    total, metrics = jnp.zeros(()), {}
    if weights.label:
      values = parts.label_loss(logits, labels)
      total += weights.label * weighted_mean(values, mask)
      metrics["loss/label"] = metrics_lib.mean(values, mask)
    if weights.distill:
      said = teacher_logits(parts, frozen, batch)
      values = losses.where_known(parts.distance, logits, said, labels)
      total += weights.distill * weighted_mean(values, mask)
      metrics["loss/distill"] = metrics_lib.mean(values, mask)
    if shown is not None:
      values = parts.generated_distance(generated_logits, shown.targets)
      there = _of_starts(batch, "mask", num_generated)
      total += weights.generated * weighted_mean(shown.weight * values, there)
      metrics["loss/generated"] = metrics_lib.mean(values, there)
      metrics |= _explore_metrics(batch, shown, num_generated)
    metrics["train/accuracy"] = metrics_lib.right(logits, labels, mask=mask)
    return total, Aux(metrics, {**model_state, "student": student_state})

  return loss


def _scaled(shown: Shown, factors: Array) -> Shown:
  weight = shown.weight * jax.lax.stop_gradient(factors)
  return shown._replace(weight=weight)


def _forward(
  student: Network,
  params: Params,
  model_state: ModelState,
  real: Array,
  extra: Array | None,
  rng: Array,
) -> tuple[tuple[Array, Any], ModelState]:
  """The student's logits on real examples and on extra ones, and its state.

  One pass over both, unless they are of different kinds: token ids and soft
  tokens.
  """
  apply = functools.partial(student.apply, train=True)
  if extra is None:
    outputs, state = apply(params, model_state, real, rng=rng)
    return (outputs.logits, None), state
  if real.shape[1:] == extra.shape[1:]:
    inputs = interleave(real, extra)
    outputs, state = apply(params, model_state, inputs, rng=rng)
    return deinterleave(outputs.logits, real.shape[0]), state
  first, state = apply(params, model_state, real, rng=rng)
  again = rng_lib.stream(rng, "extra")
  second, state = apply(params, state, extra, rng=again)
  return (first.logits, second.logits), state


def _of_starts(batch: Batch, name: str, number: int) -> Any:
  """An array of the start points, a row per new example, or `None`."""
  array = batch.get("starts", batch).get(name)
  return None if array is None else jnp.repeat(array, number, axis=0)


def _explore_metrics(batch: Batch, shown: Shown, number: int) -> Metrics:
  """Length of the moves, and how often the start's label is still the top."""
  mask = _of_starts(batch, "mask", number)
  labels = metrics_lib.nearest(_of_starts(batch, "label", number))
  kept = jnp.argmax(shown.targets, -1) == labels
  return {
    "explore/step": metrics_lib.mean(shown.moved, mask),
    "explore/start_label": metrics_lib.mean(kept.astype(jnp.float32), mask),
    "explore/weight": metrics_lib.mean(shown.weight, mask),
  }


def supervised(parts: Parts) -> LossFn:
  """Labels only."""
  return guided(parts, Weights(1.0, 0.0, 0.0))


def kd(parts: Parts, *, weights: Mapping[str, float] | None = None) -> LossFn:
  """Distillation on the real examples (Hinton et al. 2015).

  Args:
    parts: see `Parts`.
    weights: "label" and "distill"; 1 each where not given.

  Raises:
    ValueError: another weight; nothing is generated.
  """
  given = read_weights(weights, ("label", "distill"))
  return guided(parts, given._replace(generated=0.0))


def tgt(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  num_generated: int = 1,
) -> LossFn:
  """Teacher-guided training with `parts.exploration` (arXiv 2208.06825).

  Args:
    parts: see `Parts`.
    weights: "label", "distill", "generated"; 1 each where not given.
    num_generated: new examples per start point.
  """
  return guided(
    parts,
    read_weights(weights),
    neighbours_lib.explored(parts),
    num_generated=num_generated,
  )


def mixup_kd(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  alpha: float = 1.0,
  vocab_size: int = 0,
  num_generated: int = 1,
) -> LossFn:
  """Distillation also on mixed inputs, labelled by the teacher.

  Texts are mixed as soft tokens, whose embedding is the mixture of the
  embeddings.

  Args:
    parts: see `Parts`.
    weights: as for `tgt`.
    alpha: Beta parameter of the mixing share; 1 draws it uniformly.
    vocab_size: number of token ids; not needed for images.
    num_generated: new examples per start point.

  References:
    Zhang et al., mixup, 2018, arXiv 1710.09412; as a distillation set Beyer
    et al., Knowledge distillation: a good teacher is patient and consistent,
    2022, arXiv 2106.05237.
  """
  made = neighbours_lib.input_mixup(parts, alpha, vocab_size)
  return guided(parts, read_weights(weights), made, num_generated=num_generated)


def noise_kd(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  sigma: float = 0.1,
  num_generated: int = 1,
) -> LossFn:
  """Distillation also on inputs with pixel noise, labelled by the teacher.

  Args:
    parts: see `Parts`.
    weights: as for `tgt`.
    sigma: standard deviation of the noise; pixels are in [0, 1].
    num_generated: new examples per start point.
  """
  made = neighbours_lib.input_noise(parts, sigma)
  return guided(parts, read_weights(weights), made, num_generated=num_generated)


def augmented_kd(
  parts: Parts, *, weights: Mapping[str, float] | None = None
) -> LossFn:
  """Distillation also on an augmented view, labelled by the teacher.

  The view is `starts.strong` of the config: words replaced or erased, or a
  strongly augmented image.
  """
  made = neighbours_lib.augmented(parts)
  return guided(parts, read_weights(weights), made)


def unlabelled_kd(
  parts: Parts, *, weights: Mapping[str, float] | None = None
) -> LossFn:
  """Distillation also on the start points as they are.

  With start points drawn from a larger unlabelled set this is what one would
  do if the generator's training data were at hand.
  """
  return guided(parts, read_weights(weights), neighbours_lib.unchanged(parts))


def uda(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  shift: int = 2,
  sigma: float = 0.1,
  sharpen: float = 0.4,
  confidence: float = 0.6,
) -> LossFn:
  """Labels plus consistency of two views; no teacher (arXiv 1904.12848).

  [deviation] The labels' loss is not annealed, and sharpening and confidence
  are the same for images and texts.

  Args:
    parts: see `Parts`.
    weights: "label" and "generated" (the consistency term); "distill" is off
      unless given.
    shift: largest translation, pixels, where the batch has no strong view.
    sigma: standard deviation of pixel noise, as `shift`.
    sharpen: temperature of the targets.
    confidence: targets less sure than this are left out.
  """
  made = neighbours_lib.consistency(
    parts, shift=shift, sigma=sigma, sharpen=sharpen, confidence=confidence
  )
  return guided(parts, read_weights({"distill": 0.0, **(weights or {})}), made)
