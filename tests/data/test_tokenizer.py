# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: public layouts, framing, truncation, training, errors."""

from __future__ import annotations

import concurrent.futures
import json
import sys

import numpy as np
import pytest

from tests import helpers
from tgt_jax import data
from tgt_jax.data import tokenizer as lib

tokenizers = pytest.importorskip("tokenizers")

_VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat sees run ##ning ##s . é e"
_SENTENCES = [
  "the quick brown fox jumps over the lazy dog",
  "the quick dog runs quickly over a lazy cat",
  "a fox and a dog; a lazy, lazy cat!",
]


def _bert(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(_VOCAB.split()) + "\n", encoding="utf-8")
  return path


def _roberta(tmp_path):
  """The two files of RoBERTa; "Ġ" is a space."""
  letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(letters)]
  tokens += ["do", "dog", "Ġc", "Ġca", "Ġcat", "<mask>"]
  vocab = {token: number for number, token in enumerate(tokens)}
  (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
  (tmp_path / "merges.txt").write_text(
    "#version: 0.2\nd o\ndo g\nĠ c\nĠc a\nĠca t\n", encoding="utf-8"
  )
  return vocab


def _rows(ragged):
  return [row.tolist() for row in np.split(ragged.flat, ragged.offsets[1:-1])]


def test_bert_by_hand(tmp_path):
  tokenizer = lib.load(_bert(tmp_path))
  assert (tokenizer.pad_id, tokenizer.unk_id) == (0, 1)
  assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (2, 3, 4)
  assert tokenizer.vocab_size == 15
  ragged = tokenizer.encode(
    ["A  DOG sees cats.", "running zebra", "É"], max_length=16
  )
  # Lower case without accents; pieces; a word that cannot be spelled.
  assert _rows(ragged) == [
    [2, 5, 6, 8, 7, 11, 12, 3],
    [2, 9, 10, 1, 3],
    [2, 14, 3],
  ]
  assert ragged.flat.dtype == np.int32 and ragged.offsets.dtype == np.int64
  np.testing.assert_array_equal(ragged.lengths, [8, 5, 3])


def test_roberta_by_hand(tmp_path):
  vocab = _roberta(tmp_path)
  for path in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
    tokenizer = lib.load(path)
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id) == (0, 1, 2)
    assert tokenizer.mask_id == vocab["<mask>"]
    dog, cat = vocab["dog"], vocab["Ġcat"]
    texts = ["dog cat", "dog <mask>"]
    tokenizer.backend.encode_special_tokens = False
    rows = _rows(tokenizer.encode(texts, max_length=8))
    # The mask takes the space before it along.
    assert rows == [[0, dog, cat, 2], [0, dog, vocab["<mask>"], 2]]
    pair = tokenizer.encode(["dog"], ["dog cat"], max_length=9)
    assert _rows(pair) == [[0, dog, 2, 2, dog, cat, 2]]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_symbols_that_somebody_wrote_are_text(kind):
  texts = ["[SEP] a [PAD] [MASK]", "<s>a</s> <pad> <mask>"]
  tokenizer = lib.train([*_SENTENCES, *texts], kind=kind, vocab_size=400)
  rows = tokenizer.encode([*texts, "a"], [*texts[::-1], "a"], max_length=90)
  frame = _rows(rows)[-1]
  symbols = {*tokenizer.frame_ids, tokenizer.mask_id}
  for row in _rows(rows)[:2]:
    assert [i for i in row if i in symbols] == [
      i for i in frame if i in symbols
    ]
  other = lib.train([*_SENTENCES, *texts], vocab_size=300)
  ids = np.array([_rows(tokenizer.encode(texts[:1], max_length=90))[0]])
  (read,) = data.translation(tokenizer, other, 90)(ids)
  assert np.sum(np.isin(read, [other.sep_id, other.mask_id])) == 1  # The end.


@pytest.mark.parametrize("longest", ["first", "second"])
def test_of_a_pair_the_longer_text_is_cut(tmp_path, longest):
  tokenizer = lib.load(_bert(tmp_path))
  long, short = "dog " * 9, "cat cat"
  texts = (long, short) if longest == "first" else (short, long)
  (row,) = _rows(tokenizer.encode([texts[0]], [texts[1]], max_length=8))
  dogs, cats = [6] * 3, [7] * 2
  first, second = (dogs, cats) if longest == "first" else (cats, dogs)
  assert row == [2, *first, 3, *second, 3]


def test_truncation_keeps_the_frame_and_is_undone(tmp_path):
  tokenizer = lib.load(_bert(tmp_path))
  before = tokenizer.fingerprint
  assert _rows(tokenizer.encode(["dog " * 9], max_length=4)) == [[2, 6, 6, 3]]
  assert tokenizer.fingerprint == before
  assert tokenizer.encode(["dog " * 9], max_length=99).lengths[0] == 11
  with pytest.raises(ValueError, match="max_length must be > 2.*got 2"):
    tokenizer.encode(["dog"], max_length=2)
  with pytest.raises(ValueError, match="max_length must be > 3"):
    tokenizer.encode(["dog"], ["cat"], max_length=3)
  with pytest.raises(ValueError, match="1 texts but 2 second texts"):
    tokenizer.encode(["dog"], ["cat", "cat"], max_length=9)


def test_chunks_are_joined(tmp_path, monkeypatch):
  tokenizer = lib.load(_bert(tmp_path))
  texts = ["dog " * (i % 4) for i in range(10)]
  whole = tokenizer.encode(texts, texts[::-1], max_length=9)
  monkeypatch.setattr(lib, "_CHUNK", 3)
  parts = tokenizer.encode(texts, texts[::-1], max_length=9)
  np.testing.assert_array_equal(parts.flat, whole.flat)
  np.testing.assert_array_equal(parts.offsets, whole.offsets)
  nothing = tokenizer.encode([], max_length=9)
  assert nothing.flat.size == 0 and nothing.offsets.tolist() == [0]


def test_decode(tmp_path):
  tokenizer = lib.load(_bert(tmp_path))
  rows = np.array(
    [
      [2, 5, 6, 8, 7, 11, 3, 0, 0],
      [2, 6, 3, 7, 4, 3, 0, 0, 0],
      [0] * 9,
    ]
  )
  assert tokenizer.decode(rows) == ["a dog sees cats", "dog / cat [MASK]", ""]
  _roberta(tmp_path)
  bytes_ = lib.load(tmp_path / "vocab.json")
  ragged = bytes_.encode(["dog cat über"], ["dog"], max_length=30)
  assert bytes_.decode(ragged.flat[None]) == ["dog cat über / dog"]


def test_words_are_those_of_any_file(tmp_path):
  tokenizer = lib.load(_bert(tmp_path))
  tokenizer.save(tmp_path / "tokenizer.json")
  again = lib.load(tmp_path / "tokenizer.json")
  assert again.words == tokenizer.words
  pieces = sorted(tokenizer.backend.get_vocab())
  other = lib.of_pieces(pieces)
  assert other.vocab_size == tokenizer.vocab_size
  assert other.words != tokenizer.words


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_saved_and_loaded(tmp_path, kind):
  tokenizer = lib.train(_SENTENCES, kind=kind, vocab_size=300)
  path = tmp_path / "deep" / "tokenizer.json"
  tokenizer.save(path)
  for place in (path, path.parent):
    again = lib.load(place)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.frame_ids == tokenizer.frame_ids
    np.testing.assert_array_equal(
      again.encode(_SENTENCES, max_length=20).flat,
      tokenizer.encode(_SENTENCES, max_length=20).flat,
    )
  other = lib.train(_SENTENCES[:2], kind=kind, vocab_size=300)
  assert other.fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_trained_text_survives(kind):
  tokenizer = lib.train(_SENTENCES, kind=kind, vocab_size=400)
  ragged = tokenizer.encode(_SENTENCES[:2], max_length=64)
  padded = np.full((2, 64), tokenizer.pad_id)
  for row, ids in enumerate(_rows(ragged)):
    padded[row, : len(ids)] = ids
  assert tokenizer.decode(padded) == _SENTENCES[:2]
  assert ragged.flat.max() < tokenizer.vocab_size <= 400
  # Frequent words are whole tokens.
  assert tokenizer.encode(["lazy"], max_length=9).lengths[0] <= 4


def test_training_is_the_same_in_every_process():
  code = f"""
    from tgt_jax.data import tokenizer
    for kind in ("wordpiece", "bpe"):
      made = tokenizer.train({_SENTENCES!r}, kind=kind, vocab_size=300)
      print(made.fingerprint)
  """
  outputs = {helpers.run_with_devices(code, 1) for _ in range(2)}
  assert len(outputs) == 1


def test_what_fixes_length_is_undone(tmp_path):
  tokenizer = lib.train(_SENTENCES, vocab_size=100)
  tokenizer.backend.enable_padding(length=40)
  tokenizer.backend.enable_truncation(3)
  tokenizer.save(tmp_path / "tokenizer.json")
  again = lib.load(tmp_path)
  assert 3 < again.encode(["the quick fox"], max_length=39).lengths[0] < 39


def test_a_file_without_a_frame_gets_its_familys(tmp_path):
  words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "dog": 4}
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(words, unk_token="[UNK]")
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  backend.save(str(tmp_path / "tokenizer.json"))
  tokenizer = lib.load(tmp_path)
  assert tokenizer.mask_id is None
  pair = tokenizer.encode(["dog cat"], ["dog"], max_length=9)
  assert _rows(pair) == [[2, 4, 1, 3, 4, 3]]


def test_errors(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match="nowhere' is missing: expected"):
    lib.load(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match="holds none of them"):
    lib.load(tmp_path)
  (tmp_path / "vocab.json").write_text("{}")
  with pytest.raises(FileNotFoundError, match="needs merges.txt beside it"):
    lib.load(tmp_path)
  damaged = tmp_path / "tokenizer.json"
  damaged.write_text('{"version": ')
  with pytest.raises(ValueError, match=r"tokenizer.json cannot be read"):
    lib.load(damaged)
  words = tokenizers.models.WordLevel({"dog": 0, "[UNK]": 1}, "[UNK]")
  tokenizers.Tokenizer(words).save(str(damaged))
  with pytest.raises(ValueError, match="no pad token: expected one of .PAD."):
    lib.load(damaged)
  (tmp_path / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\ndog\n")
  with pytest.raises(
    ValueError, match=r"vocab.txt cannot be read: no token .UN"
  ):
    lib.load(tmp_path / "vocab.txt")
  with pytest.raises(ValueError, match="kind: unknown 'bep'"):
    lib.train(_SENTENCES, kind="bep")
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(ImportError, match=r"pip install 'tgt_jax\[text\]'"):
    lib.load(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_as_transformers_does(tmp_path, family):
  transformers = pytest.importorskip("transformers")
  if family == "bert":
    path = _bert(tmp_path)
    theirs = transformers.BertTokenizerFast(str(path))
  else:
    _roberta(tmp_path)
    path = tmp_path
    theirs = transformers.RobertaTokenizerFast(
      str(path / "vocab.json"),
      str(path / "merges.txt"),
      mask_token=tokenizers.AddedToken("<mask>", lstrip=True),
    )
  ours = lib.load(path)
  ours.backend.encode_special_tokens = False  # As theirs does.
  first = ["A dog sees cats. running", "dog <mask> cat", "", "É  dog\tcat " * 5]
  second = ["cat", "dog " * 20, "a", "cats " * 9]
  for max_length in (9, 17, 64):
    for pairs in (None, second):
      expected = theirs(
        first, pairs, truncation="longest_first", max_length=max_length
      )["input_ids"]
      found = ours.encode(first, pairs, max_length=max_length)
      assert _rows(found) == expected
  assert ours.pad_id == theirs.pad_token_id
  assert ours.mask_id == theirs.mask_token_id


def test_what_has_no_text_is_left_out_of_a_translation():
  words = lib.train(_SENTENCES)
  other = lib.train(_SENTENCES, kind="bpe", vocab_size=300)
  (row,) = _rows(words.encode(_SENTENCES[:1], max_length=40))
  more = np.array([[*row[:2], words.mask_id, words.unk_id, *row[2:]]])
  translate = data.translation(words, other, 60)
  np.testing.assert_array_equal(translate(more), translate(np.array([row])))


def test_callers_of_one_tokenizer_wait_for_each_other():
  """As many devices ask at once; what is long is cut for each."""
  words = lib.train(_SENTENCES)
  texts = [" ".join(_SENTENCES * 5)] * 64
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    asked = [
      pool.submit(words.encode, texts, max_length=length)
      for length in [8, 40, 12, 30] * 40
    ]
    for length, one in zip([8, 40, 12, 30] * 40, asked, strict=True):
      assert set(one.result().lengths) == {length}


def test_translation_reads_every_row_by_itself(tmp_path):
  """A pair among single texts does not make pairs of them."""
  words = lib.train(_SENTENCES)
  other = lib.train(_SENTENCES, kind="bpe", vocab_size=300)
  a, b = _SENTENCES[:2]
  rows = words.encode([a, b], max_length=40)
  pair = words.encode([a], [b], max_length=40)
  ids = np.full((3, 40), words.pad_id, np.int32)
  for place, row in enumerate([*_rows(rows), *_rows(pair)]):
    ids[place, : len(row)] = row
  translate = data.translation(words, other, 60)
  together = translate(ids)
  for place in range(3):
    np.testing.assert_array_equal(
      translate(ids[place : place + 1])[0], together[place]
    )
  assert np.sum(together[2] == other.sep_id) > np.sum(
    together[0] == other.sep_id
  )
