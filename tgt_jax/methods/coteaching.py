# SPDX-License-Identifier: Apache-2.0
"""A teacher that learns while it teaches: one step, four published methods.

Each step the teacher learns from its labels, from the student's answers, and
from what its teaching does to the student's held-out loss; the student learns
from the teacher. What is left out makes the method:

| method | teacher: labels, answers, influence | student learns from |
| --- | --- | --- |
| `lgtm` | 1 - alpha, alpha, exact | the updated teacher |
| `prokt` | 1 - alpha, alpha, off | the updated teacher |
| `dml` | 1, 1, off | labels, and the teacher before its update |
| `meta_distill` | 0, 0, exact by an SGD look-ahead | labels, and the updated teacher |

One step, of student theta and teacher phi, on a batch and a held-out one:

1. both answer the batch; g is the gradient of the student's loss;
2. theta' = U(theta, g) looks ahead, v is the gradient of its held-out loss,
   u = (dU/dg)^T v; see `tgt_jax.influence`;
3. the student's answers along u give every example's influence and the
   teacher's cotangent; with that of its other losses, one VJP of the teacher;
4. phi is updated; the student's targets are the new teacher's ("fresh", dropout
   off) or those of 1 ("stale"), and theta is updated from theta.

References:
  Ren et al., LGTM, ACL 2023, arXiv 2305.09651; Shi et al., ProKT, ECML-PKDD
  2021, arXiv 2107.09305; Zhang et al., Deep Mutual Learning, CVPR 2018, arXiv
  1706.00384; Zhou et al., Meta Distill, ACL 2022, arXiv 2106.04570.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tgt_jax import (
  checks,
  influence as influence_lib,
  losses,
  metrics as metrics_lib,
  rng as rng_lib,
)
from tgt_jax.methods.base import Course, Learner, weighted_mean
from tgt_jax.methods.feedback import (
  STUDENT,
  TEACHER,
  Feedback,
  Lesson,
  due,
  feel,
  one,
  together,
)
from tgt_jax.methods.parts import Parts
from tgt_jax.types import (
  Array,
  Batch,
  Mean,
  Metrics,
  ModelState,
  Network,
  Outputs,
  Params,
  TrainState,
)

_FORMS = ("exact", "finite_difference", "off")
_SCALES = ("official", "normalised")


class _Terms(NamedTuple):
  """Weights of a learner's two losses."""

  label: float
  distill: float


class _Plan(NamedTuple):
  """A method of the table above."""

  teacher: _Terms
  student: _Terms
  feedback: Feedback | None
  fresh: bool = True
  recompute: bool = False


def lgtm(
  parts: Parts,
  *,
  alpha: float = 0.4,
  influence: str = "exact",
  influence_weight: float | str = 1.0,
  fraction: float = 0.1,
  student_label: float = 0.0,
  targets: str = "fresh",
  every: int = 1,
  within: str = "",
  watch_teacher: bool = True,
  recompute: bool = False,
) -> Course:
  """A teacher that learns from distillation influence (arXiv 2305.09651).

  Args:
    parts: see `Parts`. The student descends `parts.distance`, `parts.pull` draws
      the teacher to the student, and both learn labels by `parts.label_loss`.
    alpha: share of the student's answers in the teacher's other losses; the
      rest is labels.
    influence: "exact" by forward mode; "finite_difference" between two
      perturbed students, the paper's approximation; "off", which is ProKT.
    influence_weight: of the held-out loss's gradient. 1 is its true scale.
      "official" is what the published code computes by finite difference: the
      slope of the teacher's loss along v, times its learning rate.
      "normalised": a `fraction` of the norm of the other losses' gradient.
    fraction: see above, > 0.
    student_label: share of labels in the student's loss; the paper has none.
    targets: "fresh" or "stale", see the module.
    every: updates between two influences, >= 1.
    within: regular expression of the student's parameters along which the
      influence is taken, such as "head"; "" takes all. A cheaper and no longer
      exact direction.
    watch_teacher: log the teacher's own held-out loss too, which costs a
      forward pass of it.
    recompute: run the teacher forward again before its backward pass, instead
      of keeping its activations while the student is judged: less memory, more
      time. On a CPU it needs --xla_disable_hlo_passes=cse_barrier_expander in
      XLA_FLAGS: the compiler would else merge the two passes.

  Raises:
    ValueError: an argument out of its range, or no network for a teacher.
  """
  checks.in_range(0.0, 1.0, alpha=alpha, student_label=student_label)
  checks.one_of(_FORMS, influence=influence)
  checks.one_of(("fresh", "stale"), targets=targets)
  checks.positive(fraction=fraction, every=every)
  checks.integer(every=every)
  if isinstance(influence_weight, str):
    checks.one_of(_SCALES, influence_weight=influence_weight)
  else:
    checks.non_negative(influence_weight=influence_weight)
  felt = Feedback(
    influence, influence_weight, fraction, every, within, watch=watch_teacher
  )
  off = influence == "off" or influence_weight == 0
  return _course(
    parts,
    _Plan(
      teacher=_Terms(1.0 - alpha, alpha),
      student=_Terms(student_label, 1.0 - student_label),
      feedback=None if off else felt,
      fresh=targets == "fresh",
      recompute=recompute,
    ),
  )


def prokt(parts: Parts, *, alpha: float = 0.4) -> Course:
  """Both learn, the teacher held near the student (arXiv 2107.09305).

  [deviation] The student answers with dropout, as everybody here does in
  training; in the published code the answers that hold the teacher have none.

  Args:
    parts: see `Parts`.
    alpha: share of the student's answers in the teacher's loss.
  """
  return lgtm(parts, alpha=alpha, influence="off")


def dml(parts: Parts) -> Course:
  """Two peers, each with the labels and the other's answers (1706.00384).

  Both are updated at once, from answers of before. [deviation] The paper's
  algorithm takes turns; its code does as we do.
  """
  both = _Terms(1.0, 1.0)
  return _course(parts, _Plan(both, both, None, fresh=False))


def meta_distill(
  parts: Parts,
  *,
  alpha: float = 0.5,
  look_ahead_rate: float = 1e-3,
  every: int = 1,
) -> Course:
  """The held-out loss alone teaches the teacher (arXiv 2106.04570).

  [deviation] Answers are compared by `config.distance`; the published code has
  the squared difference of softened probabilities, and PKD's inner layers.

  Args:
    parts: see `Parts`.
    alpha: share of the teacher's answers in the student's loss.
    look_ahead_rate: of the SGD look-ahead.
    every: see `lgtm`.
  """
  checks.in_range(0.0, 1.0, alpha=alpha)
  checks.positive(look_ahead_rate=look_ahead_rate, every=every)
  checks.integer(every=every)
  felt = Feedback(every=every, rate=look_ahead_rate)
  return _course(
    parts, _Plan(_Terms(0.0, 0.0), _Terms(1.0 - alpha, alpha), felt)
  )


def _course(parts: Parts, plan: _Plan) -> Course:
  network = parts.labeler
  if network is None:
    raise ValueError(
      "a teacher that learns is one network that reads inputs: set"
      " num_labelers to 1 and labeler_reads to 'input'"
    )

  def update(learners: Mapping[str, Learner]) -> Callable:
    return lambda state, frozen, batch, rng: _step(
      parts, plan, learners, state, batch, rng
    )

  init = lambda rng, batch: network.init(rng, batch["input"])
  return Course(update, {TEACHER: init}, plan.feedback is not None)


def _loss(
  parts: Parts, weights: _Terms, batch: Batch
) -> Callable[[Outputs, Outputs], Array]:
  """`(learner, other) -> scalar`; the other's answers are its targets."""
  mask = batch.get("mask")

  def loss(learner: Outputs, other: Outputs) -> Array:
    logits = influence_lib.wide(learner.logits)
    total = jnp.zeros((), logits.dtype)
    if weights.label:
      values = parts.label_loss(logits, batch["label"])
      total += weights.label * weighted_mean(values, mask)
    if weights.distill:
      values = losses.where_known(
        parts.distance,
        logits,
        influence_lib.wide(other.logits),
        batch["label"],
      )
      total += weights.distill * weighted_mean(values, mask)
    return total

  return loss


def _answers(
  network: Network, state: ModelState, x: Array, rng: Array
) -> Callable[[Params], tuple[Outputs, ModelState]]:
  """A learner's answers by its parameters, always with the same dropout."""
  return lambda params: network.apply(params, state, x, train=True, rng=rng)


class _Turn(NamedTuple):
  """One batch, before anybody learned from it.

  Attributes:
    slope: `(params, target) -> ((loss, (outputs, state)), gradient)` of the
      student, always with the same dropout.
    said: the teacher's answers.
    state: its state after answering.
    gradient: of all that the teacher hears.
    stale: `slope` with `said` as the target.
    metrics: (sum, count) pairs.
  """

  slope: Callable
  said: Outputs
  state: ModelState
  gradient: Params
  stale: Any
  metrics: dict[str, Mean]


def _turn(
  parts: Parts,
  plan: _Plan,
  learners: Mapping[str, Learner],
  state: TrainState,
  batch: Batch,
  rng: Array,
) -> _Turn:
  """1 to 3 of the module's docstring."""
  assert parts.labeler is not None
  stop = jax.lax.stop_gradient
  ask = lambda network, name: _answers(
    network,
    state.model_state[name],
    batch["input"],
    rng_lib.stream(rng, f"dropout/{name}"),
  )
  student, teacher = ask(parts.student, STUDENT), ask(parts.labeler, TEACHER)
  student_loss = _loss(parts, plan.student, batch)
  exchanged = parts._replace(distance=parts.pull or parts.distance)
  teacher_loss = _loss(exchanged, plan.teacher, batch)

  def descend(params: Params, target: Outputs) -> tuple[Array, Any]:
    outputs, new_state = student(params)
    return student_loss(outputs, stop(target)), (outputs, new_state)

  slope = jax.value_and_grad(descend, has_aux=True)
  said, teacher_state, back = _pulled(
    teacher, state.params[TEACHER], recompute=plan.recompute
  )
  stale = slope(state.params[STUDENT], said)
  (_, (heard, _)), grads = stale
  own, aside = jax.value_and_grad(teacher_loss)(said, stop(heard))
  metrics: dict[str, Mean] = {
    "loss/teacher": one(own),
    "train/accuracy": _right(heard, batch),
    "train/teacher_accuracy": _right(said, batch),
  }
  if plan.feedback is None:
    gradient = back(aside)
  else:
    lesson = Lesson(
      student=lambda params: student(params)[0],
      heard=heard,
      said=said,
      grads=grads,
      loss=student_loss,
      pull=_loss(exchanged, plan.teacher._replace(label=0.0), batch),
    )
    felt = feel(parts, plan.feedback, learners, state, batch, lesson)
    gradient, more = together(plan.feedback, back, aside, felt)
    metrics |= {**felt.metrics, **more}
  return _Turn(slope, said, teacher_state, gradient, stale, metrics)


def _pulled(
  answers: Callable[[Params], tuple[Outputs, ModelState]],
  params: Params,
  *,
  recompute: bool,
) -> tuple[Outputs, ModelState, Callable[[Outputs], Params]]:
  """Answers, the state after them, and their VJP."""
  if not recompute:
    said, pull, state = jax.vjp(answers, params, has_aux=True)
    return said, state, lambda cotangent: pull(cotangent)[0]

  def back(cotangent: Outputs) -> Params:
    # Without the barrier XLA sees one forward pass, and keeps it.
    here, cotangent = jax.lax.optimization_barrier((params, cotangent))
    _, pull, _ = jax.vjp(answers, here, has_aux=True)
    return pull(cotangent)[0]

  said, state = answers(params)
  return said, state, back


def _step(
  parts: Parts,
  plan: _Plan,
  learners: Mapping[str, Learner],
  state: TrainState,
  batch: Batch,
  rng: Array,
) -> tuple[TrainState, Metrics]:
  """One step of the module's docstring."""
  assert parts.labeler is not None
  turn = _turn(parts, plan, learners, state, batch, rng)
  params, opt_state = dict(state.params), dict(state.opt_state)
  before = params[TEACHER], opt_state[TEACHER]
  taught = learners[TEACHER].update(turn.gradient, before[1], before[0])
  if plan.feedback and plan.feedback.every > 1 and not any(plan.teacher):
    # A teacher that hears nothing stays, momentum and decay or not.
    heard = due(plan.feedback, state)
    taught = jax.tree.map(lambda a, b: jnp.where(heard, a, b), taught, before)
  params[TEACHER], opt_state[TEACHER] = taught
  learned = turn.stale
  if plan.fresh:
    target, _ = parts.labeler.apply(params[TEACHER], turn.state, batch["input"])
    learned = turn.slope(params[STUDENT], target)
  (loss, (_, student_state)), grads = learned
  params[STUDENT], opt_state[STUDENT] = learners[STUDENT].update(
    grads, opt_state[STUDENT], params[STUDENT]
  )
  metrics = {
    **turn.metrics,
    "loss/total": one(loss),
    "loss/gradient_norm": one(optax.tree.norm(grads)),
    "loss/teacher_gradient_norm": one(optax.tree.norm(turn.gradient)),
  }
  states = {STUDENT: student_state, TEACHER: turn.state}
  new = TrainState(state.step + 1, params, states, opt_state)
  return new, metrics


def _right(outputs: Outputs, batch: Batch) -> Mean:
  labels, mask = batch["label"], batch.get("mask")
  return metrics_lib.right(outputs.logits, labels, mask=mask)
