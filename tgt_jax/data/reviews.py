# SPDX-License-Identifier: Apache-2.0
"""Reviews: Yelp-5 and Amazon-5 from their CSV files, IMDB from its folders."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from tgt_jax import checks, longtail
from tgt_jax.data import sources, text, tfds_text

_STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
# Folder of the archive, and columns of a row.
_CSV = {
  "amazon5": ("amazon_review_full_csv", ("label", "title", "text")),
  "yelp5": ("yelp_review_full_csv", ("label", "text")),
}
_CSV_HOME = "the archives of Zhang et al. 2015 (arXiv:1509.01626)"
_IMDB_HOME = "https://ai.stanford.edu/~amaas/data/sentiment/"


def _unescape(value: str) -> str:
  """Undoes what the archives escape beside quotation marks, by a backslash."""
  return value.replace("\\n", "\n").replace('\\"', '"')


def _read_csv(path: pathlib.Path, columns: tuple[str, ...]) -> text.Split:
  texts: list[str] = []
  labels: list[str] = []
  for row in text.rows(path, strict=True):
    if len(row) != len(columns):
      raise ValueError(
        f"{path}: example {len(texts)}: expected the {len(columns)} columns"
        f" {', '.join(columns)}, got {len(row)}; is it the file of another"
        " data set?"
      )
    labels.append(row[0])
    texts.append(" ".join(_unescape(part) for part in row[1:] if part))
  spelled = [str(stars) for stars in range(1, 6)]
  return text.Split(texts, text.numbered(labels, spelled, what=str(path)))


def _labelled(
  source: sources.Source, size: int, seed: int, expected_hash: str
) -> sources.Source:
  """Returns a view with the same number of examples of every class."""
  each, rest = divmod(size, source.num_classes)
  if rest:
    raise ValueError(
      f"num_labelled {size} is not divisible by the {source.num_classes}"
      " classes, of which the same number is taken"
    )
  ids = longtail.subsample_ids(
    source.labels, np.full(source.num_classes, each), seed=seed
  )
  found = longtail.ids_hash(ids)
  if expected_hash and found != expected_hash:
    raise ValueError(
      f"{source.name}: {size} examples drawn with seed {seed} have the hash"
      f" {found}, expected {expected_hash}: the files differ from those the"
      " hash was taken of"
    )
  return sources.subset(source, ids, name=f"{source.name}/{size}-{found}")


def reviews_csv(
  *,
  corpus: str,
  data_dir: str | os.PathLike[str],
  num_labelled: int = 0,
  subsample_seed: int = 0,
  subsample_hash: str = "",
  tokenizer: str | os.PathLike[str] = "",
  max_length: int = 256,
  vocab_size: int = 8000,
) -> sources.Dataset:
  """Reviews with one to five stars, from train.csv and test.csv.

  Args:
    corpus: "yelp5" (650,000 and 50,000 reviews) or "amazon5" (3,000,000 and
      650,000, whose titles come before the text).
    data_dir: the folder of the two files, or the one above it.
    num_labelled: training examples to keep, the same number of every class,
      such as 2500; 0 keeps all. `train_full` is all of them either way.
    subsample_seed: of the choice, apart from a run's seed.
    subsample_hash: what the hash of the chosen ids must be, "" for anything;
      it is part of the name of `train`.
    tokenizer: see `text.dataset`.
    max_length: token ids of a review at most.
    vocab_size: see `text.dataset`.

  Raises:
    FileNotFoundError: files are missing.
    ValueError: a file of another layout, a size that the classes do not
      divide, or another hash.

  References:
    X. Zhang, J. Zhao, Y. LeCun, "Character-level Convolutional Networks for
    Text Classification", arXiv:1509.01626.
  """
  checks.one_of(_CSV, corpus=corpus)
  checks.non_negative(num_labelled=num_labelled)
  archive, columns = _CSV[corpus]
  folder = pathlib.Path(data_dir).expanduser()
  place = folder if (folder / "train.csv").is_file() else folder / archive
  for name in ("train.csv", "test.csv"):
    if not (place / name).is_file():
      raise FileNotFoundError(
        f"{corpus}: data_dir {str(folder)!r}: expected train.csv and test.csv,"
        f" or the folder {archive} with them; there is no {name}. Get"
        f" {archive}.tar.gz from {_CSV_HOME} and unpack it."
      )
  full = text.dataset(
    corpus,
    _read_csv(place / "train.csv", columns),
    _read_csv(place / "test.csv", columns),
    class_names=_STARS,
    tokenizer=tokenizer,
    vocab_size=vocab_size,
    max_length=max_length,
  )
  if not num_labelled:
    return full
  train = _labelled(full.train, num_labelled, subsample_seed, subsample_hash)
  return full._replace(train=train)


def _read_folders(folder: pathlib.Path) -> text.Split:
  """Reads neg/*.txt and pos/*.txt, in the order of their names."""
  texts: list[str] = []
  labels: list[int] = []
  for label, name in enumerate(("neg", "pos")):
    found = sorted((folder / name).glob("*.txt"))
    if not found:
      raise FileNotFoundError(
        f"imdb: {folder / name} holds no .txt file: expected the folders"
        " train/neg, train/pos, test/neg and test/pos of aclImdb. Get the"
        f" archive from {_IMDB_HOME} and unpack it, or leave data_dir out to"
        " read what TFDS has prepared."
      )
    texts += ["".join(text.lines(path)) for path in found]
    labels += [label] * len(found)
  return text.Split(texts, np.array(labels, np.int64))


def imdb(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  tokenizer: str | os.PathLike[str] = "",
  max_length: int = 512,
  vocab_size: int = 8000,
) -> sources.Dataset:
  """Film reviews: 25,000 and 25,000, negative or positive.

  The 50,000 reviews without a label are left out: every example of a source
  has one.

  Args:
    data_dir: the folder aclImdb, or the one above it; None reads what TFDS has
      prepared.
    tokenizer: see `text.dataset`.
    max_length: token ids of a review at most.
    vocab_size: see `text.dataset`.

  Raises:
    FileNotFoundError: files are missing.

  References:
    A. Maas et al., "Learning Word Vectors for Sentiment Analysis", 2011.
  """
  if data_dir:
    folder = pathlib.Path(data_dir).expanduser()
    if not (folder / "train").is_dir():
      folder = folder / "aclImdb"
    splits = [_read_folders(folder / part) for part in ("train", "test")]
  else:
    splits = list(
      tfds_text.read(
        "imdb_reviews",
        splits=("train", "test"),
        keys=("text", ""),
        class_names=("neg", "pos"),
      )
    )
  train, test = (
    split._replace(texts=[t.replace("<br />", "\n") for t in split.texts])
    for split in splits
  )
  return text.dataset(
    "imdb",
    train,
    test,
    class_names=("negative", "positive"),
    tokenizer=tokenizer,
    vocab_size=vocab_size,
    max_length=max_length,
  )
