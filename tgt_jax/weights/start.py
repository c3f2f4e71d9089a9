# SPDX-License-Identifier: Apache-2.0
"""Converted weights as the beginning of a training of one's own."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tgt_jax import generators, models, registry, trees
from tgt_jax.weights.cards import WeightsCard, load_converted
from tgt_jax.weights.words import TABLE

# The classifier of every network of ours; another number of classes has another
# one, which is drawn.
_HEAD = re.compile(r"(^|/)head(/|$)")
# The layer before it in a classifier of text, which files without a classifier
# lack too.
_POOLER = re.compile(r"(^|/)pooler(/|$)")


# What changes a network and none of its shapes, and is never meant.
_SILENT = ("num_heads", "pad_id", "sep_id")


def _check_silent(
  path: str | pathlib.Path, card: WeightsCard, spec: Mapping[str, Any]
) -> None:
  """Raises where arrays fit, and would be used in another way."""
  table: Mapping[str, Any] = (
    models.MODELS if card.family == "models" else generators.GENERATORS
  )

  def of(one: Mapping[str, Any]) -> dict[str, Any]:
    factory = registry.resolve(table, one["name"], family=card.family)
    return {
      key: one.get(key, registry.default(factory, key))
      for key in _SILENT
      if registry.takes(factory, key)
    }

  there, here = of(card.model), of(spec)
  wrong = [
    f"{key}: {value} there, {here[key]} here"
    for key, value in there.items()
    if None not in (value, here.get(key)) and here[key] != value
  ]
  if wrong:
    raise ValueError(
      f"{path} was made for {card.model['name']!r} with other arguments than"
      f" {spec['name']!r} has ({'; '.join(wrong)}): take over those of the file"
    )


def start_from(
  path: str | pathlib.Path,
  template: Any,
  spec: Mapping[str, Any],
  class_names: Sequence[str] = (),
) -> Any:
  """Returns converted weights in the structure of a model of ours.

  Args:
    path: written by `python -m tgt_jax.weights convert`.
    template: `{"params": ..., "model_state": ...}` of arrays or shapes.
    spec: of the model, `{"name": ..., **arguments}`.
    class_names: of the task; () where the file's own do not matter.

  Returns:
    The template's structure; `None` for what is to be drawn, the leaves of a
    head of another shape or of a head and a pooler that the file lacks. How
    tokens are pooled is the spec's choice.

  Raises:
    FileNotFoundError: no such file.
    ValueError: weights of another model or vocabulary, arrays that do not fit,
      the task's classes in another order, or a mean or std that differs from
      what they were trained with.
  """
  tree, card = load_converted(path)
  _check_silent(path, card, spec)
  theirs, ours = (
    [n.lower() for n in c] for c in (card.class_names, class_names)
  )
  if theirs != ours and sorted(theirs) == sorted(ours):
    raise ValueError(
      f"{path} has the classes in the order {', '.join(card.class_names)}, the"
      f" data have {', '.join(class_names)}: reorder the rows of its classifier,"
      " or use weights without one"
    )
  if card.family == "models" and card.preprocessing is not None:
    for name, value in models.normalisation(models.MODELS, spec).items():
      given = np.ravel(value)
      known = np.ravel(getattr(card.preprocessing, name))
      if not np.allclose(given, known, atol=1e-6):
        raise ValueError(
          f"{path} was trained on images with {name} {tuple(known.tolist())},"
          f" the spec of {spec['name']!r} says {tuple(given.tolist())}; set"
          f" {name} there"
        )
  have, want = trees.flatten_names(tree), trees.flatten_names(template)
  for name, leaf in want.items():
    if TABLE.search(name) and name in have and len(have[name]) != len(leaf):
      raise ValueError(
        f"{path} has {len(have[name])} tokens, {spec['name']!r} {len(leaf)}: its"
        " words are not those of the run. Name its tokenizer and set vocab_size"
        " to what it has, or take the rows of other words:"
        " python -m tgt_jax.weights words"
      )
  drawn = {
    name
    for name, leaf in want.items()
    if (_HEAD.search(name) or (_POOLER.search(name) and name not in have))
    and (name not in have or have[name].shape != leaf.shape)
  }
  kept = {
    name: leaf
    for name, leaf in have.items()
    if name not in drawn and not (_HEAD.search(name) and name not in want)
  }
  expected = {n: leaf for n, leaf in want.items() if n not in drawn}
  found = trees.check_tree(
    trees.unflatten_names(kept),
    trees.unflatten_names(expected),
    what=str(path),
  )
  flat = {**trees.flatten_names(found), **dict.fromkeys(drawn)}
  return trees.fill_names(template, flat)
