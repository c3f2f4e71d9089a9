# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl survives crashes and resumes; the other writers agree."""

from __future__ import annotations

import json
import os
import pathlib
import struct
import sys
import time
import types

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tgt_jax import writers


def _rows(path: pathlib.Path) -> list[tuple]:
  return [
    (r["step"], r["arm"], r.get("seed", tuple(r.get("seeds", ()))))
    for r in writers.read_metrics(path)
  ]


def test_one_line_per_write(tmp_path: pathlib.Path):
  path = tmp_path / "run" / "metrics.jsonl"
  writer = writers.JsonlWriter(path)
  before = time.time()
  writer.write(5, {"loss/total": jnp.float32(0.5)}, arm="kd", seed=3)
  # No flush, no close: the line is there.
  (line,) = path.read_text().splitlines()
  record = json.loads(line)
  assert abs(record.pop("time") - before) < 60
  assert record == {"step": 5, "arm": "kd", "seed": 3, "loss/total": 0.5}


def test_seeds_write_one_number_each(tmp_path: pathlib.Path):
  writer = writers.JsonlWriter(tmp_path / "m")
  scalars = {"loss/total": np.array([1.0, 2.0]), "lr": 0.1}
  writer.write(1, scalars, arm="a", seed=[4, 7])
  (record,) = writers.read_metrics(tmp_path / "m")
  assert record["seeds"] == [4, 7]
  assert record["loss/total"] == [1.0, 2.0]
  assert record["lr"] == 0.1
  assert "seed" not in record


@pytest.mark.parametrize(
  ("scalars", "seed", "match"),
  [
    ({"x": [1.0, 2.0]}, 0, "2 values for seed=0"),
    ({"x": [1.0, 2.0]}, None, "2 values"),
    ({"x": [1.0]}, [0, 1], "1 values"),
    ({"x": np.ones((2, 2))}, [0, 1], r"shape \(2, 2\)"),
    ({"time": 1.0}, 0, "cannot be called 'time'"),
  ],
)
def test_bad_values_write_nothing(tmp_path, scalars, seed, match):
  writer = writers.JsonlWriter(tmp_path / "m")
  with pytest.raises(ValueError, match=match):
    writer.write(0, scalars, arm="a", seed=seed)
  assert writers.read_metrics(tmp_path / "m") == []


@hypothesis.given(st.floats(width=32))
def test_plain_keeps_every_float32(number: float):
  found = writers.plain(np.float32(number))
  if np.isfinite(number):
    assert np.float32(found) == np.float32(number)
  else:
    assert found is None
  json.dumps(found, allow_nan=False)


def test_a_line_cut_by_a_crash_is_removed(tmp_path: pathlib.Path):
  path = tmp_path / "m"
  writer = writers.JsonlWriter(path)
  writer.write(1, {"x": 1}, arm="a", seed=0)
  writer.close()
  whole = path.read_bytes()
  with path.open("ab") as file:
    file.write(b'{"step": 2, "arm": "a", "x"')
  assert _rows(path) == [(1, "a", 0)]
  writer = writers.JsonlWriter(path)
  assert path.read_bytes() == whole
  writer.write(2, {"x": 1}, arm="a", seed=0)
  assert _rows(path) == [(1, "a", 0), (2, "a", 0)]


def test_a_file_of_half_a_line_becomes_empty(tmp_path: pathlib.Path):
  (tmp_path / "m").write_bytes(b'{"ste')
  writers.JsonlWriter(tmp_path / "m")
  assert (tmp_path / "m").read_bytes() == b""


def test_a_damaged_line_is_named(tmp_path: pathlib.Path):
  path = tmp_path / "m"
  path.write_text('{"step": 1, "arm": "a"}\nnot json\n')
  with pytest.raises(ValueError, match="line 2 is not a line of metrics"):
    writers.read_metrics(path)
  path.write_text('{"step": 1}\n')
  with pytest.raises(ValueError, match=r"line 1 .*arm"):
    writers.read_metrics(path)
  with pytest.raises(FileNotFoundError, match="no file"):
    writers.read_metrics(tmp_path / "none")


def test_a_resumed_run_leaves_no_duplicates(tmp_path: pathlib.Path):
  """Uninterrupted and resumed runs have the same lines."""

  def train(writer, arm, first, last):
    for step in range(first, last + 1, 10):
      writer.write(step, {"loss/total": step}, arm=arm, seed=0)

  whole = writers.JsonlWriter(tmp_path / "whole")
  for arm in ("kd", "tgt"):
    train(whole, arm, 10, 100)
  writer = writers.JsonlWriter(tmp_path / "cut")
  train(writer, "kd", 10, 100)
  train(writer, "tgt", 10, 70)  # Killed at 70; the checkpoint is of 40.
  writer = writers.JsonlWriter(tmp_path / "cut")
  writer.rewind(40, arm="tgt")
  train(writer, "tgt", 50, 100)
  assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def test_rewind_touches_one_arm_and_seed(tmp_path: pathlib.Path):
  path = tmp_path / "m"
  writer = writers.JsonlWriter(path)
  for step in (1, 2):
    for seed in (0, 1):
      writer.write(step, {}, arm="a", seed=seed)
    writer.write(step, {}, arm="a", seed=(2, 3))
    writer.write(step, {}, arm="b", seed=0)
    writer.write(step, {}, arm="teacher", seed=None)
  writer.rewind(1, arm="a", seed=1)
  assert (2, "a", 1) not in _rows(path)
  assert {(1, "a", 1), (2, "a", 0), (2, "a", (2, 3))} <= set(_rows(path))
  writer.rewind(0, arm="a", seed=(2, 3))
  assert (1, "a", (2, 3)) not in _rows(path)
  writer.rewind(0, arm="teacher")
  assert _rows(path) == [(1, "a", 0), (1, "a", 1), (1, "b", 0)] + [
    (2, "a", 0),
    (2, "b", 0),
  ]


def test_a_full_disk_is_one_clear_error(tmp_path: pathlib.Path):
  if not os.path.exists("/dev/full"):
    pytest.skip("no /dev/full")
  (tmp_path / "m").symlink_to("/dev/full")
  writer = writers.JsonlWriter(tmp_path / "m")
  with pytest.raises(OSError, match=r"cannot write .*m: the disk is full"):
    writer.write(0, {"x": 1.0}, arm="a", seed=0)


def _events(folder: pathlib.Path) -> list[tuple[str, int, float]]:
  """Reads event files: length, crc, record, crc."""
  from tensorboardX.proto import event_pb2

  found = []
  for path in sorted(folder.glob("events.out.*")):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack("<Q", data[:8])
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      data = data[16 + length :]
      found += [
        (value.tag, event.step, value.simple_value)
        for value in event.summary.value
      ]
  return found


def test_tensorboard_has_a_folder_per_seed(tmp_path: pathlib.Path):
  pytest.importorskip("tensorboardX")
  writer = writers.TensorBoardWriter(tmp_path)
  writer.write(3, {"loss/a": [0.5, 2.0], "lr": 1.0}, arm="kd", seed=[0, 1])
  writer.write(4, {"loss/a": float("nan")}, arm="teacher", seed=None)
  writer.flush()
  writer.close()
  assert _events(tmp_path / "kd" / "seed0") == [
    ("loss/a", 3, 0.5),
    ("lr", 3, 1.0),
  ]
  assert _events(tmp_path / "kd" / "seed1")[0] == ("loss/a", 3, 2.0)
  ((tag, step, value),) = _events(tmp_path / "teacher")
  assert (tag, step) == ("loss/a", 4)
  assert np.isnan(value)


def test_tensorboard_purges_what_is_written_again(tmp_path, monkeypatch):
  tensorboard = pytest.importorskip("tensorboardX")
  asked = []
  real = tensorboard.SummaryWriter

  def spy(folder, purge_step=None):
    asked.append(purge_step)
    return real(folder, purge_step=purge_step)

  monkeypatch.setattr(tensorboard, "SummaryWriter", spy)
  writer = writers.TensorBoardWriter(tmp_path)
  writer.rewind(40, arm="kd")
  writer.write(50, {"x": 1.0}, arm="kd", seed=0)
  writer.write(10, {"x": 1.0}, arm="tgt", seed=0)
  writer.close()
  assert asked == [41, None]


@pytest.mark.parametrize(
  ("name", "make", "extra"),
  [
    ("tensorboardX", lambda: writers.TensorBoardWriter("x"), "tensorboard"),
    ("wandb", lambda: writers.WandbWriter(), "wandb"),
  ],
)
def test_a_missing_extra_is_named(monkeypatch, name, make, extra):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ImportError, match=rf"tgt_jax\[{extra}\]"):
    make()


class FakeRun:
  """What `wandb.init` returns, as far as we use it."""

  def __init__(self):
    self.logged, self.defined, self.finished = [], [], False

  def log(self, values):
    self.logged.append(values)

  def define_metric(self, name, step_metric):
    self.defined.append((name, step_metric))

  def finish(self):
    self.finished = True


def test_wandb_gives_every_arm_a_step_of_its_own(monkeypatch):
  run = FakeRun()
  module = types.SimpleNamespace(init=lambda **options: run)
  monkeypatch.setitem(sys.modules, "wandb", module)
  writer = writers.WandbWriter(project="p")
  writer.write(9, {"x": [1.0, float("nan")]}, arm="kd", seed=[0, 1])
  writer.write(1, {"x": 3.0}, arm="tgt", seed=None)
  writer.close()
  assert run.logged == [
    {"kd/seed0/step": 9, "kd/seed0/x": 1.0},
    {"kd/seed1/step": 9},
    {"tgt/step": 1, "tgt/x": 3.0},
  ]
  assert ("tgt/*", "tgt/step") in run.defined
  assert len(run.defined) == 3
  assert run.finished


def test_multi_writer_hands_on_everything(tmp_path: pathlib.Path):
  paths = [tmp_path / "a", tmp_path / "b"]
  writer = writers.MultiWriter(*map(writers.JsonlWriter, paths))
  writer.write(1, {"x": 1.0}, arm="a", seed=0)
  writer.write(2, {"x": 1.0}, arm="a", seed=0)
  writer.rewind(1, arm="a", seed=None)
  writer.flush()
  writer.close()
  assert _rows(paths[0]) == _rows(paths[1]) == [(1, "a", 0)]
