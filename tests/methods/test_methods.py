# SPDX-License-Identifier: Apache-2.0
"""Identities between methods, and their losses against numpy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgt_jax import exploration, generators, losses, methods, models, teachers
from tgt_jax.methods import Parts

B, K, SHAPE = 8, 4, (4, 4, 1)
COUNTS = np.array([40, 20, 10, 5])


@functools.cache
def world():
  """A small student, a teacher with random weights, and a batch."""
  student = models.MODELS["mlp"](num_classes=K, widths=(8,))
  labeler = models.MODELS["mlp"](num_classes=K, widths=(16,))
  generator = generators.GENERATORS["vae"](
    input_shape=SHAPE, latent_dim=3, widths=(16,)
  )
  keys = jax.random.split(jax.random.key(0), 5)
  batch = {
    "input": jax.random.uniform(keys[0], (B, *SHAPE)),
    "label": jnp.arange(B) % K,
  }
  init = lambda made, key: jax.jit(made.init)(key, batch["input"])
  frozen = {
    "generator": teachers.Frozen(*init(generator, keys[1])),
    "labeler": (teachers.Frozen(*init(labeler, keys[2])),),
  }
  # Sharper opinions than a random network has.
  frozen["labeler"] = jax.tree.map(lambda a: 3.0 * a, frozen["labeler"])
  teacher = teachers.triple(generator, teachers.labeler([labeler]))
  return student, teacher, frozen, batch


def parts(**changes):
  student, teacher, _, _ = world()
  make = lambda table, **spec: table[spec.pop("name")](
    class_counts=COUNTS, **spec
  )
  given = {
    "student": student,
    "teacher": teacher,
    "label_loss": make(losses.LABEL_LOSSES, name="cross_entropy"),
    "distance": make(losses.DISTANCES, name="kl_divergence", temperature=2.0),
    "generated_distance": make(losses.DISTANCES, name="kl_divergence"),
    "disagreement": make(losses.DISTANCES, name="kl_divergence"),
    "exploration": exploration.random(0.5),
  }
  return Parts(**{**given, **changes})


def method_of(loss, **options):
  student = world()[0]

  def init(rng, batch):
    params, state = jax.jit(student.init)(rng, batch["input"])
    return {"student": params}, {"student": state}

  return methods.from_loss(loss, init, optax.adam(1e-2), **options)


def value(loss, batch=None, rng=None):
  """The scalar, its metrics and its gradient at the initial parameters."""
  _, _, frozen, default = world()
  batch = default if batch is None else batch
  state = method_of(loss).init(jax.random.key(7), default)
  function = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, aux), grads = function(
    state.params,
    state.model_state,
    frozen,
    batch,
    jax.random.key(9) if rng is None else rng,
    jnp.zeros((), jnp.int32),
  )
  return total, aux.metrics, grads


def trained(loss, steps=3, **options):
  _, _, frozen, batch = world()
  method = method_of(loss, **options)
  state = method.init(jax.random.key(7), batch)
  update = jax.jit(method.update)
  for step in range(steps):
    key = jax.random.fold_in(jax.random.key(1), step)
    state, _ = update(state, frozen, batch, key)
  return state


def same_bits(first, second):
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_array_equal(a, b)


def test_tgt_without_generated_examples_is_kd_to_the_bit():
  none = methods.tgt(parts(), weights={"generated": 0.0})
  same_bits(trained(none), trained(methods.kd(parts())))


def test_kd_without_distillation_is_supervised_to_the_bit():
  none = methods.kd(parts(), weights={"distill": 0.0})
  same_bits(trained(none), trained(methods.supervised(parts())))


def test_random_with_sigma_zero_shows_reconstructions():
  zero = methods.tgt(parts(exploration=exploration.random(0.0)))
  stay = methods.tgt(parts(exploration=exploration.stay()))
  same_bits(trained(zero), trained(stay))


def softmax_kl(student, teacher, temperature):
  log = lambda a: a - np.log(np.exp(a).sum(-1, keepdims=True))
  s, t = log(student / temperature), log(teacher / temperature)
  return temperature**2 * np.sum(np.exp(t) * (t - s), -1)


def test_every_term_against_numpy():
  student, teacher, frozen, batch = world()
  weights = {"label": 0.7, "distill": 0.3, "generated": 1.3}
  loss = methods.tgt(parts(exploration=exploration.stay()), weights=weights)
  total, metrics, _ = value(loss)
  state = method_of(loss).init(jax.random.key(7), batch)
  logits = lambda x: np.asarray(
    student.apply(state.params["student"], {}, x)[0].logits, np.float64
  )
  label = lambda x: np.asarray(teacher.label(frozen, x).logits, np.float64)
  x = batch["input"]
  seen = teacher.decode(frozen, teacher.encode(frozen, x), x)
  log_p = logits(x) - np.log(np.exp(logits(x)).sum(-1, keepdims=True))
  ce = -log_p[np.arange(B), np.asarray(batch["label"])].mean()
  real = softmax_kl(logits(x), label(x), 2.0).mean()
  made = softmax_kl(logits(seen), label(seen), 1.0).mean()
  mean = lambda name: float(metrics[name].total / metrics[name].count)
  np.testing.assert_allclose(mean("loss/label"), ce, rtol=2e-5)
  np.testing.assert_allclose(mean("loss/distill"), real, rtol=2e-5)
  np.testing.assert_allclose(mean("loss/generated"), made, rtol=2e-5)
  np.testing.assert_allclose(
    total, 0.7 * ce + 0.3 * real + 1.3 * made, rtol=2e-5
  )


# Those of one learner and one loss.
LOSSES = (
  "supervised kd tgt mixup_kd noise_kd augmented_kd unlabelled_kd uda skd"
)


@pytest.mark.parametrize("name", LOSSES.split())
def test_every_method_learns_its_own_batch(name):
  _, _, frozen, batch = world()
  batch = {**batch, "strong": 1.0 - batch["input"]}
  method = method_of(methods.METHODS[name](parts()))
  state = method.init(jax.random.key(7), batch)
  update = jax.jit(method.update)
  values = []
  for step in range(40):
    key = jax.random.fold_in(jax.random.key(1), step)
    state, metrics = update(state, frozen, batch, key)
    values.append(float(metrics["loss/total"].total))
  assert np.all(np.isfinite(values))
  assert np.mean(values[-5:]) < np.mean(values[:5])


@pytest.mark.parametrize("name", ["tgt", "mixup_kd", "noise_kd", "kd"])
def test_nothing_flows_into_the_teacher(name):
  _, _, frozen, batch = world()
  made = parts(exploration=exploration.gradient_ascent(0.3))
  loss = methods.METHODS[name](made)
  state = method_of(loss).init(jax.random.key(7), batch)

  def of_frozen(frozen):
    return loss(
      state.params, state.model_state, frozen, batch, jax.random.key(0), 0
    )[0]

  for leaf in jax.tree.leaves(jax.jit(jax.grad(of_frozen))(frozen)):
    np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


def test_generated_examples_are_constants_of_the_student():
  """The gradient is that of the loss on the shown examples, and no more."""
  _, _, frozen, batch = world()
  made = parts(exploration=exploration.gradient_ascent(0.5))
  weights = {"label": 0.0, "distill": 0.0}
  _, _, grads = value(methods.tgt(made, weights=weights))
  state = method_of(methods.kd(made)).init(jax.random.key(7), batch)
  from tgt_jax.rng import stream

  @jax.jit
  def neighbours(student):
    return methods.make_neighbours(
      made,
      methods.explored(made),
      student,
      {},
      frozen,
      batch,
      stream(jax.random.key(9), "explore"),
      jnp.zeros((), jnp.int32),
    )

  shown = neighbours(state.params["student"])

  def plain(params):
    outputs, _ = made.student.apply(params["student"], {}, shown.x)
    return jnp.mean(made.generated_distance(outputs.logits, shown.targets))

  expected = jax.jit(jax.grad(plain))(state.params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    grads,
    expected,
  )


def test_gradient_exploration_raises_disagreement_more_than_random():
  _, _, frozen, batch = world()
  rise = {}
  for name, how in {
    "random": exploration.random(0.3),
    "gradient": exploration.gradient_ascent(0.3),
  }.items():
    made = parts(exploration=how)
    state = method_of(methods.tgt(made)).init(jax.random.key(7), batch)
    context = methods.Context(state.params["student"], {}, frozen, 0)
    starts = methods.start_points(batch, jax.random.key(3), 4, False)
    traced = jax.jit(functools.partial(methods.trace, made))(context, starts)
    before, after = traced.disagreement
    rise[name] = float(jnp.mean(after - before))
  assert rise["gradient"] > 0
  assert rise["gradient"] > 2 * abs(rise["random"])


def test_cached_answers_of_the_teacher_change_nothing():
  _, teacher, frozen, batch = world()
  cached = {
    **batch,
    "latent": teacher.encode(frozen, batch["input"]),
    "teacher_logits": teacher.label(frozen, batch["input"]).logits,
  }
  loss = methods.tgt(parts())
  for a, b in zip(value(loss), value(loss, cached), strict=True):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b
    )


def test_mask_equals_the_subset():
  *_, batch = world()
  masked = {**batch, "mask": (jnp.arange(B) < 5).astype(jnp.float32)}
  subset = {name: array[:5] for name, array in batch.items()}
  for loss in (
    methods.kd(parts()),
    methods.tgt(parts(exploration=exploration.stay()), num_generated=2),
  ):
    whole, part = value(loss, masked), value(loss, subset)
    np.testing.assert_allclose(whole[0], part[0], rtol=1e-5)
    for name, mean in part[1].items():
      np.testing.assert_allclose(whole[1][name], mean, rtol=1e-5, err_msg=name)


def test_start_points_of_their_own():
  *_, batch = world()
  half = {name: array[: B // 2] for name, array in batch.items()}
  weights = {"label": 0.0, "distill": 0.0}
  loss = methods.tgt(
    parts(exploration=exploration.stay()), weights=weights, num_generated=2
  )
  own = value(loss, {**batch, "starts": half})
  alone = value(loss, half)
  np.testing.assert_allclose(own[0], alone[0], rtol=1e-6)
  assert float(own[1]["loss/generated"].count) == B
  # More of them than the batch has examples (`starts.ratio`).
  more = value(loss, {**half, "starts": batch})
  np.testing.assert_allclose(more[0], value(loss, batch)[0], rtol=1e-6)
  assert float(more[1]["loss/generated"].count) == 2 * B


def test_consistency_of_two_views_against_numpy():
  """KL(sharpened own prediction || prediction on the view), sure ones only."""
  student, _, _, batch = world()
  params, _ = student.init(jax.random.key(3), batch["input"])
  strong = 1.0 - batch["input"]
  logits = lambda x: np.asarray(
    student.apply(params, {}, x)[0].logits, np.float64
  )
  weak = logits(batch["input"])
  highest = (np.exp(weak) / np.exp(weak).sum(-1, keepdims=True)).max(-1)
  loss = methods.uda(
    parts(),
    weights={"label": 0.0, "generated": 2.0},
    sharpen=0.5,
    confidence=float(np.median(highest)),
  )
  total, _ = loss(
    {"student": params},
    {"student": {}},
    None,
    {**batch, "starts": {**batch, "strong": strong}},
    jax.random.key(9),
    jnp.zeros((), jnp.int32),
  )
  sure = highest >= np.median(highest)
  expected = softmax_kl(logits(strong), weak / 0.5, 1.0) * sure
  np.testing.assert_allclose(total, 2.0 * expected.mean(), rtol=1e-5)


def test_an_augmented_view_is_distilled_like_a_real_example():
  *_, batch = world()
  view = {**batch, "strong": 1.0 - batch["input"]}
  weights = {"label": 0.0, "distill": 0.0, "generated": 0.7}
  got = value(methods.augmented_kd(parts(), weights=weights), view)
  made = parts(distance=parts().generated_distance)  # Of one temperature.
  alone = {**batch, "input": view["strong"]}
  want = value(methods.kd(made, weights={"label": 0.0, "distill": 0.7}), alone)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
  with pytest.raises(ValueError, match=r"config\.starts\.strong"):
    value(methods.augmented_kd(parts()))


def test_partner_is_the_next_example_whatever_the_copies():
  *_, batch = world()
  starts = methods.start_points(batch, jax.random.key(0), 2, True)
  np.testing.assert_array_equal(starts.x[2], batch["input"][1])
  np.testing.assert_array_equal(starts.partner_x[2], batch["input"][0])
  np.testing.assert_array_equal(starts.partner_x[3], batch["input"][0])
  assert len(np.unique(jax.random.key_data(starts.rng), axis=0)) == 2 * B


def test_pixel_space_has_no_decoder():
  student, _, frozen, batch = world()
  labeler = models.MODELS["mlp"](num_classes=K, widths=(16,))
  teacher = teachers.without_generator(teachers.labeler([labeler]))
  made = parts(teacher=teacher, exploration=exploration.random(10.0))
  context = methods.Context(
    student.init(jax.random.key(0), batch["input"])[0], {}, frozen, 0
  )
  starts = methods.start_points(batch, jax.random.key(3), 1, False)
  shown = methods.explored(made).make(context, starts)
  assert float(shown.x.min()) == 0.0
  assert float(shown.x.max()) == 1.0
  np.testing.assert_array_equal(
    teacher.encode(frozen, batch["input"]), batch["input"]
  )


@pytest.mark.parametrize(
  "build, message",
  [
    (lambda: methods.tgt(parts(), weights={"labels": 1.0}), "mean 'label'"),
    (lambda: methods.kd(parts(), weights={"label": -1.0}), "label must be"),
    (lambda: methods.kd(parts(), weights={"generated": 1.0}), "'generated'"),
    (lambda: methods.tgt(parts(), num_generated=0), "num_generated"),
    (lambda: methods.mixup_kd(parts(), alpha=0.0), "alpha must be > 0"),
    (lambda: methods.noise_kd(parts(), sigma=-0.1), "sigma must be >= 0"),
    (lambda: methods.uda(parts(), confidence=2.0), "confidence must be"),
    (lambda: method_of(methods.kd(parts()), ema_decay=1.0), "ema_decay"),
    (lambda: method_of(methods.kd(parts()), accumulate=0), "accumulate"),
  ],
)
def test_bad_arguments(build, message):
  with pytest.raises(ValueError, match=message):
    build()


def test_accumulation_equals_the_whole_batch():
  loss = methods.kd(parts())
  whole, parted = trained(loss, 1), trained(loss, 1, accumulate=4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    whole.opt_state[0].mu,
    parted.opt_state[0].mu,
  )
  with pytest.raises(ValueError, match="does not split into 3"):
    trained(loss, 1, accumulate=3)


def test_ema_is_the_running_mean():
  loss = methods.supervised(parts())
  first = trained(loss, 1, ema_decay=0.9)
  second = trained(loss, 2, ema_decay=0.9)
  jax.tree.map(
    lambda old, new, mean: np.testing.assert_allclose(
      mean, 0.9 * old + 0.1 * new, rtol=1e-5, atol=1e-7
    ),
    first.ema,
    second.params,
    second.ema,
  )
  assert trained(loss, 1).ema is None
