# SPDX-License-Identifier: Apache-2.0
"""Networks, weights and data that do not have the same words."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_texts import settings
from tgt_jax import (
  beginnings,
  generators,
  models,
  networks,
  registry,
  settings as settings_lib,
  splits,
  text_presets,
  train,
  trees,
  weights,
)
from tgt_jax.data import tokenizer

pytest.importorskip("tokenizers")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"vocab_size": 98}, "vocab_size: 99 there, 98"),
    ({"pad_id": 1}, "pad_id: 0 there, 1"),
    ({"sep_id": 99}, "vocabulary.sep_id"),
    ({"vocab_size": 0}, "vocabulary.vocab_size"),
  ],
)
def test_another_vocabulary_than_the_data_has(changes, message, tmp_path):
  config = settings()
  config["vocabulary"] = {**text_presets.SENTENCE_WORDS, **changes}
  with pytest.raises(ValueError, match=message):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("section", "changes", "message"),
  [
    ("student", {"vocab_size": 50}, "tgt_random.student: .*99 there, 50"),
    ("student", {"pad_id": 7}, "tgt_random.student: .*pad_id: 0 there, 7"),
    ("labeler", {"vocab_size": 98}, "^labeler: .*vocab_size: 99 there, 98"),
    ("generator", {"mask_id": 9}, "^generator: .*mask_id: 4 there, 9"),
  ],
)
def test_a_network_with_other_words_than_the_data(
  section, changes, message, tmp_path
):
  config = settings()
  config[section] = {**config[section], **changes}
  with pytest.raises(ValueError, match=message):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def _converted(path: pathlib.Path, **changes) -> str:
  """Weights of the experiment's student, with other arguments."""
  words = text_presets.SENTENCE_WORDS
  taken = {key: words[key] for key in ("vocab_size", "pad_id", "sep_id")}
  spec = {**settings()["student"], **taken, **changes}
  classes = spec.pop("num_classes", 2)
  network = models.from_spec(models.MODELS, spec, num_classes=classes)
  return _saved(path, network, "models", spec)


def _converted_generator(path: pathlib.Path, **changes) -> str:
  """Weights of the experiment's generator, with other arguments."""
  spec = {**settings()["generator"], **text_presets.SENTENCE_WORDS, **changes}
  for key in ("whitened", "rendering"):  # No network's own.
    del spec[key]
  made = registry.build(
    generators.GENERATORS, spec, family="generator", input_shape=(48,)
  )
  return _saved(path, made, "generators", spec)


def _saved(path: pathlib.Path, made, family: str, spec) -> str:
  params, state = made.init(jax.random.key(0), jnp.zeros((1, 48), jnp.int32))
  card = weights.WeightsCard(
    name="public",
    family=family,
    model=spec,
    input_shape=(48,),
    source="file",
    sha256="0",
    licence="CC0-1.0",
    preprocessing=None,
  )
  tree = {"params": params, "model_state": state}
  weights.save_converted(path, tree, card)
  return str(path)


@pytest.mark.thorough
def test_a_run_begins_with_weights_of_all_its_networks(tmp_path):
  """As those of the papers' pairings do; the generator is used as it is."""
  config = settings()
  config["generator_training"]["steps"] = 0
  config["generator_weights"] = _converted_generator(tmp_path / "g.safetensors")
  for part in ("labeler", "student"):
    config[f"{part}_weights"] = _converted(tmp_path / f"{part}.safetensors")
  train.run(config, tmp_path / "run")
  kept, _ = trees.load_tree(tmp_path / "run/teacher/generator.safetensors")
  given, _ = weights.load_converted(config["generator_weights"])
  jax.tree.map(np.testing.assert_array_equal, kept["params"], given["params"])


def test_a_generators_arguments_are_compared(tmp_path):
  path = _converted_generator(tmp_path / "g.safetensors")
  tree, card = weights.load_converted(path)
  shapes = tree["params"], tree["model_state"]
  of = lambda **changes: beginnings.starting_arrays(
    path, {**card.model, **changes}, shapes
  )
  assert of() is not None
  with pytest.raises(ValueError, match="num_heads: 2 there, 4 here"):
    of(num_heads=4)
  with pytest.raises(ValueError, match="takes no 'num_head'; .*'num_heads'"):
    registry.read_spec(
      generators.GENERATORS, {"name": "bart", "num_head": 4}, family="generator"
    )


def test_weights_of_another_vocabulary_are_named_first(tmp_path):
  config = settings()
  path = _converted(tmp_path / "w.safetensors", vocab_size=120)
  config["student_weights"] = path
  with pytest.raises(ValueError, match="has 120 tokens, 'bert' 99: its words"):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_labelers_weights_are_looked_at_before_the_generator_trains(
  tmp_path,
):
  config = settings()
  config["labeler_weights"] = _converted(
    tmp_path / "w.safetensors", num_heads=4
  )
  with pytest.raises(ValueError, match="num_heads: 4 there, 2 here"):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run/teacher/generator.safetensors").exists()


def test_weights_know_their_words(tmp_path):
  """Rows of as many other words fit, and stand for nothing."""
  config = settings()
  words = splits.load_sets(settings_lib.checked(config)).full.text.tokenizer
  path = _converted(tmp_path / "w.safetensors")
  config["labeler_weights"] = path
  tree, card = weights.load_converted(path)

  def knows(said: str) -> None:
    changed = dataclasses.replace(card, words=said)
    weights.save_converted(path, tree, changed)

  for said in ("", words.words):  # Files of old do not say.
    knows(said)
    splits.load_sets(settings_lib.checked(config))
  pieces = sorted(words.backend.get_vocab())[::-1]
  others = tokenizer.of_pieces(pieces)
  assert others.vocab_size == words.vocab_size
  knows(others.words)
  with pytest.raises(ValueError, match="knows other words than the tokenizer"):
    splits.load_sets(settings_lib.checked(config))


def test_weights_do_not_know_a_vocabulary_made_for_the_data(tmp_path):
  folder = tmp_path / "SST-2"
  folder.mkdir()
  lines = ["sentence\tlabel", "a good film\t1", "a bad film\t0"]
  for name in ("train.tsv", "dev.tsv"):
    (folder / name).write_text("\n".join(lines) + "\n")
  config = settings()
  config["data"] = {
    "name": "glue",
    "task": "sst2",
    "data_dir": str(tmp_path),
    "tokenizer": "",
    "max_length": 48,
  }
  splits.load_sets(settings_lib.checked(config))
  config["labeler_weights"] = _converted(tmp_path / "w.safetensors")
  with pytest.raises(ValueError, match="was trained on the data, as data.tok"):
    splits.load_sets(settings_lib.checked(config))


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"num_heads": 4}, "num_heads: 2 there, 4 here"),
    ({"pad_id": 1}, "pad_id: 0 there, 1 here"),
    ({"sep_id": 7}, "sep_id: 3 there, 7 here"),
  ],
)
def test_what_changes_no_shape_is_compared(tmp_path, changes, match):
  path = _converted(tmp_path / "w.safetensors")
  _, card = weights.load_converted(path)
  spec = {**card.model, **changes}
  network = models.from_spec(models.MODELS, spec, num_classes=2)
  x = jnp.zeros((1, 48), jnp.int32)
  params, state = jax.eval_shape(network.init, jax.random.key(0), x)
  template = {"params": params, "model_state": state}
  with pytest.raises(ValueError, match=match):
    weights.start_from(path, template, spec)


@pytest.mark.parametrize("order", [1, -1])
def test_a_labeler_has_its_classes_in_the_order_of_the_data(tmp_path, order):
  config = settings("kd")
  names = splits.load_sets(settings_lib.checked(config)).full.class_names
  path = _converted(tmp_path / "w.safetensors")
  tree, card = weights.load_converted(path)
  said = tuple(name.upper() for name in names[::order])
  card = dataclasses.replace(card, class_names=said)
  weights.save_converted(path, tree, card)
  shapes = tree["params"], tree["model_state"]
  start = functools.partial(
    beginnings.starting_arrays, path, card.model, shapes
  )
  assert start() is not None
  if order == 1:
    assert start(names) is not None
  else:
    with pytest.raises(ValueError, match="the order POSITIVE, NEGATIVE, the"):
      start(names)


def test_a_labeler_without_a_classifier_must_be_trained(tmp_path):
  config = settings("kd")
  config["labeler_weights"] = _converted(
    tmp_path / "w.safetensors", num_classes=5
  )
  config["labeler_training"]["steps"] = 0
  config["generator"] = {"name": ""}
  config["gallery_examples"] = 0
  with pytest.raises(ValueError, match="lacks 2 arrays of labeler-0.*random"):
    train.run(config, tmp_path / "run")


def test_a_head_of_other_classes_is_said_to_be_drawn_once(tmp_path, capsys):
  config = settings_lib.checked(settings())
  path = _converted(tmp_path / "w.safetensors", num_classes=5)
  network = networks.network(config, config["student"])
  x = jnp.zeros((1, 48), jnp.int32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  for _ in range(2):  # Of two arms.
    found = beginnings.starting_arrays(path, config["student"], shapes)
  assert found.params["head"] == {"bias": None, "kernel": None}
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f"{path}: drawn at random")
  assert line.endswith("classes: params/head/bias, params/head/kernel")
