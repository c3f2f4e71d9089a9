# SPDX-License-Identifier: Apache-2.0
"""Sources of text: token ids, held one after the other and padded when read."""

from __future__ import annotations

import csv
import os
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax.data import sources, tokenizer as tokenizer_lib
from tgt_jax.data.tokenizer import Ragged, Tokenizer


def _reader(tokens: Ragged, length: int, pad_id: int) -> Any:
  """Returns a function of ids [B] to int32 [B, length]."""

  def read(ids: np.ndarray) -> np.ndarray:
    starts = tokens.offsets[ids][:, None]
    positions = np.arange(length)[None]
    inside = positions < tokens.offsets[np.asarray(ids) + 1][:, None] - starts
    out = np.full((len(ids), length), pad_id, np.int32)
    out[inside] = tokens.flat[(starts + positions)[inside]]
    return out

  return read


def from_texts(
  texts: Sequence[str],
  labels: Any,
  *,
  tokenizer: Tokenizer,
  max_length: int,
  name: str,
  pairs: Sequence[str] | None = None,
  num_classes: int | None = None,
  class_names: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
) -> sources.Source:
  """Returns a source that holds its token ids in memory.

  Args:
    texts: N texts. An empty one is its frame alone, [CLS] [SEP]; with a
      tokenizer without a frame it is all padding, to which an encoder attends
      evenly.
    labels: integers [N] in [0, num_classes), or grades, floating point, in
      [0, num_classes - 1] where there are class names.
    tokenizer: splits the texts and says what padding is.
    max_length: L, ids of a text at most; longer ones are cut. The source's
      input_shape is (L,).
    name: what messages and the fingerprint call it, with the split.
    pairs: N second texts, or None.
    num_classes: K; by default that of `class_names`, else the largest label
      plus one.
    class_names: K names; by default the numbers.
    options: whatever else should change the fingerprint.

  Raises:
    TypeError: labels that are not integers.
    ValueError: numbers of texts and labels that differ, or a label out of
      range.
  """
  if len(texts) != len(labels):
    raise ValueError(
      f"{name}: {len(texts)} texts but {len(labels)} labels; one label per"
      " text is expected"
    )
  grades = None
  if np.asarray(labels).dtype.kind == "f" and class_names:
    grades = sources.check_grades(labels, len(class_names) - 1, what=name)
    labels = np.rint(grades).astype(np.int32)
  num_classes, labels = sources.count_classes(
    labels, num_classes, class_names, what=name
  )
  tokens = tokenizer.encode(texts, pairs, max_length=max_length)
  return sources.Source(
    name=name,
    labels=labels,
    num_classes=num_classes,
    class_names=tuple(class_names or map(str, range(num_classes))),
    input_shape=(max_length,),
    read=_reader(tokens, max_length, tokenizer.pad_id),
    fingerprint=sources.digest(
      name,
      {**(options or {}), "max_length": max_length},
      tokenizer.fingerprint,
      tokens.flat,
      tokens.offsets,
      labels if grades is None else grades,
    ),
    ids=np.arange(len(labels)),
    text=sources.Text(tokens.lengths, tokenizer.pad_id, tokenizer),
    targets=grades,
  )


class Split(NamedTuple):
  """What a reader of files returns.

  Attributes:
    texts: N texts.
    labels: int [N], or grades, float [N].
    pairs: N second texts, or None.
  """

  texts: list[str]
  labels: np.ndarray
  pairs: list[str] | None = None


def lines(path: pathlib.Path) -> Iterator[str]:
  """Yields the lines of a file in UTF-8, with their ends.

  Lines end with LF or CRLF. Whatever else ends lines elsewhere may stand
  within a text.

  Raises:
    ValueError: an empty file, or what is not text in UTF-8; names the line.
  """
  number = 0
  with path.open("rb") as file:
    for number, line in enumerate(file, 1):
      yield _decoded(line, path, number)
  if not number:
    raise ValueError(f"{path} is empty: expected text; get the file again")


def _decoded(line: bytes, path: pathlib.Path, number: int) -> str:
  try:
    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{path}:{number}: expected UTF-8, got the byte"
      f" 0x{line[error.start]:02x} in place {error.start + 1}; convert the file"
      " (iconv -t UTF-8) or get it again"
    ) from error
  if "\0" in text:
    raise ValueError(
      f"{path}:{number}: expected text in UTF-8, got a NUL byte; convert the"
      " file (UTF-16 has them), or get it again"
    )
  if number == 1 and "\n" not in text and "\r" in text.rstrip("\r"):
    raise ValueError(
      f"{path}: expected lines that end with LF or CRLF, got CR alone; convert"
      " the file (tr '\\r' '\\n')"
    )
  return text


def rows(path: pathlib.Path, **dialect: Any) -> Iterator[list[str]]:
  """Yields the rows of a file of separated values.

  Args:
    path: in UTF-8, see `lines`.
    **dialect: of `csv.reader`.

  Raises:
    ValueError: what cannot be read; names the line.
  """
  reader = csv.reader(lines(path), **dialect)
  try:
    yield from reader
  except csv.Error as error:
    raise ValueError(
      f"{path}:{reader.line_num}: {error}; expected quotation marks in pairs"
      " and fields that end with their line; get the file again"
    ) from error


def dataset(
  name: str,
  train: Split,
  test: Split,
  *,
  others: Mapping[str, Split] = types.MappingProxyType({}),
  class_names: Sequence[str],
  tokenizer: Tokenizer | str | os.PathLike[str] = "",
  vocab_size: int = 8000,
  max_length: int,
) -> sources.Dataset:
  """Returns the data set of two splits or more.

  Args:
    name: what messages call it, without a split.
    train: what is trained on; all of it is `train` and `train_full`.
    test: what is evaluated on.
    others: further test splits.
    class_names: K names.
    tokenizer: a tokenizer, or the path of one as `tokenizer.load` takes it:
      that of the networks whose weights are used. "" trains a WordPiece
      vocabulary on the training texts.
    vocab_size: tokens of that vocabulary at most.
    max_length: see `from_texts`.
  """
  if isinstance(tokenizer, Tokenizer):
    words = tokenizer
  elif tokenizer:
    words = tokenizer_lib.load(tokenizer)
  else:
    texts = [*train.texts, *(train.pairs or ())]
    words = tokenizer_lib.train(texts, vocab_size=vocab_size)
  made = {
    part: from_texts(
      split.texts,
      split.labels,
      tokenizer=words,
      max_length=max_length,
      name=f"{name}/{part}",
      pairs=split.pairs,
      class_names=class_names,
    )
    for part, split in {"train": train, "test": test, **others}.items()
  }
  full, held = made.pop("train"), made.pop("test")
  return sources.Dataset(full, held, full, made)


def _nothing(what: str) -> ValueError:
  return ValueError(
    f"{what}: expected examples, got none behind the header; get the file again"
  )


def numbered(
  values: Sequence[str], spelled: Sequence[str], *, what: str
) -> np.ndarray:
  """Returns labels as files spell them as numbers, int64 [N].

  Args:
    values: the labels of N examples.
    spelled: how the K classes are spelled, in their order.
    what: the file, for messages.

  Raises:
    ValueError: no label at all, or one that is not among them.
  """
  if not values:
    raise _nothing(what)
  numbers = {label: number for number, label in enumerate(spelled)}
  for row, value in enumerate(values):
    if value not in numbers:
      raise ValueError(
        f"{what}: example {row}: label {value!r}: expected one of"
        f" {', '.join(spelled)}"
      )
  return np.array([numbers[value] for value in values], np.int64)


def graded(values: Sequence[str], *, what: str) -> np.ndarray:
  """Returns grades as files spell them as numbers, float32 [N].

  Raises:
    ValueError: no grade at all, or one that is no number; names the file.
  """
  if not values:
    raise _nothing(what)
  try:
    return np.array([float(value) for value in values], np.float32)
  except ValueError as error:
    raise ValueError(f"{what}: a grade is no number: {error}") from error
