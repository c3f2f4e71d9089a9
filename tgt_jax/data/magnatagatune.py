# SPDX-License-Identifier: Apache-2.0
"""MagnaTagATune: which of 50 tags fit half a minute of music."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from tgt_jax.data import clips, music, sources, text

_TOP_TAGS = 50
_HOME = (
  "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset (mp3.zip.001 to"
  " .003, annotations_final.csv), and the clean split, split/mtat/*.npy, from"
  " https://github.com/minzwon/sota-music-tagging-models"
)
_PARTS = {"train": "train", "test": "test", "validation": "valid"}
_CLEAN = tuple(f"split/{n}.npy" for n in (*_PARTS.values(), "binary", "tags"))
_LAYOUTS = (
  _CLEAN,
  (
    *(f"split/{n}.csv" for n in _PARTS.values()),
    "annotations_final.csv",
  ),
)


def _key(path: str) -> str:
  """Returns the key of a path `f/artist-album-01-title-0-29.mp3`."""
  return path.strip().removesuffix(".mp3")


def _is_clean(folder: pathlib.Path) -> bool:
  return all((folder / file).is_file() for file in _CLEAN)


def _rows(folder: pathlib.Path) -> dict[str, dict[str, int]]:
  """Returns the clips of each split, and their rows in the table of tags.

  The rows are -1 where there are lists of paths alone.
  """
  found = {}
  for part, name in _PARTS.items():
    path = folder / "split" / f"{name}.npy"
    if _is_clean(folder):
      lines = [str(line).split("\t") for line in clips.load(path)]
      if any(len(line) != 2 or not line[0].isdecimal() for line in lines):
        raise ValueError(f"{path}: expected lines 'row<TAB>f/title.mp3'")
      found[part] = {_key(line[1]): int(line[0]) for line in lines}
    else:
      table = text.rows(path.with_suffix(".csv"))
      found[part] = {_key(line[0]): -1 for line in table if line}
  music.check_unique(
    "magnatagatune", {part: list(rows) for part, rows in found.items()}
  )
  return found


def _annotations(path: pathlib.Path) -> tuple[list[str], dict[str, np.ndarray]]:
  """Returns the most frequent tags, and which of them every clip has."""
  table = text.rows(path, delimiter="\t")
  header = next(iter(table), [])
  if header[:1] != ["clip_id"] or header[-1:] != ["mp3_path"]:
    raise ValueError(
      f"{path}: expected the columns clip_id, tags, mp3_path, got"
      f" {header[:2]}...{header[-1:]}"
    )
  found = {
    _key(line[-1]): np.array(line[1:-1], np.float32) for line in table if line
  }
  counts = np.sum(list(found.values()), axis=0)
  names = np.array(header[1:-1])
  top = np.lexsort((names, -counts))[:_TOP_TAGS]
  return names[top].tolist(), {key: tags[top] for key, tags in found.items()}


def _tags(
  folder: pathlib.Path, rows: dict[str, dict[str, int]]
) -> tuple[list[str], dict[str, np.ndarray]]:
  """Returns the names of tags, and those of every clip."""
  every = {key: row for part in rows.values() for key, row in part.items()}
  if not _is_clean(folder):
    path = folder / "annotations_final.csv"
    names, tags = _annotations(path)
    absent = [key for key in every if key not in tags]
    if absent:
      raise ValueError(f"{path}: no row for the clip {absent[0]}.mp3")
    return names, tags
  path = folder / "split" / "binary.npy"
  table, named = clips.load(path), clips.load(path.with_name("tags.npy"))
  if table.ndim != 2 or named.shape != table.shape[1:]:
    raise ValueError(
      f"{path}: expected [N, K] with the K names of tags.npy, got"
      f" {table.shape} and {named.shape}"
    )
  last = max(every.values(), default=0)
  if last >= len(table):
    raise ValueError(
      f"{path}: expected more than {last} rows, got {len(table)}"
    )
  return named.tolist(), {key: table[row] for key, row in every.items()}


COLLECTION = music.Collection(
  name="magnatagatune",
  home=_HOME,
  folder="magnatagatune",
  layouts=_LAYOUTS,
  front_end=music.FrontEnd(16000, 29.1, 96),
  splits=lambda folder: {k: list(v) for k, v in _rows(folder).items()},
  sound=lambda key: f"mp3/{key}.mp3",
)


def magnatagatune(
  *,
  data_dir: str | os.PathLike[str],
  embedding: str = "",
  embedding_offset: float | None = None,
  embedding_scale: float | None = None,
  embedding_frames: int = 0,
  check_counts: bool = True,
) -> sources.Dataset:
  """MagnaTagATune, the clean split: 29 seconds of music, 50 tags.

  Every tag of every clip is known. The official validation split is the
  further test split "validation".

  Args:
    data_dir: folder with `split/` (the files of the clean split: train.npy,
      valid.npy, test.npy, binary.npy and tags.npy; or train.csv, valid.csv and
      test.csv with a path per line, beside annotations_final.csv, whose 50
      most frequent tags are taken) and `log_mels/`.
    embedding: see `openmic`; keys are paths without `.mp3`.
    embedding_offset: see `openmic`.
    embedding_scale: see `openmic`.
    embedding_frames: see `openmic`.
    check_counts: compare the numbers of clips and tags with the published ones
      (of the training clips we know none).

  Raises:
    FileNotFoundError: a file is missing; says which and where to get it.
    ValueError: a file of another layout, or other numbers.

  References:
    E. Law et al., "Evaluation of Algorithms Using Games: The Case of Music
    Tagging", ISMIR 2009.
    M. Won et al., "Evaluation of CNN-based Automatic Music Tagging Models",
    arXiv:2006.00751.
  """
  folder = COLLECTION.locate(data_dir)
  rows = _rows(folder)
  names, tags = _tags(folder, rows)
  if check_counts:
    parts = {part: len(rows[part]) for part in ("validation", "test")}
    music.check_count("magnatagatune", "tags", len(names), _TOP_TAGS)
    music.check_count(
      "magnatagatune", "clips", parts, {"validation": 1529, "test": 4332}
    )
  return music.dataset(
    COLLECTION,
    folder,
    {part: list(found) for part, found in rows.items()},
    tags=lambda keys: np.stack([tags[key] for key in keys]),
    class_names=names,
    embeddings=music.Embeddings(
      embedding,
      clips.scaling(embedding, embedding_offset, embedding_scale),
      embedding_frames,
    ),
  )
