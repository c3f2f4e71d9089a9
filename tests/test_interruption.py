# SPDX-License-Identifier: Apache-2.0
"""Real processes, really killed: a resumed run equals an undisturbed one."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 60

pytestmark = pytest.mark.thorough


def start(workdir, *options, cache, devices=1, **environment):
  """Starts the main job on the tiny experiment."""
  command = [
    sys.executable, "-m", "tgt_jax.main",
    f"--config={ROOT / 'tests' / 'tiny.py'}:{STEPS}",
    f"--workdir={workdir}", *options,
  ]  # fmt: skip
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "PYTHONUNBUFFERED": "1",
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": f"{os.environ['XLA_FLAGS']}"
      f" --xla_force_host_platform_device_count={devices}",
      # The processes of this file compile the same programs.
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      **environment,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process, timeout=300):
  out, _ = process.communicate(timeout=timeout)
  return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
  workdir = tmp_path_factory.mktemp("undisturbed")
  process = start(workdir, cache=cache)
  out = finish(process)
  assert process.returncode == 0, out
  return workdir


def last_step(workdir):
  """Of the student's updates in the log; 0 where there is none."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  records = map(json.loads, filter(lambda line: line.endswith("}"), lines))
  return max((r["step"] for r in records if r["arm"] == "gradient"), default=0)


def wait_for_step(workdir, step, process):
  """Waits until the student has logged that many updates."""
  limit = time.monotonic() + 240
  while time.monotonic() < limit:
    assert process.poll() is None, process.communicate()[0]
    if last_step(workdir) >= step:
      return
    time.sleep(0.02)
  raise AssertionError("the run did not get there")


def students(workdir):
  return [
    (workdir / "arms" / "gradient" / f"seed{seed}" / "student.safetensors")
    .read_bytes()
    for seed in (0, 1)
  ]  # fmt: skip


def steps_logged(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  records = map(json.loads, lines)
  return [
    r["step"] for r in records if r["arm"] == "gradient" and "loss/total" in r
  ]


def damage_newest(workdir):
  """Cuts the newest checkpoint's largest file in half; returns its step."""
  folder = workdir / "arms" / "gradient" / "checkpoints"
  steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())
  assert len(steps) > 1
  files = [p for p in (folder / str(steps[-1])).rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  return steps[-1]


def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, undisturbed, cache):
  """Asked to stop, then killed, then killed and its newest file damaged."""
  workdir = tmp_path / "run"

  def interrupt(how):
    step = last_step(workdir) + 8  # Not what an earlier process has logged.
    process = start(workdir, cache=cache)
    wait_for_step(workdir, step, process)
    process.send_signal(how)
    out = finish(process)
    assert not (workdir / "results.json").exists(), "killed too late to tell"
    return process.returncode, out

  code, out = interrupt(signal.SIGTERM)
  assert code == 0, out
  assert "To resume: python -m tgt_jax.main" in out
  code, out = interrupt(signal.SIGKILL)
  assert code == -signal.SIGKILL
  assert "gradient: resumed at update" in out
  code, out = interrupt(signal.SIGKILL)
  assert code == -signal.SIGKILL
  assert "gradient: resumed at update" in out
  assert "is unreadable" not in out
  damaged = damage_newest(workdir)

  process = start(workdir, cache=cache)
  out = finish(process)
  assert process.returncode == 0, out
  assert f"checkpoint of step {damaged}" in out
  assert "is unreadable" in out
  assert "gradient: resumed at update" in out
  assert f"resumed at update {damaged}\n" not in out
  assert students(workdir) == students(undisturbed)
  logged = steps_logged(workdir)
  assert len(logged) == len(set(logged))
  assert logged[-1] == STEPS
