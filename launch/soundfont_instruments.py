# SPDX-License-Identifier: Apache-2.0
"""Renders the data set `soundfont`: which of 20 instruments play?

  python launch/soundfont_instruments.py --out=DIR \
    --soundfont=/usr/share/sounds/sf2/TimGM6mb.sf2 \
    --other=/usr/share/sounds/sf3/FluidR3Mono_GM.sf3

Clips of one to three instruments with random notes are synthesised by
fluidsynth and written to a folder per soundfont, DIR/TimGM6mb and
DIR/FluidR3Mono_GM: `log_mels.npy` [N, mels, frames], `tags.npy` [N, 20] and
`metadata.json`. Training and test clips are of --soundfont; --other plays the
pieces of the test clips once more, so that nothing but the sound differs. The
result is a function of the arguments and the two programs' versions.

What it needs, on Debian:
  apt-get install fluidsynth timgm6mb-soundfont fluidr3mono-gm-soundfont
Without root: `apt-get download` these, libfluidsynth3, libinstpatch-1.0-2,
libsamplerate0, libjack-jackd2-0, libdecor-0-0 and libsdl2-2.0-0, `dpkg -x` each
into a folder ROOT, set LD_LIBRARY_PATH=ROOT/usr/lib/x86_64-linux-gnu and give
--fluidsynth=ROOT/usr/bin/fluidsynth.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pathlib
import subprocess
import sys
import tempfile
import wave

import numpy as np

from tgt_jax import checks, files
from tgt_jax.data import draws, music, prepare_audio, scores, soundfont
from tgt_jax.progress import Progress

_GAP = 0.25  # Seconds of silence between two clips.
_AT_ONCE = 50  # Clips of one file that fluidsynth renders.
_GAIN = 0.5


def synthesise(
  fluidsynth: str, font: pathlib.Path, midi: bytes, sample_rate: int
) -> np.ndarray:
  """Returns the sound of a MIDI file, int16 [L].

  Raises:
    OSError: fluidsynth or the soundfont is missing, or nothing sounds.
  """
  with tempfile.TemporaryDirectory() as folder:
    score, sound = pathlib.Path(folder, "a.mid"), pathlib.Path(folder, "a.wav")
    score.write_bytes(midi)
    command = [fluidsynth, "-q", "-n", "-i", f"-g{_GAIN}", f"-r{sample_rate}"]
    # Neither reverberation nor chorus: nothing sounds on after its end.
    command += ["-R0", "-C0", "-Twav", "-Os16", f"-F{sound}"]
    command += [str(font), str(score)]
    try:
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      with wave.open(str(sound), "rb") as file:
        channels = file.getnchannels()
        frames = file.readframes(file.getnframes())
    except FileNotFoundError as error:
      raise OSError(f"{error}. See --help for what is needed") from error
    except (OSError, subprocess.CalledProcessError, wave.Error) as error:
      said = getattr(error, "stderr", None) or error
      raise OSError(f"{' '.join(command)} failed: {said}") from error
  stereo = np.frombuffer(frames, "<i2").reshape(-1, channels)
  if not stereo.any():
    raise OSError(f"{' '.join(command)} is silent: {done.stderr}")
  return (stereo.astype(np.int32).sum(axis=1) // channels).astype(np.int16)


def render(
  args: argparse.Namespace, font: pathlib.Path, split: str, size: int
) -> np.ndarray:
  """Returns the clips of a split, int16 [N, L]."""
  length = round(args.seconds * args.sample_rate)
  step = round((args.seconds + _GAP) * args.sample_rate)
  out = np.zeros((size, length), np.int16)
  with Progress(size, f"{font.stem}/{split}", unit="clip") as progress:
    for start in range(0, size, _AT_ONCE):
      numbers = range(start, min(start + _AT_ONCE, size))
      played = [
        scores.piece(args.seed, split, i, args.seconds) for i in numbers
      ]
      sound = synthesise(
        args.fluidsynth,
        font,
        scores.midi(played, step / args.sample_rate),
        args.sample_rate,
      )
      for place, number in enumerate(numbers):
        clip = sound[place * step : place * step + length]
        out[number, : len(clip)] = clip
      progress.update(numbers.stop)
  return out


def tag(args: argparse.Namespace, split: str, size: int) -> np.ndarray:
  """Returns what plays in every clip, float32 [N, 20].

  Of training clips, a share of the answers is unknown, -1.
  """
  out = np.zeros((size, len(scores.INSTRUMENTS)), np.float32)
  for number in range(size):
    played = scores.piece(args.seed, split, number, args.seconds)
    out[number, list(played.instruments)] = 1
  if split == "train":
    u = draws.uniforms(args.seed, "soundfont/unknown", 0, out.shape)
    out[u < args.unknown] = -1
  return out


def _npy(array: np.ndarray) -> bytes:
  content = io.BytesIO()
  np.save(content, array)
  return content.getvalue()


def write(
  args: argparse.Namespace, font: pathlib.Path, splits: dict[str, int]
) -> pathlib.Path:
  """Writes the folder of a soundfont; returns it."""
  folder = args.out / font.stem
  front_end = music.FrontEnd(args.sample_rate, args.seconds, args.num_mels)
  log_mel = prepare_audio.to_log_mel(front_end)
  sounds = np.concatenate(
    [render(args, font, split, size) for split, size in splits.items()]
  )
  spectra = [
    np.asarray(log_mel(sound.astype(np.float32) / 2**15), args.dtype)
    for sound in sounds
  ]
  arrays = {
    soundfont.LOG_MELS: np.stack(spectra),
    soundfont.TAGS: np.concatenate(
      [tag(args, split, size) for split, size in splits.items()]
    ),
  }
  if args.sounds:
    arrays[soundfont.SOUNDS] = sounds
  for name, array in arrays.items():
    files.atomic_write(folder / name, _npy(array))
  # Last, so that what has it is whole.
  files.write_json(
    folder / soundfont.METADATA,
    {
      "soundfont": font.name,
      "sha256": hashlib.sha256(font.read_bytes()).hexdigest(),
      "splits": splits,
      "instruments": list(scores.INSTRUMENTS),
      "front_end": front_end._asdict(),
      "seed": args.seed,
      "unknown": args.unknown,
      "loudest": int(np.abs(sounds.astype(np.int32)).max()),
    },
  )
  return folder


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--out", required=True, type=pathlib.Path)
  add("--soundfont", required=True, type=pathlib.Path, help=".sf2 or .sf3")
  add("--other", type=pathlib.Path, help="another one, to test on")
  add("--train_size", type=int, default=1500, help="clips")
  add("--test_size", type=int, default=500, help="clips")
  add("--seconds", type=float, default=3.0, help="of a clip")
  add("--sample_rate", type=int, default=16000)
  add("--num_mels", type=int, default=64)
  add("--unknown", type=float, default=0.0, help="share of training answers")
  add("--seed", type=int, default=0)
  add("--dtype", choices=("float16", "float32"), default="float16")
  add("--sounds", action="store_true", help="also sounds.npy, int16 [N, L]")
  add("--fluidsynth", default="fluidsynth", help="the program")
  args = parser.parse_args()
  try:
    checks.positive(train_size=args.train_size, test_size=args.test_size)
    checks.positive(sample_rate=args.sample_rate, num_mels=args.num_mels)
    checks.in_range(0.5, 60, seconds=args.seconds)
    checks.in_range(0, 1, unknown=args.unknown)
    fonts = [font for font in (args.soundfont, args.other) if font]
    for font in fonts:
      if not font.is_file():
        raise OSError(f"there is no soundfont {font}. See --help for where")
    test = {"test": args.test_size}
    every = [{"train": args.train_size, **test}, test]
    for font, splits in zip(fonts, every, strict=False):
      print(f"wrote {write(args, font, splits)}")
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()
