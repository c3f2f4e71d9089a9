# SPDX-License-Identifier: Apache-2.0
"""The contract of encoders of text: token ids, soft tokens, padding."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from tests.models.random_weights import random_weights
from tgt_jax import models, registry
from tgt_jax.models import encoders, transformer

VOCAB, PAD, SEP, CLASSES, WIDTH = 20, 1, 2, 3, 8
SIZES = {
  "num_layers": 1,
  "width": WIDTH,
  "num_heads": 2,
  "mlp_width": 12,
  "vocab_size": VOCAB,
  "max_positions": 8,
  "pad_id": PAD,
}
# DistilBERT is a BERT without segments.
FAMILIES = ("bert", "roberta", "minilm_l6")
# Padded on the right, the last one with nothing else.
TEXTS = np.array(
  [
    [3, 7, SEP, 9, 11, SEP],
    [3, 12, 5, SEP, PAD, PAD],
    [3, PAD, PAD, PAD, PAD, PAD],
    [PAD] * 6,
  ],
  np.int32,
)


def _build(name: str, **kwargs):
  sep = {} if name == "roberta" else {"sep_id": SEP}
  spec = {"name": name, **SIZES, **sep, **kwargs}
  return registry.build(
    models.MODELS, spec, family="model", num_classes=CLASSES
  )


@functools.cache  # The tests share what is compiled.
def _ready(name: str, **kwargs):
  network = _build(name, **kwargs)
  params, _ = random_weights(network.init, jnp.asarray(TEXTS))

  @jax.jit
  def apply(x):
    return network.apply(params, {}, x)[0]

  return network, params, apply


def _soft(x: np.ndarray, *, certain: bool = False) -> np.ndarray:
  """Distributions around texts, one-hot where there is padding."""
  sharp = np.eye(VOCAB)[x]
  if certain:
    return sharp.astype(np.float32)
  noise = np.random.default_rng(0).dirichlet(np.ones(VOCAB), x.shape)
  soft = np.where((x == PAD)[..., None], sharp, 0.7 * sharp + 0.3 * noise)
  return soft.astype(np.float32)


@pytest.mark.parametrize("name", encoders.__all__)
def test_shapes_of_every_size(name: str) -> None:
  network = registry.build(
    models.MODELS, {"name": name}, family="model", num_classes=5
  )

  def run(rng, x):
    params, state = network.init(rng, x)
    return params, state, network.apply(params, state, x)[0]

  x = jnp.zeros((4, 7), jnp.int32)
  params, state, outputs = jax.eval_shape(run, jax.random.key(0), x)
  width = outputs.embedding.shape[1]
  assert state == {}
  assert outputs.logits.shape == (4, 5)
  assert params["head"]["kernel"].shape == (width, 5)
  depth = sum(key.startswith("layer_") for key in params)
  assert [f.shape for f in outputs.features] == [(4, 7, width)] * (1 + depth)
  assert ("pooler" in params) == (name != "minilm_l6")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_content_of_padding_never_matters(name: str) -> None:
  """Padding cut off, or more of it, changes nothing in front of it."""
  _, _, apply = _ready(name)
  text = TEXTS[1:2]
  whole = apply(np.pad(text, ((0, 0), (0, 2)), constant_values=PAD))
  got = apply(text[:, :4])
  np.testing.assert_allclose(got.logits, whole.logits, atol=1e-5)
  for ours, padded in zip(got.features, whole.features, strict=True):
    np.testing.assert_allclose(ours, padded[:, :4], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_gradient_from_padding_nor_to_it(name: str) -> None:
  network, params, _ = _ready(name)
  soft = jnp.asarray(_soft(TEXTS[:3]))

  def loss(x):
    return jnp.sin(network.apply(params, {}, x)[0].logits).sum()

  gradient = np.asarray(jax.jit(jax.grad(loss))(soft))
  padding = TEXTS[:3] == PAD
  np.testing.assert_array_equal(gradient[padding], 0.0)
  assert (np.abs(gradient[~padding]).max(-1) > 1e-6).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_certain_soft_tokens_are_tokens(name: str) -> None:
  _, _, apply = _ready(name)
  got, want = apply(_soft(TEXTS, certain=True)), apply(TEXTS)
  np.testing.assert_allclose(got.logits, want.logits, atol=1e-5)
  for ours, theirs in zip(got.features, want.features, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
  assert np.isfinite(want.logits).all()  # Also of a text of padding alone.


@pytest.mark.parametrize("name", FAMILIES)
def test_soft_tokens_embed_as_their_expectation(name: str) -> None:
  """In float64 against one row at a time, before the layers mix them."""
  with jax.enable_x64(True):
    network = _build(name, dtype="float64")
    params, _ = random_weights(network.init, jnp.asarray(TEXTS))
    params["embeddings"]["norm"]["scale"] = jnp.ones(WIDTH)
    params["embeddings"]["norm"]["bias"] = jnp.zeros(WIDTH)
    soft = _soft(TEXTS[:1]).astype(np.float64)
    got = network.apply(params, {}, jnp.asarray(soft))[0].features[0]
  tables = jax.tree.map(np.asarray, params["embeddings"])
  first = PAD + 1 if name == "roberta" else 0
  segments = [0, 0, 0, 1, 1, 1] if "segment" in tables else None
  if name == "roberta":
    segments = [0] * 6
  want = soft[0] @ tables["word"]["embedding"]
  want = want + tables["position"]["embedding"][first : first + 6]
  if segments:
    want = want + tables["segment"]["embedding"][segments]
  want = want - want.mean(-1, keepdims=True)
  want /= np.sqrt(want.var(-1, keepdims=True) + 1e-5 * (name == "roberta"))
  np.testing.assert_allclose(got[0], want, rtol=1e-9)


def test_derivatives_in_both_modes() -> None:
  with jax.enable_x64(True):
    network = _build("bert", dtype="float64")
    params, _ = random_weights(network.init, jnp.asarray(TEXTS))
    soft = jnp.asarray(_soft(TEXTS[:2]), jnp.float64)

    @jax.jit
    def logits(x):
      return network.apply(params, {}, x)[0].logits

    # Small steps: a soft token must not become padding.
    test_util.check_grads(logits, (soft,), order=1, eps=1e-4, rtol=1e-6)


def test_remat_leaves_gradients_alone() -> None:
  def gradient(remat):
    network, params, _ = _ready("bert", remat=remat)

    def loss(params):
      return jnp.sin(network.apply(params, {}, TEXTS)[0].logits).sum()

    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    gradient(remat=True),
    gradient(remat=False),
  )


def test_vmap_is_a_batch() -> None:
  _, _, apply = _ready("bert")
  one = jax.jit(jax.vmap(lambda x: apply(x[None]).logits[0]))(TEXTS)
  np.testing.assert_allclose(one, apply(TEXTS).logits, atol=1e-5)


def test_dropout_is_a_function_of_its_key() -> None:
  network, params, apply = _ready("bert", dropout=0.5)

  @jax.jit
  def train(seed):
    rng = jax.random.key(seed)
    return network.apply(params, {}, TEXTS, train=True, rng=rng)[0].logits

  np.testing.assert_array_equal(train(0), train(0))
  assert not np.array_equal(train(0), train(1))
  assert not np.array_equal(train(0), apply(TEXTS).logits)
  with pytest.raises(ValueError, match=r"dropout=0\.5.*needs rng"):
    network.apply(params, {}, TEXTS, train=True)


def test_bfloat16_computes_and_keeps_float32() -> None:
  _, params, apply = _ready("roberta", dtype="bfloat16")
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype("float32")
  }
  got = apply(TEXTS)
  assert {f.dtype for f in got.features} == {jnp.dtype("bfloat16")}
  assert got.logits.dtype == got.embedding.dtype == jnp.float32
  want = _ready("roberta")[2](TEXTS).logits
  scale = float(np.abs(want).max())
  np.testing.assert_allclose(got.logits, want, atol=0.1 * scale)


def test_zero_head() -> None:
  network = _build("bert", zero_head=True)
  params, _ = jax.jit(network.init)(jax.random.key(0), TEXTS)
  assert not np.any(params["head"]["kernel"])
  assert np.any(params["pooler"]["kernel"])


def test_attention_is_exposed() -> None:
  sizes = {key: SIZES[key] for key in ("width", "num_heads", "mlp_width")}
  layer = transformer.Layer(
    **sizes, eps=1e-5, dropout=0.0, dtype=jnp.dtype("float32")
  )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, WIDTH)))
  mask = jnp.asarray(TEXTS[:2] != PAD)
  args = (x, transformer.key_mask(mask), None, None, False)
  variables = layer.init(jax.random.key(0), *args)
  assert variables.keys() == {"params"}
  _, kept = layer.apply(variables, *args, mutable="intermediates")
  (weights,) = kept["intermediates"]["attention"]["attention"]
  assert weights.shape == (2, 2, 6, 6)
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(weights[1, :, :, 4:], 0.0)


def test_gelu() -> None:
  x = np.linspace(-12.0, 12.0, 241)
  want = [0.5 * v * math.erfc(-v / math.sqrt(2.0)) for v in x]
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      transformer.gelu(jnp.asarray(x)), want, atol=1e-15
    )
  for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 5e-2)):
    got = transformer.gelu(jnp.asarray(x, dtype))
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=tolerance)


def test_mean_over_tokens() -> None:
  states = jnp.asarray([[[2.0], [4.0], [9.0]], [[5.0], [7.0], [8.0]]])
  mask = jnp.asarray([[True, True, False], [False, False, False]])
  mean = encoders.mean_over_tokens(states, mask)
  np.testing.assert_array_equal(mean, [[3.0], [0.0]])


def test_segments_and_positions() -> None:
  mask = transformer.token_mask(jnp.asarray(TEXTS), PAD)
  segments = transformer.segment_ids(jnp.asarray(TEXTS), SEP, mask)
  np.testing.assert_array_equal(segments[0], [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(segments[1:], 0)
  # Soft tokens count as the token that they give at least one half.
  soft = 0.6 * jax.nn.one_hot(jnp.asarray(TEXTS), VOCAB) + 0.4 / VOCAB
  np.testing.assert_array_equal(transformer.token_mask(soft, PAD), mask)
  np.testing.assert_array_equal(
    transformer.segment_ids(soft, SEP, mask), segments
  )
  positions = transformer.mask_positions(mask, PAD)
  np.testing.assert_array_equal(positions[1], [2, 3, 4, 5, 1, 1])
  np.testing.assert_array_equal(positions[3], 1)


@pytest.mark.parametrize(
  "kwargs, error",
  [
    ({"num_layers": 0}, "num_layers must be > 0, got 0"),
    ({"num_heads": 3}, "multiple of num_heads, got 8 and 3"),
    ({"pooling": "max"}, "pooling: unknown 'max'"),
    ({"pooler": "gelu"}, "pooler: unknown 'gelu'"),
    ({"dropout": 1.0}, "dropout must be in"),
    ({"pad_id": VOCAB}, "pad_id must be in"),
    ({"num_segments": 3}, "num_segments must be in"),
    ({"dtype": "float16"}, "dtype: unknown 'float16'"),
  ],
)
def test_wrong_arguments(kwargs, error) -> None:
  with pytest.raises(ValueError, match=error):
    _build("bert", **kwargs)


@pytest.mark.parametrize(
  "x, kind, error",
  [
    (np.zeros((2, 9), np.int32), ValueError, "9 tokens are longer than"),
    (np.zeros((2, 6), np.float32), TypeError, "expected integers"),
    (np.zeros((2, 6, VOCAB), np.int32), TypeError, "expected floating point"),
    (np.zeros((2, 6, 4), np.float32), ValueError, "distributions over 20"),
    (np.zeros(6, np.int32), ValueError, "expected rank"),
  ],
)
def test_wrong_inputs(x, kind, error) -> None:
  with pytest.raises(kind, match=error):
    jax.eval_shape(_build("bert").init, jax.random.key(0), x)
