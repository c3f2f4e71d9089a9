# SPDX-License-Identifier: Apache-2.0
"""OpenMIC-2018: which of 20 instruments play, answered for about two of them."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tgt_jax import files
from tgt_jax.data import clips, draws, music, pickles, sources, text

# Embeddings that come with it, in its .npz file.
_SHIPPED = "npz"
_HOME = "https://zenodo.org/record/1432913 (openmic-2018-v1.0.0.tgz)"


def _splits(
  folder: pathlib.Path, split: str = "split01"
) -> dict[str, list[str]]:
  found = {}
  for part in ("train", "test"):
    path = folder / "partitions" / f"{split}_{part}.csv"
    if not path.is_file():
      raise FileNotFoundError(
        f"openmic: there is no {path}. Get it from {_HOME}"
      )
    found[part] = [row[0].strip() for row in text.rows(path) if row]
  music.check_unique("openmic", found)
  return found


def _class_names(path: pathlib.Path) -> list[str]:
  """Returns the classes in the order of their columns."""
  order = files.read_json(path)
  if sorted(order.values()) != list(range(len(order))):
    raise ValueError(
      f"{path}: expected every class's own column, 0 to {len(order) - 1}, got"
      f" {dict(order)}"
    )
  return sorted(order, key=order.__getitem__)


def _array(
  content: Any, name: str, size: int, path: pathlib.Path
) -> np.ndarray:
  """Returns an array of openmic-2018.npz with a row for each of its clips."""
  if name not in content:
    raise ValueError(
      f"{path}: there is no array {name}, only {', '.join(content)}. Get the"
      f" file again from {_HOME}"
    )
  found: np.ndarray = content[name]
  if len(found) != size:
    raise ValueError(
      f"{path}: {name} has {len(found)} rows, sample_key {size}. Get the file"
      f" again from {_HOME}"
    )
  return found


def _tags(content: Any, size: int, path: pathlib.Path) -> np.ndarray:
  """Returns 1, 0 or -1 for unknown, [N, K], of what the crowd answered."""
  truth, known = (_array(content, n, size, path) for n in ("Y_true", "Y_mask"))
  if truth.ndim != 2 or truth.shape != known.shape:
    raise ValueError(
      f"{path}: Y_true and Y_mask: expected one shape [N, K], got"
      f" {truth.shape} and {known.shape}"
    )
  if not np.isfinite(truth).all():
    raise ValueError(f"{path}: Y_true: some values are not finite")
  decided = known.astype(bool) & (truth != 0.5)
  return np.where(decided, truth > 0.5, -1).astype(np.float32)


COLLECTION = music.Collection(
  name="openmic",
  home=_HOME,
  folder="openmic-2018",
  layouts=(("openmic-2018.npz", "class-map.json"),),
  front_end=music.FrontEnd(32000, 10.0, 128),
  splits=_splits,
  sound=lambda key: f"audio/{key[:3]}/{key}.ogg",
)


def _check_counts(
  names: Sequence[str], splits: Mapping[str, Sequence[str]], test: np.ndarray
) -> None:
  """Raises `ValueError` where numbers are not the published ones."""
  check = functools.partial(music.check_count, "openmic")
  sizes = {part: len(keys) for part, keys in splits.items()}
  answers = [int(np.sum(test == value)) for value in (1, 0)]
  check("classes", len(names), 20)
  check("clips", sizes, {"train": 14915, "test": 5085})
  check("answers of the test clips, yes and no,", answers, [4517, 6005])


def _with_validation(
  splits: Mapping[str, Sequence[str]], share: float
) -> dict[str, Sequence[str]]:
  """Returns the splits, a share of the training clips as "validation"."""
  train = splits["train"]
  size = round(share * len(train))
  if not size:
    return dict(splits)
  drawn = draws.permutation(0, "openmic/validation", 0, len(train)).tolist()
  return {
    "train": [train[row] for row in sorted(drawn[size:])],
    "test": splits["test"],
    "validation": [train[row] for row in sorted(drawn[:size])],
  }


def openmic(
  *,
  data_dir: str | os.PathLike[str],
  split: str = "split01",
  validation: float = 0.15,
  embedding: str = "",
  embedding_offset: float | None = None,
  embedding_scale: float | None = None,
  embedding_frames: int = 0,
  check_counts: bool = True,
) -> sources.Dataset:
  """OpenMIC-2018: 20,000 clips of ten seconds, 20 instruments.

  About two of the 20 are known of a clip. An instrument that the crowd found
  likelier than not is there (1), a less likely one is not (0), and undecided
  ones are unknown (-1).

  Args:
    data_dir: the folder openmic-2018, or the one above it, with `log_mels/`.
    split: the official split, of `partitions/SPLIT_{train,test}.csv`.
    validation: share of the training clips that are the further test split
      "validation", drawn at random, the same in every run; 0 for none.
    embedding: name of the teacher's, see `tgt_jax.data.clips`; "npz" for the
      VGGish that come in openmic-2018.npz, "" for none.
    embedding_offset: embeddings are read as (value - offset) / scale; None for
      what is usual for their name (`clips.SCALINGS`).
    embedding_scale: see `embedding_offset`.
    embedding_frames: embeddings of a clip over time; longer ones are cut, the
      last of shorter ones is repeated. 0 for as many as the first clip has.
    check_counts: compare the numbers of clips and answers with the published
      ones.

  Raises:
    FileNotFoundError: a file is missing; says which and where to get it.
    ValueError: a file of another layout, or other numbers.

  References:
    E. J. Humphrey, S. Durand, B. McFee, "OpenMIC-2018: An Open Data-set for
    Multiple Instrument Recognition", ISMIR 2018.
  """
  if not 0 <= validation < 1:
    raise ValueError(f"validation must be in [0, 1), got {validation}")
  folder = COLLECTION.locate(data_dir)
  path = folder / "openmic-2018.npz"
  names = _class_names(folder / "class-map.json")
  keys = pickles.read_strings(path, "sample_key")
  row = {key: place for place, key in enumerate(keys)}
  with np.load(path) as content:
    every = _tags(content, len(keys), path)
    vggish: Any = None
    if embedding == _SHIPPED:
      vggish = _array(content, "X", len(keys), path)
  splits: Mapping[str, Sequence[str]] = _splits(folder, split)
  absent = [key for part in splits.values() for key in part if key not in row]
  if absent:
    raise ValueError(f"{path}: no row for the clip {absent[0]} of {split}")
  tags = lambda keys: every[[row[key] for key in keys]]
  if check_counts:
    _check_counts(names, splits, tags(splits["test"]))
  splits = _with_validation(splits, validation)
  shipped = lambda keys_of, convert: clips.of_array(
    vggish.astype(np.uint8),  # Some copies have signed bytes.
    keys,
    keys_of,
    convert=convert,
    content=sources.digest(vggish),
    what=f"{path}: X",
  )
  scaling = clips.scaling(
    "vggish" if embedding == _SHIPPED else embedding,
    embedding_offset,
    embedding_scale,
  )
  return music.dataset(
    COLLECTION,
    folder,
    splits,
    tags=tags,
    class_names=names,
    embeddings=music.Embeddings(
      embedding,
      scaling,
      embedding_frames,
      shipped if embedding == _SHIPPED else None,
    ),
  )
