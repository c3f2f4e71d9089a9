# SPDX-License-Identifier: Apache-2.0
"""Whole runs on text in this process: every control, other words, bad input."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sst2_low
from tgt_jax import (
  beginnings,
  build,
  data,
  evaluate,
  export,
  models,
  networks,
  settings as settings_lib,
  splits,
  text_presets,
  train,
  weights,
)
from tgt_jax.data import sentences, tokenizer

pytest.importorskip("tokenizers")


def settings(*arms, **changes):
  """The small form of an experiment on text, with these of its arms."""
  config = settings_lib.plain(sst2_low.get_config("smoke"))
  found = settings_lib.plain(sst2_low.get_config())["arms"]
  config["arms"] = {name: found[name] for name in arms or ("tgt_random",)}
  config["main_arm"] = list(config["arms"])[-1]
  config["seeds"] = 1
  return {**config, **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Words replaced on the host, and states moved on the device."""
  workdir = tmp_path_factory.mktemp("run")
  config = settings("kd_replace", "tgt_gradient")
  config["training"]["steps"] = 3
  return workdir, config, train.run(config, workdir)


@pytest.mark.thorough
def test_arms_of_a_text_experiment_run(finished):
  workdir, config, found = finished
  assert [arm.name for arm in found.arms] == list(config["arms"])
  lines = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  of = lambda arm, key: [
    line[key] for line in lines if line["arm"] == arm and key in line
  ]
  assert np.all(np.isfinite(of("tgt_gradient", "loss/generated")))
  # Moves have the length of the radius, in units of the states' spread.
  radius = config["arms"]["tgt_gradient"]["exploration"]["radius"]
  np.testing.assert_allclose(
    of("tgt_gradient", "explore/step"), radius, rtol=1e-3
  )
  assert 0 < np.mean(of("kd_replace", "explore/step")) < 0.5


@pytest.mark.thorough
def test_every_arm_of_a_text_experiment_runs(tmp_path):
  config = settings(*text_presets.arms())
  found = train.run(config, tmp_path)
  assert len(found.arms) == len(text_presets.arms())
  for arm in found.arms:
    assert np.isfinite(arm.seeds[0].metrics["nll"]), arm.name


@pytest.mark.thorough
def test_the_report_shows_sentences(finished):
  workdir, _, _ = finished
  page = (workdir / "report.html").read_text()
  assert "tokenizer.json" in page
  assert "The student reads" not in page
  text = splits.load_sets(settings()).test.text.tokenizer
  words = text.decode(splits.load_sets(settings()).test.read(np.arange(2)))
  assert any(word in page for word in words)


@pytest.mark.thorough
def test_a_student_comes_with_its_words(finished):
  workdir, config, found = finished
  loaded = export.load_student(workdir)
  words = data.load_tokenizer(workdir / export.TOKENIZER)
  test = sentences.make(40, seed=0, split="test")
  rows = words.encode(test.texts, max_length=48)
  ids = np.full((40, 48), words.pad_id, np.int32)
  ids[np.arange(48)[None] < rows.lengths[:, None]] = rows.flat
  outputs, _ = loaded.network.apply(loaded.params, loaded.model_state, ids)
  right = np.mean(np.argmax(outputs.logits, -1) == test.labels)
  arm = next(a for a in found.arms if a.name == config["main_arm"])
  assert arm.seeds[0].metrics["accuracy"] == pytest.approx(right)


@pytest.mark.thorough
def test_evaluating_again_finds_the_same(finished):
  workdir, _, found = finished
  again = evaluate.evaluate_run(workdir)
  for old, new in zip(found.arms, again.arms, strict=True):
    assert new.seeds[0].metrics == pytest.approx(
      old.seeds[0].metrics, nan_ok=True
    )


class TestOtherWords:
  """A student whose tokenizer is not the generator's."""

  @pytest.fixture
  def words(self, tmp_path) -> pathlib.Path:
    texts = sentences.make(100, seed=3, split="train").texts
    path = tmp_path / "tokenizer.json"
    tokenizer.train(texts, kind="bpe", vocab_size=400).save(path)
    return path

  def config(self, words, *arms):
    config = settings(*arms)
    config["student"] = {
      **config["student"],
      "tokenizer": str(words),
      "length": 64,
      "vocab_size": 400,
      "pad_id": 0,
      "sep_id": 3,
    }
    config["student"]["max_positions"] = 64
    # Fewer programs to compile: no pictures, and a teacher as it was drawn.
    config["gallery_examples"] = 0
    for part in ("generator", "labeler"):
      config[f"{part}_training"]["steps"] = 0
    return config

  def test_random_exploration_reads_the_text_again(self, words, tmp_path):
    workdir = tmp_path / "run"
    found = train.run(self.config(words, "tgt_random"), workdir)
    again = evaluate.evaluate_run(workdir)
    assert again.arms[0].seeds[0].metrics == pytest.approx(
      found.arms[0].seeds[0].metrics, nan_ok=True
    )
    card = json.loads((workdir / "student.json").read_text())
    assert card["input_shape"] == [64]
    assert "tokenizer" not in card["model"]
    assert data.load_tokenizer(workdir / export.TOKENIZER).fingerprint == (
      data.load_tokenizer(words).fingerprint
    )

  def test_gradient_exploration_is_refused(self, words, tmp_path):
    config = self.config(words, "tgt_gradient")
    with pytest.raises(ValueError, match="no gradient passes from one"):
      build.abstract(config)
    with pytest.raises(ValueError, match="no gradient passes from one"):
      train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

  def test_a_missing_tokenizer_is_named_before_anything_runs(self, tmp_path):
    config = self.config(tmp_path / "nowhere", "tgt_random")
    with pytest.raises(FileNotFoundError, match="nowhere"):
      train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

  def test_words_that_do_not_fit_the_network(self, words, tmp_path):
    config = self.config(words, "tgt_random")
    config["student"]["vocab_size"] = 399
    with pytest.raises(ValueError, match="vocab_size: 400 there, 399"):
      train.run(config, tmp_path / "run")


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


def test_pixel_noise_is_for_images(tmp_path):
  config = settings()
  config["arms"]["tgt_random"] = {"method": {"name": "noise_kd"}}
  with pytest.raises(TypeError, match="floating"):
    build.abstract(config)


def _converted(path: pathlib.Path, **changes) -> str:
  """Weights of the experiment's student, with other arguments."""
  words = text_presets.SENTENCE_WORDS
  taken = {key: words[key] for key in ("vocab_size", "pad_id", "sep_id")}
  spec = {**settings()["student"], **taken, **changes}
  classes = spec.pop("num_classes", 2)
  network = models.from_spec(models.MODELS, spec, num_classes=classes)
  x = jnp.zeros((1, 48), jnp.int32)
  params, state = network.init(jax.random.key(0), x)
  card = weights.WeightsCard(
    name="public",
    family="models",
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


def test_weights_of_another_vocabulary_are_named_first(tmp_path):
  config = settings()
  path = _converted(tmp_path / "w.safetensors", vocab_size=120)
  config["student_weights"] = path
  with pytest.raises(ValueError, match="has 120 tokens, 'bert' 99: its words"):
    train.run(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


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


def test_a_run_says_how_many_texts_are_cut(capsys):
  config = settings_lib.checked(settings())
  found = splits.load_sets(config).full
  (line,) = [
    line for line in capsys.readouterr().out.splitlines() if "is cut" in line
  ]
  longest = int(np.sum(found.read(np.arange(len(found)))[:, -1] != 0))
  assert f"{longest} of {len(found)} texts have all 48 token ids" in line


def test_bad_files_end_a_run_with_one_line(tmp_path):
  (tmp_path / "train.tsv").write_bytes(b"sentence\tlabel\nbon caf\xe9\t0\n")
  (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\na dog\t0\n")
  (tmp_path / "experiment.py").write_text(
    "from configs import sst2_low\n"
    "def get_config():\n"
    "  config = sst2_low.get_config('smoke')\n"
    "  with config.unlocked():\n"
    "    config.data = {'name': 'glue', 'task': 'sst2', 'max_length': 48,"
    f" 'data_dir': {str(tmp_path)!r}}}\n"
    "  return config\n"
  )
  done = subprocess.run(
    [sys.executable, "-m", "tgt_jax.main", f"--workdir={tmp_path / 'run'}"]
    + [f"--config={tmp_path / 'experiment.py'}"],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[1],
  )
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ")
  assert "train.tsv:2: expected UTF-8, got the byte 0xe9 in place 8" in line
