# SPDX-License-Identifier: Apache-2.0
"""Learning teachers: states of networks, what is logged, priors, many seeds."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.methods import pair
from tests.methods.pair import B, K, answers, batch, close, logits, parts, steps
from tgt_jax import build, losses, methods, training


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def test_both_networks_keep_their_new_states():
  networks = {
    "student": pair.network(4, running=True),
    "teacher": pair.network(7, running=True),
  }
  given = parts(student=networks["student"], labeler=networks["teacher"])
  states, _ = steps(methods.lgtm(given), 2, networks=networks)
  mean = np.zeros(pair.D)
  for i in range(2):
    mean = 0.75 * mean + 0.25 * batch(i)["input"].mean(0)
    for name in networks:
      found = states[i + 1].model_state[name]["mean"]
      np.testing.assert_allclose(found, mean, rtol=1e-12)


def test_fresh_targets_are_those_of_the_teachers_new_state():
  networks = {"student": pair.STUDENT, "teacher": pair.network(7, running=True)}
  given = parts(labeler=networks["teacher"])
  states, _ = steps(methods.prokt(given), networks=networks)
  (before, after), one = states, batch(0)
  said, _ = networks["teacher"].apply(
    after.params["teacher"], after.model_state["teacher"], one["input"]
  )

  def loss(theta):
    own = answers(theta, one["input"], "student")
    return jnp.mean(losses.kl_divergence(own, said.logits))

  theta = before.params["student"]
  expected = jax.tree.map(
    lambda p, g: p - 0.2 * g, theta, jax.grad(loss)(theta)
  )
  close(after.params["student"], expected, 1e-12)


MASK = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])


def brute_force(state, one, weight):
  """Influences along v and the ratio of cotangents, by gradients alone."""
  theta, phi = (state.params[name] for name in ("student", "teacher"))
  said = answers(phi, one["input"], "teacher")
  mean = lambda values: jnp.sum(MASK * values) / MASK.sum()

  def each(theta, said):
    return losses.kl_divergence(answers(theta, one["input"], "student"), said)

  def held_out(theta):
    kept = one["feedback"]
    told = logits(pair.STUDENT, theta, kept["input"])
    return jnp.mean(losses.cross_entropy(told, kept["label"]))

  slope = jax.grad(lambda theta, said: mean(each(theta, said)))

  def through_the_step(said):
    grads = slope(theta, said)
    return held_out(jax.tree.map(lambda p, g: p - 0.2 * g, theta, grads))

  def aside(said):
    own = answers(theta, one["input"], "student")
    labels = losses.cross_entropy(said, one["label"])
    return mean(0.6 * labels + 0.4 * losses.kl_divergence(said, own))

  v = jax.grad(held_out)(
    jax.tree.map(lambda p, g: p - 0.2 * g, theta, slope(theta, said))
  )
  slopes = jax.jacobian(each)(theta, said)
  products = jax.tree.map(lambda g, d: jnp.einsum("bij,ij->b", g, d), slopes, v)
  norm = optax.tree.norm
  ratio = (
    weight
    * norm(jax.grad(through_the_step)(said))
    / norm(jax.grad(aside)(said))
  )
  return sum(jax.tree.leaves(products)), ratio


@pytest.mark.parametrize("weight", [3.0, "official"])
def test_what_is_logged_of_influences(weight):
  """Of what is not padding; positive where an example helps, in both forms."""
  one = {**batch(0), "mask": MASK}
  course = methods.lgtm(parts(), influence_weight=weight)
  states, found = steps(course, batches=[one])
  factor = 1.0 if weight == "official" else 3.0
  influences, ratio = brute_force(states[0], one, factor)
  kept = np.asarray(influences)[MASK == 1]
  # Along u the examples are in units of the student's rate.
  scale = 1.0 if weight == "official" else 0.2
  value = lambda name: found[name].total / found[name].count
  np.testing.assert_allclose(value("influence/mean"), scale * kept.mean(), 1e-9)
  rms = np.sqrt(np.mean(np.square(kept)))
  np.testing.assert_allclose(value("influence/rms"), scale * rms, 1e-5)
  np.testing.assert_allclose(value("influence/positive"), np.mean(kept > 0))
  bins = [value(f"influence/bin{i}") for i in range(8)]
  edges = [-np.inf, -2, -1, -0.5, 0, 0.5, 1, 2, np.inf]
  # What has no influence does not help.
  expected = np.histogram(-kept / rms, edges)[0][::-1] / len(kept)
  np.testing.assert_allclose(bins, expected, atol=1e-6)
  if weight != "official":
    np.testing.assert_allclose(value("influence/ratio"), ratio, rtol=1e-5)


def test_a_teacher_with_the_prior_is_not_drawn_to_students_without():
  """Where they agree by the student's distance, nothing pulls the teacher."""
  counts = np.array([60, 20, 4])
  spec = {"name": "kl_divergence", "priors": True, "teacher_priors": False}
  make = functools.partial(
    losses.DISTANCES["kl_divergence"], class_counts=counts
  )
  options = lambda spec: {k: v for k, v in spec.items() if k != "name"}
  distance, pull = (
    make(**options(one)) for one in (spec, build._exchanged(spec))
  )
  rng = np.random.default_rng(0)
  student = jnp.asarray(rng.normal(size=(B, K)))
  teacher = student + jnp.log(jnp.asarray(counts / counts.sum()))[None]
  for values, slope in (
    (
      distance(student, teacher),
      jax.grad(lambda s: distance(s, teacher).sum()),
    ),
    (pull(teacher, student), jax.grad(lambda s: pull(teacher, s).sum())),
  ):
    np.testing.assert_allclose(values, 0, atol=1e-7)
    np.testing.assert_allclose(slope(student), 0, atol=1e-7)
  same = {"name": "kl_divergence", "priors": True}
  assert build._exchanged(same) == same
  # The method uses it: the teacher's own loss alone has another slope.
  course = methods.prokt(parts(distance=distance, pull=pull), alpha=1.0)
  states, _ = steps(course)
  one, (before, _) = batch(0), states

  def loss(phi):
    said = answers(phi, one["input"], "teacher")
    own = answers(before.params["student"], one["input"], "student")
    return jnp.mean(pull(said, own))

  expected = jax.grad(loss)(before.params["teacher"])
  close(pair.teachers_gradient(states), expected, 1e-10)


def test_seeds_together_skip_the_influence_too():
  """A condition on the step is one for all, not a choice of two results."""
  method = pair.made(methods.lgtm(parts(), every=3))
  root = training.roots((0, 1))
  one = jax.tree.map(lambda a: np.stack([a, a]), batch(0))
  state = training.init_state(method, root, one)
  totals = training.empty_totals(method, state, {}, one, root)
  step = training.make_step(method)
  text = step.lower(state, totals, {}, one, root).as_text()
  assert "stablehlo.case" in text or "stablehlo.if" in text
  states, alone = [state], [jax.tree.map(lambda a: a[:1], state)]
  first = lambda tree: jax.tree.map(lambda a: a[:1], tree)
  for _ in range(4):
    empty = jax.tree.map(jnp.zeros_like, totals)
    keep = lambda tree: jax.tree.map(jnp.copy, tree)
    states.append(step(keep(states[-1]), empty, {}, one, root)[0])
    empty = jax.tree.map(lambda a: jnp.zeros_like(a[:1]), totals)
    own = step(keep(alone[-1]), empty, {}, first(one), root[:1])[0]
    alone.append(own)
  close(first(states[-1].params), alone[-1].params, 1e-12)
