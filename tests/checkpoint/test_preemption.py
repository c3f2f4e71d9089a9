# SPDX-License-Identifier: Apache-2.0
"""Signals stop a run at a step that all its processes agree on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from concurrent import futures

import pytest

from tests import helpers
from tgt_jax import checkpoint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_guard_turns_a_signal_into_an_answer(number, capfd):
  before = signal.getsignal(number)
  with checkpoint.PreemptionGuard() as guard:
    assert not guard.requested(1)
    os.kill(os.getpid(), number)
    assert guard.requested(2)
    assert guard.requested(3)
    assert guard.received == number
  assert signal.getsignal(number) is before
  assert f"{number.name}: finishing this step" in capfd.readouterr().err


def test_guard_second_interrupt_is_python_s_own():
  def block():
    with checkpoint.PreemptionGuard():
      for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(KeyboardInterrupt):
    block()


def test_guard_second_sigterm_ends_at_once():
  process = helpers.start("""
    import sys, time
    from tgt_jax import checkpoint
    with checkpoint.PreemptionGuard() as guard:
      print("ready", flush=True)
      while not guard.requested(0):
        time.sleep(0.01)
      print("saving", flush=True)
      time.sleep(60)
  """)
  for word in ("ready", "saving"):
    assert process.stdout.readline() == f"{word}\n"
    process.send_signal(signal.SIGTERM)
  process.communicate(timeout=10)
  assert process.returncode == 128 + signal.SIGTERM


def test_guard_answers_while_python_does_not_run():
  """As in a long compilation: C code, the interpreter's lock released."""
  process = helpers.start("""
    import hashlib
    from tgt_jax import checkpoint
    with checkpoint.PreemptionGuard():
      print("ready", flush=True)
      hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
  """)
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGTERM)
  assert process.stderr.readline().startswith("SIGTERM: finishing")
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=10)
  assert process.returncode == 128 + signal.SIGTERM


def test_guard_in_another_thread_installs_nothing():
  def ask():
    with checkpoint.PreemptionGuard() as guard:
      return guard.requested(1)

  before = signal.getsignal(signal.SIGTERM)
  with futures.ThreadPoolExecutor() as pool:
    assert pool.submit(ask).result() is False
  assert signal.getsignal(signal.SIGTERM) is before


_TOGETHER = """
  import sys, time, warnings
  import jax, jax.numpy as jnp, numpy as np
  from tgt_jax import checkpoint, distributed

  warnings.simplefilter("ignore", RuntimeWarning)  # About damage.
  assert distributed.initialize()
  mesh = distributed.make_mesh()
  state = distributed.replicate({"w": np.zeros(3, np.float32)}, mesh)
  ones = distributed.put_batch(np.ones((1, 3), np.float32),
                               distributed.batch_sharding(mesh))
  update = jax.jit(lambda s, x: {"w": s["w"] + x.sum(0) / 2})
  with (checkpoint.Checkpoints(sys.argv[1]) as checkpoints,
        checkpoint.PreemptionGuard() as guard):
    found = checkpoints.restore(state)
    step = 0
    if found is not None:
      step, state = found.step, found.state
      np.testing.assert_array_equal(state["w"].addressable_data(0), step)
    print("from", step, flush=True)
    time.sleep(float(sys.argv[2]))  # As long as a large step compiles.
    end = time.monotonic() + 90  # Should the test itself be ended.
    while time.monotonic() < end:
      state = update(state, ones)
      jax.block_until_ready(state)
      time.sleep(0.005)
      step += 1
      # Steps may be left out, the same everywhere.
      if step % 3 == 0 and guard.requested(step):
        checkpoints.save(step, state, iterator_state={"at": step})
        break
    print("stopped", step, flush=True)
"""


def _line(process, word):
  """The number after `word`; other lines are the runtime's own."""
  for line in process.stdout:
    if line.startswith(word):
      return int(line.split()[1])
  raise AssertionError(process.stderr.read())


def _run_and_signal(directory, whom, number, *, before=0.0, after=0.0):
  """Starts two processes, signals one: the steps they start and stop at."""
  processes = helpers.start_processes(_TOGETHER, 2, directory, before)
  watchdog = threading.Timer(100, lambda: [p.kill() for p in processes])
  watchdog.start()
  try:
    started = [_line(process, "from") for process in processes]
    time.sleep(after)
    processes[whom].send_signal(number)
    stopped = [_line(process, "stopped") for process in processes]
    assert [process.wait(60) for process in processes] == [0, 0]
  finally:
    watchdog.cancel()
    helpers.stop(processes)
  return started, stopped


@pytest.mark.thorough
def test_processes_agree_on_the_step_to_stop_at(tmp_path):
  # A signal before the loop asks for the first time is not lost.
  started, (first, other) = _run_and_signal(
    tmp_path, 1, signal.SIGTERM, before=3.0
  )
  assert started == [0, 0]
  assert first == other > 0
  # Both pass over a damaged checkpoint and go on from the one they saved.
  damaged = tmp_path / str(first + 3)
  shutil.copytree(tmp_path / str(first), damaged)
  (damaged / "host.json").write_text("{}")
  started, (second, other) = _run_and_signal(
    tmp_path, 0, signal.SIGINT, after=0.5
  )
  assert started == [first, first]
  assert second == other > first
  assert (tmp_path / str(second)).exists()
  assert damaged.with_suffix(".unreadable").exists()
