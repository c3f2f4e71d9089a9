# SPDX-License-Identifier: Apache-2.0
"""TF-IDF learns what words say, and says nothing of what it never saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import tokenizer

pytest.importorskip("tokenizers")

TOPICS = (("goal", "ball", "team"), ("bank", "loan", "stock"))
FILLING = ("the", "of", "and", "a", "in")


def texts(size, seed):
  """Texts with one word of their topic among four that say nothing."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, size)
  made = []
  for label in labels:
    words = [*rng.choice(FILLING, 4), rng.choice(TOPICS[label])]
    made.append(" ".join(rng.permutation(words)))
  return made, labels


def splits(max_length=16):
  train, test = texts(200, 0), texts(60, 1)
  words = tokenizer.train(train[0], vocab_size=60)
  return [
    data.from_texts(
      *pair, tokenizer=words, max_length=max_length, name="t", num_classes=2
    )
    for pair in (train, test)
  ]


def test_it_learns_the_words_of_a_topic():
  train, test = splits()
  (said,) = data.bag_of_words(train, test)
  assert said.shape == (60, 2)
  np.testing.assert_allclose(np.exp(said).sum(axis=1), 1.0, rtol=1e-5)
  assert np.mean(said.argmax(axis=1) == test.labels) == 1.0


def test_padding_is_no_word():
  """The same texts with more room say the same."""
  np.testing.assert_allclose(
    *data.bag_of_words(*splits()),
    *data.bag_of_words(*splits(max_length=32)),
    rtol=1e-4,
  )


def test_a_class_without_examples_is_never_first():
  train, test = splits()
  three = dataclasses.replace(
    train, num_classes=3, class_names=("a", "b", "c"), labels=2 * train.labels
  )
  (said,) = data.bag_of_words(three, test)
  assert said.shape == (60, 3)
  np.testing.assert_array_equal(said[:, 1], said.min(axis=1))
  np.testing.assert_array_equal(said.argmax(axis=1), 2 * test.labels)


def test_images_have_no_words():
  images = data.DATASETS["digits"]()
  with pytest.raises(ValueError, match="bag_of_words off"):
    data.bag_of_words(images.train, images.test)
