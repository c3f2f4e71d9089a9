# SPDX-License-Identifier: Apache-2.0
"""Influence against per-example gradients, and against a gradient through
the student's whole update."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgt_jax import influence, losses

CLASSES = 4


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def network(widths, seed):
  """`(params, apply)` of a small network; apply returns logits, features."""
  rng = np.random.default_rng(seed)
  sizes = [5, *widths, CLASSES]
  params = [
    {
      "kernel": rng.normal(size=(m, n)) / np.sqrt(m),
      "bias": 0.1 * rng.normal(size=n),
    }
    for m, n in itertools.pairwise(sizes)
  ]

  def apply(params, x):
    for layer in params[:-1]:
      x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
    last = params[-1]
    return {"logits": x @ last["kernel"] + last["bias"][None], "features": x}

  return params, apply


def batch(seed, size=9):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(size, 5)), rng.integers(0, CLASSES, size)


STUDENT, student_of = network((7,), 0)
TEACHER, teacher_of = network((6, 7), 1)
TRAIN, HELD_OUT = batch(2), batch(3)


def on_logits(distance):
  return lambda s, t: distance(s["logits"], t["logits"])


def mixed(s, t):
  """Half distillation, half labels."""
  distilled = losses.kl_divergence(s["logits"], t["logits"])
  return 0.5 * (distilled + losses.cross_entropy(s["logits"], TRAIN[1]))


def of_features(s, t):
  """Logits and features, as PKD has it."""
  gap = jnp.sum((s["features"] - t["features"]) ** 2, axis=-1)
  return gap + losses.kl_divergence(s["logits"], t["logits"])


PAIRS = {
  "kl": on_logits(losses.kl_divergence),
  "kl, temperature 4": on_logits(
    functools.partial(losses.kl_divergence, temperature=4.0)
  ),
  "logit mse": on_logits(losses.logit_mse),
  "dist": on_logits(losses.dist),
  "kl and labels": mixed,
  "features": of_features,
}
OPTIMIZERS = {
  "sgd": optax.sgd(0.1),
  "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
  "clip, adamw": optax.chain(
    optax.clip_by_global_norm(0.1), optax.adamw(1e-2, weight_decay=0.1)
  ),
}
pairs = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


def student_loss(params, teacher, pair):
  outputs = student_of(params, TRAIN[0])
  return jnp.mean(pair(outputs, teacher_of(teacher, TRAIN[0])))


def held_out_loss(params):
  logits = student_of(params, HELD_OUT[0])["logits"]
  return jnp.mean(losses.cross_entropy(logits, HELD_OUT[1]))


def warm(tx):
  """A state that an earlier update left behind: moments are not zero."""
  grads = jax.grad(held_out_loss)(STUDENT)
  return tx.update(grads, tx.init(STUDENT), STUDENT)[1]


def through_the_step(tx, opt_state, pair):
  """The gradient by the teacher, straight through the student's update."""

  def objective(teacher):
    grads = jax.grad(student_loss)(STUDENT, teacher, pair)
    updates, _ = tx.update(grads, opt_state, STUDENT)
    return held_out_loss(optax.apply_updates(STUDENT, updates))

  return jax.jit(jax.grad(objective))(TEACHER)


def by_influence(tx, opt_state, pair):
  @jax.jit
  def gradient(teacher):
    grads = jax.grad(student_loss)(STUDENT, teacher, pair)
    ahead = influence.look_ahead(tx, grads, opt_state, STUDENT)
    u = ahead.pull(jax.grad(held_out_loss)(ahead.params))
    outputs, moved = influence.tangents(
      lambda p: student_of(p, TRAIN[0]), STUDENT, u
    )
    said, pull = jax.vjp(lambda p: teacher_of(p, TRAIN[0]), teacher)
    mean = lambda s, t: jnp.mean(pair(s, t))
    return pull(influence.teacher_cotangent(mean, outputs, moved, said))[0]

  return gradient(TEACHER)


def close(found, expected, *, rtol):
  """Relative to the largest number of the whole tree."""
  scale = max(float(jnp.max(jnp.abs(a))) for a in jax.tree.leaves(expected))
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize(
  ("pair", "tx"),
  [
    *((pair, tx) for pair in PAIRS for tx in ("sgd", "clip, adamw")),
    ("kl", "momentum"),
  ],
)
def test_teachers_gradient_is_that_through_the_step(pair, tx):
  pair, tx = PAIRS[pair], OPTIMIZERS[tx]
  state = warm(tx)
  close(
    by_influence(tx, state, pair),
    through_the_step(tx, state, pair),
    rtol=1e-10,
  )


@pairs
def test_influence_is_the_product_with_each_gradient(pair):
  v = jax.grad(held_out_loss)(STUDENT)

  def one(params, i):
    outputs = student_of(params, TRAIN[0])
    return pair(outputs, teacher_of(TEACHER, TRAIN[0]))[i]

  slopes = jax.vmap(jax.grad(one), (None, 0))(STUDENT, jnp.arange(9))
  expected = sum(
    jnp.sum(g * d[None], axis=tuple(range(1, g.ndim)))
    for g, d in zip(jax.tree.leaves(slopes), jax.tree.leaves(v), strict=True)
  )
  outputs, moved = influence.tangents(
    lambda p: student_of(p, TRAIN[0]), STUDENT, v
  )
  found = influence.per_example(
    pair, outputs, moved, teacher_of(TEACHER, TRAIN[0])
  )
  np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_influence_by_hand():
  """At temperature one (p_S - p_T) . dz: what the paper's sums come to."""
  rng = np.random.default_rng(0)
  s, t, dz = (jnp.asarray(rng.normal(size=(6, CLASSES))) for _ in range(3))
  found = influence.per_example(losses.kl_divergence, s, dz, t)
  expected = np.sum((jax.nn.softmax(s) - jax.nn.softmax(t)) * dz, axis=-1)
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_teachers_gradient_by_hand():
  """For KL and SGD: (eta / B) J(p_T) dz, dz along v, J of the softmax."""
  rng = np.random.default_rng(1)
  s, t, dz = (jnp.asarray(rng.normal(size=(6, CLASSES))) for _ in range(3))
  mean = lambda a, b: jnp.mean(losses.kl_divergence(a, b))
  found = influence.teacher_cotangent(mean, s, -0.3 * dz, t)
  p = jax.nn.softmax(t)
  expected = 0.3 / 6 * (p * dz - p * jnp.sum(p * dz, axis=-1, keepdims=True))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_finite_differences_converge_to_it_at_second_order():
  pair = PAIRS["kl"]
  v = jax.grad(held_out_loss)(STUDENT)
  said = teacher_of(TEACHER, TRAIN[0])
  mean = lambda s, t: jnp.mean(pair(s, t))
  exact = influence.teacher_cotangent(
    mean,
    *influence.tangents(lambda p: student_of(p, TRAIN[0]), STUDENT, v),
    said,
  )

  def slope(params):
    return jax.grad(mean, argnums=1)(student_of(params, TRAIN[0]), said)

  errors = []
  for eps in (0.4, 0.2, 0.1):
    found = influence.finite_difference(slope, STUDENT, v, eps)
    errors.append(
      float(optax.tree.norm(jax.tree.map(jnp.subtract, found, exact)))
    )
  np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.1)
  np.testing.assert_allclose(errors[1] / errors[2], 4.0, rtol=0.03)
  # At the step that the paper's code takes.
  step = influence.difference_step(v)
  np.testing.assert_allclose(step, 0.01 / optax.tree.norm(v))
  close(influence.finite_difference(slope, STUDENT, v, step), exact, rtol=1e-4)


def test_no_direction_is_no_step_and_no_difference():
  still = jax.tree.map(jnp.zeros_like, STUDENT)
  step = influence.difference_step(still)
  assert step == 0
  assert influence.finite_difference(held_out_loss, STUDENT, still, step) == 0


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("warm", [False, True])
def test_words_that_no_text_has(warm, clip_norm):
  """No gradient and no moments: Adam's derivative there is no NaN, and none
  spreads where the norm of all gradients is clipped."""
  draw = lambda seed, rows: jnp.asarray(
    np.random.default_rng(seed).normal(size=(rows, CLASSES))
  )
  words, targets = draw(0, 6), draw(1, 3)
  ids, held = jnp.array([0, 1, 1]), jnp.array([1, 5])
  of = lambda table, t: jnp.mean(losses.kl_divergence(table[ids], t))
  labels = jnp.array([0, 2])
  test = lambda table: jnp.mean(losses.cross_entropy(table[held], labels))

  def with_root(root):
    tx = optax.adam(1e-2, eps_root=root)
    if clip_norm:
      tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    state = tx.init(words)
    if warm:
      _, state = tx.update(jax.grad(of)(words, draw(7, 3)), state, words)
    return tx, state

  grads = jax.grad(of)(words, targets)
  assert optax.tree.norm(grads) > 0.1  # It is clipped.
  tx, state = with_root(0.0)
  moved = lambda g: tx.update(g, state, words)[0]
  raw = jax.jit(lambda g: jax.vjp(moved, g)[1](words)[0])(grads)
  assert np.all(
    np.isnan(raw if clip_norm else raw[5])
  )  # What there is to mend.
  u = jax.jit(
    lambda: influence.look_ahead(tx, grads, state, words).pull(
      jax.grad(test)(words + moved(grads))
    )
  )()
  assert np.all(np.isfinite(u))

  def objective(t):
    rooted, before = with_root(1e-18)
    updates, _ = rooted.update(jax.grad(of)(words, t), before, words)
    return test(words + updates)

  outputs, along = influence.tangents(lambda table: table[ids], words, u)
  mean = lambda s, t: jnp.mean(losses.kl_divergence(s, t))
  found = influence.teacher_cotangent(mean, outputs, along, targets)
  expected = jax.jit(jax.grad(objective))(targets)
  assert float(optax.tree.norm(expected)) > 1e-8
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-13)


def test_a_student_that_equals_its_teacher_has_an_influence():
  """All of the gradient is zero, its norm is clipped."""
  words = jnp.asarray(np.random.default_rng(0).normal(size=(6, CLASSES)))
  tx = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2))
  ahead = influence.look_ahead(tx, jnp.zeros_like(words), tx.init(words), words)
  np.testing.assert_array_equal(ahead.params, words)
  # Adam's first update is rate * g / (|g| + eps).
  np.testing.assert_allclose(ahead.pull(words), -1e6 * words, rtol=1e-3)


@pytest.mark.parametrize("clip_norm", [None, 1e-1, 1e-3, 1e-4])
@pytest.mark.parametrize("b2", [0.999, 0.9999])
def test_gradients_whose_squares_are_no_numbers(b2, clip_norm):
  """What rounding leaves of a zero: in float32 its square is nothing, before
  the whole gradient is clipped or then."""
  sizes = [0.0, 1e-40, -1e-30, 8e-19, -1e-16, 1e-12, -1e-10, 1e-8, -0.8, 0.6]
  grads = jnp.asarray(sizes, jnp.float32)
  words = jnp.ones_like(grads)
  tx = optax.adam(1e-2, b2=b2)
  if clip_norm:
    tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
  ahead = influence.look_ahead(tx, grads, tx.init(words), words)
  # Adam's first update is rate * g / (|g| + eps); clipped, g is shorter.
  exact = np.asarray(grads, np.float64)
  by = min(1.0, (clip_norm or 1.0) / np.linalg.norm(exact))
  slopes = 1e-2 * 1e-8 * by / (np.abs(by * exact) + 1e-8) ** 2
  expected = -slopes
  if clip_norm:
    expected += exact * np.sum(slopes * exact) / np.sum(np.square(exact))
  found = ahead.pull(words)
  # Float32 against slopes that are up to 1e14 apart.
  np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-2)


def test_a_part_of_the_parameters_is_a_direction():
  v = jax.grad(held_out_loss)(STUDENT)
  chosen = influence.matching(STUDENT, "^1/")
  last = influence.only(v, chosen)
  assert not np.any(last[0]["kernel"])
  np.testing.assert_array_equal(last[1]["kernel"], v[1]["kernel"])
  of = lambda p: student_of(p, TRAIN[0])
  outputs, moved = influence.tangents(of, STUDENT, v, chosen)
  expected, along = influence.tangents(of, STUDENT, last)
  jax.tree.map(np.testing.assert_array_equal, outputs, expected)
  close(moved, along, rtol=1e-12)
  assert not np.any(moved["features"])  # Below the part.
  with pytest.raises(ValueError, match=r"'head'; the last of 4 are .*1/kernel"):
    influence.matching(STUDENT, "head")


def test_networks_of_bfloat16_have_losses_of_float32():
  half = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
  v = jax.grad(held_out_loss)(STUDENT)
  of = lambda p: student_of(p, TRAIN[0].astype(jnp.bfloat16))
  outputs, moved = influence.tangents(of, half(STUDENT), v)
  assert outputs["logits"].dtype == moved["logits"].dtype == jnp.float32
  said = half(teacher_of(TEACHER, TRAIN[0]))
  mean = lambda s, t: jnp.mean(PAIRS["kl"](s, t))
  cotangent = influence.teacher_cotangent(mean, outputs, moved, said)
  assert cotangent["logits"].dtype == jnp.bfloat16
  exact = influence.teacher_cotangent(
    mean,
    *influence.tangents(lambda p: student_of(p, TRAIN[0]), STUDENT, v),
    teacher_of(TEACHER, TRAIN[0]),
  )
  close(cotangent, exact, rtol=0.03)


class TestWeightings:
  VALUES = np.array([3.0, -1.0, 0.0, 0.5, -8.0])

  def test_by_hand(self):
    weigh = influence.WEIGHTINGS
    np.testing.assert_array_equal(weigh["identity"](self.VALUES), self.VALUES)
    np.testing.assert_array_equal(weigh["sign"](self.VALUES), [1, -1, 0, 1, -1])
    scores = (self.VALUES - self.VALUES.mean()) / self.VALUES.std()
    np.testing.assert_allclose(weigh["z_score"](self.VALUES), scores)
    exp = np.exp(scores / 2)
    np.testing.assert_allclose(
      weigh["softmax"](self.VALUES, temperature=2.0), 5 * exp / exp.sum()
    )
    rms = np.sqrt(np.mean(self.VALUES**2))
    np.testing.assert_allclose(
      weigh["clip"](self.VALUES, limit=0.5),
      np.clip(self.VALUES / rms, -0.5, 0.5),
    )

  @pytest.mark.parametrize("name", influence.WEIGHTINGS)
  @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
  def test_finite_at_every_scale(self, name, scale):
    values = jnp.asarray(np.float32(scale * self.VALUES))
    assert np.all(np.isfinite(influence.WEIGHTINGS[name](values)))

  @pytest.mark.parametrize(
    "name", sorted({*influence.WEIGHTINGS} - {"identity"})
  )
  def test_the_unit_does_not_matter(self, name):
    weigh = influence.WEIGHTINGS[name]
    np.testing.assert_allclose(
      weigh(1e-6 * self.VALUES), weigh(self.VALUES), rtol=1e-10
    )
