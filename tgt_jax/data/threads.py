# SPDX-License-Identifier: Apache-2.0
"""Work on the images of a batch: in small pieces, on all cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent import futures

_PIECE = 2**14  # Pixels: what is made of them stays in a core's cache.
_WORTHWHILE = 2**20  # Pixels: for fewer, threads cost more than they save.
_MOST = 32


def cores() -> int:
  """How many this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1  # macOS has no affinity.


@functools.cache
def _pool(owner: int) -> futures.ThreadPoolExecutor:
  del owner  # A process id: threads do not survive a fork.
  return futures.ThreadPoolExecutor(
    min(cores(), _MOST), thread_name_prefix="images"
  )


def for_rows(
  work: Callable[[slice], None],
  count: int,
  *,
  pixels: int,
  done: Callable[[int], None] = lambda rows: None,
) -> None:
  """Calls `work` on slices that together are `slice(count)`.

  Args:
    work: what a slice needs, whatever the others do. It lets other threads run
      where Pillow or numpy do the work.
    count: images.
    pixels: of one image.
    done: is told how many rows are, in the thread of the caller.

  Raises:
    Exception: what `work` raised, for the first slice that failed.
  """
  rows = max(1, _PIECE // pixels)
  slices = [slice(i, min(i + rows, count)) for i in range(0, count, rows)]
  if count * pixels < _WORTHWHILE:
    slices = [slice(0, count)]
  alone = len(slices) == 1 or cores() == 1
  each = map if alone else _pool(os.getpid()).map
  for piece, _ in zip(slices, each(work, slices), strict=True):
    done(piece.stop)
