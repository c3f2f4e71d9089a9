# SPDX-License-Identifier: Apache-2.0
"""What a learning teacher hears of the student's held-out loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tgt_jax import influence as influence_lib, losses, metrics as metrics_lib
from tgt_jax.methods.base import Learner, weighted_mean
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, Mean, Outputs, Params, TrainState

TEACHER, STUDENT = "teacher", "student"
# Influences of a batch in units of their root mean square: eight bins.
EDGES = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
_TINY = 1e-30
# Of the other losses' gradient: less is nothing (a student that does not move
# in its warm-up has no influence), and nothing has no direction to scale.
_FELT = 1e-12

Answer = Callable[[Params], Outputs]  # On the batch, always the same dropout.
Loss = Callable[[Outputs, Outputs], Array]  # Learner's, other's -> scalar.


class Feedback(NamedTuple):
  """How the held-out loss is turned into a gradient for the teacher.

  Attributes:
    form: "exact" or "finite_difference"; see `coteaching.lgtm`.
    weight: of it, or "official", "normalised".
    fraction: of the other losses' gradient norm, where "normalised".
    every: updates between two of them.
    within: pattern of the student's parameters that the direction moves; "":
      all.
    rate: of a plain SGD look-ahead; None: the student's optimiser.
    watch: also log the teacher's own held-out loss, a forward pass of it.
  """

  form: str = "exact"
  weight: float | str = 1.0
  fraction: float = 0.1
  every: int = 1
  within: str = ""
  rate: float | None = None
  watch: bool = True


class Felt(NamedTuple):
  """What the held-out loss says to the teacher.

  Attributes:
    cotangent: of the teacher's outputs on the batch.
    metrics: (sum, count) pairs.
  """

  cotangent: Outputs
  metrics: dict[str, Mean]


class Lesson(NamedTuple):
  """One batch, as student and teacher answered it.

  Attributes:
    student: the student's answers as a function of its parameters.
    heard: what it answered.
    said: what the teacher answered.
    grads: of the student's loss.
    loss: the student's, of both answers.
    pull: the teacher's, of both answers, without its labels.
  """

  student: Answer
  heard: Outputs
  said: Outputs
  grads: Params
  loss: Loss
  pull: Loss


def one(value: Any) -> Mean:
  """A number of the whole batch as a metric."""
  return Mean(jnp.asarray(value, jnp.float32), jnp.ones(()))


def _held_out(
  parts: Parts, state: TrainState, batch: Batch, name: str
) -> Callable[[Params], tuple[Array, Mean]]:
  """`params -> (loss, accuracy)` of a learner on the held-out batch.

  Dropout is off. [deviation] The published code has it on here and off in its
  finite difference; what is added there are gradients of different functions.
  """
  network = parts.student if name == STUDENT else parts.labeler
  assert network is not None
  held, model_state = batch["feedback"], state.model_state[name]

  def loss(params: Params) -> tuple[Array, Mean]:
    outputs, _ = network.apply(params, model_state, held["input"])
    logits = influence_lib.wide(outputs.logits)
    values = parts.label_loss(logits, held["label"])
    return weighted_mean(values), metrics_lib.right(logits, held["label"])

  return loss


def feel(
  parts: Parts,
  feedback: Feedback,
  learners: Mapping[str, Learner],
  state: TrainState,
  batch: Batch,
  lesson: Lesson,
) -> Felt:
  """Influences of a batch, and what they teach the teacher.

  Where it is not the update's turn nothing is computed, and all is zero.

  Args:
    parts: see `Parts`.
    feedback: its form.
    learners: the optimisers of student and teacher.
    state: before the update.
    batch: with "feedback", examples on which neither is trained.
    lesson: the answers on the batch.
  """
  now = lambda: _feel(parts, feedback, learners, state, batch, lesson)
  if feedback.every == 1:
    return now()
  # Metrics of another update count nothing.
  rest = lambda: jax.tree.map(jnp.zeros_like, jax.eval_shape(now))
  return jax.lax.cond(due(feedback, state), now, rest)


@jax.custom_batching.custom_vmap
def _of_all(step: Array) -> Array:
  """The step, which seeds that train as one program have in common."""
  return step


@_of_all.def_vmap
def _of_first(
  axis_size: int, batched: Sequence[bool], steps: Array
) -> tuple[Array, bool]:
  del axis_size
  return (steps[0] if batched[0] else steps), False


def due(feedback: Feedback, state: TrainState) -> Array:
  """Whether it is the turn of the update after `state`."""
  return _of_all(state.step) % feedback.every == 0


def _feel(
  parts: Parts,
  feedback: Feedback,
  learners: Mapping[str, Learner],
  state: TrainState,
  batch: Batch,
  lesson: Lesson,
) -> Felt:
  tx, opt_state = learners[STUDENT].tx, state.opt_state[STUDENT]
  params = state.params[STUDENT]
  if feedback.rate is not None:
    tx = optax.sgd(feedback.rate)
    opt_state = tx.init(params)
  ahead = influence_lib.look_ahead(tx, lesson.grads, opt_state, params)
  judge = jax.value_and_grad(
    _held_out(parts, state, batch, STUDENT), has_aux=True
  )
  (value, right), v = judge(ahead.params)
  official = feedback.weight == "official"
  # Along u a sample that helps has a negative derivative, along v a positive.
  direction, helps = (v, 1.0) if official else (ahead.pull(v), -1.0)
  judged = (lambda s, t: lesson.pull(t, s)) if official else lesson.loss
  chosen = None
  if feedback.within:
    chosen = influence_lib.matching(params, feedback.within)
    direction = influence_lib.only(direction, chosen)
  if feedback.form == "exact":
    outputs, moved = influence_lib.tangents(
      lesson.student, params, direction, chosen
    )
    cotangent = influence_lib.teacher_cotangent(
      judged, outputs, moved, lesson.said
    )
  else:
    if not official:
      direction = _where_seen(direction, lesson.grads)
    outputs = influence_lib.wide(lesson.heard)
    moved, cotangent = _difference(lesson, params, direction, judged)
  if official:
    rate = learners[TEACHER].rate(state.step)
    cotangent = jax.tree.map(lambda c: -rate * c, cotangent)
  distance = lambda s, t: losses.where_known(
    parts.distance, s.logits, t.logits, batch["label"]
  )
  each = helps * influence_lib.per_example(
    distance, outputs, moved, lesson.said
  )
  metrics = {
    "feedback/student_loss": one(value),
    "feedback/student_accuracy": right,
    **_influence_metrics(each, batch.get("mask")),
  }
  if feedback.watch:
    metrics |= _watched(parts, state, batch)
  return Felt(cotangent, metrics)


def _where_seen(direction: Params, grads: Params) -> Params:
  """A direction for differences, zero where an optimiser saw no gradient.

  u is large there; the batch, which has none, does not feel it, and the step
  would be too short.
  """
  keep = lambda u, none: jnp.where(none, 0.0, u)
  return jax.tree.map(keep, direction, influence_lib.unseen(grads))


def _watched(parts: Parts, state: TrainState, batch: Batch) -> dict[str, Mean]:
  """The teacher on the held-out batch, which teaches nobody."""
  judge = _held_out(parts, state, batch, TEACHER)
  value, right = judge(state.params[TEACHER])
  return {
    "feedback/teacher_loss": one(value),
    "feedback/teacher_accuracy": right,
  }


def _difference(
  lesson: Lesson, params: Params, direction: Params, judged: Loss
) -> tuple[Outputs, Outputs]:
  """The student's tangents and the cotangent, between two students.

  The paper differences the teacher's gradient; a VJP being linear, this
  differences what goes into it and leaves one VJP instead of two.
  """
  eps = influence_lib.difference_step(direction)
  of = lambda s: jax.grad(lambda t: judged(s, t))(lesson.said)

  def both(p: Params) -> tuple[Outputs, Outputs]:
    found = lesson.student(p)
    return found, of(found)

  return influence_lib.finite_difference(both, params, direction, eps)


def together(
  feedback: Feedback,
  back: Callable[[Outputs], Params],
  aside: Outputs,
  felt: Felt,
) -> tuple[Params, dict[str, Mean]]:
  """The teacher's gradient from both cotangents, by one VJP where it can be.

  Args:
    feedback: its form.
    back: the teacher's VJP.
    aside: cotangent of its other losses.
    felt: what the held-out loss says.

  Returns:
    The gradient, and metrics of an update that feels: "influence/ratio", the
    norm of the influence, weighted, over that of the other losses: of
    cotangents, for one VJP, and of parameters' gradients where "normalised",
    which takes two and logs its "influence/weight" too. Zero where there are no
    other losses.
  """
  counts = felt.metrics["influence/rms"].count
  said = lambda value: Mean(value * counts, counts)
  # As the teacher computes: differences come in float32.
  like = lambda p, q: q.astype(p.dtype)
  add = lambda a, b, by: jax.tree.map(lambda p, q: like(p, p + by * q), a, b)
  if feedback.weight != "normalised":
    weight = 1.0 if isinstance(feedback.weight, str) else feedback.weight
    ratio = weight * _over(felt.cotangent, aside)
    joined = add(aside, felt.cotangent, weight)
    return back(joined), {"influence/ratio": said(ratio)}
  first = back(aside)
  second = back(jax.tree.map(like, aside, felt.cotangent))
  ratio = _over(second, first)
  # Of a broken one a broken scale.
  scale = jnp.where(ratio <= _FELT, 0.0, feedback.fraction / ratio)
  metrics = {"influence/ratio": scale * ratio, "influence/weight": scale}
  return add(first, second, scale), jax.tree.map(said, metrics)


def _over(part: Any, whole: Any) -> Array:
  """The ratio of their norms, 0 where the second is 0."""
  size = optax.tree.norm(whole)
  ratio = optax.tree.norm(part) / jnp.maximum(size, _TINY)
  return jnp.where(size > 0, ratio, 0.0)


def _influence_metrics(each: Array, mask: Array | None) -> dict[str, Mean]:
  """Mean, share that helps, and the histogram in units of their RMS."""
  peak = jnp.max(jnp.abs(each))  # Squares neither over- nor underflow.
  safe = jnp.where(peak > 0, peak, 1.0)
  spread = safe * jnp.sqrt(weighted_mean(jnp.square(each / safe), mask))
  units = each / jnp.where(spread > 0, spread, 1.0)
  place = jnp.searchsorted(jnp.asarray(EDGES), units)
  share = lambda found: metrics_lib.mean(found.astype(jnp.float32), mask)
  bins = {f"influence/bin{i}": share(place == i) for i in range(8)}
  return {
    "influence/mean": metrics_lib.mean(each, mask),
    "influence/rms": one(spread),
    "influence/positive": share(each > 0),
    **bins,
  }
