# SPDX-License-Identifier: Apache-2.0
"""The tasks of GLUE, from its TSV files or from TFDS.

The labels of GLUE's test splits are not public: the development split is what
is evaluated on, and a validation set is to be held out of the training split.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

from tgt_jax import checks
from tgt_jax.data import sources, text, tfds_text

_HOME = "https://gluebenchmark.com/tasks"


class _Task(NamedTuple):
  """Where a task's files keep what.

  Attributes:
    folder: the name its archive unpacks to.
    columns: of the text, of the second text ("" for none) and of the label.
    spelled: the labels in the files, in the order of the classes; empty where
      they are grades.
    classes: their names; empty where the files spell them out.
    keys: features of the text and of the second text in TFDS.
    dev: names of the development split: of the file, and in TFDS.
    others: further test splits: a name, and both of theirs.
    header: column names, where the files have none of their own.
    ragged: the published training file has broken lines, which are left out.
  """

  folder: str
  columns: tuple[str, str, str]
  spelled: tuple[str, ...]
  classes: tuple[str, ...]
  keys: tuple[str, str]
  dev: tuple[str, str] = ("dev.tsv", "validation")
  others: tuple[tuple[str, str, str], ...] = ()
  header: tuple[str, ...] = ()
  ragged: bool = False


_ENTAILMENT = ("entailment", "not_entailment")
_BINARY = ("0", "1")
TASKS = {
  "cola": _Task(
    folder="CoLA",
    columns=("sentence", "", "label"),
    spelled=_BINARY,
    classes=("unacceptable", "acceptable"),
    keys=("sentence", ""),
    header=("source", "label", "mark", "sentence"),
  ),
  "mnli": _Task(
    folder="MNLI",
    columns=("sentence1", "sentence2", "gold_label"),
    spelled=("entailment", "neutral", "contradiction"),
    classes=(),
    keys=("premise", "hypothesis"),
    dev=("dev_matched.tsv", "validation_matched"),
    others=(("mismatched", "dev_mismatched.tsv", "validation_mismatched"),),
  ),
  "mrpc": _Task(
    folder="MRPC",
    columns=("#1 String", "#2 String", "Quality"),
    spelled=_BINARY,
    classes=("not_equivalent", "equivalent"),
    keys=("sentence1", "sentence2"),
  ),
  "qnli": _Task(
    folder="QNLI",
    columns=("question", "sentence", "label"),
    spelled=_ENTAILMENT,
    classes=(),
    keys=("question", "sentence"),
  ),
  "qqp": _Task(
    folder="QQP",
    columns=("question1", "question2", "is_duplicate"),
    spelled=_BINARY,
    classes=("not_duplicate", "duplicate"),
    keys=("question1", "question2"),
    ragged=True,
  ),
  "rte": _Task(
    folder="RTE",
    columns=("sentence1", "sentence2", "label"),
    spelled=_ENTAILMENT,
    classes=(),
    keys=("sentence1", "sentence2"),
  ),
  "stsb": _Task(
    folder="STS-B",
    columns=("sentence1", "sentence2", "score"),
    spelled=(),
    classes=("0", "1", "2", "3", "4", "5"),
    keys=("sentence1", "sentence2"),
  ),
  "sst2": _Task(
    folder="SST-2",
    columns=("sentence", "", "label"),
    spelled=_BINARY,
    classes=("negative", "positive"),
    keys=("sentence", ""),
  ),
}
# As the original corpus of MRPC names its splits.
_PARAPHRASE = ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt")


def _read(path: pathlib.Path, task: _Task) -> text.Split:
  """Reads a TSV file, in which a quotation mark is a character like others."""
  lines = [line.rstrip("\r\n") for line in text.lines(path)]
  while lines and not lines[-1]:
    lines.pop()
  rows = [line.split("\t") for line in lines]
  header = list(task.header)
  start = 1 if header else 2  # The number of the first row, for messages.
  if not header:
    header, rows = (rows or [[]])[0], rows[1:]
  missing = [name for name in task.columns if name and name not in header]
  if missing:
    raise ValueError(
      f"{path}: expected the columns {', '.join(filter(None, task.columns))},"
      f" got {', '.join(header)}; is it the file of another task?"
    )
  width = len(header)
  if task.ragged:
    rows = [row for row in rows if len(row) == width]
  for number, row in enumerate(rows, start):
    if len(row) != width:
      raise ValueError(
        f"{path}:{number}: expected {width} columns, got {len(row)};"
        f" download it again from {_HOME}"
      )
  first, second, label = (
    [row[header.index(name)].strip() for row in rows] if name else None
    for name in task.columns
  )
  assert first is not None
  assert label is not None
  if task.spelled:
    labels = text.numbered(label, task.spelled, what=str(path))
  else:
    labels = text.graded(label, what=str(path))
  return text.Split(first, labels, second)


def _locate(name: str, task: _Task, folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of the splits."""
  others = (file for _, file, _ in task.others)
  choices = [("train.tsv", task.dev[0], *others)]
  if name == "mrpc":
    choices.append(_PARAPHRASE)
  for place in (folder, folder / task.folder):
    for files in choices:
      paths = [place / file for file in files]
      if all(path.is_file() for path in paths):
        return paths
  wanted = " or ".join(" and ".join(files) for files in choices)
  state = "lacks files" if folder.is_dir() else "is missing"
  raise FileNotFoundError(
    f"glue/{name}: data_dir {str(folder)!r} {state}: expected {wanted}, or the"
    f" folder {task.folder} with them. Get them from {_HOME}, or leave data_dir"
    " out to read what TFDS has prepared."
  )


def glue(
  *,
  task: str,
  data_dir: str | os.PathLike[str] | None = None,
  tokenizer: str | os.PathLike[str] = "",
  max_length: int = 128,
  vocab_size: int = 8000,
) -> sources.Dataset:
  """A task of GLUE; its development split is what is evaluated on.

  Args:
    task: a key of `TASKS`; "mnli" is evaluated on the matched genres, and
      on the others too as "mismatched"; "stsb" has grades of similarity, 0 to
      5, for the label loss "graded_cross_entropy".
    data_dir: the folder of the task's files, or the one above it; None reads
      what TFDS has prepared.
    tokenizer: see `text.dataset`.
    max_length: token ids of a text (or a pair) at most.
    vocab_size: see `text.dataset`.

  Raises:
    FileNotFoundError: files are missing; says where they are published.
    ValueError: an unknown task, or a file that is not what it should be.

  References:
    A. Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for
    Natural Language Understanding", arXiv:1804.07461.
  """
  checks.one_of(TASKS, task=task)
  layout = TASKS[task]
  if data_dir:
    files = _locate(task, layout, pathlib.Path(data_dir).expanduser())
    train, test, *others = (_read(file, layout) for file in files)
  else:
    train, test, *others = _prepared(task, layout)
  names = (name for name, _, _ in layout.others)
  return text.dataset(
    f"glue/{task}",
    train,
    test,
    others=dict(zip(names, others, strict=True)),
    class_names=layout.classes or layout.spelled,
    tokenizer=tokenizer,
    vocab_size=vocab_size,
    max_length=max_length,
  )


def _prepared(task: str, layout: _Task) -> Any:
  return tfds_text.read(
    f"glue/{task}",
    splits=("train", layout.dev[1], *(tfds for _, _, tfds in layout.others)),
    keys=layout.keys,
    class_names=layout.classes or layout.spelled if layout.spelled else (),
  )
