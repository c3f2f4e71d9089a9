# SPDX-License-Identifier: Apache-2.0
"""From sounds to the spectrograms that data sets of music read."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tgt_jax import data, spectrograms
from tgt_jax.data import music, openmic, prepare_audio

soundfile = pytest.importorskip("soundfile")

_KEYS = ("000001_0", "000002_0")
_FRONT_END = music.FrontEnd(4000, 0.5, 8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Two clips of OpenMIC's layout, and a small front end."""
  small = openmic.COLLECTION._replace(front_end=_FRONT_END)
  monkeypatch.setitem(prepare_audio.COLLECTIONS, "openmic", small)
  np.savez(
    tmp_path / "openmic-2018.npz",
    Y_true=np.ones((2, 1)),
    Y_mask=np.ones((2, 1), bool),
    sample_key=np.array(_KEYS),
  )
  (tmp_path / "class-map.json").write_text('{"tone": 0}')
  (tmp_path / "partitions").mkdir()
  sounds = tmp_path / "audio" / "000"
  sounds.mkdir(parents=True)
  time = np.arange(8000) / 8000
  for number, (part, key) in enumerate(
    zip(("train", "test"), _KEYS, strict=True)
  ):
    (tmp_path / "partitions" / f"split01_{part}.csv").write_text(key)
    tone = 0.5 * np.sin(2 * np.pi * (200 + 800 * number) * time)
    # Twice the rate, two channels, a second; the other is too short.
    stereo = np.stack([tone, 0.5 * tone], 1)[: 8000 if number else 2000]
    soundfile.write(sounds / f"{key}.ogg", stereo, 8000)
  return tmp_path


def _main(monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["prepare_audio", *map(str, arguments)])
  prepare_audio.main()


def test_spectrograms_are_those_of_the_sounds(folder, monkeypatch, capsys):
  _main(monkeypatch, "openmic", f"--data_dir={folder}", "--dtype=float32")
  place = folder / "log_mels"
  assert str(place) in capsys.readouterr().out
  said = json.loads((place / "front_end.json").read_text())
  assert said == {**_FRONT_END._asdict(), "dtype": "float32"}
  dataset = data.DATASETS["openmic"](
    data_dir=folder, check_counts=False, validation=0.0
  )
  assert dataset.train.input_shape == (8, 7, 1)
  tone = 0.375 * np.sin(2 * np.pi * 1000 * np.arange(2000) / 4000)
  expected = spectrograms.log_mel(
    tone.astype(np.float32), sample_rate=4000, num_mels=8
  )
  loud = np.asarray(expected).argmax(axis=0)
  got = dataset.test.read(np.arange(1))[0, ..., 0]
  # OGG changes a sound a little; the tone is what is loud.
  np.testing.assert_array_equal(got.argmax(axis=0)[1:-1], loud[1:-1])
  np.testing.assert_allclose(got.max(), np.asarray(expected).max(), atol=0.1)
  # What is too short ends in silence.
  quiet = dataset.train.read(np.arange(1))[0, :, -1, 0]
  np.testing.assert_allclose(quiet, (np.log(1e-5) + 3.7) / 3.1, atol=1e-3)


def test_a_second_run_goes_on(folder):
  place = prepare_audio.prepare("openmic", folder)
  first, second = (place / f"{key}.npy" for key in _KEYS)
  assert np.load(first).dtype == np.float16
  before = second.read_bytes()
  first.write_bytes(b"kept")
  second.unlink()
  prepare_audio.prepare("openmic", folder)
  assert first.read_bytes() == b"kept" and second.read_bytes() == before
  with pytest.raises(ValueError, match="computed in another way.*move .*first"):
    prepare_audio.prepare("openmic", folder, dtype="float32")


def test_what_went_wrong_is_said(folder, tmp_path, monkeypatch):
  sound = folder / "audio" / "000" / f"{_KEYS[1]}.ogg"
  sound.write_bytes(b"noise")
  place = folder / "log_mels" / f"{_KEYS[0]}.npy"
  expected = f"1 of 2 clips have no.*\n.*{sound.name}: cannot be decoded"
  with pytest.raises(SystemExit, match=expected):
    _main(monkeypatch, "openmic", f"--data_dir={folder}")
  assert place.is_file()
  for values, message in (
    (np.full(100, np.nan, np.float32), "values are not finite"),
    (np.zeros(0, np.float32), "no sound"),
  ):
    soundfile.write(sound, values, 16000, "FLOAT", format="WAV")
    with pytest.raises(SystemExit, match=f"{sound.name}: {message}"):
      _main(monkeypatch, "openmic", f"--data_dir={folder}")
  sound.unlink()
  with pytest.raises(SystemExit, match=f"there is no .*{sound.name}"):
    _main(monkeypatch, "openmic", f"--data_dir={folder}")
  monkeypatch.setitem(sys.modules, "soundfile", None)
  with pytest.raises(SystemExit, match="pip install soundfile"):
    _main(monkeypatch, "openmic", f"--data_dir={folder}")
  with pytest.raises(SystemExit, match="lacks files.*Get them from https"):
    _main(monkeypatch, "magnatagatune", f"--data_dir={folder}")
