# SPDX-License-Identifier: Apache-2.0
"""Long-tailed training sets: counts, subsets, weights, groups, sampling.

Numpy on the host, in float64 and deterministic. Counts are [K], one per class;
labels are [N], one per example. Imports nothing of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Counts = Sequence[int] | np.ndarray

# Exponent q of a class's sampling probability, n_k ** q.
SAMPLING = {"natural": 1.0, "square_root": 0.5, "class_balanced": 0.0}


class Groups(NamedTuple):
  """The classes by how often they occur in training; each [K], boolean."""

  many: np.ndarray
  medium: np.ndarray
  few: np.ndarray


def _profile(head: int, num_classes: int, **ratios: float) -> None:
  """Raises `ValueError` unless a profile's arguments make sense."""
  if head < 1 or num_classes < 1:
    raise ValueError(
      f"head and num_classes must be >= 1, got {head} and {num_classes}"
    )
  for name, value in ratios.items():
    if not 1 <= value < np.inf:
      raise ValueError(f"{name} must be finite and >= 1, got {value}")


def _whole(counts: np.ndarray) -> np.ndarray:
  """Rounds down; a whole number may have come out a few roundings below."""
  return np.floor(counts * (1.0 + 1e-12)).astype(np.int64)


def exponential_counts(
  head: int, num_classes: int, imbalance_ratio: float
) -> np.ndarray:
  """Counts that fall from `head` by a constant factor, rounded down.

  n_k = floor(head * (1 / imbalance_ratio) ** (k / (K - 1))), k = 0 .. K - 1:
  the rule of CIFAR-LT (Cao et al., 2019, arXiv 1906.07413).

  Args:
    head: examples of class 0, the most frequent.
    num_classes: K.
    imbalance_ratio: the most frequent over the rarest class, >= 1.

  Returns:
    Counts, [K], integers, descending.

  Raises:
    ValueError: an argument is below 1, or the rarest class gets no example.
  """
  _profile(head, num_classes, imbalance_ratio=imbalance_ratio)
  place = np.arange(num_classes) / max(num_classes - 1, 1)
  counts = _whole(head / imbalance_ratio**place)
  if counts[-1] < 1:
    raise ValueError(
      f"imbalance_ratio {imbalance_ratio} leaves the rarest class without an"
      f" example at head {head}; it can be at most {head}"
    )
  return counts


def pareto_counts(
  head: int, num_classes: int, tail: int, *, power: float = 6.0
) -> np.ndarray:
  """Counts that follow the quantiles of a Pareto law.

  The quantiles (1 - u) ** (-1 / power) - 1 at u = 0, 1/K, ... are stretched to
  run from `tail` to `head`, and rounded down. ImageNet-LT and Places-LT were
  drawn at random from such a law with power 6 (Liu et al., 2019, arXiv
  1904.05160); this is a profile of that shape, not their list of files.

  Args:
    head: examples of class 0, the most frequent.
    num_classes: K.
    tail: examples of the last class, in [1, head].
    power: of the Pareto law, in [1e-9, 1e9]; the smaller, the fewer classes stand out
      above the tail.

  Returns:
    Counts, [K], integers, descending.

  Raises:
    ValueError: an argument is out of range.
  """
  _profile(head, num_classes)
  if not 1 <= tail <= head:
    raise ValueError(f"tail must be in [1, head = {head}], got {tail}")
  if not 1e-9 <= power <= 1e9:
    raise ValueError(f"power must be in [1e-9, 1e9], got {power}")
  if num_classes == 1:
    return np.array([head])
  place = np.arange(num_classes)[::-1] / num_classes
  # A quantile is exp(log_tail) - 1; its ratio to the largest cannot overflow.
  log_tail = -np.log1p(-place) / power
  top = log_tail.max()
  stretch = np.exp(log_tail - top) * np.expm1(-log_tail) / np.expm1(-top)
  return _whole(tail + (head - tail) * stretch)


def class_counts(labels: Any, num_classes: int) -> np.ndarray:
  """Examples per class.

  Args:
    labels: [N], integers in [0, num_classes).
    num_classes: K.

  Returns:
    Counts, [K], integers.

  Raises:
    ValueError: a label is out of range or not an integer, or not rank 1.
  """
  labels = np.asarray(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels: expected integers [N], got {labels.dtype} {labels.shape}"
    )
  if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
    raise ValueError(
      f"labels must be in [0, {num_classes}), got"
      f" [{labels.min()}, {labels.max()}]"
    )
  return np.bincount(labels, minlength=num_classes)


def subsample_ids(labels: Any, counts: Counts, *, seed: int = 0) -> np.ndarray:
  """Picks `counts[k]` examples of each class k.

  Each class is shuffled once by its own stream, so more of a class contains
  less of it, and no class depends on the counts of another. The stream is
  numpy's legacy generator, which is promised never to change.

  Args:
    labels: of all examples, [N], integers in [0, K).
    counts: examples wanted of each class, [K].
    seed: of the shuffle, in [0, 2**32).

  Returns:
    Positions in `labels`, sorted, [sum(counts)].

  Raises:
    ValueError: a class has fewer examples than wanted, or a label is out of
      range.
  """
  counts = np.asarray(counts)
  available = class_counts(labels, len(counts))
  labels = np.asarray(labels)
  chosen = [np.zeros(0, np.int64)]
  for k, wanted in enumerate(counts):
    if not 0 <= wanted <= available[k]:
      raise ValueError(
        f"class {k}: {wanted} examples wanted, {available[k]} available;"
        " lower the head count"
      )
    members = np.flatnonzero(labels == k)
    stream = np.random.RandomState([seed, k])
    chosen.append(stream.permutation(members)[:wanted])
  return np.sort(np.concatenate(chosen))


def ldam_ids(labels: Any, counts: Counts, *, seed: int = 0) -> np.ndarray:
  """Picks `counts[k]` examples of each class k as LDAM-DRW's CIFAR-LT does.

  One legacy stream of numpy shuffles the classes one after the other; the
  published CIFAR-10-LT and CIFAR-100-LT are those of seed 0.

  Args:
    labels: of all examples, [N], integers in [0, K).
    counts: examples wanted of each class, [K].
    seed: of the stream, in [0, 2**32).

  Returns:
    Positions in `labels`, sorted, [sum(counts)].

  Raises:
    ValueError: a class has fewer examples than wanted.

  References:
    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware
    Margin Loss", 2019, arXiv:1906.07413; its file `imbalance_cifar.py`.
  """
  labels, chosen = np.asarray(labels), [np.zeros(0, np.int64)]
  stream = np.random.RandomState(seed)
  for k, wanted in enumerate(np.asarray(counts)):
    members = np.flatnonzero(labels == k)
    if wanted > len(members):
      raise ValueError(
        f"class {k}: {wanted} examples wanted, {len(members)} available;"
        " lower the head count"
      )
    stream.shuffle(members)
    chosen.append(members[:wanted])
  return np.sort(np.concatenate(chosen))


def ids_hash(ids: Any) -> str:
  """A name for a set of ids: 12 hexadecimal digits, whatever their order."""
  ids = np.sort(np.asarray(ids).astype("<i8"))
  return hashlib.sha256(ids.tobytes()).hexdigest()[:12]


def positive_counts(counts: Counts) -> np.ndarray:
  """Counts as float64.

  Raises:
    ValueError: not [K], or a count is not a finite number above zero.
  """
  values = np.asarray(counts, np.float64)
  if values.ndim != 1 or not values.size:
    raise ValueError(f"class counts: expected [K], got shape {values.shape}")
  bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
  if bad.size:
    raise ValueError(
      f"class counts must be > 0, got {values[bad[0]]} for class {bad[0]};"
      " drop the class or smooth the counts"
    )
  return values


def effective_number(counts: Counts, *, beta: float) -> np.ndarray:
  """(1 - beta**n) / (1 - beta): 1 at beta = 0, n as beta tends to 1.

  Cui et al. (2019), arXiv 1901.05555.

  Args:
    counts: examples per class, [K], all > 0.
    beta: in [0, 1).

  Raises:
    ValueError: beta out of range, or a count that is not positive.
  """
  if not 0.0 <= beta < 1.0:
    raise ValueError(f"beta must be in [0, 1), got {beta}")
  counts = positive_counts(counts)
  if beta == 0.0:
    return np.ones_like(counts)
  return np.expm1(counts * np.log(beta)) / np.expm1(np.log(beta))


def effective_number_weights(counts: Counts, *, beta: float) -> np.ndarray:
  """Inverse effective numbers, scaled to mean one over the classes, [K]."""
  inverse = 1.0 / effective_number(counts, beta=beta)
  return inverse / inverse.mean()


def many_medium_few(
  counts: Counts, *, many: float = 100, few: float = 20
) -> Groups:
  """Groups of classes by their number of training examples.

  The rule of ImageNet-LT: many have more than 100, few have less than 20, and
  medium is what lies between, both ends included (Liu et al., 2019, arXiv
  1904.05160).

  Args:
    counts: training examples per class, [K].
    many: a class with more is of the group "many".
    few: a class with less is of the group "few".

  Raises:
    ValueError: `few` above `many`.
  """
  if few > many:
    raise ValueError(f"few must be <= many, got {few} > {many}")
  counts = np.asarray(counts)
  is_many, is_few = counts > many, counts < few
  return Groups(many=is_many, medium=~is_many & ~is_few, few=is_few)


def log_prior(counts: Counts, *, smoothing: float = 0.0) -> np.ndarray:
  """Log frequency of each class.

  Args:
    counts: training examples per class, [K].
    smoothing: added to every count, >= 0; above 0 it admits empty classes.

  Returns:
    Natural logarithms, [K], float32.

  Raises:
    ValueError: a smoothed count is not positive.
  """
  if not 0 <= smoothing < np.inf:
    raise ValueError(f"smoothing must be finite and >= 0, got {smoothing}")
  values = positive_counts(np.asarray(counts, np.float64) + smoothing)
  return np.log(values / values.sum()).astype(np.float32)


def sampling_probabilities(
  labels: Any, num_classes: int, *, scheme: str = "class_balanced"
) -> np.ndarray:
  """Probability of drawing each example.

  A class is drawn with probability proportional to n_k ** q, then one of its
  examples evenly: q = 1 "natural" (the data as they are; "instance-balanced"
  in the paper), 1/2 "square_root", 0 "class_balanced" (Kang et al., 2020, arXiv
  1910.09217).

  Args:
    labels: [N], integers in [0, num_classes).
    num_classes: K.
    scheme: a key of `SAMPLING`.

  Returns:
    Probabilities, [N], that sum to one.

  Raises:
    ValueError: unknown scheme, no examples, or a label out of range.
  """
  if scheme not in SAMPLING:
    raise ValueError(
      f"unknown sampling scheme {scheme!r}; choose from {sorted(SAMPLING)}"
    )
  counts = class_counts(labels, num_classes).astype(np.float64)
  if not counts.sum():
    raise ValueError("labels: at least one example is needed, got none")
  # Per example n ** q / n; an empty class has no examples to weight.
  weights = np.maximum(counts, 1.0) ** (SAMPLING[scheme] - 1.0)
  probabilities = weights[np.asarray(labels)]
  return probabilities / probabilities.sum()
