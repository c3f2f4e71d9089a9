# SPDX-License-Identifier: Apache-2.0
"""The adversary: what it may change, whom its gradient reaches, that it wins."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgt_jax import losses, methods, models, teachers
from tgt_jax.methods import Parts, adversary

PAD, CLS, SEP, MASK, V, L, B, K = 0, 1, 2, 3, 20, 8, 6, 3
WORDS = {
  "vocab_size": V,
  "pad_id": PAD,
  "cls_id": CLS,
  "sep_id": SEP,
  "mask_id": MASK,
}
SMALL = {
  "name": "bert",
  "num_layers": 1,
  "width": 8,
  "num_heads": 2,
  "mlp_width": 16,
  "max_positions": L,
  "dropout": 0.0,
}


@functools.cache
def world():
  """Student, labeler with opinions, a batch of texts."""
  spec = {**SMALL, "vocab_size": V, "pad_id": PAD, "sep_id": SEP}
  student, labeler = (
    models.from_spec(models.MODELS, {**spec, "width": w}, num_classes=K)
    for w in (8, 16)
  )
  rng = np.random.default_rng(0)
  x = np.full((B, L), PAD, np.int32)
  for row in x:
    size = rng.integers(2, L - 1)
    row[: size + 1] = [CLS, *rng.integers(4, V, size - 1), SEP]
  x = jnp.asarray(x)
  draw = lambda made, seed: jax.jit(made.init)(jax.random.key(seed), x)
  params, state = draw(labeler, 1)
  frozen = {
    "labeler": (teachers.Frozen(jax.tree.map(lambda a: 5 * a, params), state),)
  }
  parts = Parts(
    student=student,
    teacher=teachers.without_generator(teachers.labeler([labeler])),
    label_loss=losses.LABEL_LOSSES["cross_entropy"](),
    **dict.fromkeys(
      ("distance", "generated_distance", "disagreement"),
      losses.DISTANCES["kl_divergence"](),
    ),
  )
  batch = {"input": x, "label": jnp.arange(B) % K}
  return parts, frozen, batch, draw(student, 2)[0]


def recipe(**options):
  return methods.mate_kd(world()[0], adversary=SMALL, **WORDS, **options)


def value(params, made, seed=0):
  _, frozen, batch, _ = world()
  state = {"student": {}, "adversary": {}}
  key = jax.random.key(seed)
  return made.loss(params, state, frozen, batch, key, jnp.zeros((), jnp.int32))


@functools.cache
def everyone():
  made, batch = recipe(), world()[2]
  drawn, _ = made.others["adversary"](jax.random.key(3), batch)
  return {"student": world()[3], "adversary": drawn}


def keys(number, seed=0):
  return jax.random.split(jax.random.key(seed), number)


def test_only_words_are_hidden_and_as_many_as_said():
  x = jnp.tile(world()[2]["input"], (200, 1))
  hidden = adversary.hide(x, keys(len(x)), share=0.3, fixed_ids=(PAD, CLS, SEP))
  words = np.asarray(x) > SEP
  assert not np.any(np.asarray(hidden)[~words])
  assert np.mean(np.asarray(hidden)[words]) == pytest.approx(0.3, abs=0.03)


def test_draws_follow_their_probabilities():
  logits = jnp.log(jnp.array([0.1, 0.2, 0.7]))
  many = jnp.broadcast_to(logits, (2000, 2, 3))
  ids, soft = adversary.gumbel_tokens(many, keys(2000), temperature=0.5)
  frequency = np.bincount(np.ravel(ids), minlength=3) / ids.size
  np.testing.assert_allclose(frequency, [0.1, 0.2, 0.7], atol=0.03)
  np.testing.assert_allclose(soft, jax.nn.one_hot(ids, 3), atol=1e-6)


def test_the_gradient_of_a_draw_is_that_of_its_relaxation():
  logits = jax.random.normal(jax.random.key(1), (2, 3, 5))
  weights = jax.random.normal(jax.random.key(2), (2, 3, 5))
  rng = keys(2)
  noise = jax.vmap(lambda key: jax.random.gumbel(key, (3, 5)))(rng)
  got = jax.grad(
    lambda l: jnp.sum(
      weights * adversary.gumbel_tokens(l, rng, temperature=0.7)[1]
    )
  )(logits)
  want = jax.grad(
    lambda l: jnp.sum(weights * jax.nn.softmax((l + noise) / 0.7))
  )(logits)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_each_player_has_a_gradient_of_its_own():
  def slope(params, made):
    return jax.jit(jax.grad(lambda p: value(p, made)[0]))(params)

  nothing = dict.fromkeys(("label", "distill", "generated"), 0.0)
  alone = slope(everyone(), recipe(weights=nothing, fluency=0.0))
  # The adversary's game moves no weight of the student,
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(alone["student"]))
  assert any(np.any(leaf) for leaf in jax.tree.leaves(alone["adversary"]))
  # and the student's loss none of the adversary.
  both = slope(everyone(), recipe(fluency=0.0))
  for a, b in zip(
    jax.tree.leaves(alone["adversary"]),
    jax.tree.leaves(both["adversary"]),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_without_the_filled_text_it_is_distillation():
  quiet = value(everyone(), recipe(weights={"generated": 0.0}, fluency=0.0))
  parts, frozen, batch, student = world()
  params, state = {"student": student}, {"student": {}}
  kd, _ = methods.kd(parts)(params, state, frozen, batch, jax.random.key(0), 0)
  found = quiet[1].metrics["loss/adversary"]
  np.testing.assert_allclose(
    quiet[0], kd - found.total / found.count, rtol=1e-5
  )


def test_words_of_start_points_are_hidden():
  """More of them than the batch has, and not the batch's own."""
  _, frozen, batch, _ = world()
  made = recipe(weights={"label": 0.0, "distill": 0.0})
  state = {"student": {}, "adversary": {}}

  def of(batch):
    given = (frozen, batch, jax.random.key(0), 0)
    return made.loss(everyone(), state, *given)[0]

  half = {name: array[: B // 2] for name, array in batch.items()}
  np.testing.assert_allclose(
    of({**half, "starts": batch}), of(batch), rtol=1e-5
  )


def test_the_adversary_finds_disagreement():
  made = recipe(
    weights=dict.fromkeys(("label", "distill", "generated"), 0.0), fluency=0.0
  )
  tx = optax.adam(1e-2)
  params = everyone()
  opt_state = tx.init(params["adversary"])
  of_seed = lambda params, seed: value(params, made, seed)[0]

  @jax.jit
  def update(params, opt_state, seed):
    slope = jax.grad(of_seed)(params, seed)["adversary"]
    changes, opt_state = tx.update(slope, opt_state)
    learned = optax.apply_updates(params["adversary"], changes)
    return {**params, "adversary": learned}, opt_state

  found = jax.jit(
    lambda p: -jnp.mean(jax.vmap(of_seed, (None, 0))(p, 1000 + jnp.arange(8)))
  )
  before = float(found(params))
  for seed in range(60):
    params, opt_state = update(params, opt_state, seed)
  assert float(found(params)) > 1.1 * before


def test_fluency_is_the_likelihood_of_the_hidden_words():
  made = recipe(weights=dict.fromkeys(("label", "distill", "generated"), 0.0))
  with_it, aux = value(everyone(), made)
  without, _ = value(
    everyone(),
    recipe(
      weights=dict.fromkeys(("label", "distill", "generated"), 0.0),
      fluency=0.0,
    ),
  )
  term = aux.metrics["loss/fluency"]
  np.testing.assert_allclose(
    with_it - without, term.total / term.count, rtol=1e-4
  )
  # Next to uniform over the words at first.
  assert float(term.total / term.count) < np.log(V - 4) + 0.1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"share": 1.0}, "share"),
    ({"share": 0.0}, "share"),
    ({"temperature": 0.0}, "temperature"),
    ({"fluency": -1.0}, "fluency"),
    ({"weights": {"adversary": 1.0}}, "weights"),
  ],
)
def test_bad_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    recipe(**options)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_adversaries_of_other_families(family):
  """They take no separator, and are not told of it."""
  spec = {**SMALL, "name": family, "max_positions": L + PAD + 1}
  made = methods.mate_kd(world()[0], adversary=spec, **WORDS)
  drawn, _ = made.others["adversary"](jax.random.key(3), world()[2])
  total, _ = value({"student": world()[3], "adversary": drawn}, made)
  assert np.isfinite(total)
  with pytest.raises(ValueError, match="unknown model ''; choose from"):
    methods.mate_kd(world()[0], adversary={"width": 8}, **WORDS)
