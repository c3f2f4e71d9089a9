# SPDX-License-Identifier: Apache-2.0
"""Short reviews from a grammar: text that needs no download.

A review has one or two opinions about a thing, in plain words of praise or
blame, some of them negated. Of two opinions joined by a contrast the main
clause decides; the other one says the opposite. So the label depends on which
words stand together and in what order: both classes use the same words, and no
word alone gives a class away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, sources, text, tokenizer as tokenizer_lib

_THINGS = ("film", "plot", "food", "room", "staff", "music", "book", "show")
_PRAISE = ("good", "great", "lovely", "clever", "fresh", "kind", "warm", "fun")
_BLAME = ("bad", "poor", "dull", "stupid", "stale", "rude", "cold", "tedious")
_DEGREES = ("very ", "really ", "rather ", "so ", "", "", "")
_OPENINGS = (
  "we went there on a friday evening and ",
  "my sister told me about it last year , and i must say ",
  "after two hours in the car with three children ",
  "i do not write often , but this time i will : ",
  "to be honest , ",
  "in short , ",
  "",
  "",
  "",
)
_ENDINGS = (
  " , and the parking is next to the river",
  " , as everyone at our table said when we left late at night",
  " , at least on the day when we were there",
  " this summer",
  " again",
  "",
  "",
  "",
)
# {main} carries the label, {side} the opposite.
_CONTRASTS = (
  "{side} , but {main}",
  "although {side} , {main}",
  "{main} , although {side}",
  "{main} , even if {side}",
)
# Uniform numbers that a review may need.
_DRAWS = 16
_NEGATED = 0.25
_CONTRASTED = 0.4


class _Choices:
  """Takes the uniform numbers of one review one after the other."""

  def __init__(self, uniforms: Sequence[float]):
    self._left = iter(uniforms)

  def chance(self, probability: float) -> bool:
    return next(self._left) < probability

  def one_of(self, options: Sequence[str]) -> str:
    return options[int(next(self._left) * len(options))]


def _opinion(choices: _Choices, positive: bool) -> str:
  """One clause; a negated one takes its word from the other list."""
  negated = choices.chance(_NEGATED)
  words = _PRAISE if positive != negated else _BLAME
  verb = "was not" if negated else "was"
  thing, degree = choices.one_of(_THINGS), choices.one_of(_DEGREES)
  return f"the {thing} {verb} {degree}{choices.one_of(words)}"


def _review(uniforms: Sequence[float], positive: bool) -> str:
  choices = _Choices(uniforms)
  opening, ending = choices.one_of(_OPENINGS), choices.one_of(_ENDINGS)
  body = _opinion(choices, positive)
  if choices.chance(_CONTRASTED):
    side = _opinion(choices, not positive)
    body = choices.one_of(_CONTRASTS).format(main=body, side=side)
  return f"{opening}{body}{ending} ."


def vocabulary() -> list[str]:
  """Returns all words of the grammar, in alphabetical order."""
  parts = (*_THINGS, *_PRAISE, *_BLAME, *_DEGREES, *_OPENINGS, *_ENDINGS)
  frames = [frame.format(main="was", side="not") for frame in _CONTRASTS]
  return sorted(set(" ".join([*parts, *frames, "the ."]).split()))


def make(size: int, *, seed: int, split: str) -> text.Split:
  """Returns reviews, negative (0) and positive (1) in turn."""
  numbers = draws.uniforms(seed, f"sentences/{split}", 0, (size, _DRAWS))
  labels = np.arange(size) % 2
  rows = zip(numbers.tolist(), labels.tolist(), strict=True)
  return text.Split([_review(row, label == 1) for row, label in rows], labels)


def sentences(
  *,
  train_size: int = 2000,
  test_size: int = 1000,
  seed: int = 0,
  tokenizer: str = "",
  max_length: int = 48,
) -> sources.Dataset:
  """Reviews from a grammar, 2 classes of equal size.

  Args:
    train_size: number of training examples.
    test_size: number of test examples.
    seed: of the texts.
    tokenizer: path of one; "" for BERT's symbols and the words of the grammar,
      99 tokens.
    max_length: token ids of a review at most; by words, none has more than 48.
  """
  checks.positive(train_size=train_size, test_size=test_size)
  return text.dataset(
    "sentences",
    make(train_size, seed=seed, split="train"),
    make(test_size, seed=seed, split="test"),
    class_names=("negative", "positive"),
    tokenizer=tokenizer or tokenizer_lib.of_pieces(vocabulary()),
    max_length=max_length,
  )
