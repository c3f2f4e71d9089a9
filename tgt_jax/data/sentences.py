# SPDX-License-Identifier: Apache-2.0
"""Short reviews from a grammar: text that needs no download.

A review has one or two opinions about a thing, in plain words of praise or
blame, some of them negated. Of two opinions joined by a contrast the main
clause decides; the other one says the opposite. So the label depends on which
words stand together and in what order: both classes use the same words, and no
word alone gives a class away.

Pairs of opinions are related by what they are about and which side they take:
the forms of GLUE's tasks, paraphrase, entailment and graded similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


def _opinion(
  choices: _Choices, positive: bool, things: Sequence[str] = _THINGS
) -> str:
  """One clause; a negated one takes its word from the other list."""
  negated = choices.chance(_NEGATED)
  words = _PRAISE if positive != negated else _BLAME
  verb = "was not" if negated else "was"
  thing, degree = choices.one_of(things), choices.one_of(_DEGREES)
  return f"the {thing} {verb} {degree}{choices.one_of(words)}"


def _review(uniforms: Sequence[float], positive: bool) -> tuple[str, ...]:
  choices = _Choices(uniforms)
  opening, ending = choices.one_of(_OPENINGS), choices.one_of(_ENDINGS)
  body = _opinion(choices, positive)
  if choices.chance(_CONTRASTED):
    side = _opinion(choices, not positive)
    body = choices.one_of(_CONTRASTS).format(main=body, side=side)
  return (f"{opening}{body}{ending} .",)


def _pair(
  uniforms: Sequence[float], same_thing: bool, same_side: bool
) -> tuple[str, ...]:
  choices = _Choices(uniforms)
  positive, thing = choices.chance(0.5), choices.one_of(_THINGS)
  others = [other for other in _THINGS if other != thing]
  first = _opinion(choices, positive, [thing])
  about = [thing] if same_thing else others
  second = _opinion(choices, positive == same_side, about)
  return f"{first} .", f"{second} ."


class _Form(NamedTuple):
  """What is written, and the label that it has.

  Attributes:
    classes: names of the classes, or of whole grades.
    write: function of uniform numbers and of what a case says; returns one
      text or a pair.
    cases: in turn: what `write` is told, and the label or grade.
    others: further test splits.
  """

  classes: tuple[str, ...]
  write: Callable[..., tuple[str, ...]]
  cases: tuple[tuple[tuple[bool, ...], float], ...]
  others: tuple[str, ...] = ()


# Of a pair: are both about one thing, and do both praise or both blame it?
_SAME, _AGAINST, _BESIDE = (True, True), (True, False), (False, True)
_APART = (False, False)
FORMS = {
  "review": _Form(
    ("negative", "positive"), _review, (((False,), 0), ((True,), 1))
  ),
  "paraphrase": _Form(
    ("not_equivalent", "equivalent"),
    _pair,
    ((_SAME, 1), (_AGAINST, 0), (_SAME, 1), (_BESIDE, 0)),
  ),
  "entailment": _Form(
    ("entailment", "neutral", "contradiction"),
    _pair,
    (
      *((_SAME, 0), (_BESIDE, 1), (_AGAINST, 2)),
      *((_SAME, 0), (_APART, 1), (_AGAINST, 2)),
    ),
    others=("mismatched",),
  ),
  "similarity": _Form(
    ("0", "1", "2", "3", "4", "5"),
    _pair,
    ((_SAME, 5.0), (_AGAINST, 2.5), (_APART, 0.0), (_BESIDE, 2.5)),
  ),
}


def vocabulary() -> list[str]:
  """Returns all words of the grammar, in alphabetical order."""
  parts = (*_THINGS, *_PRAISE, *_BLAME, *_DEGREES, *_OPENINGS, *_ENDINGS)
  frames = [frame.format(main="was", side="not") for frame in _CONTRASTS]
  return sorted(set(" ".join([*parts, *frames, "the ."]).split()))


def make(
  size: int, *, seed: int, split: str, form: str = "review"
) -> text.Split:
  """Returns texts or pairs whose classes come in turn.

  Args:
    size: number of examples.
    seed: of the texts.
    split: name of the split.
    form: a key of `FORMS`.
  """
  numbers = draws.uniforms(seed, f"sentences/{split}", 0, (size, _DRAWS))
  _, write, cases, _ = FORMS[form]
  turns = [cases[number % len(cases)] for number in range(size)]
  written = [
    write(row, *told)
    for row, (told, _) in zip(numbers.tolist(), turns, strict=True)
  ]
  texts, *pairs = (list(column) for column in zip(*written, strict=True))
  return text.Split(texts, np.array([label for _, label in turns]), *pairs)


def sentences(
  *,
  train_size: int = 2000,
  test_size: int = 1000,
  seed: int = 0,
  form: str = "review",
  tokenizer: str = "",
  max_length: int = 48,
) -> sources.Dataset:
  """Texts from a grammar.

  Args:
    train_size: number of training examples.
    test_size: number of test examples.
    seed: of the texts.
    form: "review" has 2 classes of equal size; the others are pairs of
      opinions: "paraphrase", 2 classes; "entailment", 3 classes of equal size
      and a further test split "mismatched"; "similarity", grades from 0 to 5
      for the label loss "graded_cross_entropy".
    tokenizer: path of one; "" for BERT's symbols and the words of the grammar,
      99 tokens.
    max_length: token ids of a text at most; by words, none has more than 48.
  """
  checks.positive(train_size=train_size, test_size=test_size)
  checks.one_of(FORMS, form=form)
  train, test, *others = (
    make(size, seed=seed, split=split, form=form)
    for split, size in [
      ("train", train_size),
      *((split, test_size) for split in ("test", *FORMS[form].others)),
    ]
  )
  return text.dataset(
    "sentences",
    train,
    test,
    others=dict(zip(FORMS[form].others, others, strict=True)),
    class_names=FORMS[form].classes,
    tokenizer=tokenizer or tokenizer_lib.of_pieces(vocabulary()),
    max_length=max_length,
  )
