# SPDX-License-Identifier: Apache-2.0
"""GLUE's tasks from small files in the layouts that are published."""

from __future__ import annotations

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import glue

pytest.importorskip("tokenizers")

# First lines as in the archives; columns by tabs.
_FILES = {
  "cola": {
    "train.tsv": [
      "gj04\t1\t\tOur friends won't buy this.",
      'gj04\t0\t*\tThe "bigger the hat.',
    ],
    "dev.tsv": ["gj04\t1\t\tThe sailors rode the breeze."],
  },
  "sst2": {
    "train.tsv": [
      "sentence\tlabel",
      'hide " new secretions \t0',
      'a charming journey " \t1',
    ],
    "dev.tsv": ["sentence\tlabel", "uneasy mishmash \t0"],
  },
  "mrpc": {
    "train.tsv": [
      "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
      '1\t702876\t702977\tAmrozi accused " his brother .\tReferring to him .',
      "0\t2108705\t2108831\tYucaipa owned it .\tYucaipa bought it .",
    ],
    "dev.tsv": [
      "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
      '1\t1355540\t1355592\tHe said so .\t" So it is .',
    ],
  },
  "qqp": {
    "train.tsv": [
      "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
      "133273\t213221\t213222\tHow is life?\tWhat is it like?\t0",
      "a broken line",
      "402555\t536040\t536041\tHow do I?\tHow can I?\t1",
    ],
    "dev.tsv": [
      "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
      "1\t2\t3\tWhy?\tWhy not?\t0",
    ],
  },
  "qnli": {
    "train.tsv": [
      "index\tquestion\tsentence\tlabel",
      "0\tWhen did it start?\tOn 7 October 1989.\tnot_entailment",
      "1\tWho was it?\tIt was he.\tentailment",
    ],
    "dev.tsv": [
      "index\tquestion\tsentence\tlabel",
      "0\tWhat?\tThat.\tentailment",
    ],
  },
  "rte": {
    "train.tsv": [
      "index\tsentence1\tsentence2\tlabel",
      "0\tNo weapons found.\tWeapons found.\tnot_entailment",
      "1\tThe pope died.\tThe pope is dead.\tentailment",
    ],
    "dev.tsv": [
      "index\tsentence1\tsentence2\tlabel",
      "0\tShe died.\tHe lived.\tnot_entailment",
    ],
  },
}
_PARSES = (
  "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse"
  "\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
  "\tsentence1\tsentence2"
)
_ROW = "0\t1\t1n\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)"
_FILES["mnli"] = {
  "train.tsv": [
    f"{_PARSES}\tlabel1\tgold_label",
    f"{_ROW}\tCream skimming.\tProduct.\tneutral\tneutral",
    f"{_ROW}\tHow do you know?\tI know.\tentailment\tcontradiction",
  ],
  "dev_matched.tsv": [
    f"{_PARSES}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    f"{_ROW}\tNew.\tOld.\tn\tn\tn\te\te\tentailment",
  ],
  "dev_mismatched.tsv": [
    f"{_PARSES}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    f"{_ROW}\tYour gift.\tHundreds.\tn\tn\tn\te\te\tcontradiction",
  ],
}
_FILES["stsb"] = {
  "train.tsv": [
    "index\tgenre\tsentence1\tsentence2\tscore",
    "0\tnews\tA plane.\tAn air plane.\t5.000",
    "1\tnews\tA man.\tA flute.\t2.400",
  ],
  "dev.tsv": [
    "index\tgenre\tsentence1\tsentence2\tscore",
    "0\tnews\tHe sat.\tShe sat.\t3.250",
  ],
}
# Labels of the two splits, and the decoded text of the first test example;
# the library takes the space before a full stop out.
_EXPECTED = {
  "cola": ([1, 0], [1], "the sailors rode the breeze."),
  "mnli": ([1, 2], [0], "new. / old."),
  "mrpc": ([1, 0], [1], 'he said so. / " so it is.'),
  "qnli": ([1, 0], [0], "what? / that."),
  "qqp": ([0, 1], [0], "why? / why not?"),
  "rte": ([1, 0], [1], "she died. / he lived."),
  "sst2": ([0, 1], [0], "uneasy mishmash"),
  "stsb": ([5, 2], [3], "he sat. / she sat."),
}


def _write(folder, files, end="\n"):
  folder.mkdir(parents=True, exist_ok=True)
  for name, lines in files.items():
    text = end.join(lines) + end
    (folder / name).write_bytes(text.encode())
  return folder


def _vocabulary(tmp_path):
  """Letters and whatever stands alone: every text can be spelled."""
  letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!\"'*-"
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
  tokens += [f"##{letter}" for letter in letters]
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(tokens))
  return path


def test_every_task_is_tested():
  assert _EXPECTED.keys() == glue.TASKS.keys()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("task", sorted(_EXPECTED))
def test_published_layout(tmp_path, task, above, end):
  folder = tmp_path / glue.TASKS[task].folder
  _write(folder, _FILES[task], end)
  dataset = data.DATASETS["glue"](
    task=task,
    data_dir=tmp_path if above else folder,
    tokenizer=_vocabulary(tmp_path),
    max_length=64,
  )
  train, test, decoded = _EXPECTED[task]
  assert dataset.train.labels.tolist() == train
  assert dataset.test.labels.tolist() == test
  assert dataset.train_full is dataset.train
  assert dataset.train.num_classes == {"mnli": 3, "stsb": 6}.get(task, 2)
  assert dataset.test.name == f"glue/{task}/test"
  (found,) = dataset.test.text.tokenizer.decode(
    dataset.test.read(np.array([0]))
  )
  assert found == decoded
  ids = dataset.train.read(np.arange(2))
  assert not (ids == dataset.train.text.tokenizer.unk_id).any()


def test_mrpc_as_its_authors_packed_it(tmp_path):
  files = _FILES["mrpc"]
  _write(
    tmp_path,
    {
      "msr_paraphrase_train.txt": files["train.tsv"],
      "msr_paraphrase_test.txt": files["dev.tsv"],
    },
  )
  dataset = data.DATASETS["glue"](task="mrpc", data_dir=tmp_path)
  assert len(dataset.train) == 2 and dataset.test.labels.tolist() == [1]
  assert dataset.train.class_names == ("not_equivalent", "equivalent")


def test_a_text_may_hold_what_looks_like_a_line_end(tmp_path):
  files = {**_FILES["sst2"], "dev.tsv": ["sentence\tlabel", "a\u2028b\x85c\t1"]}
  _write(tmp_path, files)
  dataset = data.DATASETS["glue"](task="sst2", data_dir=tmp_path)
  assert dataset.test.labels.tolist() == [1]


def _change(name, lines):
  return {**_FILES["rte"], name: lines}


_HEADER = _FILES["rte"]["dev.tsv"][0]


@pytest.mark.parametrize(
  "files, error, match",
  [
    ({}, FileNotFoundError, "lacks files: expected train.tsv and dev.tsv, or"),
    (
      _change("dev.tsv", _FILES["sst2"]["dev.tsv"]),
      ValueError,
      "dev.tsv: expected the columns sentence1, sentence2, label, got sentence",
    ),
    (
      _change("dev.tsv", [_HEADER, "0\ta\tb\tmaybe"]),
      ValueError,
      "dev.tsv: example 0: label 'maybe': expected one of entailment",
    ),
    (
      _change("train.tsv", [_HEADER, "0\ta\tb\tentailment", "1\ta"]),
      ValueError,
      "train.tsv:3: expected 4 columns, got 2; download it again",
    ),
  ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, files, error, match):
  _write(tmp_path, files)
  with pytest.raises(error, match=match):
    data.DATASETS["glue"](task="rte", data_dir=tmp_path)


def test_tasks_that_there_are_not(tmp_path):
  with pytest.raises(FileNotFoundError, match="nowhere' is missing"):
    data.DATASETS["glue"](task="rte", data_dir=tmp_path / "nowhere")
  with pytest.raises(ValueError, match="task: unknown 'sst'.*Did you mean"):
    data.DATASETS["glue"](task="sst", data_dir=tmp_path)


def test_grades_are_what_is_learned(tmp_path):
  _write(tmp_path, _FILES["stsb"])
  dataset = data.DATASETS["glue"](task="stsb", data_dir=tmp_path)
  np.testing.assert_allclose(
    dataset.train.fetch(np.arange(2))["label"], [5, 2.4]
  )
  np.testing.assert_allclose(dataset.test.grades, [3.25])
  second = data.subset(dataset.train, [1])
  np.testing.assert_allclose(second.grades, [2.4])
  lines = _FILES["stsb"]["dev.tsv"]
  for grade, match in (
    ("5.1", r"expected \[0, 5\], got 5.1"),
    ("x", "no number"),
  ):
    wrong = [lines[0], lines[1].replace("3.250", grade)]
    _write(tmp_path, {"dev.tsv": wrong})
    with pytest.raises(ValueError, match=match):
      data.DATASETS["glue"](task="stsb", data_dir=tmp_path)
