# SPDX-License-Identifier: Apache-2.0
"""Sources of text: ids, padding, views, fingerprints."""

from __future__ import annotations

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import text, tokenizer as tokenizer_lib, topics

pytest.importorskip("tokenizers")

_TEXTS = ["a dog", "", "the cat sees a dog", "dog cat dog cat dog cat"]
_WORDS = tokenizer_lib.train(_TEXTS, vocab_size=60)


def _source(texts=_TEXTS, labels=(0, 1, 0, 2), max_length=6, **kwargs):
  return data.from_texts(
    texts,
    np.array(labels),
    tokenizer=kwargs.pop("tokenizer", _WORDS),
    max_length=max_length,
    **{"name": "toy", **kwargs},
  )


def _word(name):
  return _WORDS.backend.token_to_id(name)


def test_rows_are_padded_on_the_right():
  source = _source()
  dog, cat, cls, sep = map(_word, ("dog", "cat", "[CLS]", "[SEP]"))
  pad = _WORDS.pad_id
  batch = source.fetch(np.array([3, 1, 3]))
  full = [cls, dog, cat, dog, cat, sep]
  assert batch["input"].tolist() == [full, [cls, sep, *[pad] * 4], full]
  assert batch["input"].dtype == np.int32
  assert batch["label"].tolist() == [2, 1, 2]
  assert source.input_shape == (6,) and source.num_classes == 3
  assert source.text.pad_id == source.pad_id == pad
  assert source.text.tokenizer is _WORDS
  ids = source.read(np.arange(4))
  lengths = (ids != pad).sum(axis=1)
  np.testing.assert_array_equal(source.text.lengths, lengths)
  assert source.read(np.arange(0)).shape == (0, 6)


def test_fetch_returns_fresh_arrays():
  source = _source()
  source.fetch(np.arange(2))["input"][:] = 0
  assert source.fetch(np.arange(2))["input"].max() > 0


def test_pairs():
  source = _source(["a dog"], [0], pairs=["the cat"], max_length=9)
  (row,) = source.read(np.array([0]))
  assert _WORDS.decode(row[None]) == ["a dog / the cat"]
  assert (row == _WORDS.sep_id).sum() == 2


def test_views_carry_the_text():
  source = _source()
  view = data.subset(data.subset(source, [3, 0, 2, 0]), [1, 3, 0])
  assert view.text.lengths.tolist() == source.text.lengths[[0, 0, 3]].tolist()
  assert view.text.tokenizer is _WORDS
  np.testing.assert_array_equal(
    view.read(np.arange(3)), source.read(np.array([0, 0, 3]))
  )
  many = _source(_TEXTS * 10, [0, 1, 0, 1] * 10)
  cut, _ = data.long_tail(many, imbalance_ratio=4)
  held = data.holdout(many, cut, per_class=2)
  for part in (cut, held.train, held.validation):
    ids = part.read(np.arange(len(part)))
    np.testing.assert_array_equal(
      part.text.lengths, (ids != _WORDS.pad_id).sum(axis=1)
    )


def test_fingerprint_sees_what_changes_the_ids():
  other = tokenizer_lib.train(_TEXTS[:3], vocab_size=60)
  # The same ids, cut at other places.
  a, b = ["dog cat", "dog"], ["dog", "cat dog"]
  sources = [
    _source(),
    _source(name="other"),
    _source(max_length=7),
    _source(tokenizer=other),
    _source(labels=(0, 1, 0, 1)),
    _source(["a cat", *_TEXTS[1:]]),
    _source(options={"seed": 1}),
    _source(a, [0, 1]),
    _source(b, [0, 1]),
    data.subset(_source(), [0, 1]),
  ]
  assert len({source.fingerprint for source in sources}) == len(sources)
  assert _source().fingerprint == sources[0].fingerprint


def test_a_dataset_trains_its_vocabulary_or_loads_it(tmp_path):
  split = text.Split(_TEXTS, np.array([0, 1, 0, 1]))
  made = text.dataset(
    "toy", split, split, class_names=("x", "y"), vocab_size=28, max_length=8
  )
  assert made.train is made.train_full
  assert made.test.class_names == ("x", "y")
  vocabulary = made.train.text.tokenizer
  assert vocabulary.fingerprint != _WORDS.fingerprint
  assert vocabulary.vocab_size <= 28
  path = tmp_path / "tokenizer.json"
  _WORDS.save(path)
  loaded = text.dataset(
    "toy", split, split, class_names=("x", "y"), tokenizer=path, max_length=8
  )
  assert loaded.test.text.tokenizer.fingerprint == _WORDS.fingerprint


def test_errors():
  with pytest.raises(ValueError, match="toy: 4 texts but 3 labels"):
    _source(labels=(0, 1, 2))
  with pytest.raises(ValueError, match="toy: label 2 of example 3 is out of"):
    _source(num_classes=2)
  with pytest.raises(ValueError, match="f.tsv: example 1: label 'z': expected"):
    text.numbered(["x", "z"], ("x", "y"), what="f.tsv")


def test_an_empty_text_is_its_frame():
  source = _source(["", " \n\t", "a dog", ""], pairs=["", "", "", "a dog"])
  cls, sep, pad = _WORDS.cls_id, _WORDS.sep_id, _WORDS.pad_id
  ids = source.read(np.arange(4))
  assert ids[0].tolist() == ids[1].tolist() == [cls, sep, sep, *[pad] * 3]
  assert ids[2, -3:].tolist() == [sep, sep, pad]
  assert ids[3, :2].tolist() == [cls, sep]


# By reader: a file of its training split, two examples in it, and the rest.
_FILES = {
  "glue": ("train.tsv", b"sentence\tlabel\na dog\t0\nthe cat\t1\n"),
  "reviews_csv": ("train.csv", b'"1","a dog"\n"5","the cat"\n'),
  "topics": (
    topics.CORPORA["r8"].files[0],
    b"Category\tText\nd\tstring\nclass\t\nx\ta dog\ny\tthe cat\n",
  ),
  "imdb": ("train/neg/0.txt", b"a dog\nthe cat\n"),
}
_REST = {
  "glue": ["dev.tsv"],
  "reviews_csv": ["test.csv"],
  "topics": [topics.CORPORA["r8"].files[1]],
  "imdb": ["train/pos/0.txt", "test/neg/0.txt", "test/pos/0.txt"],
}
_ARGUMENTS = {
  "glue": {"task": "sst2"},
  "reviews_csv": {"corpus": "yelp5"},
  "topics": {"corpus": "r8", "check_counts": False},
  "imdb": {},
}


def _load(reader, folder, content):
  """Reads a data set whose training file has this content."""
  name, good = _FILES[reader]
  for path in (name, *_REST[reader]):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content if path == name else good)
  return data.DATASETS[reader](data_dir=folder, **_ARGUMENTS[reader])


@pytest.mark.parametrize("reader", _FILES)
@pytest.mark.parametrize(
  "change",
  [
    lambda good: good.replace(b"\n", b"\r\n"),
    lambda good: b"\xef\xbb\xbf" + good,
  ],
  ids=["CRLF", "byte order mark"],
)
def test_forms_of_the_same_file(reader, change, tmp_path):
  good = _FILES[reader][1]
  want = _load(reader, tmp_path / "good", good).train
  found = _load(reader, tmp_path / "other", change(good)).train
  assert len(found) == 2
  assert found.fingerprint == want.fingerprint


@pytest.mark.parametrize("reader", _FILES)
@pytest.mark.parametrize(
  "change, message",
  [
    (lambda good: b"", "{name} is empty: expected text"),
    (
      lambda good: good + b"caf\xe9\n",
      "{name}:{next}: expected UTF-8, got the byte 0xe9 in place 4; convert",
    ),
    (
      lambda good: good.decode().encode("utf-16"),
      "{name}:1: expected UTF-8, got the byte 0xff in place 1; convert",
    ),
    (
      lambda good: good + b"a\0b\n",
      "{name}:{next}: expected text in UTF-8, got a NUL byte; convert",
    ),
    (
      lambda good: good.replace(b"\n", b"\r"),
      "{name}: expected lines that end with LF or CRLF, got CR alone; convert",
    ),
  ],
  ids=["empty", "Latin-1", "UTF-16", "NUL", "CR"],
)
def test_files_that_are_no_text(reader, change, message, tmp_path):
  name, good = _FILES[reader]
  number = good.count(b"\n") + 1
  with pytest.raises(ValueError) as error:
    _load(reader, tmp_path, change(good))
  assert message.format(name=name, next=number) in str(error.value)


@pytest.mark.parametrize(
  "reader, content, message",
  [
    (
      "glue",
      b"sentence\na dog\n",
      "expected the columns sentence, label, got s",
    ),
    ("glue", b"\n\n", "expected the columns sentence, label, got"),
    ("glue", b"sentence\tlabel\n", "train.tsv: expected examples, got none"),
    ("glue", b"sentence\tlabel\na\t0\nb\n", "tsv:3: expected 2 columns, got 1"),
    ("reviews_csv", b'"1"\n', "example 0: expected the 2 columns label, text"),
    ("reviews_csv", b'"1",a\rb\n', "train.csv:1: new-line character seen in"),
    ("reviews_csv", b'"6","a"\n', "example 0: label '6': expected one of 1, 2"),
    (
      "topics",
      b"a\tb\nd\tstring\nclass\n\n",
      "r8-train.tab: expected examples, got",
    ),
    ("topics", b"a\tb\nd\tstring\nclass\nx\n", "row 4: expected a label and a"),
  ],
)
def test_rows_that_do_not_fit(reader, content, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    _load(reader, tmp_path, content)
