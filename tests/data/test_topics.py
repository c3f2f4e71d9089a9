# SPDX-License-Identifier: Apache-2.0
"""Tables of topics."""

from __future__ import annotations

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import topics

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
    (_TRAIN, "a\tb\nx\ty\n\nearn\tz\n", "expected three header lines"),
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
