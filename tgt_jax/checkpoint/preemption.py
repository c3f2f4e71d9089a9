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
  `KeyboardInterrupt` (so that a notebook survives). With several processes a
  second SIGTERM is heeded once the common step is reached. Handlers are put
  back on exit. Outside the main thread, where Python allows no handlers, only
  the service is asked.
  """

  def __init__(self) -> None:
    self._signal: signal.Signals | None = None
    self._reached = False
    self._old: dict[signal.Signals, Any] = {}
    self._several = False

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
      self._install(signal.SIGINT)
      if not self._several:
        self._install(signal.SIGTERM)
    return self

  def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
    for signum, old in self._old.items():
      # None: the handler was not Python's, and cannot be put back by Python.
      signal.signal(signum, signal.SIG_DFL if old is None else old)
    self._old = {}

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

  def _install(self, signum: signal.Signals) -> None:
    self._old[signum] = signal.signal(signum, self._handle)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self._signal is not None:
      if number == signal.SIGINT:
        raise KeyboardInterrupt
      signal.signal(number, signal.SIG_DFL)
      os.kill(os.getpid(), number)
      return
    self._signal = signal.Signals(number)
    # print() is not safe here: the signal may have interrupted a print.
    os.write(2, f"{self._signal.name}: {_NOTE}".encode())
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
