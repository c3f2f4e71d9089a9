# SPDX-License-Identifier: Apache-2.0
"""How far a phase has come, on the console."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import IO, Any

_BAR = 20  # Characters.


def duration(seconds: float) -> str:
  """Returns `7s`, `3m05s`, `2h10m` or `3d04h`."""
  seconds = max(0, round(seconds))
  minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
  if days:
    return f"{days}d{hours % 24:02d}h"
  if hours:
    return f"{hours}h{minutes % 60:02d}m"
  if minutes:
    return f"{minutes}m{seconds % 60:02d}s"
  return f"{seconds}s"


def rate(per_second: float, unit: str = "step") -> str:
  """Returns `31.2 steps/s`, or `8.1 s/step` for slow steps."""
  if per_second >= 100:
    return f"{per_second:.0f} {unit}s/s"
  if per_second >= 1:
    return f"{per_second:.1f} {unit}s/s"
  return f"{1 / per_second:.1f} s/{unit}"


class Progress:
  """A line with percentage, rate and time to go.

  On a terminal one line is rewritten; elsewhere, a line is added every few
  seconds, so that a log file stays short. The rate is the mean without the
  first step, which compiles: that of the last seconds would jump, as steps are
  counted when they are asked for, and many may wait. Nor does it count the
  seconds that `idle` knows of. A call that prints nothing costs about a
  microsecond.

  Args:
    total: steps of the phase.
    label: what runs, for example `tgt_random [3/4]`.
    initial: steps that were done before, in a resumed run.
    unit: what is counted, in the singular.
    stream: where to; `sys.stderr` unless given.
    interval: seconds between two lines; 0.1 on a terminal and 5 elsewhere
      unless given.
    clock: seconds, for tests.
    idle: seconds so far in which nothing went on, as when later steps compile
      for another shape; any origin.
  """

  def __init__(
    self,
    total: int,
    label: str,
    *,
    initial: int = 0,
    unit: str = "step",
    stream: IO[str] | None = None,
    interval: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    idle: Callable[[], float] = lambda: 0.0,
  ):
    self.total = total
    self.label = label
    self._unit = unit
    self._stream = sys.stderr if stream is None else stream
    self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
    self._interval = (
      (0.1 if self._terminal else 5.0) if interval is None else interval
    )
    self._clock = clock
    self._busy = lambda: clock() - idle()
    self._initial = self._step = initial
    self._start = self._printed = clock()
    self._first: tuple[float, int] | None = None
    self._note = ""
    self._width = 0
    self._closed = False

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    self.close()

  def update(self, step: int, note: str = "") -> None:
    """Says that `step` steps are done; `note` goes to the end of the line."""
    now = self._clock()
    self._step, self._note = step, note or self._note
    self._first = self._first or (self._busy(), step)
    if now - self._printed >= self._interval:
      self._printed = now
      self._show(self._line())

  def _speed(self) -> float:
    """Returns the mean steps per second since the first, 0 if unknown."""
    if self._first is None:
      return 0.0
    (then, step), now = self._first, self._busy()
    return (self._step - step) / (now - then) if now > then else 0.0

  def _line(self) -> str:
    fraction = self._step / self.total if self.total else 1.0
    parts = [f"{self.label}  {self._step}/{self.total}  {fraction:4.0%}"]
    if self._terminal:
      full = round(_BAR * min(fraction, 1.0))
      parts[0] += f" [{'#' * full}{'.' * (_BAR - full)}]"
    speed = self._speed()
    if speed > 0:
      parts += [rate(speed, self._unit)]
      parts += [f"ETA {duration((self.total - self._step) / speed)}"]
    return "  ".join([*parts, self._note] if self._note else parts)

  def _show(self, line: str, *, last: bool = False) -> None:
    if self._terminal:
      columns = max(20, shutil.get_terminal_size().columns - 1)
      line = line[:columns]
      blank = " " * max(0, self._width - len(line))
      self._width = len(line)
      text = f"\r{line}{blank}" + ("\n" if last else "")
    else:
      text = line + "\n"
    encoding = getattr(self._stream, "encoding", None) or "utf-8"
    self._stream.write(text.encode(encoding, "replace").decode(encoding))
    self._stream.flush()

  def close(self) -> None:
    """Prints the last line: steps, time and mean rate. Twice is fine."""
    if self._closed:
      return
    self._closed = True
    seconds = self._clock() - self._start
    parts = [f"{self.label}  {self._step}/{self.total}"]
    parts += [f"{seconds:.1f}s" if seconds < 60 else duration(seconds)]
    speed = self._speed()
    if speed > 0:
      parts += [rate(speed, self._unit)]
    if self._note:
      parts += [self._note]
    self._show("  ".join(parts), last=True)
