# SPDX-License-Identifier: Apache-2.0
"""Launch scripts: which commands they give."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import subprocess

import pytest

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


def _launch(script: str, folder: pathlib.Path, *flags: str, **environment: str):
  stub = folder / "stub"
  stub.write_text(_STUB)
  stub.chmod(0o755)
  log = folder / "log"
  done = subprocess.run(
    [str(ROOT / "launch" / script), *flags],
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


_sample_sizes = functools.partial(_launch, "sample_sizes.sh")
_text_study = functools.partial(_launch, "text_study.sh")


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


def test_text_study_gives_each_set_of_labels_its_labeler(tmp_path):
  runs = tmp_path / "runs"
  for size, form in (("250", ""), ("2500", ",same")):
    folder = runs / f"teacher-{size}{form}"
    folder.mkdir(parents=True)
    (folder / "generator.safetensors").write_text(size)
  done, lines = _text_study(
    tmp_path,
    f"--workdir={runs}",
    "--config.seeds=1",
    TINY="tiny.safetensors",
    CELLS="250 2500,same 250,same,tiny 2500",
  )
  assert done.returncode == 0, done.stderr
  begin = "-m tgt_jax.main --config=configs/sst2_low.py:"
  teacher = f"--config.teacher_dir={runs}/teacher"
  assert lines == [
    f"{begin}250 {teacher}-250 --config.seeds=1 --workdir={runs}/250",
    (
      f"{begin}2500,same {teacher}-2500,same --config.seeds=1"
      f" --workdir={runs}/2500,same"
    ),
    (
      f"{begin}250,same,tiny {teacher}-250,same"
      " --config.student_weights=tiny.safetensors --config.seeds=1"
      f" --workdir={runs}/250,same,tiny"
    ),
    f"{begin}2500 {teacher}-2500 --config.seeds=1 --workdir={runs}/2500",
  ]
  # The generator of as many labels is trained once, whoever comes first.
  for size in ("250", "2500"):
    for form in ("", ",same"):
      copied = runs / f"teacher-{size}{form}" / "generator.safetensors"
      assert copied.read_text() == size


def test_text_study_needs_the_weights_it_begins_with(tmp_path):
  done, lines = _text_study(
    tmp_path, f"--workdir={tmp_path / 'runs'}", CELLS="250,tiny"
  )
  assert done.returncode != 0
  assert "BERT-Tiny" in done.stderr
  assert not lines
  assert _text_study(tmp_path)[0].returncode == 2


@pytest.fixture
def glue(tmp_path):
  """Flags that name what there is."""
  for name in ("tiny", "words.json"):
    (tmp_path / name).write_text(name)
  return (
    "--data_dir=glue",
    f"--teacher={tmp_path / 'tiny'}",
    f"--tokenizer={tmp_path / 'words.json'}",
  )


def test_glue_study_makes_files_runs_and_a_table(tmp_path, glue):
  runs = tmp_path / "runs"
  tiny, words = tmp_path / "tiny", tmp_path / "words.json"
  contents = sorted(
    hashlib.sha256(path.read_bytes()).hexdigest() for path in (tiny, words)
  )
  made = hashlib.sha256(f"minilm {chr(10).join(contents)}\n".encode())
  files = runs / "files" / made.hexdigest()[:12]
  files.mkdir(parents=True)
  (files / "teacher.safetensors").write_text("made before")
  done, lines = _launch(
    "glue_study.sh",
    tmp_path,
    f"--workdir={runs}",
    *glue,
    "--config.seeds=1",
    TASKS="rte mrpc",
    SIZE="minilm",
  )
  assert done.returncode == 0, done.stderr
  weights = "-m tgt_jax.weights"
  assert lines[0] == (
    f"{weights} convert {tiny} --to=minilm_l6 --layers=1,3,5"
    f" --out={files}/student.safetensors"
  )
  assert lines[1:5] == [
    (
      f"-m tgt_jax.data.vocabulary --tokenizer={words}"
      ' --data={"name": "glue", "task": "rte", "data_dir": "glue"}'
      f" --out={files}/rte.json"
    ),
    *(
      f"{weights} words {files}/{name}.safetensors --old={words}"
      f" --new={files}/rte.json --out={files}/rte-{name}.safetensors"
      for name in ("teacher", "student")
    ),
    (
      "-m tgt_jax.main --config=configs/glue_small.py:rte,minilm"
      f" --config.data.data_dir=glue --config.data.tokenizer={files}/rte.json"
      f" --config.labeler_weights={files}/rte-teacher.safetensors"
      f" --config.student_weights={files}/rte-student.safetensors"
      f" --config.seeds=1 --workdir={runs}/rte"
    ),
  ]
  assert lines[-1] == f"-m tgt_jax.compare {runs}/rte {runs}/mrpc --across"
  assert len(lines) == 10


def test_glue_study_stops_where_a_run_was_stopped(tmp_path, glue):
  done, lines = _launch(
    "glue_study.sh",
    tmp_path,
    f"--workdir={tmp_path / 'r'}",
    *glue,
    STOPPED="sst2",
  )
  assert done.returncode == 0
  assert "glue_small.py:sst2 " in lines[-1]


def test_glue_study_says_what_is_wrong(tmp_path, glue):
  done, lines = _launch("glue_study.sh", tmp_path, *glue)
  assert done.returncode == 2 and "usage:" in done.stderr
  flags = ("--workdir=runs", *glue)
  done, lines = _launch("glue_study.sh", tmp_path, *flags, "--teacher=/no/such")
  assert done.returncode == 2 and "there is no /no/such" in done.stderr
  done, lines = _launch("glue_study.sh", tmp_path, *flags, SIZE="large")
  assert done.returncode == 2 and "got large" in done.stderr
  assert not lines


def test_nuisance_gives_every_share_and_ends_in_pictures(tmp_path):
  runs = tmp_path / "runs"
  flags = (f"--workdir={runs}", "--config.seeds=2")
  environment = {"SHARES": "0 90", "OPTIONS": ",smoke"}
  compare = f"-m tgt_jax.compare {runs}/0 {runs}/90 --metric=accuracy"
  done, lines = _launch("nuisance.sh", tmp_path, *flags, **environment)
  assert done.returncode == 0, done.stderr
  assert lines == [
    *(
      f"-m tgt_jax.main --config=configs/nuisance.py:{share},smoke"
      f" --config.seeds=2 --workdir={runs}/{share}"
      for share in (0, 90)
    ),
    (
      f"{compare} --over=data.share --curve={runs}/shares.png"
      " --arms=no_teacher,kd,east_dcor,ec_dcor_16,pca_16,random,autoencoder"
    ),
    (
      f"{compare} --over=data.share --curve={runs}/widths.png"
      " --arms=ec_dcor_4,pca_4,ec_dcor,pca,ec_dcor_16,pca_16,ec_dcor_64,pca_64"
    ),
    f"{compare} --across",
  ]


def test_nuisance_stops_where_a_run_was_stopped(tmp_path):
  flag = f"--workdir={tmp_path / 'runs'}"
  done, lines = _launch("nuisance.sh", tmp_path, flag, STOPPED="50")
  assert done.returncode == 0
  shares = [line.split()[2].partition(":")[2] for line in lines]
  assert shares == ["0", "50"]
  done, _ = _launch("nuisance.sh", tmp_path)
  assert done.returncode == 2 and "usage:" in done.stderr
