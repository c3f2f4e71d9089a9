# SPDX-License-Identifier: Apache-2.0
"""What a step of LGTM costs, against the published scheme and its relatives.

  python benchmarks/lgtm_step.py --json=lgtm_step.json

Contenders, all compiled by XLA from the same networks, batch and optimisers:
ours, `prokt`, `lgtm` and `meta_distill` of the package; "unwatched" does not
    log the teacher's own held-out loss, nor does the published scheme;
    "recomputed" also does not keep the teacher's activations;
published, LGTM as its public code computes it: the auxiliary gradient, the
    look-ahead, the held-out gradient, and the teacher's gradient against each
    of two perturbed students, a forward and a backward pass each;
second order, Meta Distill by differentiating the held-out loss through the
    student's whole update.
Memory is what the compiled step needs beside its arguments, by XLA's account.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import common

_SIZES = {  # Teacher's and student's layers, width, heads.
  "tiny": (4, 2, 128, 2),
  "small": (6, 3, 384, 12),
  "base": (12, 6, 768, 12),
}


def _arguments() -> Any:
  options = common.parser(__doc__)
  options.add_argument("--size", choices=_SIZES, default="tiny")
  options.add_argument("--batch_size", type=int, default=16)
  options.add_argument("--length", type=int, default=64)
  options.add_argument("--vocab_size", type=int, default=8000)
  options.add_argument("--dtype", default="float32")
  return options.parse_args()


def _world(args: Any) -> tuple[Any, Any, Any]:
  """Parts, learners and a batch with its held-out examples."""
  import jax
  import numpy as np
  import optax

  from tgt_jax import losses, methods
  from tgt_jax.models import bert

  layers, fewer, width, heads = _SIZES[args.size]
  make = lambda depth: bert(
    num_layers=depth,
    width=width,
    num_heads=heads,
    mlp_width=4 * width,
    num_classes=3,
    vocab_size=args.vocab_size,
    max_positions=args.length,
    dtype=args.dtype,
  )
  draws = np.random.default_rng(0)

  def examples() -> dict[str, Any]:
    shape = args.batch_size, args.length
    ids = draws.integers(5, args.vocab_size, shape).astype(np.int32)
    return {"input": ids, "label": np.arange(args.batch_size) % 3}

  batch = jax.device_put({**examples(), "feedback": examples()})
  parts = methods.Parts(
    student=make(fewer),
    teacher=None,
    label_loss=losses.cross_entropy,
    distance=losses.kl_divergence,
    generated_distance=losses.kl_divergence,
    disagreement=losses.kl_divergence,
    labeler=make(layers),
  )
  learner = methods.Learner(optax.adam(1e-5), lambda step: 1e-5)
  return parts, {"student": learner, "teacher": learner}, batch


def _init(parts: Any) -> Callable:
  import jax

  def init(rng: Any, batch: Any) -> tuple[Any, Any]:
    networks = {"student": parts.student, "teacher": parts.labeler}
    found = {
      name: network.init(jax.random.fold_in(rng, i), batch["input"])
      for i, (name, network) in enumerate(networks.items())
    }
    return (
      {name: params for name, (params, _) in found.items()},
      {name: state for name, (_, state) in found.items()},
    )

  return init


def _losses(parts: Any, batch: Any, rng: Any) -> tuple[Callable, ...]:
  """The student's, the teacher's and the held-out loss, by parameters."""
  import jax
  import jax.numpy as jnp

  def logits(name: str, params: Any) -> Any:
    network = parts.student if name == "student" else parts.labeler
    return network.apply(params, {}, batch["input"], train=True, rng=rng)[
      0
    ].logits

  def of_student(theta: Any, said: Any) -> Any:
    return jnp.mean(parts.distance(logits("student", theta), said))

  def of_teacher(phi: Any, theta: Any) -> Any:
    said = logits("teacher", phi)
    heard = jax.lax.stop_gradient(logits("student", theta))
    labels = jnp.mean(parts.label_loss(said, batch["label"]))
    return 0.6 * labels + 0.4 * jnp.mean(parts.distance(said, heard))

  def held_out(theta: Any) -> Any:
    held = batch["feedback"]
    told = parts.student.apply(theta, {}, held["input"])[0].logits
    return jnp.mean(parts.label_loss(told, held["label"]))

  return logits, of_student, of_teacher, held_out


def _taught(
  parts: Any, learner: Any, state: Any, batch: Any, loss: Callable
) -> Any:
  """The student's own step, from the answers of the teacher as it now is."""
  import jax

  params, opt_state = dict(state.params), dict(state.opt_state)
  said = parts.labeler.apply(params["teacher"], {}, batch["input"])[0].logits
  grads = jax.grad(loss)(params["student"], said)
  params["student"], opt_state["student"] = learner.update(
    grads, opt_state["student"], params["student"]
  )
  return state._replace(
    step=state.step + 1, params=params, opt_state=opt_state
  ), {}


def _published(parts: Any, learners: Any) -> Callable:
  """LGTM as its public code has it."""
  import jax

  from tgt_jax import influence

  def update(state: Any, frozen: Any, batch: Any, rng: Any) -> Any:
    del frozen
    params, opt_state = dict(state.params), dict(state.opt_state)
    logits, of_student, of_teacher, held_out = _losses(parts, batch, rng)
    theta, phi = params["student"], params["teacher"]
    aside = jax.grad(of_teacher)(phi, theta)
    said = jax.lax.stop_gradient(logits("teacher", phi))
    grads = jax.grad(of_student)(theta, said)
    ahead, _ = learners["student"].update(grads, opt_state["student"], theta)
    v = jax.grad(held_out)(ahead)
    eps = influence.difference_step(v)
    felt = influence.finite_difference(
      lambda moved: jax.grad(of_teacher)(phi, moved), theta, v, eps
    )
    rate = learners["teacher"].rate(state.step)
    heard = jax.tree.map(lambda a, f: a - rate * f, aside, felt)
    params["teacher"], opt_state["teacher"] = learners["teacher"].update(
      heard, opt_state["teacher"], phi
    )
    state = state._replace(params=params, opt_state=opt_state)
    return _taught(parts, learners["student"], state, batch, of_student)

  return update


def _second_order(parts: Any, learners: Any, rate: float) -> Callable:
  """Meta Distill by a gradient through the student's update."""
  import jax
  import jax.numpy as jnp

  def update(state: Any, frozen: Any, batch: Any, rng: Any) -> Any:
    del frozen
    params, opt_state = dict(state.params), dict(state.opt_state)
    logits, of_student, _, held_out = _losses(parts, batch, rng)
    theta = params["student"]

    def descend(theta: Any, said: Any) -> Any:
      own = jnp.mean(parts.label_loss(logits("student", theta), batch["label"]))
      return 0.5 * own + 0.5 * of_student(theta, said)

    def objective(phi: Any) -> Any:
      grads = jax.grad(descend)(theta, logits("teacher", phi))
      ahead = jax.tree.map(lambda p, g: p - rate * g, theta, grads)
      return held_out(ahead)

    grads = jax.grad(objective)(params["teacher"])
    params["teacher"], opt_state["teacher"] = learners["teacher"].update(
      grads, opt_state["teacher"], params["teacher"]
    )
    state = state._replace(params=params, opt_state=opt_state)
    return _taught(parts, learners["student"], state, batch, descend)

  return update


class _Step:
  """A compiled update that keeps its state; waits for the result."""

  def __init__(self, update: Callable, state: Any, batch: Any):
    import jax

    lowered = jax.jit(update).lower(state, {}, batch, jax.random.key(0))
    self._compiled = lowered.compile()
    self._state, self._batch = state, batch
    self.megabytes = self._compiled.memory_analysis().temp_size_in_bytes / 2**20

  def __call__(self) -> None:
    import jax

    self._state, _ = self._compiled(
      self._state, {}, self._batch, jax.random.key(1)
    )
    jax.block_until_ready(self._state)


def _rows(steps: Any, times: Any) -> list[tuple[str, ...]]:
  """Times and memory, as they are and against others."""
  against = {
    "lgtm": "lgtm, published",
    "lgtm, unwatched": "lgtm, published",
    "lgtm, recomputed": "lgtm, published",
    "meta_distill": "meta_distill, second order",
    "prokt": "prokt",
  }
  return [
    (
      name,
      f"{times.ms(name):.1f}",
      f"{times.ratio(name, 'prokt'):.2f}",
      f"{times.ratio(name, against[name]):.2f}" if name in against else "",
      f"{step.megabytes:.1f}",
      f"{step.megabytes / steps['prokt'].megabytes:.2f}",
    )
    for name, step in steps.items()
  ]


def main() -> None:
  """Times all contenders and prints the table."""
  args = _arguments()
  # As compilers for GPU and TPU do, keep the barrier of "recomputed".
  flag = "--xla_disable_hlo_passes=cse_barrier_expander"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
  cores = common.prepare(args.threads)
  import jax

  from tgt_jax import methods

  parts, learners, batch = _world(args)
  rate = 1e-3
  courses = {
    "prokt": methods.prokt(parts),
    "lgtm": methods.lgtm(parts),
    "lgtm, unwatched": methods.lgtm(parts, watch_teacher=False),
    "lgtm, recomputed": methods.lgtm(
      parts, watch_teacher=False, recompute=True
    ),
    "meta_distill": methods.meta_distill(parts, look_ahead_rate=rate),
  }
  made = {
    name: methods.from_course(course, _init(parts), learners)
    for name, course in courses.items()
  }
  state = jax.jit(made["prokt"].init)(jax.random.key(0), batch)
  updates = {
    **{name: method.update for name, method in made.items()},
    "lgtm, published": _published(parts, learners),
    "meta_distill, second order": _second_order(parts, learners, rate),
  }
  steps = {
    name: _Step(update, state, batch) for name, update in updates.items()
  }
  times = common.take_turns(
    steps, rounds=args.rounds, seconds=args.seconds, clock=args.clock
  )
  rows = _rows(steps, times)
  header = ("step", "ms", "/ prokt", "/ rival", "MiB", "/ prokt")
  where = common.environment(cores)
  print(common.describe(where))
  print(common.table(header, rows))
  common.finish(
    args.json,
    {
      "environment": where,
      "arguments": vars(args),
      "times": times.report(),
      "megabytes": {name: step.megabytes for name, step in steps.items()},
    },
  )


if __name__ == "__main__":
  main()
