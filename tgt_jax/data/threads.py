# SPDX-License-Identifier: Apache-2.0
"""Work on the images of a batch, on all cores where that pays."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent import futures

# Below this many pixels, handing an image over takes longer than the work.
_WORTHWHILE = 128 * 128
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


def for_each(
  work: Callable[[int], None], count: int, *, pixels: int = _WORTHWHILE
) -> None:
  """Calls `work(0)`, ..., `work(count - 1)`, at once where images are large.

  Args:
    work: independent of the other numbers; lets other threads run, as Pillow
      and numpy do in their inner loops.
    count: how many.
    pixels: of one image, where the time depends on them.

  Raises:
    Exception: the first, by number, that `work` raised.
  """
  if count < 2 or pixels < _WORTHWHILE or cores() == 1:
    for number in range(count):
      work(number)
    return
  for _ in _pool(os.getpid()).map(work, range(count)):
    pass
