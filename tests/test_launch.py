# SPDX-License-Identifier: Apache-2.0
"""Launch scripts: which commands they give."""

from __future__ import annotations

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Stands for Python: notes its arguments; a run leaves its results, unless it
# is the one that was asked to stop.
_STUB = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
for argument in "$@"; do
  case "$argument" in
    --workdir=*"/$STOPPED") ;;
    --workdir=*) mkdir -p "${argument#*=}" && echo {} >"${argument#*=}/results.json" ;;
  esac
done
"""


def _sample_sizes(folder: pathlib.Path, *flags: str, **environment: str):
  stub = folder / "stub"
  stub.write_text(_STUB)
  stub.chmod(0o755)
  log = folder / "log"
  done = subprocess.run(
    [str(ROOT / "launch" / "sample_sizes.sh"), *flags],
    env={
      **os.environ,
      "PYTHON": str(stub),
      "LOG": str(log),
      "STOPPED": "",
      **environment,
    },
    capture_output=True,
    text=True,
    check=False,
  )
  return done, log.read_text().splitlines() if log.exists() else []


def test_sample_sizes_share_a_teacher_and_end_in_a_curve(tmp_path):
  runs = tmp_path / "runs"
  done, lines = _sample_sizes(
    tmp_path,
    "--config=file.py:taesd",
    f"--workdir={runs}",
    "--config.seeds=2",
    SIZES="1 10",
  )
  assert done.returncode == 0, done.stderr
  common = f"--config.teacher_dir={runs}/teacher --config.seeds=2"
  assert lines == [
    *(
      f"-m tgt_jax.main --config=file.py:{size},taesd {common}"
      f" --workdir={runs}/{size}"
      for size in (1, 10)
    ),
    (
      f"-m tgt_jax.compare {runs}/1 {runs}/10 --metric=accuracy"
      f" --curve={runs}/curve.png"
    ),
  ]


def test_sample_sizes_stop_where_a_run_was_stopped(tmp_path):
  done, lines = _sample_sizes(
    tmp_path, "--config=a.py", f"--workdir={tmp_path / 'runs'}", STOPPED="3"
  )
  assert done.returncode == 0
  assert [line.split()[2] for line in lines] == [
    "--config=a.py:1",
    "--config=a.py:3",
  ]


def test_sample_sizes_say_what_is_missing(tmp_path):
  done, lines = _sample_sizes(tmp_path, "--config=a.py")
  assert done.returncode == 2
  assert "usage:" in done.stderr
  assert not lines
