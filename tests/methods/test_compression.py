# SPDX-License-Identifier: Apache-2.0
"""Compressed embeddings: who learns from what, and what stays as it is."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from tgt_jax import losses, methods, models, teachers

B, D, K, T = 8, 6, 3, 4
DCOR = losses.EMBEDDING_DISTANCES["distance_correlation"]()


@functools.cache
def world(frames=1, width=2, **options):
  """A student of images, a compressor of embeddings, a batch with both."""
  rng = np.random.default_rng(0)
  student = models.MODELS["cnn"](
    num_classes=K, widths=(4,), dense_widths=(), spatial="mean"
  )
  shape = (frames, 1, D)
  labeler = models.MODELS["mlp"](num_classes=K, widths=())
  batch = {
    "input": jnp.asarray(rng.uniform(size=(B, 4, 6, 1)), jnp.float32),
    "label": jnp.asarray(rng.integers(0, K, B)),
    "embedding": jnp.asarray(rng.normal(size=(B, *shape)), jnp.float32),
    "teacher_logits": jnp.asarray(rng.normal(size=(B, K)), jnp.float32),
  }
  compressor = None
  if width:
    compressor = models.MODELS["bottleneck"](
      num_classes=K, width=width, **options
    )
  return (
    methods.Parts(
      student=student,
      teacher=teachers.without_generator(teachers.labeler([labeler])),
      label_loss=losses.cross_entropy,
      distance=losses.kl_divergence,
      generated_distance=losses.kl_divergence,
      disagreement=losses.kl_divergence,
      compressor=compressor,
      embedding_distance=DCOR,
      embedding_shape=shape,
    ),
    batch,
  )


def begin(recipe, parts, batch):
  """Parameters and model states of everybody."""
  params, state = jax.jit(parts.student.init)(jax.random.key(2), batch["input"])
  params, state = {"student": params}, {"student": state}
  for name, one in recipe.others.items():
    params[name], state[name] = one(jax.random.key(3), batch)
  return params, state


@functools.cache
def compiled(loss):
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def evaluate(recipe, parts, batch):
  """Terms, gradient, and the first parameters and states."""
  params, state = begin(recipe, parts, batch)
  (total, aux), grads = compiled(recipe.loss)(
    params, state, {}, batch, jax.random.key(0), jnp.zeros((), jnp.int32)
  )
  terms = {n: float(m.total / m.count) for n, m in aux.metrics.items()}
  return {**terms, "total": float(total)}, grads, params, state


def compact(parts, params, state, batch):
  outputs, _ = parts.compressor.apply(
    params["compressor"], state["compressor"], batch["embedding"]
  )
  return outputs


def test_neither_side_hears_of_the_other_s_loss():
  parts, batch = world()
  recipe = methods.compress(parts, weight=0.7)
  _, grads, params, state = evaluate(recipe, parts, batch)
  label = batch["label"]

  def of_compressor(arrays):
    logits = compact(parts, {"compressor": arrays}, state, batch).logits
    return jnp.mean(losses.cross_entropy(logits, label))

  target = compact(parts, params, state, batch).embedding

  def of_student(arrays):
    said, _ = parts.student.apply(arrays, {}, batch["input"], train=True)
    labels = jnp.mean(losses.cross_entropy(said.logits, label))
    return 0.3 * labels + 0.7 * jnp.mean(DCOR(said.embedding, target))

  for name, alone in (("compressor", of_compressor), ("student", of_student)):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      grads[name],
      jax.jit(jax.grad(alone))(params[name]),
    )
  # With nothing to learn from, the compressor's gradient is zero to the bit.
  none = methods.compress(parts, objective="none")
  zeros = evaluate(none, parts, batch)[1]["compressor"]
  assert not any(np.any(g) for g in jax.tree.leaves(zeros))


def test_without_stop_gradient_the_compressor_follows_the_distance():
  parts, batch = world()
  recipe = methods.compress(parts, objective="none", stop_gradient=False)
  kernel = evaluate(recipe, parts, batch)[1]["compressor"]["compact"]["kernel"]
  assert np.abs(kernel).max() > 1e-4


def test_alone_the_distance_collapses_the_compressor_and_labels_do_not():
  """Everything pointing one way is what the cosines' difference likes best."""
  parts, batch = world(width=3)
  distance = losses.EMBEDDING_DISTANCES["cosine_difference"]()
  parts = parts._replace(embedding_distance=distance)

  def mean_cosine(**options):
    recipe = methods.compress(parts, weight=1.0, **options)
    params, state = begin(recipe, parts, batch)
    tx = optax.adam(3e-2)
    opt = tx.init(params)

    @jax.jit
    def update(params, opt):
      grads, _ = jax.grad(recipe.loss, has_aux=True)(
        params, state, {}, batch, jax.random.key(0), 0
      )
      updates, opt = tx.update(grads, opt)
      return optax.apply_updates(params, updates), opt

    for _ in range(100):
      params, opt = update(params, opt)
    found = np.asarray(compact(parts, params, state, batch).embedding)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    return np.mean(found @ found.T)

  assert mean_cosine(objective="none", stop_gradient=False) > 0.95
  assert mean_cosine() < 0.6


def test_weight_zero_is_supervised_to_the_bit():
  parts, batch = world(width=0)
  recipe = methods.compress(parts, weight=0.0, objective="none")
  plain = methods.Recipe(methods.supervised(parts))
  mine, alone = (evaluate(r, parts, batch)[1] for r in (recipe, plain))
  jax.tree.map(np.testing.assert_array_equal, mine, alone)


def test_east_kd_adds_logits():
  parts, batch = world(width=0)
  recipe = methods.compress(parts, weight=0.8, objective="none", distill=0.3)
  terms, _, params, _ = evaluate(recipe, parts, batch)
  said, _ = parts.student.apply(params["student"], {}, batch["input"])
  p = special.softmax(batch["teacher_logits"], -1)
  gap = special.log_softmax(batch["teacher_logits"], -1)
  gap = gap - special.log_softmax(said.logits, -1)
  np.testing.assert_allclose(
    terms["loss/distill"], np.mean(np.sum(p * gap, -1)), rtol=1e-5
  )
  raw = batch["embedding"][:, 0, 0]
  distance = np.mean(DCOR(said.embedding, raw))
  np.testing.assert_allclose(terms["loss/embedding"], distance, rtol=1e-5)
  expected = 0.2 * terms["loss/label"] + 0.8 * (
    0.7 * distance + 0.3 * terms["loss/distill"]
  )
  np.testing.assert_allclose(terms["total"], expected, rtol=1e-5)


def test_an_autoencoder_learns_to_give_the_embedding_back():
  parts, batch = world()
  recipe = methods.compress(parts, objective="reconstruction")
  terms, grads, params, state = evaluate(recipe, parts, batch)
  z = np.asarray(compact(parts, params, state, batch).embedding)
  decoder = params["decoder"]
  made = z @ np.asarray(decoder["kernel"]) + np.asarray(decoder["bias"])
  gap = np.mean((made - np.asarray(batch["embedding"])[:, 0, 0]) ** 2)
  np.testing.assert_allclose(terms["loss/compressor"], gap, rtol=1e-5)
  assert np.any(grads["decoder"]["kernel"])
  assert np.any(grads["compressor"]["compact"]["kernel"])
  assert not np.any(grads["compressor"]["head"]["kernel"])


def test_frames_are_compared_one_by_one():
  parts, batch = world(frames=T)
  said, _ = parts.student.apply(
    begin(methods.compress(parts), parts, batch)[0]["student"],
    {},
    batch["input"],
  )
  own = np.mean(said.features[-1], axis=1)
  assert own.shape[1] == 3 and T == 4
  recipe = methods.compress(
    parts, feature=-1, student_repeat=4, teacher_repeat=3
  )
  terms, _, params, state = evaluate(recipe, parts, batch)
  other = compact(parts, params, state, batch).features[-1][:, :, 0]
  each = [np.mean(DCOR(own[:, t // 4], other[:, t // 3])) for t in range(12)]
  np.testing.assert_allclose(terms["loss/embedding"], np.mean(each), rtol=1e-5)
  # Not the first half of the one with the whole of the other.
  wrong = methods.compress(parts, feature=-1, student_repeat=2)
  with pytest.raises(ValueError, match="6 and 4 are not of the same time"):
    evaluate(wrong, parts, batch)


def test_one_frame_is_repeated_only_if_asked_to():
  parts, batch = world(frames=1, width=0)
  options = {"objective": "none", "feature": -1}
  mean, *_ = evaluate(methods.compress(parts, **options), parts, batch)
  recipe = methods.compress(parts, **options, teacher_repeat=3)
  each, _, params, _ = evaluate(recipe, parts, batch)
  said, _ = parts.student.apply(params["student"], {}, batch["input"])
  own, other = np.mean(said.features[-1], axis=1), batch["embedding"][:, 0, 0]
  np.testing.assert_allclose(
    mean["loss/embedding"], np.mean(DCOR(own.mean(1), other)), rtol=1e-5
  )
  np.testing.assert_allclose(
    each["loss/embedding"],
    np.mean([np.mean(DCOR(own[:, t], other)) for t in range(3)]),
    rtol=1e-5,
  )


def test_logits_of_tags_are_distilled_where_they_are_known():
  """As EAsT has it: the mean over the batch's known entries."""
  parts, batch = world(width=0)
  parts = parts._replace(
    label_loss=losses.binary_cross_entropy, distance=losses.bernoulli_kl
  )
  tags = np.random.default_rng(1).integers(-1, 2, (B, K)).astype(np.float32)
  recipes = (
    methods.compress(parts, objective="none", distill=0.5),
    methods.METHODS["kd"](parts),
  )
  for recipe in recipes:
    recipe = recipe if hasattr(recipe, "loss") else methods.Recipe(recipe)
    terms, _, params, _ = evaluate(recipe, parts, {**batch, "label": tags})
    logits = parts.student.apply(params["student"], {}, batch["input"])[
      0
    ].logits
    single = lambda s, t: losses.bernoulli_kl(s[..., None], t[..., None])
    entries = single(logits, batch["teacher_logits"])
    np.testing.assert_allclose(
      terms["loss/distill"], np.mean(entries[tags >= 0]), rtol=1e-5
    )
    nothing = {**batch, "label": np.full_like(tags, -1)}
    terms, grads, *_ = evaluate(recipe, parts, nothing)
    assert terms["loss/distill"] == 0
    assert np.all(np.isfinite(grads["student"]["head"]["kernel"]))


def test_a_projector_meets_the_other_side_s_width():
  parts, batch = world(width=5)
  parts = parts._replace(
    embedding_distance=losses.EMBEDDING_DISTANCES["embedding_mse"]()
  )
  recipe = methods.compress(parts, projector=True)
  _, grads, params, _ = evaluate(recipe, parts, batch)
  assert params["projector"]["kernel"].shape == (4, 5)
  assert np.any(grads["projector"]["kernel"])
  with pytest.raises(ValueError, match="4 numbers, the other 5.*projector"):
    evaluate(methods.compress(parts), parts, batch)


def test_a_fixed_bottleneck_is_no_parameter():
  parts, batch = world(fixed=True)
  recipe = methods.compress(parts, objective="none")
  params, state = begin(recipe, parts, batch)
  assert set(params["compressor"]) == {"head"}
  _, aux = jax.jit(recipe.loss)(
    params, state, {}, batch, jax.random.key(0), jnp.zeros((), jnp.int32)
  )
  kernel = state["compressor"]["fixed"]["kernel"]
  assert kernel.shape == (D, 2)
  np.testing.assert_array_equal(
    aux.model_state["compressor"]["fixed"]["kernel"], kernel
  )


def test_padding_is_left_out():
  parts, batch = world()
  recipe = methods.compress(parts)
  fewer = jax.tree.map(lambda a: a[: B - 2], batch)
  garbage = jax.tree.map(lambda a: jnp.concatenate([a[: B - 2], a[:2]]), batch)
  garbage["mask"] = jnp.arange(B) < B - 2
  garbage["mask"] = garbage["mask"].astype(jnp.float32)
  found, expected = (evaluate(recipe, parts, b)[0] for b in (garbage, fewer))
  for name in ("loss/embedding", "loss/compressor", "total"):
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_start_points_are_compared_and_the_batch_is_labelled():
  """Which is what two halves of one batch would say, each of its own."""
  parts, batch = world()
  rng = np.random.default_rng(1)
  others = {
    name: jnp.asarray(rng.permutation(np.asarray(array)), array.dtype)
    for name, array in batch.items()
  }
  for objective in ("labels", "reconstruction"):
    recipe = methods.compress(parts, objective=objective)
    found = evaluate(recipe, parts, {**batch, "starts": others})[0]
    named = evaluate(recipe, parts, batch)[0]
    compared = evaluate(recipe, parts, others)[0]
    assert abs(named["loss/label"] - compared["loss/label"]) > 1e-4
    for term, one in (
      ("label", named),
      ("embedding", compared),
      ("compressor", named if objective == "labels" else compared),
    ):
      np.testing.assert_allclose(
        found[f"loss/{term}"], one[f"loss/{term}"], rtol=1e-5
      )
  twice = {**others, "embedding": 2 * others["embedding"]}
  moved = evaluate(recipe, parts, {**batch, "starts": twice})[0]
  assert moved["loss/compressor"] > 2 * found["loss/compressor"]


def test_a_learned_variance_is_vid():
  parts, batch = world(width=5)
  recipe = methods.compress(parts, likeness="variance")
  terms, grads, params, state = evaluate(recipe, parts, batch)
  said, _ = parts.student.apply(params["student"], {}, batch["input"])
  learned = params["projector"]
  mean = np.asarray(said.embedding) @ np.asarray(learned["kernel"])
  gap = compact(parts, params, state, batch).embedding - mean
  expected = np.mean(gap**2 / 5 + np.log(5)) / 2
  np.testing.assert_allclose(terms["loss/embedding"], expected, rtol=1e-5)
  assert np.all(grads["projector"]["spread"] != 0)


def test_a_memory_keeps_what_it_saw():
  parts, batch = world(width=5)
  batch = {**batch, "id": jnp.arange(B) + 3}
  recipe = methods.compress(
    parts, likeness="memory", negatives=6, num_examples=20
  )
  params, state = begin(recipe, parts, batch)
  (_, aux), grads = compiled(recipe.loss)(
    params, state, {}, batch, jax.random.key(0), jnp.zeros((), jnp.int32)
  )
  before, after = (s["memory"] for s in (state, aux.model_state))
  changed = np.any(before["teacher"] != after["teacher"], axis=1)
  assert np.flatnonzero(changed).tolist() == list(range(3, 3 + B))
  own, _ = parts.compressor.apply(
    params["compressor"], state["compressor"], batch["embedding"]
  )
  unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
  seen = unit(np.asarray(own.embedding @ params["memory"]["teacher"]))
  kept = unit(np.asarray(before["teacher"][3 : 3 + B]) / 2 + seen / 2)
  np.testing.assert_allclose(after["teacher"][3 : 3 + B], kept, atol=1e-5)
  assert np.all(after["normalisers"] > 0)
  assert np.any(grads["memory"]["student"]) and np.any(
    grads["student"]["head"]["kernel"]
  )
  with pytest.raises(ValueError, match="remembers every"):
    methods.compress(parts, likeness="memory")


def test_bad_arguments_are_named():
  parts, _ = world(width=0)
  with pytest.raises(ValueError, match="nothing is compressed"):
    methods.compress(parts)
  with pytest.raises(ValueError, match="embedding_shape"):
    methods.compress(parts._replace(embedding_shape=()), objective="none")
  with pytest.raises(ValueError, match="weight"):
    methods.compress(parts, weight=1.2, objective="none")
  with pytest.raises(ValueError, match="objective"):
    methods.compress(parts, objective="label")
