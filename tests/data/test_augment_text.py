# SPDX-License-Identifier: Apache-2.0
"""Erased and replaced tokens: formulas of the papers, and laws of both."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from tgt_jax import data, registry
from tgt_jax.data import augment_text, tokenizer as tokenizer_lib

pytest.importorskip("tokenizers")

_WORDS = [
  "the",
  "film",
  "was",
  "plot",
  "dull",
  "bright",
  "actors",
  "and",
  "a",
  "bad",
  "good",
  "fine",
]
_TOKENS = tokenizer_lib.train(_WORDS, vocab_size=200)
_LENGTH = 16
_NAMES = sorted(augment_text.TEXT_AUGMENTATIONS)


def _texts(size=200, seed=0):
  """Zipf-like: the first words are in nearly all texts."""
  generator = np.random.default_rng(seed)
  weights = 1 / np.arange(1, len(_WORDS) + 1)
  return [
    " ".join(
      generator.choice(
        _WORDS, generator.integers(1, 20), p=weights / sum(weights)
      )
    )
    for _ in range(size)
  ]


def _source(texts=None, pairs=None):
  texts = _texts() if texts is None else texts
  return data.from_texts(
    texts,
    np.zeros(len(texts), int),
    pairs=pairs,
    tokenizer=_TOKENS,
    max_length=_LENGTH,
    name="toy",
  )


def _build(name, source, **arguments):
  return augment_text.TEXT_AUGMENTATIONS[name](source=source, **arguments)


def _uniforms(augmentation, size, seed=1):
  return np.random.default_rng(seed).random((size, augmentation.draws))


@pytest.mark.parametrize("name", _NAMES)
def test_laws(name):
  source = _source(_texts(), _texts(seed=1))
  augmentation = _build(name, source, probability=0.3)
  ids = source.read(np.arange(100))
  uniforms = _uniforms(augmentation, 100)
  kept, kept_uniforms = ids.copy(), uniforms.copy()
  out = augmentation.apply(ids, uniforms)
  assert out.shape == ids.shape and out.dtype == np.int32
  assert not np.array_equal(out, ids)
  np.testing.assert_array_equal(ids, kept)
  np.testing.assert_array_equal(uniforms, kept_uniforms)
  # An example's result depends on itself and its own draws alone.
  some = [3, 17, 4]
  np.testing.assert_array_equal(
    augmentation.apply(ids[some], uniforms[some]), out[some]
  )
  assert augmentation.apply(ids[:0], uniforms[:0]).shape == (0, _LENGTH)
  # What frames a text stays, in its order; padding is at the end alone.
  for row, before in zip(out, ids, strict=True):
    frame = (_TOKENS.cls_id, _TOKENS.sep_id)
    assert [t for t in row if t in frame] == [t for t in before if t in frame]
    count = (row != source.pad_id).sum()
    assert (row[count:] == source.pad_id).all() and row[0] == _TOKENS.cls_id


@pytest.mark.parametrize("name", _NAMES)
def test_padding_changes_nothing(name):
  source = _source([text[:12] for text in _texts()])
  longest = source.text.lengths.max()
  assert longest < _LENGTH
  augmentation = _build(name, source, probability=0.5)
  ids, uniforms = source.read(np.arange(50)), _uniforms(augmentation, 50)
  np.testing.assert_array_equal(
    augmentation.apply(ids[:, :longest], uniforms),
    augmentation.apply(ids, uniforms)[:, :longest],
  )


@pytest.mark.parametrize("name", _NAMES)
def test_nothing_happens_with_probability_zero(name):
  source = _source()
  augmentation = _build(name, source, probability=0)
  ids = source.read(np.arange(50))
  out = augmentation.apply(ids, 0 * _uniforms(augmentation, 50))
  np.testing.assert_array_equal(out, ids)


def test_erase_by_hand():
  source = _source(["the film was dull"])
  erase = _build("erase_tokens", source, probability=0.5)
  ids = source.read(np.array([0]))
  draw = np.zeros((1, _LENGTH))
  draw[0, 1:5] = [0.9, 0.49, 0.5, 0.1]
  (row,) = erase.apply(ids, draw)
  cls, the, _, was, _, sep = ids[0, :6]
  assert row.tolist() == [cls, the, was, sep] + [source.pad_id] * 12
  assert _TOKENS.decode(row[None]) == ["the was"]


def test_erase_leaves_the_last_token_standing():
  source = _source(["the film was dull", ""])
  erase = _build("erase_tokens", source, probability=1)
  draw = np.full((2, _LENGTH), 0.2)
  draw[0, 3] = 0.7
  out = erase.apply(source.read(np.arange(2)), draw)
  assert _TOKENS.decode(out) == ["was", ""]


def test_erase_takes_the_share_it_says():
  source = _source(["the film was bad and a plot was dull"] * 2000)
  erase = _build("erase_tokens", source, probability=0.2)
  out = erase.apply(source.read(np.arange(2000)), _uniforms(erase, 2000))
  left = (out != source.pad_id).sum() - 2 * 2000
  mean, deviation = 0.8 * 18000, math.sqrt(0.16 * 18000)
  assert abs(left - mean) < 4 * deviation


def _rows(source):
  """The words of every text, without frame and padding."""
  whole = source.read(np.arange(len(source)))
  return [
    [t for t in row.tolist() if t not in _TOKENS.frame_ids] for row in whole
  ]


def _replaced(texts):
  """S(w) and IDF(w) of the appendix of Xie et al., word by word."""
  containing, frequency = collections.Counter(), collections.Counter()
  for words in texts:
    containing.update(set(words))
    frequency.update(words)
  idf = {w: math.log(len(texts) / n) for w, n in containing.items()}
  return idf, {w: frequency[w] * idf[w] for w in idf}


def test_statistics_are_those_of_the_paper(monkeypatch):
  source = _source()
  idf, score = _replaced(_rows(source))
  found = augment_text.word_statistics(source)
  for word, value in idf.items():
    assert found.idf[word] == pytest.approx(value, abs=1e-12)
  # What no text has is as telling as what one has.
  rest = np.delete(found.idf, list(idf) + list(_TOKENS.frame_ids))
  np.testing.assert_allclose(rest, math.log(len(source)), rtol=1e-12)
  top = max(score.values())
  total = sum(top - value for value in score.values())
  probabilities = np.diff(found.cumulative, prepend=0)
  expected = np.zeros_like(probabilities)
  for word, value in score.items():
    expected[word] = (top - value) / total
  np.testing.assert_allclose(probabilities, expected, atol=1e-12)
  monkeypatch.setattr(augment_text, "_CHUNK", 7)
  again = augment_text.word_statistics(source)
  np.testing.assert_array_equal(again.cumulative, found.cumulative)


def test_replacement_probabilities_are_those_of_the_paper():
  """The threshold of each token, found by draws just below and above it."""
  source = _source()
  p = 0.4
  replace = _build("replace_words", source, probability=p)
  idf, _ = _replaced(_rows(source))
  ids = source.read(np.arange(60))
  chances = np.zeros(ids.shape)
  for row, words in enumerate(_rows(source)[:60]):
    tfidf = [words.count(w) * idf[w] for w in words]
    mean = sum(max(tfidf) - value for value in tfidf) / max(1, len(words))
    for place, value in enumerate(tfidf, 1):
      if mean > 0:
        chances[row, place] = min(p * (max(tfidf) - value) / mean, 1)
  assert (chances > 0.5).any() and (chances == 0).any()
  for sign in (-1, 1):
    draws = np.clip(chances + sign * 1e-6, 0, 1 - 1e-9)
    changed = np.zeros(ids.shape, bool)
    for which in np.linspace(0, 0.999, 25):
      uniforms = np.concatenate([draws, np.full(draws.shape, which)], axis=1)
      changed |= replace.apply(ids, uniforms) != ids
    expected = chances > 1e-6 if sign < 0 else chances >= 1
    np.testing.assert_array_equal(changed, expected)


def test_replacements_follow_their_weights():
  source = _source()
  replace = _build("replace_words", source, probability=1.0)
  _, score = _replaced(_rows(source))
  size, top = 20000, max(score.values())
  total = sum(top - value for value in score.values())
  uniforms = _uniforms(replace, size)
  uniforms[:, :_LENGTH] = 0  # Replace whatever may be.
  ids = np.tile(source.read(np.array([3])), (size, 1))
  out = replace.apply(ids, uniforms)
  (places,) = np.nonzero((out != ids).any(axis=0))
  assert places.size > 2
  for place in places:
    counts = np.bincount(out[:, place], minlength=_TOKENS.vocab_size)
    assert set(np.flatnonzero(counts)) <= set(score)
    for word, value in score.items():
      chance = (top - value) / total
      deviation = math.sqrt(size * chance * (1 - chance))
      assert abs(counts[word] - size * chance) <= 4 * deviation


def test_words_of_a_larger_corpus():
  few, many = _source(["the film", "the plot"]), _source()
  replace = _build(
    "replace_words",
    few,
    split={"full": many}.__getitem__,
    probability=1.0,
    corpus="full",
  )
  uniforms = _uniforms(replace, 5000)
  uniforms[:, :_LENGTH] = 0
  ids = np.tile(few.read(np.array([0])), (5000, 1))
  words = set(" ".join(_TOKENS.decode(replace.apply(ids, uniforms))).split())
  _, score = _replaced(_rows(many))
  top = max(score.values())
  possible = {_TOKENS.backend.id_to_token(w) for w in score if score[w] < top}
  assert words >= possible - {"the"}
  with pytest.raises(ValueError, match="no splits to choose from"):
    _build("replace_words", few, corpus="full")
  with pytest.raises(ValueError, match="corpus"):
    _build("replace_words", few, corpus="half")


def test_what_stands_for_unknown_words_is_never_written():
  source = _source(["the film ☃", "☃ was ☃ dull"])
  assert (source.read(np.arange(2)) == _TOKENS.unk_id).sum() == 3
  found = augment_text.word_statistics(source)
  assert np.diff(found.cumulative, prepend=0.0)[_TOKENS.unk_id] == 0


def test_texts_without_keywords_stay():
  """One word, or words that are equally telling: C - TFIDF is 0."""
  source = _source(["film", "plot", "", "film plot"])
  replace = _build("replace_words", source, probability=1.0)
  ids = source.read(np.arange(4))
  out = replace.apply(ids, np.zeros((4, replace.draws)))
  np.testing.assert_array_equal(out, ids)


def test_an_image_source_is_refused():
  images = data.from_arrays(np.zeros((2, 4, 4, 1)), [0, 1], name="pictures")
  for name in _NAMES:
    with pytest.raises(ValueError, match="changes text, and pictures holds"):
      _build(name, images)
  with pytest.raises(ValueError, match="toy has no words"):
    _build("replace_words", _source(["", ""]))
  with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]"):
    _build("erase_tokens", _source(), probability=1.5)


def test_a_spec_gets_the_source():
  source = _source()
  built = registry.build(
    data.AUGMENTATIONS,
    {"name": "replace_words", "probability": 0.2},
    family="augmentation",
    offered={"source": source},
  )
  assert built.draws == 2 * _LENGTH
  crop = registry.build(
    data.AUGMENTATIONS,
    {"name": "crop"},
    family="augmentation",
    offered={"source": source},
  )
  assert crop.draws == 2
