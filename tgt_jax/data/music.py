# SPDX-License-Identifier: Apache-2.0
"""What data sets of music have in common: where files lie, how they are read.

Sounds stay where their archives put them. What is read is one spectrogram per
clip below `log_mels/`, written once by

  python -m tgt_jax.data.prepare_audio openmic --data_dir=DIR

and, where a teacher's embeddings are asked for, what `tgt_jax.data.clips`
describes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import files
from tgt_jax.data import clips, sources

LOG_MELS = "log_mels"
FRONT_END = "front_end.json"


class FrontEnd(NamedTuple):
  """How a sound becomes a spectrogram.

  Attributes:
    sample_rate: samples per second that a sound is brought to.
    seconds: it is cut, or silence added, to this length.
    num_mels: bands.
  """

  sample_rate: int
  seconds: float
  num_mels: int


class Collection(NamedTuple):
  """Where a collection keeps what.

  Attributes:
    name: what messages call it.
    home: where to get it.
    folder: the name its archive unpacks to.
    layouts: files that it must have, in one of these ways.
    front_end: of its spectrograms.
    splits: its folder to the keys of its clips, by the names of splits.
    sound: a key to the path of its sound in the folder.
  """

  name: str
  home: str
  folder: str
  layouts: tuple[tuple[str, ...], ...]
  front_end: FrontEnd
  splits: Callable[[pathlib.Path], Mapping[str, Sequence[str]]]
  sound: Callable[[str], str]

  def locate(self, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns `data_dir`, or the archive's folder in it, with all files.

    Raises:
      FileNotFoundError: some are missing; says which and where to get them.
    """
    above = pathlib.Path(data_dir).expanduser()
    for place in (above, above / self.folder):
      for layout in self.layouts:
        if all((place / file).is_file() for file in layout):
          return place
    wanted = [
      ", ".join(file for file in layout if not (above / file).is_file())
      for layout in self.layouts
    ]
    raise FileNotFoundError(
      f"{self.name}: data_dir {str(above)!r} lacks files: expected"
      f" {'; or '.join(wanted)}; or the folder {self.folder} with all of them."
      f" Get them from {self.home}"
    )

  def command(self, folder: pathlib.Path) -> str:
    """Returns the command that computes its spectrograms."""
    return (
      f"python -m tgt_jax.data.prepare_audio {self.name} --data_dir={folder}"
    )


class Embeddings(NamedTuple):
  """Which embeddings come with the clips.

  Attributes:
    name: of them, "" for none.
    scaling: of their values.
    frames: over time; 0 for as many as the first clip has.
    read: keys, and what is done to each, to their embeddings; None where they
      lie below `embeddings/`.
  """

  name: str
  scaling: clips.Scaling
  frames: int
  read: Callable[[Sequence[str], Any], clips.Clips] | None = None


def check_unique(name: str, splits: Mapping[str, Sequence[str]]) -> None:
  """Raises `ValueError` where a clip is in two splits, or twice in one."""
  seen: dict[str, str] = {}
  for split, keys in splits.items():
    for key in keys:
      if key in seen:
        raise ValueError(
          f"{name}: the clip {key} is in {seen[key]} and in {split}; a clip"
          " must be in one split, once"
        )
      seen[key] = split


def check_count(name: str, what: str, found: Any, expected: Any) -> None:
  """Raises `ValueError` where a number is not the published one."""
  if found != expected:
    raise ValueError(
      f"{name}: expected {what} {expected}, got {found}; get the files again,"
      " or set check_counts=False for a version of your own"
    )


def dataset(
  collection: Collection,
  folder: pathlib.Path,
  splits: Mapping[str, Sequence[str]],
  *,
  tags: Callable[[Sequence[str]], np.ndarray],
  class_names: Sequence[str],
  embeddings: Embeddings,
) -> sources.Dataset:
  """Returns the splits; further ones than train and test are `others`.

  Args:
    collection: of the files.
    folder: where they are.
    splits: keys of clips, "train" first.
    tags: of keys, float [N, K]: 1, 0, or -1 for unknown.
    class_names: K names.
    embeddings: that come with the clips.

  Raises:
    FileNotFoundError: spectrograms or embeddings are missing.
    ValueError: they have another layout.
  """
  advice = f"Compute the spectrograms with: {collection.command(folder)}"
  front_end = files.read_json(folder / LOG_MELS / FRONT_END, hint=advice)
  options: dict[str, Any] = {"front_end": front_end}
  frames, found = embeddings.frames, {}
  for split, keys in splits.items():
    inputs = clips.of_files(
      folder / LOG_MELS, keys, convert=clips.spectrogram, advice=advice
    )
    embedded = None
    if embeddings.name:
      convert = clips.framed(embeddings.scaling, frames)
      if embeddings.read is not None:
        embedded = embeddings.read(keys, convert)
      else:
        embedded = clips.embeddings(
          folder, embeddings.name, keys, convert=convert
        )
      frames = embedded.shape[0]
      options["embedding"] = [embeddings.name, *embeddings.scaling, frames]
    found[split] = clips.source(
      f"{collection.name}/{split}",
      inputs,
      tags(keys),
      class_names,
      embedded=embedded,
      options=options,
    )
  train, test = found.pop("train"), found.pop("test")
  return sources.Dataset(train, test, train, found)
