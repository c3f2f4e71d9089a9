# SPDX-License-Identifier: Apache-2.0
"""Instruments of General MIDI, as `launch/soundfont_instruments.py` renders them.

A folder per soundfont has spectrograms and tags, one array each, the rows of
its splits one after the other.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from tgt_jax import files
from tgt_jax.data import clips, sources

LOG_MELS = "log_mels.npy"
TAGS = "tags.npy"
SOUNDS = "sounds.npy"
METADATA = "metadata.json"
_COMMAND = "python launch/soundfont_instruments.py --out={folder}"


def _embedded(
  folder: pathlib.Path, size: int, told: tuple[str, clips.Scaling, int]
) -> np.ndarray | None:
  """Returns embeddings [N, T, 1, D] of a soundfont's clips."""
  name, scaling, frames = told
  if not name:
    return None
  path = folder / "embeddings" / f"{name}.npy"
  if not path.is_file():
    raise FileNotFoundError(
      f"soundfont: there is no {path}: expected an array [N, D] or [N, T, D]"
      f" with the rows of {folder / LOG_MELS}"
    )
  rows = list(map(str, range(size)))
  found = clips.of_array(
    clips.load(path),
    rows,
    rows,
    convert=clips.framed(scaling, frames),
    content="",
    what=str(path),
  )
  return found.read(np.arange(size))


def _splits(
  data_dir: str | os.PathLike[str],
  soundfont: str,
  told: tuple[str, clips.Scaling, int],
) -> dict[str, sources.Source]:
  """Returns the splits of one soundfont."""
  above = pathlib.Path(data_dir).expanduser()
  folder = above / soundfont
  there = sorted(path.parent.name for path in above.glob(f"*/{METADATA}"))
  said = files.read_json(
    folder / METADATA,
    hint=f"{data_dir} has the soundfonts {', '.join(there) or '(none)'}; render"
    f" with: {_COMMAND.format(folder=above)}",
  )
  images, tags = clips.load(folder / LOG_MELS), clips.load(folder / TAGS)
  size = sum(said["splits"].values())
  if images.ndim != 3 or not len(images) == len(tags) == size:
    raise ValueError(
      f"{folder}: expected {size} spectrograms [mels, frames] and their tags,"
      f" got {images.shape} and {tags.shape}; render them again"
    )
  embeddings = _embedded(folder, size, told)
  found, start = {}, 0
  for split, count in said["splits"].items():
    rows = slice(start, start + count)
    found[split] = sources.from_arrays(
      images[rows, ..., None],
      tags[rows],
      name=f"soundfont/{soundfont}/{split}",
      class_names=said["instruments"],
      options={"metadata": said, "embedding": told},
      embeddings=None if embeddings is None else embeddings[rows],
      bounded=False,
    )
    start += count
  return found


def soundfont(
  *,
  data_dir: str | os.PathLike[str],
  soundfont: str = "TimGM6mb",
  other: str = "FluidR3Mono_GM",
  embedding: str = "",
  embedding_offset: float | None = None,
  embedding_scale: float | None = None,
  embedding_frames: int = 0,
) -> sources.Dataset:
  """Clips of one to three of 20 instruments, synthesised; tags of what plays.

  The further test split "other_soundfont" has the pieces of the test split,
  played by another soundfont.

  Args:
    data_dir: where `launch/soundfont_instruments.py` wrote.
    soundfont: trained and tested on; a folder there.
    other: tested on; "" for none.
    embedding: name of the embeddings, `SOUNDFONT/embeddings/NAME.npy`, [N, D]
      or [N, T, D] in the order of the clips; "" for none.
    embedding_offset: see `openmic.openmic`.
    embedding_scale: see `openmic.openmic`.
    embedding_frames: see `openmic.openmic`; 0 leaves them as they are.

  Raises:
    FileNotFoundError: a soundfont has not been rendered, or embeddings are
      missing.
    ValueError: files that do not fit.
  """
  scaling = clips.scaling(embedding, embedding_offset, embedding_scale)
  told = (embedding, scaling, embedding_frames)
  mine = _splits(data_dir, soundfont, told)
  if "train" not in mine:
    raise ValueError(
      f"soundfont: {soundfont} has test clips alone; name the one that was"
      " rendered as --soundfont"
    )
  others = {}
  if other:
    others["other_soundfont"] = _splits(data_dir, other, told)["test"]
    if others["other_soundfont"].input_shape != mine["train"].input_shape:
      raise ValueError(
        f"soundfont: spectrograms of {soundfont} have shape"
        f" {mine['train'].input_shape}, those of {other}"
        f" {others['other_soundfont'].input_shape}; render them alike"
      )
  return sources.Dataset(mine["train"], mine["test"], mine["train"], others)
