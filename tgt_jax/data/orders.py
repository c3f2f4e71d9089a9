# SPDX-License-Identifier: Apache-2.0
"""Which example comes when: streams of ids as functions of the position.

An order is a function of the seed and of a position in the run's stream of
examples; nothing is remembered between calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from tgt_jax import longtail
from tgt_jax.data import draws

# Global position of an example in the run's stream to its id.
Order = Callable[[int, int], np.ndarray]

# Draws with replacement are made this many at a time.
_BLOCK = 4096


def _order(block: Callable[[int], np.ndarray], size: int) -> Order:
  """Joins blocks of `size` ids into one stream; keeps the latest few."""
  cached = functools.lru_cache(maxsize=4)(block)

  def order(start: int, stop: int) -> np.ndarray:
    parts = []
    while start < stop:
      index, offset = divmod(start, size)
      part = cached(index)[offset : offset + stop - start]
      parts.append(part)
      start += len(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

  return order


def natural(labels: np.ndarray, *, seed: int) -> Order:
  """Every example once per epoch, in a new random order each epoch.

  The stream is continuous: a batch may hold the end of one epoch and the start
  of the next, and no example is dropped at the border.
  """
  size = len(labels)
  return _order(
    lambda epoch: draws.permutation(seed, "order/natural", epoch, size), size
  )


def _weighted(labels: np.ndarray, *, seed: int, scheme: str) -> Order:
  """Draws with replacement by the probabilities of `longtail`."""
  probabilities = longtail.sampling_probabilities(
    labels, int(labels.max()) + 1, scheme=scheme
  )
  edges = np.cumsum(probabilities)[:-1]  # What lies beyond is the last one's.

  def block(index: int) -> np.ndarray:
    draw = draws.uniforms(seed, f"order/{scheme}", index, (_BLOCK,))
    return np.searchsorted(edges, draw, side="right")

  return _order(block, _BLOCK)


def class_balanced(labels: np.ndarray, *, seed: int) -> Order:
  """Draws a class uniformly among those present, then one of its examples."""
  return _weighted(labels, seed=seed, scheme="class_balanced")


def square_root(labels: np.ndarray, *, seed: int) -> Order:
  """Draws a class in proportion to the root of its count, then an example."""
  return _weighted(labels, seed=seed, scheme="square_root")


SAMPLERS: dict[str, Callable[..., Order]] = {
  "natural": natural,
  "class_balanced": class_balanced,
  "square_root": square_root,
}


def window(size: int, batch_size: int) -> int:
  """Among how many batches texts are exchanged: at most an epoch, and 32.

  Streams that are joined need the same, the smallest of theirs.

  Args:
    size: number of examples N.
    batch_size: of the global batch.
  """
  return max(1, min(32, size // batch_size))


def similar_lengths(
  order: Order, lengths: np.ndarray, *, batch_size: int, window: int
) -> Order:
  """Rearranges a stream so that the texts of a batch have similar lengths.

  Within every `window` batches the examples are sorted by length and cut into
  batches anew, and the batches are shuffled; within a batch, examples come as
  they did in the stream. What a window holds stays the same, so an epoch still
  shows every example once, if it is no shorter.

  The shuffle is the same for every seed: streams of the same window that are
  zipped or stacked have their short batches, and their long ones, at the same
  steps.

  Args:
    order: the stream.
    lengths: of every example, [N].
    batch_size: of the global batch.
    window: batches among which examples move.
  """
  size = window * batch_size

  def block(index: int) -> np.ndarray:
    ids = order(index * size, (index + 1) * size)
    ranks = np.argsort(lengths[ids], kind="stable")
    batches = np.sort(ranks.reshape(window, batch_size), axis=1)
    places = draws.permutation(0, "order/similar_lengths", index, window)
    return ids[batches[places].reshape(-1)]

  return _order(block, size)
