# SPDX-License-Identifier: Apache-2.0
"""Whole runs on text in this process: every control, other words, bad input."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from configs import sst2_low
from tests.small_texts import settings
from tgt_jax import (
  build,
  data,
  evaluate,
  experiment,
  export,
  plan,
  settings as settings_lib,
  splits,
  streams,
  text_presets,
  train,
  transfer,
)
from tgt_jax.data import sentences, tokenizer

pytest.importorskip("tokenizers")


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
  test = splits.load_sets(settings_lib.checked(settings())).test
  words = test.text.tokenizer.decode(test.read(np.arange(2)))
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
    # Probed on other texts it reads those in its own words too.
    spec = {"name": "sentences", "train_size": 30, "test_size": 20, "seed": 7}
    other = data.load(spec)
    (row,) = transfer.transfer(workdir, other)
    mine, theirs = data.load_tokenizer(words), other.train.text.tokenizer
    translate = data.translation(theirs, mine, 64)
    student = export.load_student(workdir)

    def embedded(part):
      ids = translate(part.read(np.arange(len(part))))
      outputs, _ = student.network.apply(
        student.params, student.model_state, ids
      )
      return np.asarray(outputs.embedding), part.labels

    expected = transfer.probe(embedded(other.train), embedded(other.test))
    assert row.scores[0] == pytest.approx(expected)

  def test_gradient_exploration_is_refused(self, words, tmp_path):
    config = self.config(words, "tgt_gradient")
    with pytest.raises(ValueError, match="no gradient passes from one"):
      build.abstract(config)
    with pytest.raises(ValueError, match="no gradient passes from one"):
      train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

  def test_gradients_inside_another_exploration_are_found(self, words):
    config = self.config(words, "tgt_gradient")
    inner = config["arms"]["tgt_gradient"]["exploration"]
    wrapped = {"name": "some_places", "inner": inner, "share": 0.5}
    config["arms"]["tgt_gradient"]["exploration"] = wrapped
    with pytest.raises(ValueError, match="no gradient passes from one"):
      settings_lib.checked(config)

  def test_a_missing_tokenizer_is_named_before_anything_runs(self, tmp_path):
    config = self.config(tmp_path / "nowhere", "tgt_random")
    with pytest.raises(FileNotFoundError, match="nowhere"):
      train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

  def test_other_words_under_the_same_name_are_another_run(
    self, words, tmp_path
  ):
    config = settings_lib.checked(self.config(words, "tgt_random"))
    config["labeler"] = config["student"]
    sets = splits.load_sets(config)
    made = lambda: [
      part.fingerprint for part in plan.parts(config, sets, sets.counts)
    ]
    before = made()
    assert made() == before
    experiment.claim_workdir(tmp_path / "run", config, "")
    experiment.claim_workdir(tmp_path / "run", config, "")
    texts = sentences.make(100, seed=4, split="train").texts
    tokenizer.train(texts, kind="bpe", vocab_size=400).save(words)
    after = made()
    assert after[0] == before[0] and after[1] != before[1]  # The labeler.
    with pytest.raises(ValueError, match="tokenizer.json holds something else"):
      experiment.claim_workdir(tmp_path / "run", config, "")

  def test_words_that_do_not_fit_the_network(self, words, tmp_path):
    config = self.config(words, "tgt_random")
    config["student"]["vocab_size"] = 399
    with pytest.raises(ValueError, match="vocab_size: 400 there, 399"):
      train.run(config, tmp_path / "run")

  def test_a_length_without_room_for_words(self, words, tmp_path):
    config = self.config(words, "tgt_random")
    config["student"]["length"] = 2
    with pytest.raises(
      ValueError, match=r"student.length must be > 2, .*got 2"
    ):
      train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_statistics_of_words_are_those_of_the_texts_that_are_changed(
  monkeypatch,
):
  """A few labelled texts say little of the words of the others."""
  config = settings("uda", "kd_replace")
  config["long_tail"].update(profile="fraction", fraction=0.2)
  config["augment"] = ({"name": "replace_words"},)
  checked = settings_lib.checked(config)
  sets = splits.load_sets(checked)
  assert len(sets.train) < len(sets.full)
  asked = []

  def spy(*, source, split, probability=0.2, corpus=""):
    asked.append(split(corpus).name if corpus else source.name)
    return data.AUGMENTATIONS["erase_tokens"](source=source)

  monkeypatch.setitem(data.AUGMENTATIONS, "replace_words", spy)
  runtime = types.SimpleNamespace(shard=(0, 1))
  run = experiment.Experiment(checked, None, sets, None, {}, runtime)
  arm = build.arm(settings_lib.arm_config(checked, "uda"), "uda", sets.counts)
  streams.batches(run, arm, 0)
  # Batches, then start points and their second view.
  assert asked == [sets.train.name, sets.full.name, sets.full.name]
  # Where labelled texts are changed, the words are those of all.
  arm = build.arm(
    settings_lib.arm_config(checked, "kd_replace"), "kd_replace", sets.counts
  )
  asked.clear()
  streams.batches(run, arm, 0)
  assert asked == [sets.train.name, sets.full.name]


@pytest.mark.parametrize(
  ("arm", "asked"), [("uda", False), ("kd_unlabelled", True)]
)
def test_the_teacher_is_asked_about_start_points_that_somebody_reads(
  arm, asked
):
  config = settings(arm)
  config["long_tail"].update(profile="fraction", fraction=0.2)
  checked = settings_lib.checked(config)
  sets = splits.load_sets(checked)
  mine = settings_lib.arm_config(checked, arm)
  assert mine["starts"]["source"] == "full"
  found = experiment._asked_splits(checked, sets, [mine])
  assert ("full" in found) == asked and {"test", "train"} <= set(found)


@pytest.mark.thorough
def test_latents_that_are_too_many_to_keep(monkeypatch, tmp_path, capsys):
  config = settings("tgt_random")
  config["gallery_examples"] = 0
  kept = train.run(config, tmp_path / "kept")
  monkeypatch.setattr(experiment, "_KEPT_LATENTS", 0)
  assert "not kept" not in capsys.readouterr().out
  anew = train.run(config, tmp_path / "anew")
  assert "latents are not kept" in capsys.readouterr().out
  before, after = (r.arms[0].seeds[0].metrics for r in (kept, anew))
  assert after["nll"] == pytest.approx(before["nll"], rel=1e-4)


def test_moments_of_other_texts_are_another_generator():
  """Used as it is, a whitened one still measures the data."""

  def made(seed, whitened):
    config = settings()
    config["data"] = {**config["data"], "seed": seed}
    config["generator"] = {**config["generator"], "whitened": whitened}
    config["generator_training"]["steps"] = 0
    checked = settings_lib.checked(config)
    sets = splits.load_sets(checked)
    return plan.parts(checked, sets, sets.counts)[0].fingerprint

  assert made(0, True) == made(0, True) != made(1, True)
  assert made(0, False) == made(1, False)


@pytest.mark.parametrize("labels", ["250", "2500"])
def test_cells_of_a_study_share_their_generator(labels):
  """launch/text_study.sh hands it from cell to cell of as many labels."""
  found = set()
  for form in ("", ",same", ",tiny", ",same,tiny", ",long"):
    config = settings_lib.plain(sst2_low.get_config(f"{labels}{form}"))
    small = settings_lib.plain(sst2_low.get_config("smoke"))
    for key in ("input_shape", "buckets", "vocabulary", "data", "generator"):
      config[key] = small[key]
    config["data"] = {**config["data"], "train_size": 4000}
    config["long_tail"]["fraction"] = int(labels) / 4000
    checked = settings_lib.checked(config)
    sets = splits.load_sets(checked)
    assert len(sets.train) == int(labels)
    part = plan.parts(checked, sets, sets.counts)[0]
    assert part.name == "generator"
    found.add(part.fingerprint)
  assert len(found) == 1


def test_pixel_noise_is_for_images(tmp_path):
  config = settings()
  config["arms"]["tgt_random"] = {"method": {"name": "noise_kd"}}
  with pytest.raises(ValueError, match="tgt_random: noise on pixels"):
    build.abstract(config)
  config["arms"]["tgt_random"] = {"method": {"name": "uda"}}
  with pytest.raises(ValueError, match="tgt_random: uda compares two views"):
    train.run(config, tmp_path / "run")


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
