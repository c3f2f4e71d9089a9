# SPDX-License-Identifier: Apache-2.0
"""Texts by the words they hold: what a network has to beat.

TF-IDF and a linear classifier of scikit-learn take seconds and are strong
where a topic has words of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tgt_jax.data.sources import Source

_AT_ONCE = 1024


def _documents(source: Source) -> Iterator[list[int]]:
  """The token ids of each text, without padding."""
  assert source.text is not None
  for start in range(0, len(source), _AT_ONCE):
    rows = np.arange(start, min(start + _AT_ONCE, len(source)))
    found = source.read(rows)
    for ids, length in zip(found, source.text.lengths[rows], strict=True):
      yield ids[:length].tolist()


def answers(train: Source, *tests: Source) -> list[np.ndarray]:
  """What a linear classifier on TF-IDF says of every test split.

  Log counts of tokens and of pairs of neighbours times their inverse document
  frequency, each text with norm one; logistic regression with scikit-learn's
  defaults, but C = 10, every class with the same weight in all.

  Args:
    train: texts with labels.
    *tests: texts of the same tokenizer, N each.

  Returns:
    Log-probabilities, float32 [N, K]; those of a class without training
    examples are the smallest of their row.

  Raises:
    ValueError: images.
  """
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression

  if train.text is None:
    raise ValueError(
      f"{train.name} holds images; TF-IDF counts the words of texts. Leave"
      " config.bag_of_words off"
    )

  def terms(ids: list[int]) -> list[tuple[int, ...]]:
    return [*((i,) for i in ids), *itertools.pairwise(ids)]

  vectors = TfidfVectorizer(analyzer=terms, sublinear_tf=True)
  model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
  model.fit(vectors.fit_transform(_documents(train)), train.labels)

  def said(test: Source) -> np.ndarray:
    found = model.predict_log_proba(vectors.transform(_documents(test)))
    least = found.min(axis=1, keepdims=True)
    out = np.repeat(least, train.num_classes, axis=1)
    out[:, model.classes_] = found
    return out.astype(np.float32)

  return [said(test) for test in tests]
