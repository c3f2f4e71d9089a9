# SPDX-License-Identifier: Apache-2.0
"""Converted weights of a text model for another vocabulary."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from tgt_jax import data, generators, models, registry, trees
from tgt_jax.weights.cards import WeightsCard, load_converted

# Leaves with a row for every token.
TABLE = re.compile(r"(^|/)((word|tokens)/embedding|logits_bias)$")
_IDS = ("pad_id", "cls_id", "sep_id", "mask_id")


def words_beside(path: pathlib.Path, tree: Any) -> str:
  """Returns `Tokenizer.words` of the tokenizer beside a public file.

  Args:
    path: the file, or its folder.
    tree: what it was converted to.

  Returns:
    "" for a model without a table of words, where there is no tokenizer (or no
    library for it), or one of more tokens than the table has rows.
  """
  flat = trees.flatten_names(tree)
  rows = [len(array) for name, array in flat.items() if TABLE.search(name)]
  folder = path if path.is_dir() else path.parent
  # Of a TensorFlow module it lies beside the folder of the variables.
  places = (folder, folder.parent)[: 1 + (folder.name == "variables")]
  for place in places if rows else ():
    try:
      found = data.load_tokenizer(place)
    except (FileNotFoundError, ImportError):
      continue
    return found.words if found.vocab_size <= rows[0] else ""
  return ""


def change_words(
  path: str | pathlib.Path,
  old: data.Tokenizer,
  new: data.Tokenizer,
) -> tuple[Any, WeightsCard, int]:
  """Returns converted weights whose tables have the rows of other words.

  Args:
    path: written by `python -m tgt_jax.weights convert`.
    old: the tokenizer that the weights were trained with.
    new: the one they are to be used with. A token that both have keeps its
      row; another one begins with the mean of all rows.

  Returns:
    The tree, its card, and the number of tokens that only the new one has.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not the weights of a text model, or not of this vocabulary.
  """
  tree, card = load_converted(path)
  flat = trees.flatten_names(tree)
  found = {name: array for name, array in flat.items() if TABLE.search(name)}
  if not found:
    raise ValueError(f"{path}: {card.model['name']} has no table of words")
  if card.words not in ("", old.words):
    raise ValueError(
      f"{path}: the old tokenizer is not the one these weights know; it lay"
      " beside the public file"
    )
  known = old.backend.get_vocab()
  rows = np.full(new.vocab_size, -1)
  for token, number in new.backend.get_vocab().items():
    rows[number] = known.get(token, -1)
  for name, array in found.items():
    if len(array) < old.vocab_size:
      raise ValueError(
        f"{path}: {name} has {len(array)} rows, the old tokenizer"
        f" {old.vocab_size} tokens: it is not the one these weights know"
      )
    values = np.asarray(array)
    mean = values.mean(0, dtype=np.float64).astype(values.dtype)
    taken = values[np.maximum(rows, 0)]
    flat[name] = np.where(
      (rows < 0).reshape(-1, *[1] * mean.ndim), mean[None], taken
    )
  table = models.MODELS if card.family == "models" else generators.GENERATORS
  factory = registry.resolve(table, card.model["name"], family=card.family)
  ids = {
    name: getattr(new, name) for name in _IDS if registry.takes(factory, name)
  }
  spec = {**card.model, **ids, "vocab_size": new.vocab_size}
  changed = dataclasses.replace(
    card,
    model=spec,
    words=new.words,
    notes=f"{card.notes}; words of another tokenizer",
  )
  return trees.unflatten_names(flat), changed, int(np.sum(rows < 0))
