# SPDX-License-Identifier: Apache-2.0
"""The data of an experiment: its splits, disjoint, and what fits them."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import (
  data,
  longtail,
  scoring,
  settings,
  weights,
)


class Sets(NamedTuple):
  """The data of an experiment.

  Attributes:
    train: what students train on, with labels.
    full: all training images, before the long tail was cut.
    validation: held out from training, or `None`.
    test: what is reported.
    others: further test splits by their names.
    feedback: what a learning teacher hears of, or `None`.
    counts: training examples per class, [K].
    ids_hash: of the ids of `train` where the tail was cut, else "".
  """

  train: data.Source
  full: data.Source
  validation: data.Source | None
  test: data.Source
  counts: np.ndarray
  ids_hash: str
  others: Mapping[str, data.Source] = types.MappingProxyType({})
  feedback: data.Source | None = None

  def named(self, split: str) -> data.Source:
    """Returns a split by its name."""
    return self.others[split] if split in self.others else getattr(self, split)

  def tests(self) -> str:
    """Says what the test splits are."""
    named = {self.test.name: self.test, **self.others}.items()
    return ", ".join(f"{name}, {len(one)} examples" for name, one in named)

  def scores(self, score: Callable[[str], scoring.Scores]) -> scoring.Scores:
    """Scores on all test splits, those of further ones after their names.

    Args:
      score: of the split of a name.
    """
    scores = score("test")
    for split in self.others:
      found = score(split).items()
      scores |= {f"{split}/{n}": v for n, v in found if n != "per_class"}
    return scores


def load_sets(config: settings.Config) -> Sets:
  """Reads the data and cuts the tail.

  Raises:
    ValueError: the data are not what the config says.
  """
  dataset = data.with_buckets(data.load(config["data"]), config["buckets"])
  full, ids_hash = dataset.train_full, ""
  shape, classes = tuple(config["input_shape"]), config["num_classes"]
  if full.input_shape != shape or full.num_classes != classes:
    raise ValueError(
      f"{full.name} has inputs of shape {full.input_shape} and"
      f" {full.num_classes} classes; the config says input_shape {shape} and"
      f" num_classes {classes}"
    )
  if (full.tags is not None) != config["tags"]:
    raise ValueError(
      f"{full.name} has {'tags' if full.tags is not None else 'one class'} per"
      f" example; config.tags says {config['tags']}"
    )
  if full.text is not None:
    _check_texts(config, full, full.text)
  _check_columns(config["columns"], dataset)
  train, tail = dataset.train, config["long_tail"]
  if tail["profile"]:
    _check_uncut(train, full)
    train, ids_hash = data.long_tail(
      full,
      profile=tail["profile"],
      imbalance_ratio=tail["imbalance_ratio"],
      head=tail["head"] or None,
      fraction=tail["fraction"],
      selection=tail["selection"],
    )
  validation, feedback = None, None
  # No part of the teacher may see what is held out either.
  without = lambda held: data.subset(
    full, np.setdiff1d(np.arange(len(full)), np.searchsorted(full.ids, held))
  )
  if config["validation_per_class"]:
    held = data.holdout(full, train, per_class=config["validation_per_class"])
    validation, train = held.validation, held.train
    full = without(validation.ids)
  if config["feedback"]["source"] == "test":
    feedback = dataset.test
  elif config["feedback"]["share"]:
    train, feedback = data.split_off(train, share=config["feedback"]["share"])
    full = without(feedback.ids)
  if ids_hash:
    ids_hash = longtail.ids_hash(train.ids)
  counts = train.class_counts()
  return Sets(
    train=train,
    full=full,
    validation=validation,
    test=dataset.test,
    counts=counts,
    ids_hash=ids_hash,
    others=dataset.others,
    feedback=feedback,
  )


def _check_uncut(train: data.Source, full: data.Source) -> None:
  """Raises `ValueError` where the data set's own cut would be lost."""
  if len(train) < len(full):
    raise ValueError(
      f"long_tail cuts {full.name} to its own classes' sizes, and config.data has"
      f" already cut it to {len(train)} of {len(full)} examples: leave one of the"
      " two out"
    )


def _check_texts(
  config: settings.Config, full: data.Source, text: data.Text
) -> None:
  """Checks words against networks, and says how texts are cut and padded."""
  _check_vocabulary(full.name, text.tokenizer, config["vocabulary"])
  _check_networks(config, full.name, text.tokenizer)
  sizes = data.buckets(full) or ()
  (limit,) = full.input_shape
  longest = int(np.sum(text.lengths == limit))
  print(
    f"{full.name}: {longest} of {len(full)} texts have all {limit} token"
    " ids that data.max_length allows; what is longer is cut",
    flush=True,
  )
  print(
    f"{full.name}: batches are padded to {', '.join(map(str, sizes))} token"
    f" ids, so a program is compiled at most {len(sizes)} times",
    flush=True,
  )


def _check_columns(columns: Sequence[str], dataset: data.Dataset) -> None:
  """Raises `ValueError` at a column of a test split that is not there."""
  for column in columns:
    split = column.rpartition("/")[0]
    if split and split not in dataset.others:
      there = ", ".join(dataset.others) or "none"
      raise ValueError(
        f"columns: {column}: the data have no test split {split!r} (further"
        f" ones: {there})"
      )


def _check_vocabulary(
  name: str, tokenizer: Any, said: Mapping[str, int]
) -> None:
  """Raises `ValueError` where the config's vocabulary is not the data's.

  A network's embedding may have more rows than there are words, not fewer.
  """
  lines = []
  for key, value in said.items():
    found = getattr(tokenizer, key)
    if found > value if key == "vocab_size" else found != value:
      lines.append(f"{key}: {found} there, {value} in the config")
  if lines:
    raise ValueError(
      f"{name}: the tokenizer is not the one that the networks are made for"
      f" ({'; '.join(lines)}). Name theirs, or set config.vocabulary (or the"
      " network's own arguments) to what this one has"
    )


def _check_networks(config: settings.Config, name: str, tokenizer: Any) -> None:
  """Raises unless all that reads texts expects the words that it gets.

  Args:
    config: the experiment.
    name: of the data.
    tokenizer: of the data, for what has none of its own.

  Raises:
    FileNotFoundError: there is no tokenizer at a path, or no weights.
    ValueError: its ids are not those that the network expects, or stand for
      other words than the rows of its weights.
  """
  files = config["assistant_weights"] or ("",) * len(config["assistants"])
  found = [
    ("", "assistants", spec, file)
    for spec, file in zip(config["assistants"], files, strict=False)
  ]
  shared = ("generator", "encoder", "labeler")
  found += [("", s, config[s], config[f"{s}_weights"]) for s in shared]
  for arm in config["arms"]:
    mine, path = settings.arm_config(config, arm), f"arms.{arm}."
    found.append((path, "student", mine["student"], mine["student_weights"]))
    found.append((path, "method", mine["method"], ""))
  known = functools.cache(lambda file: weights.load_converted(file)[1].words)
  for path, section, spec, file in found:
    takes = settings.word_arguments(config, section, spec)
    said = {key: spec.get(key, default) for key, default in takes.items()}
    own = spec.get("tokenizer")
    words = data.load_tokenizer(own) if own else tokenizer
    if own:
      length = spec.get("length", config["input_shape"][0])
      words.check_length(f"{path}{section}.length", length)
    _check_vocabulary(
      f"{path}{section}: {own or name}",
      words,
      {key: value for key, value in said.items() if value is not None},
    )
    if file and takes:
      made_here = not own and config["data"].get("tokenizer") == ""
      _check_words(file, known(file), own or name, words.words, made_here)


def _check_words(
  file: str, known: str, name: str, words: str, made_here: bool
) -> None:
  """Raises `ValueError` where the rows of weights stand for other words.

  Args:
    file: converted weights.
    known: `WeightsCard.words` of them.
    name: of the tokenizer, for the message.
    words: its `Tokenizer.words`.
    made_here: whether it was trained on the data just now.
  """
  if known == words or not (known or made_here):
    return
  which = ", which was trained on the data, as data.tokenizer is empty"
  raise ValueError(
    f"{file} knows other words than the tokenizer of {name}"
    f"{which if made_here else ''}: name the tokenizer of these weights, or take"
    " the rows of other words: python -m tgt_jax.weights words"
  )
