# SPDX-License-Identifier: Apache-2.0
"""Computes the log-mel spectrograms of a collection of music.

  python -m tgt_jax.data.prepare_audio openmic --data_dir=DIR

Every clip's is written to `log_mels/KEY.npy`, [mels, frames], beside
`front_end.json`, which says how. A second run goes on where the first was
stopped; sounds that are missing or damaged are named at the end. They are read
by the package soundfile (`pip install soundfile`), which knows WAV, FLAC, OGG
and MP3.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import checks, files, spectrograms
from tgt_jax.data import magnatagatune, music, openmic
from tgt_jax.progress import Progress

COLLECTIONS = {
  one.name: one for one in (magnatagatune.COLLECTION, openmic.COLLECTION)
}
_DTYPES = ("float16", "float32")
_SHOWN = 20  # Bad clips that an error names.


def read_sound(path: pathlib.Path, sample_rate: int, seconds: float) -> Any:
  """Returns a sound's mean over channels, float32 [sample_rate * seconds].

  Args:
    path: of the file.
    sample_rate: what it is resampled to.
    seconds: what is longer is cut at its end, what is shorter ends in silence.

  Raises:
    FileNotFoundError: there is no such file.
    ModuleNotFoundError: there is no package soundfile.
    ValueError: no sound.
  """
  try:
    soundfile: Any = importlib.import_module("soundfile")
  except ImportError as error:
    raise ModuleNotFoundError(
      "sounds are read by the package soundfile: pip install soundfile"
    ) from error
  if not path.is_file():
    raise FileNotFoundError(f"there is no {path}")
  try:
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
  except soundfile.SoundFileError as error:
    raise ValueError(f"{path}: cannot be decoded: {error}") from error
  if not len(sound):
    raise ValueError(f"{path}: no sound")
  if not np.isfinite(sound).all():
    raise ValueError(f"{path}: values are not finite")
  sound = sound.mean(axis=1)
  if rate != sample_rate:
    from scipy import signal

    shared = math.gcd(rate, sample_rate)
    sound = signal.resample_poly(sound, sample_rate // shared, rate // shared)
  out = np.zeros(round(sample_rate * seconds), np.float32)
  sound = sound[: len(out)]
  out[: len(sound)] = sound
  return out


def to_log_mel(front_end: music.FrontEnd) -> Callable[[Any], Any]:
  """Returns a compiled function of sounds [..., L] to [..., mels, frames]."""
  return jax.jit(
    functools.partial(
      spectrograms.log_mel,
      sample_rate=front_end.sample_rate,
      num_mels=front_end.num_mels,
    )
  )


def _agree(path: pathlib.Path, said: dict[str, Any]) -> None:
  """Writes how spectrograms are computed, or checks what was written."""
  if not path.is_file():
    files.write_json(path, said)
  elif (before := files.read_json(path)) != said:
    raise ValueError(
      f"{path}: the spectrograms there were computed in another way, {before},"
      f" not {said}; move {path.parent} away first"
    )


def prepare(
  name: str, data_dir: str | os.PathLike[str], *, dtype: str = "float16"
) -> pathlib.Path:
  """Writes the spectrograms of all clips; returns their folder.

  Args:
    name: a key of `COLLECTIONS`.
    data_dir: of the collection, with its sounds.
    dtype: "float16" takes half the space of "float32", and is closer than 0.004
      for the values there are.

  Raises:
    OSError: a file of the collection is missing; says where to get it.
    ModuleNotFoundError: there is no package soundfile.
    ValueError: spectrograms of another kind are there already; or sounds are
      missing or cannot be decoded, after all others were written.
  """
  checks.one_of(_DTYPES, dtype=dtype)
  collection = COLLECTIONS[name]
  folder = collection.locate(data_dir)
  keys = [k for keys in collection.splits(folder).values() for k in keys]
  front_end = collection.front_end
  place = folder / music.LOG_MELS
  _agree(place / music.FRONT_END, {**front_end._asdict(), "dtype": dtype})
  log_mel = to_log_mel(front_end)

  def write(key: str, path: pathlib.Path) -> None:
    sound = read_sound(
      folder / collection.sound(key), front_end.sample_rate, front_end.seconds
    )
    content = io.BytesIO()
    np.save(content, np.asarray(log_mel(sound), dtype))
    files.atomic_write(path, content.getvalue())

  bad = []
  with Progress(len(keys), f"spectrograms of {name}", unit="clip") as progress:
    for done, key in enumerate(keys, 1):
      path = place / f"{key}.npy"
      if not path.is_file():
        try:
          write(key, path)
        except (FileNotFoundError, ValueError) as error:
          bad.append(str(error))
      progress.update(done)
  if bad:
    shown = "\n  ".join([*bad[:_SHOWN], *(["..."] if bad[_SHOWN:] else [])])
    raise ValueError(
      f"{len(bad)} of {len(keys)} clips have no spectrogram, the others are"
      f" written; get these again, or leave them out of the split files:\n"
      f"  {shown}"
    )
  return place


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("name", choices=sorted(COLLECTIONS))
  parser.add_argument("--data_dir", required=True)
  parser.add_argument("--dtype", choices=_DTYPES, default="float16")
  args = parser.parse_args()
  try:
    where = prepare(args.name, args.data_dir, dtype=args.dtype)
  except (ModuleNotFoundError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"wrote {where}")


if __name__ == "__main__":
  main()
