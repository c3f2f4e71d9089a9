# SPDX-License-Identifier: Apache-2.0
"""One step of teacher and student against gradients taken by brute force."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.methods import pair
from tests.methods.pair import (
  ADAM,
  RATE,
  STUDENT,
  TEACHER,
  answers,
  batch,
  brute,
  close,
  logits,
  mean_loss,
  parts,
  same_bits,
  steps,
  teachers_gradient,
)
from tgt_jax import influence, losses, methods


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


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


@pytest.mark.parametrize("alpha", [0.4, 0.9])
def test_prokt_is_the_gradient_of_labels_and_the_student(alpha):
  states, _ = steps(methods.prokt(parts(), alpha=alpha), 2, ADAM)
  expected = brute(
    states[1], batch(1), ADAM, aside=(1 - alpha, alpha), held=0.0
  )
  close(teachers_gradient(states), expected, 1e-10)


def test_what_is_broken_in_held_out_examples_shows():
  one = batch(0)
  one["feedback"]["input"] = np.full_like(one["feedback"]["input"], np.nan)
  for options in ({}, {"influence_weight": "normalised"}):
    states, _ = steps(methods.lgtm(parts(), **options), batches=[one])
    leaves = jax.tree.leaves(states[-1].params["teacher"])
    assert not all(np.isfinite(leaf).all() for leaf in leaves)


def test_updates_without_influence_do_not_count_in_its_metrics():
  for options in ({}, {"influence_weight": "normalised", "fraction": 0.2}):
    course = methods.lgtm(parts(), every=2, **options)
    (_, felt), (_, not_felt) = (steps(course, n) for n in (1, 2))
    for name, value in felt.items():
      if name.startswith("influence/"):
        assert value.count > 0
        assert not_felt[name] == (0, 0)
  # Of what is normalised the ratio is what was asked for.
  assert felt["influence/ratio"].total == pytest.approx(0.2)


def test_an_influence_every_second_step():
  """The first step hears it, the second is ProKT's from there."""
  every, _ = steps(methods.lgtm(parts(), every=2), 2)
  each, _ = steps(methods.lgtm(parts()), 1)
  same_bits(every[1].params, each[1].params)
  expected = brute(every[1], batch(1), optax.sgd(0.2), held=0.0)
  close(teachers_gradient(every), expected, 1e-10)


def test_a_teacher_that_hears_nothing_stays(monkeypatch):
  """Though its optimiser would go on."""
  monkeypatch.setattr(pair, "TEACHER_TX", optax.adamw(0.1))
  states, _ = steps(methods.meta_distill(parts(), every=2), 4)
  of = lambda i: (states[i].params["teacher"], states[i].opt_state["teacher"])
  same_bits(of(1), of(2))
  same_bits(of(3), of(4))
  assert np.any(of(2)[0]["in"] != of(3)[0]["in"])


def test_an_input_that_no_training_example_has():
  """Adam never sees a gradient there, the held-out examples have it."""
  batches = [batch(0), batch(1)]
  for one in batches:
    one["input"][:, 4] = 0.0
  taught = lambda form: teachers_gradient(
    steps(methods.lgtm(parts(), influence=form), tx=ADAM, batches=batches)[0]
  )
  states, _ = steps(methods.lgtm(parts()), tx=ADAM, batches=batches)
  rooted = optax.chain(
    optax.clip_by_global_norm(0.1), optax.adamw(1e-2, eps_root=1e-20)
  )
  expected = brute(states[1], batches[1], rooted)
  without = brute(states[1], batches[1], rooted, held=0.0)
  felt = lambda found: jax.tree.map(lambda a, b: a - b, found, without)
  close(felt(taught("exact")), felt(expected), 1e-6)
  close(felt(taught("finite_difference")), felt(expected), 1e-3)


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


@pytest.mark.parametrize("form", ["finite_difference", "exact"])
def test_official_is_the_published_codes_gradient(form):
  """lr_t times the difference of two teacher gradients, both by brute force;
  the rate is that of the update."""
  course = methods.lgtm(parts(), influence=form, influence_weight="official")
  states, _ = steps(course, 2, rate=lambda step: RATE * (1 + step))
  state, one = states[1], batch(1)
  theta, phi = (state.params[n] for n in ("student", "teacher"))

  def of_student(theta):
    own = answers(theta, one["input"], "student")
    said = answers(phi, one["input"], "teacher")
    return jnp.mean(losses.kl_divergence(own, said))

  def of_teacher(phi, theta):
    said = answers(phi, one["input"], "teacher")
    own = answers(theta, one["input"], "student")
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
  if form == "exact":
    _, difference = jax.jvp(lambda t: slope(phi, t), (theta,), (v,))
  expected = jax.tree.map(
    lambda a, f: a - 2 * RATE * f, slope(phi, theta), difference
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


def test_normalised_is_zero_where_nothing_is_felt():
  course = methods.lgtm(parts(), influence_weight="normalised")
  states, metrics = steps(course, 1, optax.sgd(0.0))
  assert metrics["influence/weight"].total == 0
  expected = brute(states[0], batch(0), optax.sgd(0.0), held=0.0)
  close(teachers_gradient(states), expected, 1e-9)


def test_dml_updates_both_from_the_answers_of_before():
  states, _ = steps(methods.dml(parts()))
  one, before, after = batch(0), states[0].params, states[1].params

  def loss(mine, name, other):
    own = answers(mine, one["input"], name)
    heard = answers(before[other], one["input"], other)
    return mean_loss(1.0, 1.0)(own, heard, one["label"])

  for name, other, rate in (
    ("student", "teacher", 0.2),
    ("teacher", "student", RATE),
  ):
    grads = jax.grad(loss)(before[name], name, other)
    expected = jax.tree.map(lambda p, g, r=rate: p - r * g, before[name], grads)
    close(after[name], expected, 1e-12)


def distilled(state, say):
  """The student after a plain step on what a teacher says alone."""
  one, before = batch(0), state.params["student"]

  def loss(theta):
    own = answers(theta, one["input"], "student")
    return jnp.mean(losses.kl_divergence(own, say(one["input"])))

  step = lambda p, g: p - 0.2 * g
  return jax.tree.map(step, before, jax.grad(loss)(before))


def test_prokts_student_learns_from_the_new_teacher_alone():
  states, _ = steps(methods.prokt(parts()))
  # Which answers without dropout, as it is not asked to learn by them.
  new = states[1].params["teacher"]
  expected = distilled(states[0], lambda x: logits(TEACHER, new, x))
  close(states[1].params["student"], expected, 1e-12)


def test_stale_targets_are_those_of_before():
  fresh, _ = steps(methods.lgtm(parts()))
  stale, _ = steps(methods.lgtm(parts(), targets="stale"))
  same_bits(fresh[1].params["teacher"], stale[1].params["teacher"])
  before = stale[0].params["teacher"]
  expected = distilled(stale[0], lambda x: answers(before, x, "teacher"))
  close(stale[1].params["student"], expected, 1e-12)
