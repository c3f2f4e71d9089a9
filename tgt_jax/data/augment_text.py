# SPDX-License-Identifier: Apache-2.0
"""Augmentation of token ids, as pure functions of ids and uniform numbers.

As in `augment`, with int32 ids [B, l] in place of images. A batch may be
padded to any length l up to that of the source, L; the numbers of a position
are the same ones whatever the batch is padded to. What frames a text
([CLS], [SEP], padding) is never touched.

Both work on tokens, so on pieces of the rare words, where the papers have
words: a batch holds no words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data.augment import Augmentation
from tgt_jax.data.sources import Source, Text

# Rows whose statistics are gathered at a time.
_CHUNK = 1024


def _text(source: Source, name: str) -> Text:
  if source.text is None:
    raise ValueError(
      f"augmentation {name!r} changes text, and {source.name} holds images"
    )
  return source.text


def erase_tokens(*, source: Source, probability: float = 0.1) -> Augmentation:
  """Random erasing of text: tokens are deleted and the rest moves up.

  An image keeps its size when a box of it is erased; a text without some of
  its words is simply shorter. A mask symbol in their place would be another
  choice, but it is one that neither a classifier's training nor a reader has
  seen, and not every vocabulary has it. This is the random deletion of EDA.
  At least one token of a text is left.

  Args:
    source: what is trained on.
    probability: of each token, independently.

  References:
    J. Wei, K. Zou, "EDA: Easy Data Augmentation Techniques for Boosting
    Performance on Text Classification Tasks", arXiv:1901.11196.
  """
  checks.in_range(0, 1, probability=probability)
  text = _text(source, "erase_tokens")
  frame = text.tokenizer.frame_ids

  def apply(ids: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    inner = ~np.isin(ids, frame)
    draw = np.where(inner, uniforms[:, : ids.shape[1]], -1.0)
    erased = inner & (draw < probability)
    everything = erased.sum(axis=1) == inner.sum(axis=1)
    last = draw.argmax(axis=1)  # The one that was closest to staying.
    erased[everything, last[everything]] = False
    order = np.argsort(erased, axis=1, kind="stable")
    return np.take_along_axis(np.where(erased, text.pad_id, ids), order, axis=1)

  return Augmentation(source.input_shape[0], apply)


def _unknown(text: Text) -> list[int]:
  unk = text.tokenizer.unk_id
  return [] if unk is None else [unk]


class WordStatistics(NamedTuple):
  """What TF-IDF needs to know of a corpus of N texts over V tokens.

  Attributes:
    idf: float64 [V], log(N / number of texts with the token), where a token
      that is in none counts as in one.
    cumulative: float64 [V], cumulative probability of being drawn as a
      replacement.
  """

  idf: np.ndarray
  cumulative: np.ndarray


def word_statistics(source: Source) -> WordStatistics:
  """Counts the tokens of a source of text.

  A replacement is drawn with probability in proportion to max(S) - S(w) among
  the tokens of the corpus, where S(w) = frequency(w) IDF(w): what is frequent
  in few texts gives their class away and is not written into others.
  """
  text = _text(source, "replace_words")
  size = text.tokenizer.vocab_size
  frequency = np.zeros(size, np.int64)
  texts_with = np.zeros(size, np.int64)
  for start in range(0, len(source), _CHUNK):
    ids = source.read(np.arange(start, min(start + _CHUNK, len(source))))
    frequency += np.bincount(ids.ravel(), minlength=size)
    rows = np.arange(len(ids))[:, None]
    distinct = np.unique(rows * size + ids)
    texts_with += np.bincount(distinct % size, minlength=size)
  known = texts_with > 0
  idf = np.log(len(source) / np.maximum(texts_with, 1))
  # What stands for a word that the vocabulary lacks is none.
  known[[*text.tokenizer.frame_ids, *_unknown(text)]] = False
  if not known.any():
    raise ValueError(f"{source.name} has no words to replace others by")
  score = np.where(known, frequency * idf, 0.0)
  weight = np.where(known, score.max() - score, 0.0)
  if not weight.any():  # All score alike.
    weight = known.astype(np.float64)
  return WordStatistics(idf, np.cumsum(weight / weight.sum()))


# Every seed of every arm asks for those of the same one or two sources.
_statistics = functools.lru_cache(maxsize=2)(word_statistics)


def replace_words(
  *,
  source: Source,
  split: Callable[[str], Source] | None = None,
  probability: float = 0.2,
  corpus: str = "",
) -> Augmentation:
  """Replaces uninformative tokens by uninformative tokens, as UDA does.

  Token i of a text is replaced with probability
  min(p (C - TFIDF(i)) / mean(C - TFIDF), 1), where C is the largest TF-IDF in
  the text: its keywords stay. See `word_statistics` for what replaces it.

  Args:
    source: what is changed.
    split: a source by its name.
    probability: p, about the share of tokens that is replaced.
    corpus: the texts whose statistics and words these are: "train", "full"
      (with those that have no label), or "", what is changed.

  References:
    Q. Xie et al., "Unsupervised Data Augmentation for Consistency Training",
    arXiv:1904.12848, appendix on TF-IDF based word replacement.
  """
  checks.in_range(0, 1, probability=probability)
  checks.one_of(("", "train", "full"), corpus=corpus)
  text = _text(source, "replace_words")
  if corpus and split is None:
    raise ValueError(f"corpus {corpus!r}: there are no splits to choose from")
  statistics = _statistics(split(corpus) if corpus and split else source)
  frame = text.tokenizer.frame_ids
  length = source.input_shape[0]
  last = np.flatnonzero(np.diff(statistics.cumulative, prepend=0.0))[-1]

  def apply(ids: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    inner = ~np.isin(ids, frame)
    score = _counts(ids) * statistics.idf[ids]
    distance = score.max(axis=1, where=inner, initial=0.0)[:, None] - score
    distance = np.where(inner, distance, 0.0)
    words = np.maximum(inner.sum(axis=1, keepdims=True), 1)
    mean = distance.sum(axis=1, keepdims=True) / words
    # Where all tokens are equally telling, none is replaced.
    chance = probability * np.divide(
      distance, mean, out=np.zeros_like(distance), where=mean > 0
    )
    whether, which = uniforms[:, :length], uniforms[:, length:]
    chosen = inner & (whether[:, : ids.shape[1]] < chance)
    drawn = np.searchsorted(
      statistics.cumulative, which[:, : ids.shape[1]][chosen], side="right"
    )
    out = ids.copy()
    out[chosen] = np.minimum(drawn, last)  # A sum may end just below 1.
    return out

  return Augmentation(2 * length, apply)


def _counts(ids: np.ndarray) -> np.ndarray:
  """How often each token occurs in its own row, as `ids`."""
  rows = np.arange(len(ids))[:, None]
  keys = rows * (1 + ids.max(initial=0)) + ids.astype(np.int64)
  _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
  return count[place].reshape(ids.shape)


TEXT_AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
  "erase_tokens": erase_tokens,
  "replace_words": replace_words,
}
