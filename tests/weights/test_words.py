# SPDX-License-Identifier: Apache-2.0
"""Weights of a text model with the rows of another tokenizer's words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import generators, models, trees, weights
from tgt_jax.data import sentences, tokenizer as tokenizer_lib, vocabulary
from tgt_jax.weights import words as words_lib

pytest.importorskip("tokenizers")

TEXTS = sentences.make(60, seed=1, split="train").texts
SIZES = {"num_layers": 1, "width": 8, "num_heads": 2, "mlp_width": 16}


@pytest.fixture(scope="module")
def old():
  return tokenizer_lib.train([*TEXTS, "zebra quagga"], vocab_size=300)


@pytest.fixture(scope="module")
def new(old):
  return vocabulary.restrict(
    old, np.unique(old.encode(TEXTS, max_length=60).flat).tolist()
  )


def padded(words, length=60):
  rows = words.encode(TEXTS, max_length=length)
  ids = np.full((len(TEXTS), length), words.pad_id, np.int32)
  ids[np.arange(length)[None] < rows.lengths[:, None]] = rows.flat
  return jnp.asarray(ids)


def spec_of(words, name):
  spec = {
    **SIZES,
    "name": name,
    "vocab_size": words.vocab_size,
    "pad_id": words.pad_id,
    "sep_id": words.sep_id,
  }
  if name == "bart":
    more = {"cls_id": words.cls_id, "mask_id": words.mask_id}
    return {**spec, **more, "num_decoder_layers": 1, "max_positions": 60}
  return spec


def build(words, name):
  if name == "bart":
    return generators.from_spec(
      generators.GENERATORS, spec_of(words, name), input_shape=(60,)
    )
  return models.from_spec(models.MODELS, spec_of(words, name), num_classes=3)


def saved(path, words, name, family):
  made = build(words, name)
  params, state = jax.jit(made.init)(jax.random.key(0), padded(words))
  spec = {**spec_of(words, name), "num_classes": 3}
  card = weights.WeightsCard(
    name=name,
    family=family,
    model=spec,
    input_shape=(60,),
    source="here",
    sha256="0",
    licence="none",
    preprocessing=None,
  )
  weights.save_converted(path, {"params": params, "model_state": state}, card)
  return made, params, state


def test_an_encoder_says_the_same_of_the_same_texts(old, new, tmp_path):
  path = tmp_path / "old.safetensors"
  network, params, state = saved(path, old, "bert", "models")
  before, _ = network.apply(params, state, padded(old))
  tree, card, drawn = words_lib.change_words(path, old, new)
  assert drawn == 0
  assert card.model["vocab_size"] == new.vocab_size < old.vocab_size
  small = build(new, "bert")
  after, _ = small.apply(tree["params"], {}, padded(new))
  np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-6)


def test_a_generator_reads_the_same_texts_as_before(old, new, tmp_path):
  path = tmp_path / "old.safetensors"
  bart, params, state = saved(path, old, "bart", "generators")
  before = bart.encode(params, state, padded(old))
  tree, card, _ = words_lib.change_words(path, old, new)
  assert card.model["mask_id"] == new.mask_id
  shapes = jax.eval_shape(
    build(new, "bart").init, jax.random.key(0), padded(new)
  )
  trees.check_tree(tree["params"], shapes[0], what="the changed weights")
  after = build(new, "bart").encode(tree["params"], {}, padded(new))
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_new_words_begin_with_the_mean(old, new, tmp_path):
  path = tmp_path / "new.safetensors"
  _, params, _ = saved(path, new, "bert", "models")
  tree, _, drawn = words_lib.change_words(path, new, old)
  assert drawn == old.vocab_size - new.vocab_size
  name = next(
    n for n in trees.flatten_names(tree) if n.endswith("word/embedding")
  )
  table = trees.flatten_names(tree)[name]
  theirs = trees.flatten_names({"params": params})[name]
  unknown = set(old.backend.get_vocab()) - set(new.backend.get_vocab())
  row = table[old.backend.get_vocab()[min(unknown)]]
  np.testing.assert_allclose(row, np.mean(theirs, 0), rtol=1e-4, atol=1e-7)


def test_weights_of_another_tokenizer(old, new, tmp_path):
  path = tmp_path / "new.safetensors"
  saved(path, new, "bert", "models")
  with pytest.raises(ValueError, match="not the one these weights know"):
    words_lib.change_words(path, old, new)


def test_images_have_no_words(old, new, tmp_path):
  network = models.MODELS["mlp"](num_classes=2, widths=(4,))
  params, state = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
  card = weights.WeightsCard(
    name="mlp",
    family="models",
    model={"name": "mlp"},
    input_shape=(4, 4, 1),
    source="here",
    sha256="0",
    licence="none",
    preprocessing=None,
  )
  path = tmp_path / "mlp.safetensors"
  weights.save_converted(path, {"params": params, "model_state": state}, card)
  with pytest.raises(ValueError, match="has no table of words"):
    words_lib.change_words(path, old, new)
