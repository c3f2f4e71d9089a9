# SPDX-License-Identifier: Apache-2.0
"""Random pieces as MIDI, and the data set that is rendered from them."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import struct
import sys

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import scores

_LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"


def _read_midi(content):
  """Returns (time in seconds, message) of all events, by the standard."""
  head, size, kind, tracks, division = struct.unpack(">4sIHHH", content[:14])
  assert (head, size, kind, tracks) == (b"MThd", 6, 0, 1)
  assert content[14:18] == b"MTrk"
  assert len(content) == 22 + int.from_bytes(content[18:22], "big")
  place, time, tempo, found = 22, 0.0, 500_000, []
  while place < len(content):
    delta = 0
    while True:
      delta = delta << 7 | content[place] & 127
      place += 1
      if content[place - 1] < 128:
        break
    time += delta * tempo / division / 1e6
    status = content[place]
    if status == 0xFF:
      size = content[place + 2]
      body = content[place + 3 : place + 3 + size]
      tempo = int.from_bytes(body, "big") if content[place + 1] == 81 else tempo
      found.append((time, bytes((0xFF, content[place + 1]))))
      place += 3 + size
    else:
      size = 2 if status >> 4 in (0xC, 0xD) else 3
      found.append((time, content[place : place + size]))
      place += size
  return found


def test_a_midi_file_plays_what_the_pieces_say():
  pieces = [scores.piece(0, "train", i, 2.0) for i in range(20)]
  period = 2.5
  found = _read_midi(scores.midi(pieces, period))
  assert found[0] == (0, b"\xff\x51")
  assert found[-1][1] == b"\xff\x2f"
  assert found[-1][0] == pytest.approx(20 * period)
  expected = [
    (period * place + event.time / 1000, event.message)
    for place, piece in enumerate(pieces)
    for event in piece.events
  ]
  played = found[1:-1]
  np.testing.assert_allclose(
    [time for time, _ in played], sorted(t for t, _ in expected), atol=1e-6
  )
  assert sorted(m for _, m in played) == sorted(m for _, m in expected)
  times = [time for time, _ in found]
  assert times == sorted(times)


def test_a_delta_may_take_several_bytes():
  """The examples of the MIDI standard."""
  for value, written in (
    (0, "00"),
    (0x7F, "7f"),
    (0x80, "8100"),
    (0x3FFF, "ff7f"),
    (0x1FFFFF, "ffff7f"),
    (0x8000000, "c0808000"),
  ):
    assert scores._variable(value).hex() == written


def test_pieces_have_the_instruments_they_say():
  instruments = list(scores.INSTRUMENTS.values())
  sizes = []
  for number in range(300):
    piece = scores.piece(1, "test", number, 1.5)
    sizes.append(len(piece.instruments))
    programs, sounding, keys = {}, {}, []
    for event in sorted(piece.events, key=lambda e: e.time):
      kind, channel = event.message[0] >> 4, event.message[0] & 15
      assert 0 <= event.time <= 1500 and max(event.message[1:]) < 128
      if kind == 0xC:
        programs[channel] = event.message[1]
      if kind == 0x9:
        sounding[channel] = sounding.get(channel, 0) + 1
        if channel == 9:
          keys.append(event.message[1])
      if kind == 0x8:
        sounding[channel] -= 1
    assert not any(sounding.values()), "a note without an end"
    assert sounding.keys() == programs.keys(), "an instrument that is silent"
    mine = [instruments[i] for i in piece.instruments]
    tonal = [one for one in mine if not one.keys]
    found = [programs[c] for c in sorted(programs) if c != 9]
    assert len(found) == len(tonal)
    for program, one in zip(found, tonal, strict=True):
      assert program in one.programs
    for one in mine:
      assert not one.keys or set(keys) & set(one.keys)
  assert np.bincount(sizes, minlength=4)[1:].min() > 70
  assert scores.piece(1, "test", 7, 1.5) == scores.piece(1, "test", 7, 1.5)
  assert scores.piece(1, "test", 7, 1.5) != scores.piece(2, "test", 7, 1.5)


def test_no_two_instruments_share_a_sound():
  every = list(scores.INSTRUMENTS.values())
  programs = [p for one in every if not one.keys for p in one.programs]
  keys = [k for one in every for k in one.keys]
  assert len(every) == 20 and list(scores.INSTRUMENTS) == sorted(
    scores.INSTRUMENTS
  )
  assert len(set(programs)) == len(programs) and len(set(keys)) == len(keys)


@pytest.fixture
def script(monkeypatch):
  spec = importlib.util.spec_from_file_location(
    "soundfont_instruments", _LAUNCH / "soundfont_instruments.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)

  def run(*arguments):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    module.main()

  module.run = run
  return module


# Stands for fluidsynth: a soundfont's only sound is its first byte, as loud as
# the second of the file that it is heard in.
_STUB = """#!{python}
import sys, wave
options = {{a[:2]: a[2:] for a in sys.argv[1:] if a.startswith("-")}}
font, score = sys.argv[-2:]
loud = open(font, "rb").read()[0]
assert open(score, "rb").read(4) == b"MThd"
rate = int(options["-r"])
with wave.open(options["-F"], "wb") as out:
  out.setnchannels(2)
  out.setsampwidth(2)
  out.setframerate(rate)
  frames = (s // rate * loud + 7 * (s % 2) for s in range(40 * rate))
  out.writeframes(b"".join(2 * f.to_bytes(2, "little") for f in frames))
"""


@pytest.fixture
def folder(tmp_path, script):
  """What the script writes, with a stand-in for fluidsynth."""
  program = tmp_path / "fluidsynth"
  program.write_text(_STUB.format(python=sys.executable))
  program.chmod(0o755)
  for name, loud in (("A.sf2", 10), ("B.sf3", 200)):
    (tmp_path / name).write_bytes(bytes([loud]))
  script.run(
    f"--out={tmp_path / 'out'}",
    f"--soundfont={tmp_path / 'A.sf2'}",
    f"--other={tmp_path / 'B.sf3'}",
    f"--fluidsynth={program}",
    "--train_size=6",
    "--test_size=3",
    "--seconds=1",
    "--sample_rate=2000",
    "--num_mels=8",
    "--unknown=0.5",
    "--dtype=float32",
    "--sounds",
  )
  return tmp_path / "out"


def _soundfont(folder, **kwargs):
  kwargs = {"soundfont": "A", "other": "B", **kwargs}
  return data.DATASETS["soundfont"](data_dir=folder, **kwargs)


def test_what_is_rendered_is_read(folder):
  dataset = _soundfont(folder)
  train, test = dataset.train, dataset.test
  other = dataset.others["other_soundfont"]
  assert [len(s) for s in (train, test, other)] == [6, 3, 3]
  assert train.input_shape == (8, 7, 1) == other.input_shape
  assert train.class_names == tuple(scores.INSTRUMENTS)
  # Answers of training clips alone are unknown; pieces are the same.
  assert 0.3 < np.mean(train.tags == -1) < 0.7
  np.testing.assert_array_equal(test.tags, other.tags)
  for number, tags in enumerate(test.tags):
    played = scores.piece(0, "test", number, 1.0).instruments
    assert np.flatnonzero(tags).tolist() == list(played)
  spectra = np.load(folder / "A" / "log_mels.npy")
  got = test.read(np.array([1]))[0, ..., 0]
  np.testing.assert_array_equal(got, spectra[7])
  assert not np.array_equal(other.read(np.array([1]))[0, ..., 0], got)
  # Every clip begins where its piece does.
  sounds = np.load(folder / "A" / "sounds.npy")
  assert sounds.shape == (9, 2000)
  for number in range(6):
    starts = 2500 * number + np.arange(2000)
    expected = starts // 2000 * 10 + 7 * (starts % 2)
    np.testing.assert_array_equal(sounds[number], expected)
  said = json.loads((folder / "A" / "metadata.json").read_text())
  assert said["loudest"] == sounds.max() and said["unknown"] == 0.5


def test_embeddings_are_in_the_order_of_clips(folder):
  values = np.arange(9 * 2 * 3.0).reshape(9, 2, 3)
  for name, rows in (("A", values), ("B", -values[:3])):
    (folder / name / "embeddings").mkdir()
    np.save(folder / name / "embeddings" / "net.npy", rows)
  dataset = _soundfont(folder, embedding="net", embedding_scale=2.0)
  got = dataset.test.embed(np.array([2]))
  np.testing.assert_array_equal(got, values[[8], :, None] / 2)
  got = dataset.others["other_soundfont"].embed(np.array([1, 0]))
  np.testing.assert_array_equal(got, -values[[1, 0], :, None] / 2)
  plain = _soundfont(folder)
  assert plain.train.embed is None
  assert plain.train.fingerprint != dataset.train.fingerprint
  np.save(folder / "B" / "embeddings" / "net.npy", values)
  with pytest.raises(ValueError, match="net.npy: 9 rows but 3 keys"):
    _soundfont(folder, embedding="net")
  message = "there is no .*other.npy: expected an array"
  with pytest.raises(FileNotFoundError, match=message):
    _soundfont(folder, embedding="other")


def test_what_is_wrong_is_said(folder):
  with pytest.raises(
    FileNotFoundError, match="has the soundfonts A, B; render"
  ):
    _soundfont(folder, soundfont="C")
  with pytest.raises(ValueError, match="B has test clips alone"):
    _soundfont(folder, soundfont="B", other="")
  assert not _soundfont(folder, other="").others
  path = folder / "B" / "log_mels.npy"
  np.save(path, np.load(path)[:, :5])
  with pytest.raises(ValueError, match=r"\(8, 7, 1\), those of B \(5, 7, 1\)"):
    _soundfont(folder)
  np.save(path, np.load(path)[1:])
  with pytest.raises(ValueError, match="expected 3 spectrograms .* got .2, 5"):
    _soundfont(folder)


def test_what_is_missing_is_said(tmp_path, script):
  font = tmp_path / "A.sf2"
  flags = [f"--out={tmp_path / 'out'}", f"--soundfont={font}"]
  with pytest.raises(SystemExit, match="no soundfont .*A.sf2. See --help"):
    script.run(*flags)
  font.write_bytes(b"x")
  program = tmp_path / "fluidsynth"
  with pytest.raises(SystemExit, match="fluidsynth.*See --help for what"):
    script.run(*flags, f"--fluidsynth={program}")
  program.write_text("#!/bin/sh\necho not a soundfont >&2\nexit 1\n")
  program.chmod(0o755)
  with pytest.raises(SystemExit, match="failed: not a soundfont"):
    script.run(*flags, f"--fluidsynth={program}")
  with pytest.raises(SystemExit, match=r"unknown must be in \[0, 1\]"):
    script.run(*flags, "--unknown=2")
  assert not (tmp_path / "out").exists()


def test_silence_is_an_error(tmp_path, script):
  program = tmp_path / "fluidsynth"
  program.write_text(_STUB.format(python=sys.executable).replace("7 *", "0 *"))
  program.chmod(0o755)
  font = tmp_path / "A.sf2"
  font.write_bytes(b"\0")
  with pytest.raises(OSError, match="A.sf2 .* is silent"):
    script.synthesise(str(program), font, scores.midi([], 1.0), 2000)
