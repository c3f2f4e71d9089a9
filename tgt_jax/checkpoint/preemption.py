# SPDX-License-Identifier: Apache-2.0
"""Stopping at a step boundary when the machine or the user asks for it."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

# The service picks one number, one above the largest that any process has asked
# about (0 before the first call), and says yes to that number alone. So what is
# asked about are calls, one after the other for as long as the process lives.
# With steps a signal that comes before the first question of a resumed run, or
# a step left out, would never be answered.
_calls = itertools.count(1)

_NOTE = "finishing this step and saving; send it again to abort at once\n"
_CLOSE = b"\0"  # No signal has this number.


class PreemptionGuard:
  """Turns SIGTERM and the first Ctrl-C into a question the loop can ask.

  ```
  with PreemptionGuard() as guard:
    for step in ...:
      ...
      if guard.requested(step):
        checkpoints.save(step, ...)
        break
  ```

  In one process a handler sets a flag. With several processes SIGTERM belongs
  to JAX's preemption service (on in `jax.distributed.initialize` by default):
  it tells all processes and picks one step that none of them has passed, so
  that they save the same one; a Ctrl-C in one process is passed on to it.

  A second signal aborts: SIGTERM by ending the process, SIGINT by
  `KeyboardInterrupt` (so that a notebook survives). Python runs a handler only
  between two of its own instructions, and a compilation may be one of
  minutes; so a thread listens as well, answers the first signal and obeys the
  second SIGTERM during one. With several processes a
  second SIGTERM is heeded once the common step is reached. Handlers are put
  back on exit. Outside the main thread, where Python allows no handlers, only
  the service is asked.
  """

  def __init__(self) -> None:
    self._signal: signal.Signals | None = None
    self._reached = False
    self._old: dict[signal.Signals, Any] = {}
    self._several = False
    self._listener: threading.Thread | None = None
    self._pipe = (-1, -1)
    self._old_fd = -1

  def __enter__(self) -> Self:
    self._several = jax.process_count() > 1
    if self._several and not getattr(
      jax.config, "jax_enable_preemption_service", True
    ):
      raise RuntimeError(
        "several processes need jax_enable_preemption_service to stop at one"
        " step; set it before jax.distributed.initialize"
      )
    if threading.current_thread() is threading.main_thread():
      self._listen()
      self._install(signal.SIGINT)
      if not self._several:
        self._install(signal.SIGTERM)
    return self

  def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
    for signum, old in self._old.items():
      # None: the handler was not Python's, and cannot be put back by Python.
      signal.signal(signum, signal.SIG_DFL if old is None else old)
    self._old = {}
    if self._listener is not None:
      signal.set_wakeup_fd(self._old_fd)
      os.write(self._pipe[1], _CLOSE)
      self._listener.join()
      for end in self._pipe:
        os.close(end)
      self._listener = None

  @property
  def received(self) -> signal.Signals | None:
    """The signal this process got, if any."""
    return self._signal

  def requested(self, step: int) -> bool:
    """Whether to save and stop now; the same answer on every process.

    Cheap: no device and, until a signal arrives, no network is involved.

    Args:
      step: the step just finished, the same on every process (not that every
        step must be asked about).
    """
    del step  # Stands in the caller's contract; see _calls.
    if self._reached:
      return True
    if not self._several:
      self._reached = self._signal is not None
      return self._reached
    self._reached = multihost_utils.reached_preemption_sync_point(next(_calls))
    if self._reached and self._old:
      # The service has done its work; from here on a signal ends us.
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return self._reached

  def _listen(self) -> None:
    """Starts the thread that hears of signals while Python is not running."""
    self._pipe = os.pipe()
    os.set_blocking(self._pipe[1], False)
    self._old_fd = signal.set_wakeup_fd(
      self._pipe[1], warn_on_full_buffer=False
    )
    self._listener = threading.Thread(target=self._hear, daemon=True)
    self._listener.start()

  def _hear(self) -> None:
    ours = (signal.SIGINT, signal.SIGTERM)
    heard: list[int] = []
    while (read := os.read(self._pipe[0], 1)) != _CLOSE:
      if read[0] not in ours:
        continue
      heard.append(read[0])
      if len(heard) == 1:
        os.write(2, f"{signal.Signals(read[0]).name}: {_NOTE}".encode())
      elif read[0] == signal.SIGTERM:
        os._exit(128 + signal.SIGTERM)

  def _install(self, signum: signal.Signals) -> None:
    self._old[signum] = signal.signal(signum, self._handle)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self._signal is not None:
      if number == signal.SIGINT:
        raise KeyboardInterrupt
      return
    self._signal = signal.Signals(number)
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
