# SPDX-License-Identifier: Apache-2.0
"""What the console says, by a clock of our own."""

from __future__ import annotations

import io

import pytest

from tgt_jax import progress


class Clock:
  """Seconds that pass when they are told to."""

  def __init__(self) -> None:
    self.now = 1000.0

  def __call__(self) -> float:
    return self.now


class Terminal(io.StringIO):
  """A stream that claims to be a terminal."""

  def isatty(self) -> bool:
    return True


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0, "0s"),
    (59.4, "59s"),
    (59.6, "1m00s"),
    (185, "3m05s"),
    (7800, "2h10m"),
    (273600, "3d04h"),
  ],
)
def test_duration(seconds: float, text: str):
  assert progress.duration(seconds) == text


@pytest.mark.parametrize(
  ("speed", "text"),
  [(250.4, "250 steps/s"), (31.24, "31.2 steps/s"), (0.125, "8.0 s/step")],
)
def test_rate(speed: float, text: str):
  assert progress.rate(speed) == text


def _run(stream: io.StringIO, steps: int = 100) -> list[str]:
  """Runs at 10 steps a second after a first step of 20 seconds."""
  clock = Clock()
  with progress.Progress(steps, "tgt [3/4]", stream=stream, clock=clock) as bar:
    clock.now += 20
    for step in range(1, steps + 1):
      bar.update(step, f"loss {step}")
      clock.now += 0.1
  return stream.getvalue().splitlines()


def test_a_log_gets_a_line_every_five_seconds():
  lines = _run(io.StringIO())
  # At 20 s (the first step), at 25 s and at the end (30 s).
  assert len(lines) == 3
  assert "\r" not in "".join(lines)
  assert lines[1].startswith("tgt [3/4]  51/100   51%")


def test_rate_and_eta_leave_out_the_first_step():
  line = _run(io.StringIO())[1]
  assert "10.0 steps/s" in line
  assert "ETA 5s" in line
  assert line.endswith("loss 51")


def test_rate_leaves_out_what_is_idle():
  stream, clock, idle = io.StringIO(), Clock(), [7.0]
  bar = progress.Progress(
    100, "x", stream=stream, clock=clock, interval=0, idle=lambda: idle[0]
  )
  for step in (1, 2, 11):
    clock.now += 1
    bar.update(step)
    # Another shape is compiled.
    clock.now += 30
    idle[0] += 30
  assert stream.getvalue().splitlines()[-1].endswith("5.0 steps/s  ETA 18s")
  bar.close()
  assert stream.getvalue().splitlines()[-1] == "x  11/100  1m33s  5.0 steps/s"


def test_the_last_line_has_time_and_mean_rate():
  line = _run(io.StringIO())[-1]
  assert line.startswith("tgt [3/4]  100/100  30.0s  9.9 steps/s")


def test_a_terminal_gets_one_line_that_is_rewritten():
  stream = Terminal()
  _run(stream)
  text = stream.getvalue()
  assert text.count("\n") == 1
  assert text.endswith("\n")
  assert text.count("\r") > 50
  assert "#" in text


def test_a_shorter_line_covers_the_one_before(monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  clock = Clock()
  bar = progress.Progress(10, "x", stream=stream, clock=clock)
  for note in ("a long note that will go away", "b"):
    clock.now += 1
    bar.update(1, note)
  _, first, second = stream.getvalue().split("\r")
  assert len(second) >= len(first)


def test_a_narrow_terminal_is_not_overrun(monkeypatch):
  monkeypatch.setenv("COLUMNS", "40")
  stream = Terminal()
  _run(stream)
  assert max(map(len, stream.getvalue().split("\r"))) <= 40


def test_a_resumed_run_counts_only_its_own_steps():
  stream, clock = io.StringIO(), Clock()
  bar = progress.Progress(
    100, "x", initial=50, stream=stream, clock=clock, interval=0
  )
  for step in (51, 61):
    clock.now += 1
    bar.update(step)
  assert "10.0 steps/s" in stream.getvalue()


def test_closing_twice_and_without_a_step_is_fine():
  stream = io.StringIO()
  bar = progress.Progress(5, "x", stream=stream, clock=Clock())
  bar.close()
  bar.close()
  assert stream.getvalue() == "x  0/5  0.0s\n"


def test_a_console_without_unicode_gets_question_marks():
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, encoding="ascii")
  progress.Progress(1, "größe", stream=stream, clock=Clock()).close()
  assert raw.getvalue().startswith(b"gr??e")
