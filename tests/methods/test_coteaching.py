# SPDX-License-Identifier: Apache-2.0
"""One step of teacher and student against gradients taken by brute force."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgt_jax import influence, losses, methods
from tgt_jax.types import Network, Outputs

B, D, K = 6, 5, 3
RATE = 0.5
TEACHER_TX = optax.sgd(RATE)


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def network(width):
  """One hidden layer; smooth, so that differences converge."""

  def init(rng, x):
    del x
    first, second = jax.random.split(rng)
    return {
      "in": jax.random.normal(first, (D, width), jnp.float64) / 2,
      "out": jax.random.normal(second, (width, K), jnp.float64),
    }, {}

  def apply(params, state, x, *, train=False, rng=None):
    hidden = jnp.tanh(x @ params["in"])
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


def made(course, tx=None):
  learner = lambda tx: methods.Learner(tx, lambda step: jnp.asarray(RATE))
  learners = {
    "student": learner(tx or optax.sgd(0.2)),
    "teacher": learner(TEACHER_TX),
  }

  def init(rng, batch):
    found = {
      name: one.init(jax.random.fold_in(rng, i), batch["input"])
      for i, (name, one) in enumerate(
        {"student": STUDENT, "teacher": TEACHER}.items()
      )
    }
    return (
      {name: params for name, (params, _) in found.items()},
      {name: state for name, (_, state) in found.items()},
    )

  return methods.from_course(course, init, learners)


def steps(course, number=1, tx=None, batches=None):
  """States before and after each step, and the last one's metrics."""
  method = made(course, tx)
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
  return network.apply(params, {}, x)[0].logits


def brute(
  state, one, tx, *, student=(0.0, 1.0), aside=(0.6, 0.4), held=1.0,
  within=("in", "out"),
):  # fmt: skip
  """Gradient by the teacher of all it hears, through the student's update."""
  theta = state.params["student"]

  def descend(theta, phi):
    own = logits(STUDENT, theta, one["input"])
    said = logits(TEACHER, phi, one["input"])
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
    said = logits(TEACHER, phi, one["input"])
    own = jax.lax.stop_gradient(logits(STUDENT, theta, one["input"]))
    return mean_loss(*aside)(said, own, one["label"]) + held * feedback

  return jax.jit(jax.grad(objective))(state.params["teacher"])


def close(found, expected, rtol):
  scale = float(optax.tree.norm(expected))
  gap = jax.tree.map(lambda a, b: a - b, found, expected)
  assert float(optax.tree.norm(gap)) <= rtol * scale


same_bits = functools.partial(jax.tree.map, np.testing.assert_array_equal)


ADAM = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2))


@pytest.mark.parametrize("tx", [optax.sgd(0.2), ADAM], ids=["sgd", "adamw"])
def test_lgtm_is_the_gradient_through_the_step(tx):
  """In the second step, where the moments are not zero."""
  states, _ = steps(methods.lgtm(parts(), alpha=0.3), 2, tx)
  expected = brute(states[1], batch(1), tx, aside=(0.7, 0.3))
  close(teachers_gradient(states), expected, 1e-10)


def test_meta_distill_is_the_gradient_through_a_plain_step():
  course = methods.meta_distill(parts(), alpha=0.8, look_ahead_rate=0.05)
  states, _ = steps(course, 2, ADAM)
  plain = optax.sgd(0.05)
  one = states[1]._replace(
    opt_state={"student": plain.init(states[1].params["student"])}
  )
  expected = brute(one, batch(1), plain, student=(0.2, 0.8), aside=(0.0, 0.0))
  close(teachers_gradient(states), expected, 1e-10)


@pytest.mark.parametrize(
  "options", [{"influence": "off"}, {"influence_weight": 0.0}]
)
def test_lgtm_without_influence_is_prokt_to_the_bit(options):
  found, _ = steps(methods.lgtm(parts(), **options), 3, ADAM)
  expected, _ = steps(methods.prokt(parts()), 3, ADAM)
  same_bits(found[-1], expected[-1])


def test_an_influence_every_second_step():
  """The first step hears it, the second is ProKT's from there."""
  every, _ = steps(methods.lgtm(parts(), every=2), 2)
  each, _ = steps(methods.lgtm(parts()), 1)
  same_bits(every[1].params, each[1].params)
  expected = brute(every[1], batch(1), optax.sgd(0.2), held=0.0)
  close(teachers_gradient(every), expected, 1e-10)


@pytest.mark.parametrize("influence", ["exact", "finite_difference"])
def test_a_direction_within_a_part(influence):
  """The teacher hears of no other parameter's way ahead."""
  course = methods.lgtm(
    parts(), influence=influence, influence_weight=5.0, within="^out$"
  )
  states, _ = steps(course)
  args = states[0], batch(0), optax.sgd(0.2)
  expected = brute(*args, held=5.0, within=("out",))
  rtol = 1e-10 if influence == "exact" else 1e-3
  close(teachers_gradient(states), expected, rtol)
  with pytest.raises(ValueError, match="no parameter matches 'heads'"):
    steps(methods.lgtm(parts(), within="heads"))


def test_finite_difference_is_close():
  exact, _ = steps(methods.lgtm(parts(), influence_weight=5.0))
  near, _ = steps(
    methods.lgtm(parts(), influence="finite_difference", influence_weight=5.0)
  )
  close(teachers_gradient(near), teachers_gradient(exact), 1e-4)
  gap = jax.tree.map(
    lambda a, b: jnp.max(jnp.abs(a - b)),
    near[1].params["teacher"],
    exact[1].params["teacher"],
  )
  assert max(jax.tree.leaves(gap)) > 0


def test_official_is_the_published_codes_gradient():
  """lr_t times the difference of two teacher gradients, both by brute force."""
  course = methods.lgtm(
    parts(), influence="finite_difference", influence_weight="official"
  )
  states, _ = steps(course, 2)
  state, one = states[1], batch(1)
  theta, phi = (state.params[n] for n in ("student", "teacher"))

  def of_student(theta):
    own = logits(STUDENT, theta, one["input"])
    said = logits(TEACHER, phi, one["input"])
    return jnp.mean(losses.kl_divergence(own, said))

  def of_teacher(phi, theta):
    said = logits(TEACHER, phi, one["input"])
    own = logits(STUDENT, theta, one["input"])
    return mean_loss(0.6, 0.4)(said, own, one["label"])

  def held_out(theta):
    told = logits(STUDENT, theta, one["feedback"]["input"])
    return jnp.mean(losses.cross_entropy(told, one["feedback"]["label"]))

  ahead = jax.tree.map(
    lambda p, g: p - 0.2 * g, theta, jax.grad(of_student)(theta)
  )
  v = jax.grad(held_out)(ahead)
  eps = influence.difference_step(v)
  slope = jax.grad(of_teacher)
  move = lambda by: jax.tree.map(lambda p, d: p + by * d, theta, v)
  difference = jax.tree.map(
    lambda a, b: (a - b) / (2 * eps),
    slope(phi, move(eps)),
    slope(phi, move(-eps)),
  )
  expected = jax.tree.map(
    lambda a, f: a - RATE * f, slope(phi, theta), difference
  )
  close(teachers_gradient(states), expected, 1e-9)


def test_normalised_is_a_fraction_of_the_others_norm():
  course = methods.lgtm(parts(), influence_weight="normalised", fraction=0.25)
  states, metrics = steps(course)
  args = states[0], batch(0), optax.sgd(0.2)
  aside = brute(*args, held=0.0)
  both = brute(*args)
  felt = jax.tree.map(lambda a, b: a - b, both, aside)
  share = 0.25 * optax.tree.norm(aside) / optax.tree.norm(felt)
  np.testing.assert_allclose(
    metrics["influence/weight"].total, share, rtol=1e-5
  )
  expected = jax.tree.map(lambda a, f: a + share * f, aside, felt)
  close(teachers_gradient(states), expected, 1e-9)


def test_dml_updates_both_from_the_answers_of_before():
  states, _ = steps(methods.dml(parts()))
  one, before, after = batch(0), states[0].params, states[1].params

  def loss(mine, name, other):
    nets = {"student": STUDENT, "teacher": TEACHER}
    own = logits(nets[name], mine, one["input"])
    heard = logits(nets[other], before[other], one["input"])
    return mean_loss(1.0, 1.0)(own, heard, one["label"])

  for name, other, rate in (
    ("student", "teacher", 0.2),
    ("teacher", "student", RATE),
  ):
    grads = jax.grad(loss)(before[name], name, other)
    expected = jax.tree.map(lambda p, g, r=rate: p - r * g, before[name], grads)
    close(after[name], expected, 1e-12)


def distilled(state, teacher):
  """The student after a plain step on what a teacher says alone."""
  one, before = batch(0), state.params["student"]

  def loss(theta):
    own = logits(STUDENT, theta, one["input"])
    said = logits(TEACHER, teacher, one["input"])
    return jnp.mean(losses.kl_divergence(own, said))

  step = lambda p, g: p - 0.2 * g
  return jax.tree.map(step, before, jax.grad(loss)(before))


def test_prokts_student_learns_from_the_new_teacher_alone():
  states, _ = steps(methods.prokt(parts()))
  expected = distilled(states[0], states[1].params["teacher"])
  close(states[1].params["student"], expected, 1e-12)


def test_stale_targets_are_those_of_before():
  fresh, _ = steps(methods.lgtm(parts()))
  stale, _ = steps(methods.lgtm(parts(), targets="stale"))
  same_bits(fresh[1].params["teacher"], stale[1].params["teacher"])
  expected = distilled(stale[0], stale[0].params["teacher"])
  close(stale[1].params["student"], expected, 1e-12)


def test_what_is_logged():
  _, metrics = steps(methods.lgtm(parts()))
  found = {n: float(m.total / m.count) for n, m in metrics.items()}
  bins = [found[f"influence/bin{i}"] for i in range(8)]
  np.testing.assert_allclose(sum(bins), 1.0, rtol=1e-6)
  np.testing.assert_allclose(
    sum(bins[4:]), found["influence/positive"], rtol=1e-6
  )
  for name in (
    "feedback/student_loss",
    "feedback/teacher_loss",
    "influence/ratio",
  ):
    assert found[name] > 0, name


def test_watching_the_teacher_changes_nothing():
  watched, metrics = steps(methods.lgtm(parts()))
  unwatched, fewer = steps(methods.lgtm(parts(), watch_teacher=False))
  same_bits(watched[1], unwatched[1])
  gone = {"feedback/teacher_loss", "feedback/teacher_accuracy"}
  assert set(metrics) - set(fewer) == gone


def test_influence_says_what_leaving_an_example_out_does():
  """To first order: with a tiny rate, the held-out loss changes by I_i."""
  tiny = optax.sgd(1e-4)
  states, metrics = steps(methods.lgtm(parts()), 1, tiny)
  state, one = states[0], batch(0)

  def held_out(weights):
    def loss(theta):
      own = logits(STUDENT, theta, one["input"])
      said = logits(TEACHER, state.params["teacher"], one["input"])
      return jnp.mean(weights * losses.kl_divergence(own, said))

    theta = state.params["student"]
    ahead = jax.tree.map(
      lambda p, g: p - 1e-4 * g, theta, jax.grad(loss)(theta)
    )
    told = logits(STUDENT, ahead, one["feedback"]["input"])
    return jnp.mean(losses.cross_entropy(told, one["feedback"]["label"]))

  # The derivative by the weight of each example is -I_i / B.
  helps = -B * jax.grad(held_out)(jnp.ones(B))
  np.testing.assert_allclose(
    metrics["influence/mean"].total / B, jnp.mean(helps), rtol=1e-3
  )
  np.testing.assert_allclose(
    metrics["influence/positive"].total / B, jnp.mean(helps > 0)
  )


def test_padding_teaches_nobody():
  one = batch(0)
  masked = {**one, "mask": np.array([1.0, 1, 1, 1, 0, 0])}
  other = {**masked, "input": one["input"].copy(), "label": one["label"].copy()}
  other["input"][4:] += 3.0
  other["label"][4:] = 0
  first, _ = steps(methods.lgtm(parts()), batches=[masked])
  second, _ = steps(methods.lgtm(parts()), batches=[other])
  close(first[1].params, second[1].params, 1e-12)


def test_an_ensemble_does_not_learn():
  with pytest.raises(ValueError, match="num_labelers to 1"):
    methods.prokt(parts(labeler=None))
