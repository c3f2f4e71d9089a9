# SPDX-License-Identifier: Apache-2.0
"""A small student and teacher, their steps, and the same by brute force."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tgt_jax import losses, methods, rng as rng_lib
from tgt_jax.types import Network, Outputs

B, D, K = 6, 5, 3
RATE = 0.5
TEACHER_TX = optax.sgd(RATE)


def network(width, running=False):
  """One hidden layer with dropout; smooth, so that differences converge.

  With `running` its inputs lose a running mean of theirs, which it keeps.
  """

  def init(rng, x):
    del x
    first, second = jax.random.split(rng)
    return {
      "in": jax.random.normal(first, (D, width), jnp.float64) / 2,
      "out": jax.random.normal(second, (width, K), jnp.float64),
    }, {"mean": jnp.zeros(D)} if running else {}

  def apply(params, state, x, *, train=False, rng=None):
    if running:
      if train:
        state = {"mean": 0.75 * state["mean"] + 0.25 * jnp.mean(x, 0)}
      x = x - state["mean"][None]
    hidden = jnp.tanh(x @ params["in"])
    if train:
      hidden *= jax.random.bernoulli(rng, 0.7, hidden.shape) / 0.7
    return Outputs(hidden @ params["out"], hidden), state

  return Network(init, apply)


STUDENT, TEACHER = network(4), network(7)


def batch(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda: {
    "input": rng.normal(size=(B, D)),
    "label": rng.integers(0, K, B),
  }
  return {**draw(), "feedback": draw()}


def parts(**changes):
  given = {
    "student": STUDENT,
    "teacher": None,
    "label_loss": losses.cross_entropy,
    "distance": losses.kl_divergence,
    "generated_distance": losses.kl_divergence,
    "disagreement": losses.kl_divergence,
    "labeler": TEACHER,
  }
  return methods.Parts(**{**given, **changes})


def made(course, tx=None, networks=None, rate=lambda step: RATE):
  learner = lambda tx: methods.Learner(tx, rate)
  learners = {
    "student": learner(tx or optax.sgd(0.2)),
    "teacher": learner(TEACHER_TX),
  }

  def init(rng, batch):
    found = {
      name: one.init(jax.random.fold_in(rng, i), batch["input"])
      for i, (name, one) in enumerate(
        (networks or {"student": STUDENT, "teacher": TEACHER}).items()
      )
    }
    return (
      {name: params for name, (params, _) in found.items()},
      {name: state for name, (_, state) in found.items()},
    )

  return methods.from_course(course, init, learners)


def steps(course, number=1, tx=None, batches=None, **more):
  """States before and after each step, and the last one's metrics."""
  method = made(course, tx, **more)
  batches = batches or [batch(seed) for seed in range(number)]
  states = [method.init(jax.random.key(0), batches[0])]
  update, metrics = jax.jit(method.update), {}
  for one in batches:
    state, metrics = update(states[-1], {}, one, jax.random.key(1))
    states.append(state)
  return states, metrics


def teachers_gradient(states):
  """What the teacher's plain SGD stepped along."""
  before, after = (s.params["teacher"] for s in states[-2:])
  return jax.tree.map(lambda a, b: (a - b) / RATE, before, after)


def mean_loss(label, distill):
  """`(learner logits, other logits, labels) -> scalar`."""
  return lambda a, b, y: (
    label * jnp.mean(losses.cross_entropy(a, y))
    + distill * jnp.mean(losses.kl_divergence(a, b))
  )


def logits(network, params, x):
  """Answers without dropout."""
  return network.apply(params, {}, x)[0].logits


def answers(params, x, name):
  """Those of "student" or "teacher" in a step, with its dropout."""
  network = {"student": STUDENT, "teacher": TEACHER}[name]
  key = rng_lib.stream(jax.random.key(1), f"dropout/{name}")
  return network.apply(params, {}, x, train=True, rng=key)[0].logits


def brute(
  state, one, tx, *, student=(0.0, 1.0), aside=(0.6, 0.4), held=1.0,
  within=("in", "out"),
):  # fmt: skip
  """Gradient by the teacher of all it hears, through the student's update."""
  theta = state.params["student"]

  def descend(theta, phi):
    own = answers(theta, one["input"], "student")
    said = answers(phi, one["input"], "teacher")
    return mean_loss(*student)(own, said, one["label"])

  def objective(phi):
    grads = jax.grad(descend)(theta, phi)
    opt_state = state.opt_state["student"]
    updates, _ = tx.update(grads, opt_state, theta)
    ahead = {
      name: part if name in within else jax.lax.stop_gradient(part)
      for name, part in optax.apply_updates(theta, updates).items()
    }
    kept = one["feedback"]
    told = logits(STUDENT, ahead, kept["input"])
    feedback = jnp.mean(losses.cross_entropy(told, kept["label"]))
    said = answers(phi, one["input"], "teacher")
    own = jax.lax.stop_gradient(answers(theta, one["input"], "student"))
    return mean_loss(*aside)(said, own, one["label"]) + held * feedback

  return jax.jit(jax.grad(objective))(state.params["teacher"])


def close(found, expected, rtol):
  scale = float(optax.tree.norm(expected))
  gap = jax.tree.map(lambda a, b: a - b, found, expected)
  assert float(optax.tree.norm(gap)) <= rtol * scale


same_bits = functools.partial(jax.tree.map, np.testing.assert_array_equal)


ADAM = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2))
