# SPDX-License-Identifier: Apache-2.0
"""Short random pieces for known instruments, as MIDI.

A piece has one to three of twenty instruments, each with notes of random
pitches, lengths and loudness. What is played is a function of a seed, a split
and a number, so two soundfonts can be given the same pieces. Programs and keys
of percussion are those of General MIDI, programs counted from 0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tgt_jax.data import draws

_PERCUSSION = 9  # The channel of all percussion.
_MOST = 3  # Instruments of a piece.


class Instrument(NamedTuple):
  """What sounds like one instrument.

  Attributes:
    programs: of General MIDI, any of which it may be.
    low: its lowest key.
    high: its highest key.
    chords: whether it plays several notes at a time.
    keys: of percussion, in the place of all of the above.
  """

  programs: tuple[int, ...] = (0,)
  low: int = 48
  high: int = 72
  chords: bool = False
  keys: tuple[int, ...] = ()


# Those of OpenMIC-2018, but for mandolin and ukulele, which General MIDI lacks.
INSTRUMENTS = {
  "accordion": Instrument((21, 23), 53, 84, chords=True),
  "banjo": Instrument((105,), 50, 81),
  "bass": Instrument((32, 33, 34, 36), 28, 50),
  "cello": Instrument((42,), 36, 67),
  "clarinet": Instrument((71,), 50, 84),
  "cymbals": Instrument(keys=(49, 51, 52, 53, 55, 57, 59)),
  "drums": Instrument(keys=(35, 36, 37, 38, 40, 41, 43, 45, 47, 48, 50)),
  "flute": Instrument((73,), 60, 93),
  "guitar": Instrument((24, 25, 26, 27), 40, 76, chords=True),
  "harp": Instrument((46,), 36, 86, chords=True),
  "mallet_percussion": Instrument((11, 12, 13), 53, 89),
  "organ": Instrument((16, 17, 19), 36, 84, chords=True),
  "piano": Instrument((0, 1, 2), 28, 96, chords=True),
  "saxophone": Instrument((64, 65, 66), 49, 80),
  "sitar": Instrument((104,), 48, 77),
  "synthesizer": Instrument((80, 81, 87), 40, 84),
  "trombone": Instrument((57,), 40, 70),
  "trumpet": Instrument((56, 59), 54, 82),
  "violin": Instrument((40,), 55, 93),
  "voice": Instrument((52, 53), 48, 79, chords=True),
}


class Event(NamedTuple):
  """A message of MIDI: `time` in milliseconds and its bytes."""

  time: int
  message: bytes


class Piece(NamedTuple):
  """Something to play.

  Attributes:
    instruments: their numbers in `INSTRUMENTS`, rising.
    events: that play it, in any order.
  """

  instruments: tuple[int, ...]
  events: tuple[Event, ...]


def _notes(
  instrument: Instrument, channel: int, uniforms: np.ndarray, length: int
) -> list[Event]:
  """Returns notes one after the other, or chords, up to the end.

  Args:
    instrument: that plays.
    channel: of it.
    uniforms: in [0, 1), [n, 6], a row for each note.
    length: of the piece, milliseconds.
  """
  events, time = [], int(200 * uniforms[0, 5])
  for u in uniforms[:, :5]:
    stop = min(time + 150 + int(650 * u[0] ** 2), length)
    if stop - time < 50:
      break
    if instrument.keys:
      keys = [instrument.keys[int(u[1] * len(instrument.keys))]]
    else:
      key = instrument.low + int(u[1] * (1 + instrument.high - instrument.low))
      size = 1 + int(3 * u[2]) * instrument.chords
      keys = [key + step for step in (0, 4, 7)[:size]]
    velocity = 70 + int(58 * u[3])
    for key in keys:
      events += [
        Event(time, bytes((0x90 | channel, key, velocity))),
        Event(stop, bytes((0x80 | channel, key, 0))),
      ]
    time = stop + (int(1000 * (u[4] - 0.8)) if u[4] > 0.8 else 0)
  return events


def piece(seed: int, split: str, index: int, seconds: float) -> Piece:
  """Returns a random piece.

  Args:
    seed: of all pieces.
    split: name of the split it is for.
    index: its number in the split.
    seconds: its length.
  """
  length = round(1000 * seconds)
  stream = f"scores/{split}"
  u = draws.uniforms(seed, stream, index, (1 + 2 * _MOST,))
  order = draws.permutation(seed, f"{stream}/order", index, len(INSTRUMENTS))
  chosen = sorted(order[: 1 + int(_MOST * u[0])].tolist())
  events = []
  for part, number in enumerate(chosen):
    instrument = list(INSTRUMENTS.values())[number]
    channel = _PERCUSSION if instrument.keys else part
    program = instrument.programs[int(u[1 + part] * len(instrument.programs))]
    volume = 70 + int(50 * u[1 + _MOST + part])
    rows = draws.uniforms(
      seed, f"{stream}/notes/{part}", index, (2 + length // 150, 6)
    )
    events += [
      Event(0, bytes((0xC0 | channel, 0 if instrument.keys else program))),
      Event(0, bytes((0xB0 | channel, 7, volume))),  # Its volume.
      *_notes(instrument, channel, rows, length),
    ]
  # Nothing may sound on in the next piece.
  channels = (*range(_MOST), _PERCUSSION)
  events += [Event(length, bytes((0xB0 | c, 120, 0))) for c in channels]
  return Piece(tuple(chosen), tuple(events))


def _variable(value: int) -> bytes:
  """Returns a number as MIDI writes it, seven bits to a byte."""
  out = [value & 0x7F]
  while value := value >> 7:
    out.append(0x80 | value & 0x7F)
  return bytes(reversed(out))


def midi(pieces: Sequence[Piece], period: float) -> bytes:
  """Returns a MIDI file that plays pieces one after the other.

  Args:
    pieces: in their order.
    period: seconds from the start of one to that of the next.
  """
  events = sorted(
    (
      Event(round(1000 * period * place) + event.time, event.message)
      for place, one in enumerate(pieces)
      for event in one.events
    ),
    key=lambda event: event.time,  # Those of one time stay in their order.
  )
  # 1000 ticks to a quarter of one second: a tick is a millisecond.
  track, now = [b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")], 0
  for event in events:
    track += [_variable(event.time - now), event.message]
    now = event.time
  end = round(1000 * period * len(pieces))
  track += [_variable(max(0, end - now)), b"\xff\x2f\x00"]
  body = b"".join(track)
  head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 1000)
  return head + b"MTrk" + struct.pack(">I", len(body)) + body
