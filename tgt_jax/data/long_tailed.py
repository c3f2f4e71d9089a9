# SPDX-License-Identifier: Apache-2.0
"""ImageNet-LT, Places-LT and SUN-LT from the authors' split files.

Each is a subset of a data set that its owners distribute; what the papers add
are split files. Both stay where they were unpacked, below one folder, and are
read from there; `python -m tgt_jax.data.prepare` packs them for TFDS instead,
which reads faster from a disk that many machines share.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import image_list, sources, tfds_source


class Benchmark(NamedTuple):
  """What is known of a long-tailed benchmark.

  Attributes:
    title: as papers call it.
    classes: number of classes K.
    train: training images; 0 where no source for the number was found.
    head: training images of the largest class.
    tail: of the smallest.
    lists: split file of "train", "validation" and "test".
    homepage: where the split files are.
    instructions: what to download, and where to put it below `data_dir`.
  """

  title: str
  classes: int
  train: int
  head: int
  tail: int
  lists: dict[str, str]
  homepage: str
  instructions: str


_OLTR = "https://github.com/zhmiao/OpenLongTailRecognition-OLTR"

BENCHMARKS = {
  "imagenet_lt": Benchmark(
    title="ImageNet-LT",
    classes=1000,
    train=115_846,
    head=1280,
    tail=5,
    lists={
      "train": "ImageNet_LT_train.txt",
      "validation": "ImageNet_LT_val.txt",
      "test": "ImageNet_LT_test.txt",
    },
    homepage=_OLTR,
    instructions=(
      "the folders train/ and val/ of ImageNet (ILSVRC 2012), one folder per"
      " class below train/, and the three split files of Open Long-Tail"
      " Recognition"
    ),
  ),
  "places_lt": Benchmark(
    title="Places-LT",
    classes=365,
    train=62_500,
    head=4980,
    tail=5,
    lists={
      "train": "Places_LT_train.txt",
      "validation": "Places_LT_val.txt",
      "test": "Places_LT_test.txt",
    },
    homepage=_OLTR,
    instructions=(
      "the folder data_256/ of Places365-Standard (small images, 256x256) and"
      " the three split files of Open Long-Tail Recognition"
    ),
  ),
  "sun_lt": Benchmark(
    title="SUN-LT",
    classes=717,
    train=0,
    head=12,
    tail=2,
    lists={
      "train": "SUN_LT_train.txt",
      "validation": "SUN_LT_val.txt",
      "test": "SUN_LT_test.txt",
    },
    homepage="https://github.com/dvirsamuel/DRAGON",
    instructions=(
      "the folder of the SUN attribute images (one folder per scene), and the"
      " DRAGON split written as three files of lines 'path class', with"
      " classes 0..716 in the order of the split's class list"
    ),
  ),
}


def check_counts(benchmark: Benchmark, labels: np.ndarray) -> None:
  """Raises unless the training labels are the benchmark's.

  Raises:
    ValueError: another number of images, classes, or images per class.
  """
  counts = np.bincount(labels, minlength=benchmark.classes)
  found = {
    "images": int(counts.sum()),
    "classes": len(counts),
    "images of the largest class": int(counts.max()),
    "images of the smallest class": int(counts.min()),
  }
  expected = {
    "images": benchmark.train or found["images"],
    "classes": benchmark.classes,
    "images of the largest class": benchmark.head,
    "images of the smallest class": benchmark.tail,
  }
  wrong = [
    f"{found[name]:,} {name}, expected {expected[name]:,}"
    for name in expected
    if found[name] != expected[name]
  ]
  if wrong:
    raise ValueError(
      f"{benchmark.lists['train']} is not the training split of"
      f" {benchmark.title}: {'; '.join(wrong)}. Get the split files from"
      f" {benchmark.homepage}, or set check_counts=False for a part of them"
    )


def locate(benchmark: Benchmark, data_dir: Any) -> pathlib.Path:
  """Returns the folder with the split files.

  Raises:
    FileNotFoundError: a split file is missing; says what to download.
  """
  folder = pathlib.Path(data_dir).expanduser()
  missing = [
    name for name in benchmark.lists.values() if not (folder / name).is_file()
  ]
  if missing:
    raise FileNotFoundError(
      f"{benchmark.title}: data_dir {str(folder)!r} lacks"
      f" {', '.join(missing)}. Put there {benchmark.instructions}"
      f" ({benchmark.homepage})"
    )
  return folder


def _load(
  name: str,
  data_dir: str | os.PathLike[str] | None,
  image_size: int,
  source: str,
  counted: bool,
  in_memory: bool | None,
) -> sources.Dataset:
  """See `imagenet_lt`."""
  checks.one_of(("folder", "tfds"), source=source)
  benchmark = BENCHMARKS[name]
  if source == "tfds":
    found = tfds_source.tfds(
      dataset=name,
      data_dir=data_dir,
      image_size=image_size,
      in_memory=in_memory,
    )
  else:
    if not data_dir:
      raise ValueError(
        f"{benchmark.title}: data_dir is empty; set it to a folder with"
        f" {benchmark.instructions}"
      )
    folder = locate(benchmark, data_dir)
    found = image_list.image_list(
      data_dir=folder,
      train_list=benchmark.lists["train"],
      test_list=benchmark.lists["test"],
      image_size=image_size,
      num_classes=benchmark.classes,
      in_memory=in_memory,
      name=name,
    )
  if counted:
    check_counts(benchmark, found.train.labels)
  return found


def imagenet_lt(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  image_size: int = 256,
  source: str = "folder",
  check_counts: bool = True,
  in_memory: bool | None = None,
) -> sources.Dataset:
  """ImageNet-LT: 115,846 training images, 1,000 classes of 1,280 to 5.

  Args:
    data_dir: folder with the images and the split files; for "tfds" the data
      directory of TFDS.
    image_size: shorter sides are scaled to this and the centre square is cut.
    source: "folder", or "tfds" for what TFDS has prepared.
    check_counts: compare the training split with the published counts.
    in_memory: decode everything once, or at every read; None decides by size.

  Raises:
    FileNotFoundError: something is missing; says what to download.
    ValueError: the training split has other counts.

  References:
    Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", 2019,
    arXiv:1904.05160.
  """
  return _load(
    "imagenet_lt", data_dir, image_size, source, check_counts, in_memory
  )


def places_lt(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  image_size: int = 256,
  source: str = "folder",
  check_counts: bool = True,
  in_memory: bool | None = None,
) -> sources.Dataset:
  """Places-LT: 62,500 training images, 365 scenes of 4,980 to 5.

  Arguments, errors and reference are those of `imagenet_lt`.
  """
  return _load(
    "places_lt", data_dir, image_size, source, check_counts, in_memory
  )


def sun_lt(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  image_size: int = 256,
  source: str = "folder",
  check_counts: bool = True,
  in_memory: bool | None = None,
) -> sources.Dataset:
  """SUN-LT: 717 scenes of 12 to 2 training images.

  Arguments and errors are those of `imagenet_lt`.

  References:
    Samuel, Atzmon, Chechik, "From Generalized Zero-Shot Learning to Long-Tail
    With Class Descriptors" (DRAGON), 2021, arXiv:2004.02235.
  """
  return _load("sun_lt", data_dir, image_size, source, check_counts, in_memory)
