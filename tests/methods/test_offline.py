# SPDX-License-Identifier: Apache-2.0
"""SKD, PKD and PESF-KD against their formulas, and what they must not touch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from tgt_jax import losses, methods, models, teachers

B, D, K = 6, 5, 3


@functools.cache
def world(student=(12, 8), teacher=(16, 10, 14, 8), classes=K):
  """Two networks with random weights, and a batch."""
  make = lambda widths: models.MODELS["mlp"](num_classes=classes, widths=widths)
  student, labeler = make(student), make(teacher)
  rng = np.random.default_rng(0)
  batch = {
    "input": jnp.asarray(rng.normal(size=(B, D)), jnp.float32),
    "label": jnp.asarray(rng.integers(0, classes, B)),
  }
  arrays = jax.jit(labeler.init)(jax.random.key(1), batch["input"])
  frozen = {"labeler": (teachers.Frozen(*arrays),)}
  teacher = teachers.Teacher(
    encode=None,
    decode=None,
    render=None,
    label=lambda f, x: teachers.labeler([labeler])(f["labeler"], x),
  )
  parts = methods.Parts(
    student=student,
    teacher=teacher,
    label_loss=losses.cross_entropy,
    distance=losses.kl_divergence,
    generated_distance=losses.kl_divergence,
    disagreement=losses.kl_divergence,
    labeler=labeler,
  )
  return parts, frozen, batch


def begin(recipe, parts, batch):
  """Parameters of everybody."""
  params, state = jax.jit(parts.student.init)(jax.random.key(2), batch["input"])
  params, state = {"student": params}, {"student": state}
  for name, one in recipe.others.items():
    params[name], state[name] = one(jax.random.key(3), batch)
  return params, state


def evaluate(made, parts, frozen, batch, params=None):
  """Loss, its terms and the gradient."""
  recipe = made if isinstance(made, methods.Recipe) else methods.Recipe(made)
  first, state = begin(recipe, parts, batch)
  params = first if params is None else params
  (total, aux), grads = jax.jit(jax.value_and_grad(recipe.loss, has_aux=True))(
    params, state, frozen, batch, jax.random.key(0), jnp.zeros((), jnp.int32)
  )
  terms = {n: float(m.total / m.count) for n, m in aux.metrics.items()}
  return float(total), terms, grads, params


def answers(parts, frozen, batch, params):
  own = parts.student.apply(params["student"], {}, batch["input"])[0]
  return own, parts.teacher.label(frozen, batch["input"])


def cross_entropy(logits, labels):
  return -np.mean(special.log_softmax(logits, -1)[np.arange(B), labels])


def kl(own, said):
  p = special.softmax(said, -1)
  gap = special.log_softmax(said, -1) - special.log_softmax(own, -1)
  return np.mean(np.sum(p * gap, -1))


@pytest.mark.parametrize("norm", ["l2", "std"])
def test_skd_compares_directions(norm):
  parts, frozen, batch = world()
  made = methods.skd(parts, alpha=0.8, norm=norm)
  total, terms, _, params = evaluate(made, parts, frozen, batch)
  own, said = (
    np.asarray(o.logits, np.float64)
    for o in answers(parts, frozen, batch, params)
  )
  if norm == "std":
    own, said = (a - a.mean(-1, keepdims=True) for a in (own, said))
  size = np.linalg.norm(said, axis=-1).mean()
  own, said = (
    size * a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (own, said)
  )
  labels = np.asarray(batch["label"])
  np.testing.assert_allclose(terms["loss/distill"], kl(own, said), rtol=1e-4)
  expected = 0.2 * cross_entropy(own, labels) + 0.8 * kl(own, said)
  np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_skd_of_two_classes_has_a_gradient_by_length_alone():
  parts, frozen, batch = world(classes=2)
  _, _, grads, _ = evaluate(methods.skd(parts, alpha=1.0), parts, frozen, batch)
  assert optax.tree.norm(grads) > 1e-2
  with pytest.raises(ValueError, match="norm 'l2'"):
    evaluate(methods.skd(parts, norm="std"), parts, frozen, batch)


def test_dist_of_two_classes_teaches_within_the_batch_alone():
  """Two centred numbers always correlate by one: no gradient between classes.

  See `losses.dist`: what is left is the part over the batch.
  """
  parts, frozen, batch = world(classes=2)
  inter = functools.partial(losses.dist, beta=1.0, gamma=0.0)
  intra = functools.partial(losses.dist, beta=0.0, gamma=1.0)
  sizes = []
  for distance in (inter, intra):
    made = methods.kd(parts._replace(distance=distance), weights={"label": 0.0})
    _, _, grads, _ = evaluate(made, parts, frozen, batch)
    sizes.append(float(optax.tree.norm(grads)))
  assert sizes[0] < 1e-4 < 1e-2 < sizes[1]


@pytest.mark.parametrize(
  ("student", "teacher", "match", "expected"),
  [
    (6, 12, "skip", [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
    (6, 12, "last", [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
    (3, 6, "skip", [(1, 2), (2, 4)]),
    (1, 2, "skip", [(1, 2)]),
    (2, 2, "last", [(1, 1)]),
  ],
)
def test_matched_layers_of_the_paper(student, teacher, match, expected):
  assert methods.matched_layers(student, teacher, match) == expected


def test_more_layers_than_the_teacher():
  with pytest.raises(ValueError, match="by `layers`"):
    methods.matched_layers(3, 2)


@pytest.mark.parametrize("normalise", [True, False])
def test_pkd_by_hand(normalise):
  """Two layers against four: the first learns from the second."""
  parts, frozen, batch = world()
  made = methods.pkd(parts, weights={"patience": 10.0}, normalise=normalise)
  total, terms, grads, params = evaluate(made, parts, frozen, batch)
  assert params["projection"]["layer0-1"].shape == (12, 10)
  own, said = answers(parts, frozen, batch, params)
  mine = np.asarray(own.features[0] @ params["projection"]["layer0-1"])
  theirs = np.asarray(said.features[1])
  if normalise:
    mine, theirs = (
      a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (mine, theirs)
    )
  gap = np.mean((mine - theirs) ** 2)
  np.testing.assert_allclose(terms["loss/patience"], gap, rtol=1e-4)
  labels = np.asarray(batch["label"])
  rest = cross_entropy(own.logits, labels) + kl(own.logits, said.logits)
  np.testing.assert_allclose(total, 0.5 * rest + 10.0 * gap, rtol=1e-4)
  assert np.any(grads["projection"]["layer0-1"] != 0)


def test_layers_of_one_width_need_no_map():
  parts, frozen, batch = world(student=(10, 8))
  made = methods.pkd(parts)
  _, _, _, params = evaluate(made, parts, frozen, batch)
  assert params["projection"] == {}


def test_pairs_of_layers_may_be_given():
  parts, frozen, batch = world()
  made = methods.pkd(parts, layers=[(2, 4)], normalise=False)
  _, terms, _, params = evaluate(made, parts, frozen, batch)
  own, said = answers(parts, frozen, batch, params)
  gap = np.mean(np.square(own.features[1] - said.features[3]))
  np.testing.assert_allclose(terms["loss/patience"], gap, rtol=1e-5)
  with pytest.raises(ValueError, match=r"layers must be in \[1, 2\]"):
    evaluate(methods.pkd(parts, layers=[(3, 4)]), parts, frozen, batch)
  with pytest.raises(ValueError, match="expected pairs of a student's and a"):
    methods.pkd(parts, layers=[(1,)])


def test_one_layer_may_learn_from_two_of_different_widths():
  parts, frozen, batch = world()
  made = methods.pkd(parts, layers=[(1, 1), (1, 2)])
  _, _, grads, params = evaluate(made, parts, frozen, batch)
  shapes = {name: a.shape for name, a in params["projection"].items()}
  assert shapes == {"layer0-0": (12, 16), "layer0-1": (12, 10)}
  assert all(np.any(g != 0) for g in grads["projection"].values())


def test_pesf_kd_begins_as_plain_distillation():
  parts, frozen, batch = world()
  made = methods.pesf_kd(parts, alpha=0.6)
  total, _, grads, params = evaluate(made, parts, frozen, batch)
  own, said = (
    np.asarray(o.logits) for o in answers(parts, frozen, batch, params)
  )
  labels = np.asarray(batch["label"])
  both = cross_entropy(own, labels) + cross_entropy(said, labels)
  np.testing.assert_allclose(total, 0.4 * both + 0.6 * kl(own, said), rtol=1e-4)
  # The gradient of both terms flows into the adapter.
  assert np.any(grads["adapter"]["W1"] != 0)
  assert np.any(grads["adapter"]["W3"] != 0)


def test_pesf_kd_changes_the_adapter_and_not_the_teacher():
  parts, frozen, batch = world()
  recipe = methods.pesf_kd(parts)
  tx = methods.partitioned(
    dict.fromkeys(("student", "adapter"), optax.adam(1e-2))
  )
  method = methods.from_loss(
    recipe.loss, lambda rng, batch: begin(recipe, parts, batch), tx
  )
  state = method.init(jax.random.key(0), batch)
  before = jax.tree.map(np.array, frozen)
  assert set(state.params) == {"student", "adapter"}
  update = jax.jit(method.update)
  for step in range(3):
    state, _ = update(state, frozen, batch, jax.random.key(step))
  jax.tree.map(np.testing.assert_array_equal, before, frozen)
  said = answers(parts, frozen, batch, state.params)[1]
  inside = said.embedding
  leaning = inside @ state.params["adapter"]["W1"]
  assert np.max(np.abs(leaning)) > 1e-3


def test_pesf_kds_adapter_is_that_of_the_paper():
  """W1 h + W3 relu(W2 h), added to the logits."""
  parts, frozen, batch = world()
  made = methods.pesf_kd(parts, alpha=1.0, width=5)
  *_, params = evaluate(made, parts, frozen, batch)
  rng = np.random.default_rng(1)
  adapter = {
    n: jnp.asarray(rng.normal(size=a.shape), jnp.float32)
    for n, a in params["adapter"].items()
  }
  assert adapter["W2"].shape == (8, 5)
  total, *_ = evaluate(
    made, parts, frozen, batch, {**params, "adapter": adapter}
  )
  own, said = answers(parts, frozen, batch, params)
  h = np.asarray(said.embedding)
  leaning = h @ adapter["W1"] + np.maximum(h @ adapter["W2"], 0) @ adapter["W3"]
  np.testing.assert_allclose(
    total, kl(np.asarray(own.logits), said.logits + leaning), rtol=1e-4
  )


@pytest.mark.parametrize(
  ("make", "options", "message"),
  [
    (methods.skd, {"alpha": 2.0}, "alpha"),
    (methods.skd, {"norm": "l1"}, "norm"),
    (methods.pkd, {"weights": {"patient": 1.0}}, "patience"),
    (methods.pkd, {"weights": {"patience": -1.0}}, "patience"),
    (methods.pkd, {"match": "first"}, "match"),
    (methods.pesf_kd, {"alpha": -0.1}, "alpha"),
    (methods.pesf_kd, {"width": 0}, "width"),
    (methods.lgtm, {"influence": "exactly"}, "influence"),
    (methods.lgtm, {"influence_weight": "oficial"}, "official"),
    (methods.lgtm, {"influence_weight": -1.0}, "influence_weight"),
    (methods.lgtm, {"alpha": 1.5}, "alpha"),
    (methods.lgtm, {"targets": "old"}, "targets"),
    (methods.lgtm, {"every": 0}, "every"),
    (methods.lgtm, {"fraction": 0.0}, "fraction"),
    (methods.meta_distill, {"look_ahead_rate": 0.0}, "look_ahead_rate"),
  ],
)
def test_arguments_out_of_range(make, options, message):
  with pytest.raises(ValueError, match=message):
    make(world()[0], **options)


def test_one_optimizer_per_participant():
  tx = methods.partitioned(
    {"student": optax.sgd(1.0), "teacher": optax.sgd(0.0)}
  )
  params = {"student": {"w": jnp.ones(2)}, "teacher": {"w": jnp.ones(2)}}
  updates, _ = tx.update(params, tx.init(params), params)
  np.testing.assert_array_equal(updates["student"]["w"], -1.0)
  np.testing.assert_array_equal(updates["teacher"]["w"], 0.0)
