# SPDX-License-Identifier: Apache-2.0
"""Whole runs in this process: outputs, re-use, seeds, and bad input."""

from __future__ import annotations

import contextlib
import gzip
import json
import pathlib
import re
import shutil
import sys

import jax
import numpy as np
import pytest

from tests import helpers, tiny
from tgt_jax import (
  build,
  distributed,
  evaluate,
  experiment,
  export,
  fit,
  learners,
  longtail,
  main,
  results as results_lib,
  settings as settings_lib,
  splits,
  train,
)


def settings(steps=12, **changes):
  """The tiny experiment as a plain dict, with dotted keys changed."""
  config = settings_lib.plain(tiny.get_config(str(steps)))
  for path, value in changes.items():
    section = config
    *parents, last = path.split("__")
    for parent in parents:
      section = section[parent]
    section[last] = value
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, train.run(settings(), workdir)


def student(workdir, arm="gradient", seed=0):
  return export.load_student(experiment.student_folder(workdir, arm, seed))


def same(first, second, **tolerance):
  for a, b in zip(
    jax.tree.leaves((first.params, first.model_state)),
    jax.tree.leaves((second.params, second.model_state)),
    strict=True,
  ):
    if tolerance:
      np.testing.assert_allclose(a, b, **tolerance)
    else:
      np.testing.assert_array_equal(a, b)


def test_what_is_not_trained_has_no_moments():
  optimizer = learners.optimizer({"name": "adam", "learning_rate": 1e-3}, 0)
  assert not jax.tree.leaves(optimizer.init({"kernel": np.ones((2, 3))}))


def test_a_run_leaves_what_it_promises(finished):
  workdir, found = finished
  for name in (
    "config.json",
    "metrics.jsonl",
    "results.json",
    "report.html",
    "gallery.npz",
    "student.safetensors",
    "student.json",
    "teacher/generator.safetensors",
    "teacher/labeler-0.safetensors",
  ):
    assert (workdir / name).stat().st_size > 0, name
  assert results_lib.read_results(workdir).arms[0].values("balanced") == (
    found.arms[0].values("balanced")
  )
  record = experiment.read_config(workdir)
  assert record["config"] == json.loads(json.dumps(settings()))
  assert {"versions", "commit", "command", "hardware"} <= record.keys()
  lines = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  mine = [line for line in lines if line["arm"] == "gradient"]
  assert [r["step"] for r in mine if "loss/total" in r] == [2, 4, 6, 8, 10, 12]
  assert [r["step"] for r in mine if "eval/balanced" in r] == [6, 12]
  probed = next(r for r in mine if "explore/diversity" in r)
  np.testing.assert_allclose(probed["explore/latent_step"], 0.5, rtol=1e-4)
  assert "gallery" in (workdir / "report.html").read_text().lower()


def test_scores_are_those_of_the_exported_student(finished):
  workdir, found = finished
  sets = splits.load_sets(settings())
  batch = sets.test.fetch(np.arange(len(sets.test)))
  for seed in found.arms[0].seeds:
    loaded = student(workdir, seed=seed.seed)
    outputs, _ = loaded.network.apply(
      loaded.params, loaded.model_state, batch["input"]
    )
    right = np.argmax(outputs.logits, -1) == batch["label"]
    per_class = [right[batch["label"] == k].mean() for k in range(10)]
    assert seed.metrics["accuracy"] == pytest.approx(right.mean())
    assert seed.metrics["balanced"] == pytest.approx(np.mean(per_class))
    np.testing.assert_allclose(seed.per_class, per_class, rtol=1e-6)


def test_evaluating_again_finds_the_same(finished, capsys):
  workdir, found = finished
  assert evaluate.main(["--workdir", str(workdir)]) == 0
  assert "gradient" in capsys.readouterr().out
  again = evaluate.evaluate_run(workdir)
  for old, new in zip(found.arms[0].seeds, again.arms[0].seeds, strict=True):
    assert new.metrics == pytest.approx(old.metrics, nan_ok=True)


def test_a_finished_run_is_left_as_it_is(finished):
  workdir, found = finished
  before = (workdir / "student.safetensors").stat().st_mtime_ns
  again = train.run(settings(), workdir)
  assert (workdir / "student.safetensors").stat().st_mtime_ns == before
  assert again.arms[0].values("nll") == found.arms[0].values("nll")


@pytest.mark.thorough
def test_seeds_together_are_seeds_in_turns(finished, tmp_path):
  workdir, _ = finished
  turns = settings(
    training__together="never", teacher_dir=str(workdir / "teacher")
  )
  train.run(turns, tmp_path)
  for seed in (0, 1):
    same(
      student(workdir, seed=seed),
      student(tmp_path, seed=seed),
      rtol=1e-4,
      atol=1e-5,
    )
  first, second = student(workdir, seed=0), student(workdir, seed=1)
  assert not np.allclose(
    jax.tree.leaves(first.params)[0], jax.tree.leaves(second.params)[0]
  )


def test_convolutions_take_turns():
  dense = settings()
  counts = build.class_counts(dense)
  groups = lambda config: train.seed_groups(
    build.arm(config, "gradient", counts), (0, 1)
  )
  assert groups(dense) == [(0, 1)]
  assert groups(settings(student={"name": "cnn", "widths": (4,)})) == [
    (0,),
    (1,),
  ]


def test_a_teacher_of_other_settings_is_refused(finished, tmp_path):
  workdir, _ = finished
  other = settings(
    teacher_dir=str(workdir / "teacher"), generator_training__steps=7
  )
  with pytest.raises(ValueError, match="fingerprint") as error:
    train.run(other, tmp_path)
  assert len(set(re.findall(r"\b[0-9a-f]{12}\b", str(error.value)))) == 2


def test_a_workdir_of_another_config_is_refused(finished):
  workdir, _ = finished
  with pytest.raises(ValueError, match=r"training.steps: 12 there, 14 now"):
    train.run(settings(14), workdir)


def test_the_methods_share_data_order(finished, tmp_path):
  """Distillation of weight zero ends where labels alone do, to the bit."""
  workdir, _ = finished
  arms = {
    "labels": {"method": {"name": "supervised"}},
    "kd": {"method": {"name": "kd", "weights": {"distill": 0.0}}},
  }
  config = settings(
    arms=arms, main_arm="kd", teacher_dir=str(workdir / "teacher")
  )
  train.run(config, tmp_path)
  same(student(tmp_path, "labels"), student(tmp_path, "kd"))


@pytest.mark.thorough
def test_uda_compares_the_strong_view(finished, tmp_path):
  """Without jitter only the pipeline's second view moves an image."""
  uda = {
    "method": {"name": "uda", "shift": 0, "sigma": 0.0},
    "starts": {"source": "train"},
  }
  strong = ({"name": "erase", "probability": 1.0},)
  config = settings(
    2, seeds=1, teacher_dir=str(finished[0] / "teacher"), gallery_examples=0
  )
  config["arms"] = {
    "weak": uda,
    "separate": {
      **uda,
      "starts": {"source": "train", "strong": strong, "ratio": 2},
    },
    "batch": {**uda, "starts": {"source": "batch", "strong": strong}},
  }
  config["main_arm"] = "weak"
  config["groups"]["few_below"] = 0  # A group without classes has no score.
  found = train.run(config, tmp_path)
  assert found.arms[0].values("few") == {0: None}
  lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
  moved = {r["arm"]: r["explore/step"][0] for r in lines if "explore/step" in r}
  assert moved.pop("weak") < 1e-6
  assert all(0.01 < value < 1 for value in moved.values()), moved
  assert moved.keys() == {"separate", "batch"}


@pytest.mark.thorough
def test_a_student_of_ones_own(finished, tmp_path):
  """Trained, exported, shown where another arm explores, evaluated."""
  config = settings(
    2, seeds=1, teacher_dir=str(finished[0] / "teacher"), main_arm="own"
  )
  config["student"] = {"name": "tests.tiny:own_student"}
  config["arms"] = {"own": {}, **config["arms"]}
  found = train.run(config, tmp_path)
  assert (tmp_path / "gallery.npz").exists()
  again = evaluate.evaluate_run(tmp_path)
  for old, new in zip(found.arms, again.arms, strict=True):
    assert new.seeds[0].metrics == pytest.approx(old.seeds[0].metrics)
  with pytest.raises(ValueError, match="allow_imports=True"):
    export.load_student(tmp_path)


def test_the_ids_that_are_recorded_are_those_trained_on(finished):
  workdir, _ = finished
  sets = splits.load_sets(settings())
  assert experiment.read_config(workdir)["train_ids"] == (
    longtail.ids_hash(sets.train.ids)
  )


def test_whoever_comes_late_waits_all_the_same(finished, monkeypatch):
  """A process that finds config.json must not run ahead of the others."""
  waits = []
  monkeypatch.setattr(distributed, "barrier", waits.append)
  experiment.claim_workdir(finished[0], settings(), "")
  assert len(waits) == 1


def test_evaluating_on_other_data_is_refused(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  path = tmp_path / "run" / "config.json"
  record = json.loads(path.read_text())
  record["config"]["data"]["seed"] = 1
  path.write_text(json.dumps(record))
  with pytest.raises(ValueError, match="not those that it was trained on"):
    evaluate.evaluate_run(tmp_path / "run")


def test_a_nan_loss_stops_and_names_the_last_good_checkpoint(tmp_path):
  config = settings(
    optimizer={
      **settings()["optimizer"],
      "name": "sgd",
      "learning_rate": 1e30,
      "schedule": "constant",
      "warmup_steps": 0,
    },
    arms={"labels": {"method": {"name": "supervised"}}},
    main_arm="labels",
  )
  with pytest.raises(fit.Diverged, match=r"not finite .*learning_rate"):
    train.run(config, tmp_path)


def truncate_images(folder):
  path = folder / "train-images-idx3-ubyte.gz"
  path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-7]))


def label_out_of_range(folder):
  path = folder / "train-labels-idx1-ubyte.gz"
  data = bytearray(gzip.decompress(path.read_bytes()))
  data[-1] = 77
  path.write_bytes(gzip.compress(bytes(data)))


def fashion_folder(folder: pathlib.Path) -> None:
  """Four IDX files of 20 and 10 images."""
  folder.mkdir()
  draw = np.random.default_rng(0)
  for split, size in (("train", 20), ("t10k", 10)):
    head = lambda kind, *shape: (
      bytes([0, 0, 8, kind]) + b"".join(n.to_bytes(4, "big") for n in shape)
    )
    images = draw.integers(0, 256, (size, 28, 28), np.uint8)
    labels = (np.arange(size) % 10).astype(np.uint8)
    for name, data in (
      ("images-idx3", head(3, size, 28, 28) + images.tobytes()),
      ("labels-idx1", head(1, size) + labels.tobytes()),
    ):
      path = folder / f"{split}-{name}-ubyte.gz"
      path.write_bytes(gzip.compress(data))


FASHION = "--config.data.data_dir={folder}"
BAD_INPUT = {
  "wrong key": (
    "tiny", ["--config.training.stepz=3"], None,
    r"training has no key 'stepz'; it has .*mean 'steps'"),
  "wrong section": (
    "tiny", ["--config.trianing.steps=3"], None,
    r"the config has no key 'trianing'; .*mean 'training'"),
  "wrong arm": (
    "tiny", ["--config.arms.kd.method.name=kd"], None,
    r"arms has no key 'kd'; it has .*gradient"),
  "wrong option": (
    "tiny", ["--config.arms.gradient.exploration.step_sise=3"], None,
    r"takes no 'step_sise'; .*mean 'step_size'"),
  "no section": (
    "tiny", ["--config.seed.x=3"], None, r"seed is 0 and has no key 'x'"),
  "no arm": ("tiny", ["--config.arms.x=3"], None, r"arms.x: .*got 3"),
  "wrong type": ("tiny", ["--config.training.steps=abc"], None, r"abc"),
  "unknown model": ("tiny", ["--config.student.name=mpl"], None, r"'mlp'"),
  "unknown argument": (
    "tiny", ["--config.main_arm=gradeint"], None, r"arms: gradient"),
  "unknown form": ("smoked", [], None, r"^error: ValueError: .*'smoke'"),
  "missing config": ("absent", [], None, r"there is no .*absent.py"),
  "missing folder": (
    "fashion", ["--config.data.data_dir=/nowhere"], None, r"/nowhere"),
  "corrupt file": ("fashion", [FASHION], truncate_images, r"expected .* bytes"),
  "bad label": ("fashion", [FASHION], label_out_of_range, r"77"),
  "NaN loss": (
    "tiny", ["--config.optimizer.learning_rate=1e30"], None, r"not finite"),
  "full disk": ("tiny", [], "full disk", r"disk is full.*(Free some space|Make room)"),
  "other config": ("tiny", ["--config.seeds=3"], "run", r"another config"),
}  # fmt: skip


# ml_collections loads config files by a deprecated call.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
# Orbax's writers of a checkpoint that did not fit may end after its event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_bad_input_is_one_line_and_no_traceback(
  case, tmp_path, finished, monkeypatch
):
  name, options, prepare, message = BAD_INPUT[case]
  root = pathlib.Path(__file__).resolve().parents[1]
  path = {
    "tiny": root / "tests" / "tiny.py",
    "fashion": root / "configs" / "fashion_mnist_lt.py:smoke",
    "absent": tmp_path / "absent.py",
    "smoked": root / "configs" / "digits_lt.py:smoked",
  }[name]
  folder, workdir = tmp_path / "images", tmp_path / "run"
  if name == "fashion":
    fashion_folder(folder)
  if prepare == "run":
    shutil.copytree(finished[0], workdir)
    files = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
  elif callable(prepare):
    prepare(folder)
  options = [option.format(folder=folder) for option in options]
  argv = ["tgt_jax", f"--config={path}", f"--workdir={workdir}", *options]
  helpers.forget_flags()
  monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks there.
  with contextlib.ExitStack() as stack:
    if prepare == "full disk":
      stack.enter_context(helpers.small_disk(20_000))
    stopped = stack.enter_context(pytest.raises(SystemExit))
    main.main(main.parse(argv)[:1])
  assert stopped.value.code not in (0, None)
  text = str(stopped.value.code)
  assert text.startswith("error: ")
  assert re.search(message, text), text
  if prepare == "run":
    assert files == {p: p.read_bytes() for p in files}
