# SPDX-License-Identifier: Apache-2.0
"""Long-tailed training sets and honest validation sets, as views.

Every cut is a function of its arguments and a seed, and is recorded: by the
view's `ids`, by its fingerprint, and by a short hash of the ids that goes into
a run's config.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tgt_jax import checks, longtail
from tgt_jax.data import draws, sources

PROFILES = ("exponential", "pareto", "fraction")

# How the examples of a class are chosen.
SELECTIONS = {"nested": longtail.subsample_ids, "ldam": longtail.ldam_ids}


def long_tail_counts(
  available: np.ndarray,
  *,
  profile: str = "exponential",
  imbalance_ratio: float = 1.0,
  head: int | None = None,
  fraction: float = 1.0,
) -> np.ndarray:
  """Returns the number of examples to keep of each class, int64 [K].

  Args:
    available: examples per class, [K].
    profile: "exponential", "pareto", or "fraction" for the same share of
      every class, at least one example.
    imbalance_ratio: the most frequent class over the rarest, >= 1.
    head: examples of class 0; by default as many as every class has, so that
      any class could be the head (5,000 for CIFAR-10).
    fraction: the share, in (0, 1]; for "fraction" alone.

  Raises:
    ValueError: unknown profile, numbers out of range, or more wanted of a
      class than there is.
  """
  checks.one_of(PROFILES, profile=profile)
  available = np.asarray(available)
  if profile == "fraction":
    if not 0 < fraction <= 1:
      raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    return np.minimum(
      np.maximum(np.rint(fraction * available), 1), available
    ).astype(np.int64)
  size = int(available.min()) if head is None else head
  if profile == "exponential":
    counts = longtail.exponential_counts(size, len(available), imbalance_ratio)
  else:
    tail = round(size / imbalance_ratio)
    counts = longtail.pareto_counts(size, len(available), tail)
  short = np.flatnonzero(counts > available)
  if short.size:
    label = short[0]
    raise ValueError(
      f"class {label}: {counts[label]} examples wanted, {available[label]}"
      f" available; lower head {size}"
    )
  return counts


def long_tail(
  source: sources.Source,
  *,
  profile: str = "exponential",
  imbalance_ratio: float = 1.0,
  head: int | None = None,
  fraction: float = 1.0,
  selection: str = "nested",
  seed: int = 0,
) -> tuple[sources.Source, str]:
  """Cuts a source down to a long-tailed class distribution, or a share.

  Args:
    source: usually `dataset.train_full`.
    profile: see `long_tail_counts`.
    imbalance_ratio: see `long_tail_counts`.
    head: see `long_tail_counts`.
    fraction: see `long_tail_counts`.
    selection: a key of `SELECTIONS`: "nested" (a larger set contains a
      smaller one) or "ldam" (the published CIFAR-LT files).
    seed: of the choice within classes; separate from a run's seed, so that
      runs with different seeds can share the training set.

  Returns:
    The view, its examples in the order of `source`, and the hash of its ids.

  Raises:
    ValueError: see `long_tail_counts`.
  """
  counts = long_tail_counts(
    source.class_counts(),
    profile=profile,
    imbalance_ratio=imbalance_ratio,
    head=head,
    fraction=fraction,
  )
  checks.one_of(SELECTIONS, selection=selection)
  ids = SELECTIONS[selection](source.labels, counts, seed=seed)
  return sources.subset(source, ids), longtail.ids_hash(ids)


class Holdout(NamedTuple):
  """A validation set and what is left to train on.

  Attributes:
    validation: a view of the full source.
    train: the training examples that are not in `validation`.
    moved: how many examples `validation` took from the training set.
  """

  validation: sources.Source
  train: sources.Source
  moved: int


def holdout(
  source: sources.Source,
  train: sources.Source,
  *,
  per_class: int,
  seed: int = 0,
) -> Holdout:
  """Draws a validation set that students never train on.

  It is drawn class by class from the examples of `source` that the training
  set left out, so that a long-tailed training set loses nothing; where a class
  has too few of them, the rest is moved out of the training set, at most half
  of the class, so that no class is lost. A class without enough examples gets
  a smaller share.

  Args:
    source: the source that `train` was cut from.
    train: a view of `source`, or `source` itself.
    per_class: examples of each class to hold out.
    seed: of the choice.

  Raises:
    ValueError: `train` is no view of `source`.
  """
  checks.positive(per_class=per_class)
  position = {int(row): place for place, row in enumerate(source.ids)}
  try:
    used = np.array([position[int(row)] for row in train.ids], np.int64)
  except KeyError as error:
    raise ValueError(
      f"holdout: {train.name} is no view of {source.name}: row {error} is not"
      " in it"
    ) from error
  if not np.array_equal(source.labels[used], train.labels):
    raise ValueError(f"holdout: {train.name} is no view of {source.name}")
  outside = np.setdiff1d(np.arange(len(source)), used)
  chosen, moved = [], []
  for label in range(source.num_classes):

    def pick(ids: np.ndarray, size: int, stream: str, k: int) -> np.ndarray:
      rows = ids[source.labels[ids] == k]
      order = draws.permutation(seed, f"holdout/{stream}", k, len(rows))
      return rows[order[:size]]

    fresh = pick(outside, per_class, "outside", label)
    members = np.unique(used[train.labels == label])
    wanted = min(per_class - len(fresh), len(members) // 2)
    taken = pick(members, wanted, "inside", label)
    chosen += [fresh, taken]
    moved.append(taken)
  validation = sources.subset(
    source, np.sort(np.concatenate(chosen)), name=f"{source.name}/validation"
  )
  gone = np.concatenate(moved)
  keep = np.flatnonzero(~np.isin(used, gone))
  left = train if gone.size == 0 else sources.subset(train, keep)
  return Holdout(validation, left, len(gone))


class Shares(NamedTuple):
  """A training set in two parts that have no example in common.

  Attributes:
    train: what is trained on.
    feedback: what says how well it went.
  """

  train: sources.Source
  feedback: sources.Source


def split_off(train: sources.Source, *, share: float, seed: int = 0) -> Shares:
  """Sets a share of every class aside, drawn at random.

  Args:
    train: a source with labels.
    share: of each class, in (0, 0.5]; rounded, and a class keeps at least one
      example to train on.
    seed: of the choice.

  Raises:
    ValueError: a share out of range, or so small that nothing is set aside.
  """
  if not 0 < share <= 0.5:
    raise ValueError(f"share must be in (0, 0.5], got {share}")
  aside = []
  for label in range(train.num_classes):
    rows = np.flatnonzero(train.labels == label)
    order = draws.permutation(seed, "feedback", label, len(rows))
    number = min(round(share * len(rows)), max(0, len(rows) - 1))
    aside.append(rows[order[:number]])
  chosen = np.sort(np.concatenate(aside))
  if not chosen.size:
    raise ValueError(
      f"{train.name}: a share of {share} of each class is no example; choose a"
      " larger one"
    )
  rest = np.setdiff1d(np.arange(len(train)), chosen)
  return Shares(
    sources.subset(train, rest),
    sources.subset(train, chosen, name=f"{train.name}/feedback"),
  )
