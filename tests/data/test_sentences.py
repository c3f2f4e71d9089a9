# SPDX-License-Identifier: Apache-2.0
"""The grammar of reviews: labels by a parser of its own, no easy way out."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from sklearn import linear_model

from tgt_jax import data
from tgt_jax.data import sentences

pytest.importorskip("tokenizers")


def _clause(words):
  """Whether a clause praises; there is one word of praise or blame in it."""
  (positive,) = [
    word in sentences._PRAISE
    for word in words
    if word in sentences._PRAISE + sentences._BLAME
  ]
  return positive != ("not" in words[words.index("was") :])


def _read(review):
  """Understands a review from its conjunctions alone."""
  for opening in filter(None, sentences._OPENINGS):
    review = review.removeprefix(opening)
  for ending in filter(None, sentences._ENDINGS):
    review = review.removesuffix(" .").removesuffix(ending)
  words = review.split()
  if "but" in words:
    return _clause(words[words.index("but") :])
  if words[0] == "although":
    return _clause(words[words.index(",") :])
  return _clause(words[: words.index(",")] if "," in words else words)


def test_labels_are_what_the_reviews_say():
  split = sentences.make(3000, seed=3, split="train")
  assert [_read(review) for review in split.texts] == split.labels.tolist()
  assert split.labels.mean() == 0.5


@pytest.mark.parametrize("form", ["paraphrase", "entailment", "similarity"])
def test_pairs_are_related_as_their_labels_say(form):
  split = sentences.make(600, seed=3, split="train", form=form)
  found = []
  for first, second in zip(split.texts, split.pairs, strict=True):
    one, other = first.split(), second.split()
    # "the THING was ...".
    same_thing, same_side = one[1] == other[1], _clause(one) == _clause(other)
    found.append(
      {
        "paraphrase": same_thing and same_side,
        "entailment": (0 if same_side else 2) if same_thing else 1,
        "similarity": 2.5 * (same_thing + same_side),
      }[form]
    )
  assert split.labels.tolist() == found
  shares = {
    "paraphrase": [0.5, 0.5],
    "entailment": [1 / 3] * 3,
    "similarity": [0.25, 0.5, 0.25],
  }[form]
  counts = np.unique(found, return_counts=True)[1]
  np.testing.assert_allclose(counts / 600, shares)


def test_forms_are_those_of_tasks():
  make = data.DATASETS["sentences"]
  sizes = {"train_size": 30, "test_size": 12}
  entailment, grades = (
    make(form=form, **sizes) for form in ("entailment", "similarity")
  )
  assert entailment.train.num_classes == 3
  assert list(entailment.others) == ["mismatched"]
  assert entailment.others["mismatched"].fingerprint != (
    entailment.test.fingerprint
  )
  assert grades.train.targets.max() == 5.0
  ids = grades.train.read(np.arange(30))
  separators = (ids == grades.train.text.tokenizer.sep_id).sum(axis=1)
  assert (separators == 2).all()
  with pytest.raises(ValueError, match="unknown 'entail'.*'entailment'"):
    make(form="entail", **sizes)


def test_the_same_in_every_run():
  dataset = data.DATASETS["sentences"](train_size=300, test_size=100)
  again = data.DATASETS["sentences"](train_size=300, test_size=100)
  other = data.DATASETS["sentences"](train_size=300, test_size=100, seed=1)
  assert dataset.train.fingerprint == again.train.fingerprint
  assert dataset.train.fingerprint != other.train.fingerprint
  # More of it contains less of it.
  first = sentences.make(5, seed=0, split="train").texts
  assert sentences.make(9, seed=0, split="train").texts[:5] == first
  assert sentences.make(5, seed=0, split="test").texts != first
  assert dataset.train_full is dataset.train
  assert dataset.train.input_shape == (48,)


def test_words_are_whole_and_known():
  dataset = data.DATASETS["sentences"]()
  tokenizer = dataset.train.text.tokenizer
  ids = dataset.test.read(np.arange(len(dataset.test)))
  assert not (ids == tokenizer.unk_id).any()
  assert tokenizer.vocab_size == 99
  texts = sentences.make(1000, seed=0, split="test").texts
  squeezed = [review.replace(" ", "") for review in texts]
  decoded = [review.replace(" ", "") for review in tokenizer.decode(ids)]
  assert decoded == squeezed
  words = [len(review.split()) for review in texts]
  assert dataset.test.text.lengths.tolist() == [n + 2 for n in words]
  longest = max(sentences._OPENINGS, key=len) + max(sentences._ENDINGS, key=len)
  clause = "although the film was not very good , the food was very bad ."
  assert len(longest.split()) + len(clause.split()) + 2 <= 48


def test_no_word_gives_a_class_away():
  train, test = (
    sentences.make(2000, seed=0, split=split) for split in ("train", "test")
  )
  words = sorted({word for review in train.texts for word in review.split()})
  place = {word: column for column, word in enumerate(words)}

  def bags(texts):
    out = np.zeros((len(texts), len(words)))
    for row, review in enumerate(texts):
      for word, count in collections.Counter(review.split()).items():
        out[row, place[word]] = count
    return out

  present = bags(train.texts) > 0
  alone = (present == train.labels[:, None]).mean(axis=0)
  assert max(alone.max(), 1 - alone.min()) < 0.6
  model = linear_model.LogisticRegression(max_iter=1000)
  model.fit(bags(train.texts), train.labels)
  # Something can be learned from words, and much is left for their order.
  assert 0.55 < model.score(bags(test.texts), test.labels) < 0.75
