# SPDX-License-Identifier: Apache-2.0
"""Image folders with split files: one line per image, its path and its class.

This is how the long-tailed benchmarks are published: ImageNet-LT and Places-LT
as `ImageNet_LT_train.txt` with lines `train/n01440764/n01440764_190.JPEG 0`.
Images stay where the original data set put them.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import encoded, sources


class SplitList(NamedTuple):
  """The lines of a split file."""

  paths: list[str]
  labels: np.ndarray


def read_split(path: str | os.PathLike[str]) -> SplitList:
  """Reads lines `relative/path.jpg 17`.

  Raises:
    FileNotFoundError: no such file.
    ValueError: a line of another form; names it.
  """
  path = pathlib.Path(path).expanduser()
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"no split file {path}; expected lines 'relative/path.jpg 17'"
    ) from error
  paths, labels = [], []
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    name, _, label = line.strip().rpartition(" ")
    if not name or not label.isdecimal():
      raise ValueError(
        f"{path}, line {number}: expected 'relative/path.jpg 17', got {line!r}"
      )
    paths.append(name)
    labels.append(int(label))
  if not paths:
    raise ValueError(f"{path} is empty")
  return SplitList(paths, np.array(labels))


class _Files:
  """Encoded images in files, addressed by number."""

  def __init__(self, root: pathlib.Path, paths: Sequence[str]):
    self._root, self._paths = root, paths

  def __len__(self) -> int:
    return len(self._paths)

  def __getitems__(self, ids: Sequence[int]) -> list[bytes]:
    return [self._read(self._root / self._paths[i]) for i in ids]

  def _read(self, path: pathlib.Path) -> bytes:
    try:
      return path.read_bytes()
    except OSError as error:
      raise FileNotFoundError(
        f"cannot read the image {path}: {error.strerror}; the split file names"
        f" it relative to data_dir {self._root}"
      ) from error


def _source(
  name: str,
  root: pathlib.Path,
  split: SplitList,
  class_names: tuple[str, ...],
  image_size: int,
  in_memory: bool | None,
) -> sources.Source:
  """The images of one list."""
  records = _Files(root, split.paths)
  records.__getitems__([0])  # A wrong data_dir shows at once.
  shape = (image_size, image_size, 3)
  return encoded.source(
    encoded.EncodedSplit(
      name=name,
      records=records,
      image_of=lambda record: record,
      label_of=None,
      decode=encoded.decoder(shape, image_size),
      shape=shape,
      class_names=class_names,
      options={"image_size": image_size},
      content=split.paths,
      labels=split.labels,
      where=split.paths.__getitem__,
    ),
    in_memory=in_memory,
  )


def image_list(
  *,
  data_dir: str | os.PathLike[str],
  train_list: str,
  test_list: str,
  image_size: int,
  full_list: str = "",
  num_classes: int = 0,
  class_names: Sequence[str] = (),
  in_memory: bool | None = None,
  name: str = "image_list",
) -> sources.Dataset:
  """Images in folders, with split files.

  Args:
    data_dir: folder of the images; the lists' paths are relative to it.
    train_list: split file, relative to `data_dir` or absolute.
    test_list: split file to evaluate on.
    image_size: shorter sides are scaled to this and the centre square is cut.
    full_list: split file of all training images, those of `train_list`
      included: what a generator or a labeler may see beyond the students'
      set. By default there are no others.
    num_classes: K; by default one more than the largest label of the lists.
    class_names: K names; by default the numbers.
    in_memory: decode everything once, or at every read; None decides by size.
    name: what messages and fingerprints call it.

  Raises:
    FileNotFoundError: a list, or the first image of one, is missing.
    ValueError: a line that is no path and class, a label out of range, or
      lists that overlap.
  """
  checks.positive(image_size=image_size)
  root = pathlib.Path(data_dir).expanduser()
  lists = {
    "train": read_split(root / train_list),
    "test": read_split(root / test_list),
  }
  if full_list:
    lists["full"] = read_split(root / full_list)
  size = num_classes or max(
    len(class_names),
    1 + max(int(split.labels.max()) for split in lists.values()),
  )
  names = tuple(class_names or map(str, range(size)))

  def load(split: str) -> sources.Source:
    return _source(
      f"{name}/{split}", root, lists[split], names, image_size, in_memory
    )

  shared = set(lists["train"].paths) & set(lists["test"].paths)
  if shared:
    raise ValueError(
      f"{name}: {len(shared)} images are in {train_list} and in {test_list},"
      f" such as {min(shared)}; a test image must not be trained on"
    )
  if not full_list:
    train = load("train")
    return sources.Dataset(train, load("test"), train)
  full = load("full")
  row = {path: i for i, path in enumerate(lists["full"].paths)}
  absent = [path for path in lists["train"].paths if path not in row]
  if absent:
    raise ValueError(
      f"{name}: {len(absent)} images of {train_list} are not in {full_list},"
      f" such as {absent[0]}"
    )
  rows = [row[path] for path in lists["train"].paths]
  train = sources.subset(full, rows, name=f"{name}/train")
  return sources.Dataset(train, load("test"), full)
