# SPDX-License-Identifier: Apache-2.0
"""A vocabulary without what is not used reads the same texts the same way."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import sentences, tokenizer as tokenizer_lib, vocabulary

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def words():
  texts = sentences.make(300, seed=1, split="train").texts
  return tokenizer_lib.train([*texts, "zebra quagga"], vocab_size=400)


def strings(words, ids):
  return [words.backend.id_to_token(int(i)) for i in ids]


def test_texts_that_use_it_are_split_as_before(words):
  texts = sentences.make(40, seed=2, split="train").texts
  before = words.encode(texts, texts[::-1], max_length=100)
  small = vocabulary.restrict(words, np.unique(before.flat).tolist())
  after = small.encode(texts, texts[::-1], max_length=100)
  assert small.vocab_size < words.vocab_size
  assert strings(small, after.flat) == strings(words, before.flat)
  np.testing.assert_array_equal(after.offsets, before.offsets)
  # Symbols have new numbers, and the frame uses them.
  assert (small.pad_id, small.cls_id) == (0, 2)
  assert after.flat[0] == small.cls_id
  assert small.decode([after.flat[: after.lengths[0]]]) == words.decode(
    [before.flat[: before.lengths[0]]]
  )


def test_other_words_are_spelled_in_letters(words, tmp_path):
  used = words.encode(["the film"], max_length=10).flat
  small = vocabulary.restrict(words, used.tolist())
  ids = small.encode(["zebra"], max_length=20).flat
  assert small.unk_id not in ids
  assert small.decode([ids]) == ["zebra"]
  small.save(tmp_path / "words.json")
  assert data.load_tokenizer(tmp_path / "words.json").fingerprint == (
    small.fingerprint
  )


def test_symbols_wherever_the_library_keeps_them(words):
  """A frame inside a sequence of processors, a token of the user's table."""
  document = json.loads(words.backend.to_str())
  frame = document["post_processor"]
  document["post_processor"] = {"type": "Sequence", "processors": [frame]}
  backend = type(words.backend).from_str(json.dumps(document))
  backend.add_special_tokens(["[E1]"])
  found = tokenizer_lib.wrap(backend, what="test")
  used = found.encode(["the film"], max_length=10).flat
  small = vocabulary.restrict(found, used.tolist())
  ids = small.encode(["the film"], ["the film"], max_length=20).flat
  assert strings(small, ids) == [
    *("[CLS]", "the", "film", "[SEP]", "the", "film", "[SEP]")
  ]
  assert small.backend.token_to_id("[E1]") == small.vocab_size - 1


def test_pieces_made_of_others_are_refused():
  merged = tokenizer_lib.train(
    ["a text", "another"], kind="bpe", vocab_size=300
  )
  with pytest.raises(ValueError, match="WordPiece tokenizer can be .* got BPE"):
    vocabulary.restrict(merged, [1, 2])


def test_the_command(words, tmp_path):
  words.save(tmp_path / "all.json")
  spec = {"name": "sentences", "train_size": 50, "test_size": 10}
  command = [
    sys.executable,
    "-m",
    "tgt_jax.data.vocabulary",
    f"--tokenizer={tmp_path / 'all.json'}",
    f"--out={tmp_path / 'words.json'}",
  ]
  run = lambda data: subprocess.run(
    [*command, f"--data={data}"], capture_output=True, text=True, check=False
  )
  done = run(json.dumps(spec))
  assert done.returncode == 0, done.stderr
  small = data.load_tokenizer(tmp_path / "words.json")
  assert f"{small.vocab_size} of {words.vocab_size} tokens" in done.stdout
  wrong = run(json.dumps({**spec, "name": "sentence"}))
  assert wrong.returncode == 1
  assert "Did you mean 'sentences'" in wrong.stderr
  assert "Traceback" not in wrong.stderr
