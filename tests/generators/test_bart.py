# SPDX-License-Identifier: Apache-2.0
"""BART as a generator: what is read, moved, written, and what training sees."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tgt_jax import generators
from tgt_jax.models.bart import shift_right

PAD, CLS, SEP, MASK, V, L = 0, 1, 2, 3, 30, 9
FIXED = (PAD, CLS, SEP)


def build(**changes):
  options = {
    "input_shape": (L,),
    "vocab_size": V,
    "pad_id": PAD,
    "cls_id": CLS,
    "sep_id": SEP,
    "mask_id": MASK,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "width": 16,
    "num_heads": 2,
    "mlp_width": 32,
    "max_positions": L,
    "dropout": 0.0,
    **changes,
  }
  return generators.bart(**options)


@functools.cache
def texts():
  """A pair, a full text, a short one and an empty one."""
  rows = [
    [CLS, 4, 5, SEP, SEP, 6, 7, SEP],
    [CLS, 8, 9, 10, 11, 12, 13, 14, SEP],
    [CLS, 20, SEP],
    [CLS, SEP],
  ]
  return jnp.array([row + [PAD] * (L - len(row)) for row in rows], jnp.int32)


@functools.cache
def drawn():
  """Parameters, large enough for opinions, and moved latents."""
  generator = build()
  params, state = jax.jit(generator.init)(jax.random.key(0), texts())
  params = jax.tree.map(lambda a: 4.0 * a, params)
  z = jax.jit(generator.encode)(params, state, texts())
  z = z + 0.5 * jax.random.normal(jax.random.key(1), z.shape)
  return params, state, jnp.where(generator.where(texts()), z, 0.0)


def keys(number=4):
  return jax.random.split(jax.random.key(5), number)


def test_padding_has_no_latent():
  generator, x = build(), texts()
  params, state, _ = drawn()
  z = generator.encode(params, state, x)
  where = np.broadcast_to(generator.where(x), z.shape)
  assert z.shape == (4, L, 16)
  assert not np.any(np.asarray(z)[~where])
  assert np.all(np.any(np.asarray(z) != 0, -1) == where[..., 0])
  short = generator.encode(params, state, x[:, :8])[jnp.array([0, 2, 3])]
  np.testing.assert_allclose(
    z[jnp.array([0, 2, 3]), :8], short, rtol=1e-5, atol=1e-6
  )


def test_soft_tokens_keep_the_structure():
  generator, x = build(), texts()
  soft = np.asarray(generator.decode(*drawn(), x))
  np.testing.assert_allclose(soft.sum(-1), 1.0, rtol=1e-5)
  fixed = np.isin(x, FIXED)
  np.testing.assert_array_equal(soft[fixed], np.eye(V)[np.asarray(x)[fixed]])
  assert not np.any(soft[~fixed][:, [PAD, CLS, SEP, MASK]])
  assert np.all(soft[~fixed][:, 4:] > 0)


def test_temperature_sharpens():
  x = texts()
  soft, sharp = (
    np.asarray(build(temperature=t).decode(*drawn(), x)) for t in (1.0, 0.1)
  )
  np.testing.assert_array_equal(soft.argmax(-1), sharp.argmax(-1))
  free = ~np.isin(x, FIXED)
  assert np.all(sharp[free].max(-1) > soft[free].max(-1))
  tempered = soft[free] ** 10
  np.testing.assert_allclose(
    sharp[free],
    tempered / tempered.sum(-1, keepdims=True),
    rtol=1e-3,
    atol=1e-7,
  )


def test_the_gradient_is_the_numerical_one_and_zero_in_padding():
  x = texts()
  with jax.enable_x64():
    generator = build(dtype="float64")
    params, state, z = jax.tree.map(lambda a: a.astype(jnp.float64), drawn())
    weights = jax.random.normal(jax.random.key(3), (4, L, V), jnp.float64)
    value = lambda z: jnp.sum(weights * generator.decode(params, state, z, x))
    check_grads(value, (z,), order=1, rtol=1e-5)
    slope = jax.jit(jax.grad(value))(z)
  where = np.broadcast_to(build().where(x), slope.shape)
  assert not np.any(np.asarray(slope)[~where])
  assert np.any(slope)


def test_straight_through_is_hard_with_a_soft_gradient():
  params, state, z = drawn()
  x = texts()
  soft, through = build(), build(relaxation="straight_through")
  weights = jax.random.normal(jax.random.key(3), (4, L, V))
  value = lambda made, z: jnp.sum(weights * made.decode(params, state, z, x))
  hard = through.decode(params, state, z, x)
  ids = build(rendering="forced").render(params, state, z, x, keys())
  np.testing.assert_allclose(hard, jax.nn.one_hot(ids, V), atol=1e-6)
  slope = jax.grad(value, argnums=1)
  np.testing.assert_allclose(
    slope(through, z), slope(soft, z), rtol=1e-5, atol=1e-6
  )


def test_forced_rendering_is_the_most_probable_of_the_soft_tokens():
  params, state, z = drawn()
  x = texts()
  ids = build(rendering="forced").render(params, state, z, x, keys())
  assert ids.dtype == x.dtype
  soft = build().decode(params, state, z, x)
  np.testing.assert_array_equal(ids, soft.argmax(-1))


def test_stepwise_writes_on_what_it_has_written():
  """Against a loop that decodes the whole prefix anew for every place."""
  params, state, z = drawn()
  x = texts()
  generator = build(stepwise=True, relaxation="straight_through")
  got = jax.jit(generator.decode)(params, state, z, x)
  one_pass, written = build(), x
  for place in range(L):
    # With `written` as source the pass is forced on it, padding as in x.
    soft = one_pass.decode(params, state, z, written)
    best = jnp.argmax(soft, -1)[:, place]
    fixed = jnp.isin(x[:, place], jnp.array(FIXED))
    written = written.at[:, place].set(jnp.where(fixed, x[:, place], best))
  np.testing.assert_array_equal(got.argmax(-1), written)
  slope = jax.jit(
    jax.grad(lambda z: jnp.sum(generator.decode(params, state, z, x)[..., 5]))
  )(z)
  assert np.all(np.isfinite(slope))
  assert np.any(slope)


@pytest.mark.parametrize("rendering", ["greedy", "sample", "beam"])
def test_free_writing_is_text(rendering):
  generator = build(rendering=rendering, num_beams=3, top_k=5)
  params, state, z = drawn()
  found = np.asarray(
    jax.jit(generator.render)(params, state, z, texts(), keys())
  )
  wanted = np.sum(texts() == SEP, axis=1)
  for row, ends in zip(found, wanted, strict=True):
    assert row[0] == CLS
    there = row[row != PAD]
    np.testing.assert_array_equal(row[: len(there)], there)
    assert there[-1] == SEP
    # All its ends, or no room for them.
    assert np.sum(there == SEP) == ends or len(there) == L


@pytest.mark.parametrize("rendering", ["greedy", "sample", "beam", "forced"])
def test_of_nothing_nothing_is_written(rendering):
  generator = build(rendering=rendering, num_beams=2, top_k=5)
  params, state, _ = drawn()
  x = jnp.full((2, L), PAD, jnp.int32)
  z = generator.encode(params, state, x)
  found = generator.render(params, state, z, x, keys(2))
  np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("rendering", ["greedy", "sample", "beam"])
def test_as_many_ends_are_written_as_there_were(rendering):
  """A sure decoder that writes a separator at every place."""
  generator = build(rendering=rendering, num_beams=2, top_k=5)
  params, state, z = drawn()
  bias = params["logits_bias"].at[SEP].add(1e4)
  params = {**params, "logits_bias": bias}
  found = generator.render(params, state, z, texts(), keys())
  np.testing.assert_array_equal(
    np.sum(np.asarray(found) == SEP, 1), np.sum(texts() == SEP, 1)
  )


@pytest.mark.parametrize("rendering", ["greedy", "sample", "beam", "forced"])
def test_what_is_no_word_is_not_written(rendering):
  generator = build(rendering=rendering, num_beams=2, top_k=5)
  params, state, z = drawn()
  no_words = jnp.array([PAD, CLS, MASK])
  bias = params["logits_bias"].at[no_words].add(1e4)
  params = {**params, "logits_bias": bias}
  x = texts()[:3]
  found = np.asarray(generator.render(params, state, z[:3], x, keys(3)))
  np.testing.assert_array_equal(found[:, 0], CLS)
  for row in found:
    last = np.flatnonzero(row == SEP)[-1]
    assert not np.isin(row[1:last], no_words).any()
    np.testing.assert_array_equal(row[last + 1 :], PAD)


@pytest.mark.parametrize("rendering", ["greedy", "sample", "beam", "forced"])
@pytest.mark.parametrize("stepwise", [False, True])
def test_half_precision(rendering, stepwise):
  generator = generators.from_spec(
    {**generators.GENERATORS, "mine": build},
    {
      "name": "mine",
      "dtype": "bfloat16",
      "rendering": rendering,
      "stepwise": stepwise,
      "num_beams": 2,
      "whitened": True,
    },
    input_shape=(L,),
  )
  params, state = generator.init(jax.random.key(0), texts())
  assert state["latent"]["mean"].dtype == jnp.float32
  z = generator.encode(params, state, texts())
  slope = jax.grad(
    lambda z: jnp.sum(generator.decode(params, state, z, texts())[..., 5])
  )(z)
  assert np.all(np.isfinite(slope))
  found = generator.render(params, state, z, texts(), keys())
  assert found.shape == (4, L)


def test_a_sample_belongs_to_its_key():
  generator = build(rendering="sample", temperature=2.0)
  params, state, z = drawn()
  render = jax.jit(generator.render)
  x = texts()
  first = render(params, state, z, x, keys())
  again = render(params, state, z, x, keys()[::-1])
  assert np.any(np.asarray(first) != np.asarray(again))
  alone = generator.render(params, state, z[1:2], x[1:2], keys()[1:2])
  np.testing.assert_array_equal(first[1:2], alone)


def test_loss_without_noise_is_the_teacher_forced_likelihood():
  generator, x = build(infill=0.0), texts()
  params, state, _ = drawn()
  value, terms, _ = generator.loss(params, state, x, rng=jax.random.key(0))
  z = generator.encode(params, state, x)
  module_logits = _plain_logits(params, z, x)
  log_probs = np.asarray(jax.nn.log_softmax(module_logits), np.float64)
  there = np.asarray(x) != PAD
  picked = np.take_along_axis(log_probs, np.asarray(x)[..., None], -1)[..., 0]
  expected = [-p[t].mean() for p, t in zip(picked, there, strict=True)]
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(terms["token_nll"], expected, rtol=1e-5)
  right = log_probs.argmax(-1) == np.asarray(x)
  np.testing.assert_allclose(
    terms["token_accuracy"],
    [r[t].mean() for r, t in zip(right, there, strict=True)],
    rtol=1e-6,
  )


def _plain_logits(params, z, x):
  """Without the structure that `decode` imposes."""
  from tgt_jax.models.bart import bart

  module = bart(
    num_layers=1,
    num_decoder_layers=1,
    width=16,
    num_heads=2,
    mlp_width=32,
    vocab_size=V,
    max_positions=L,
    pad_id=PAD,
    start_id=SEP,
  )
  return module.apply(
    {"params": params}, z, x != PAD, shift_right(x, SEP), method="decode"
  )


@pytest.mark.thorough
def test_it_learns_to_write_what_it_read():
  """Fifteen texts by heart: unmoved latents give them back."""
  rng = np.random.default_rng(0)
  rows = np.full((16, L), PAD, np.int32)
  for row in rows:
    size = rng.integers(2, L - 1)
    row[: size + 1] = [CLS, *rng.integers(4, V, size - 1), SEP]
  x = jnp.asarray(rows)
  generator = build(width=32, mlp_width=64, infill=0.15, delete=0.05)
  params, state = jax.jit(generator.init)(jax.random.key(0), x)
  tx = optax.adam(3e-3)

  @jax.jit
  def update(params, opt_state, key):
    def loss(params):
      return jnp.mean(generator.loss(params, state, x, rng=key)[0])

    slope = jax.grad(loss)(params)
    changes, opt_state = tx.update(slope, opt_state)
    return optax.apply_updates(params, changes), opt_state

  opt_state = tx.init(params)
  for step in range(300):
    key = jax.random.fold_in(jax.random.key(1), step)
    params, opt_state = update(params, opt_state, key)
  z = generator.encode(params, state, x)
  found = jax.jit(generator.render)(params, state, z, x, keys(16))
  assert np.mean(np.all(np.asarray(found) == rows, axis=1)) > 0.8
  far = z + 20.0 * jax.random.normal(jax.random.key(3), z.shape)
  lost = jax.jit(generator.render)(params, state, far, x, keys(16))
  assert np.mean(np.all(np.asarray(lost) == rows, axis=1)) < 0.5


def test_whitened_states_have_mean_zero_and_unit_spread():
  x = texts()
  params, _, _ = drawn()
  inner, generator = build(), generators.whitened(build())
  _, state = generator.init(jax.random.key(0), x)
  assert state["latent"]["mean"].shape == (1, 16)
  statistics = generators.latent_statistics(
    lambda x: inner.encode(params, {}, x), [x[:1], x[1:]], inner.where
  )
  state = generators.with_statistics(state, statistics)
  z = np.asarray(generator.encode(params, state, x))
  there = np.asarray(inner.where(x))[..., 0]
  np.testing.assert_allclose(z[there].mean(0), 0.0, atol=1e-5)
  np.testing.assert_allclose(z[there].std(0), 1.0, rtol=1e-4)
  assert not np.any(z[~there])
  # The same text is written of the same states, in whatever unit.
  plain = inner.encode(params, {}, x)
  render = lambda made, state, z: made.render(params, state, z, x, keys())
  np.testing.assert_array_equal(
    render(generator, state, jnp.asarray(z)), render(inner, {}, plain)
  )
  np.testing.assert_allclose(
    generator.decode(params, state, jnp.asarray(z), x),
    inner.decode(params, {}, plain, x),
    atol=1e-5,
  )


def test_turns_of_a_batch_are_the_batch():
  params, state, z = drawn()
  turns = generators.chunked(build(), 3)
  np.testing.assert_allclose(
    turns.decode(params, state, z, texts()),
    build().decode(params, state, z, texts()),
    rtol=1e-5,
    atol=1e-6,
  )
  keys = jax.random.split(jax.random.key(2), len(z))
  drawing = build(rendering="sample")
  np.testing.assert_array_equal(
    generators.chunked(drawing, 3).render(params, state, z, texts(), keys),
    drawing.render(params, state, z, texts(), keys),
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"input_shape": (8, 8, 1)}, r"expected \(length,\)"),
    ({"relaxation": "hard"}, "relaxation"),
    ({"rendering": "best"}, "rendering"),
    ({"temperature": 0.0}, "temperature"),
    ({"mask_id": V}, "mask_id"),
    ({"top_k": V + 1}, "top_k"),
    ({"input_shape": (L + 1,)}, "input_length"),
  ],
)
def test_bad_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    build(**options)
