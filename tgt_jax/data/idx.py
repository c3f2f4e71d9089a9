# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST from its four IDX files, compressed or not.

IDX (http://yann.lecun.com/exdb/mnist) is a big-endian header, two zero bytes,
a type code, the number of axes and their sizes as uint32, and then the values
in C order. Only the unsigned byte (type 0x08) is read: the family of data sets
in this form (MNIST, Fashion-MNIST, KMNIST) uses nothing else.
"""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from tgt_jax.data import sources, tfds_source

FASHION_MNIST_CLASSES = (
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
)
_FILES = {
  "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: str | os.PathLike[str], *, rank: int) -> np.ndarray:
  """Reads an IDX file of unsigned bytes.

  Args:
    path: a file, gzip-compressed if its name ends in `.gz`.
    rank: the number of axes it must have: 3 for images, 1 for labels.

  Returns:
    uint8 array with `rank` axes.

  Raises:
    ValueError: not an IDX file of this kind, or too short or too long; says
      what was expected and what was found.
  """
  path = pathlib.Path(path)
  try:
    raw = path.read_bytes()
    content = gzip.decompress(raw) if path.suffix == ".gz" else raw
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(
      f"{path}: not a complete gzip file ({error}); download it again"
    ) from error
  expected = 0x0800 | rank
  magic = int.from_bytes(content[:4], "big") if len(content) >= 4 else None
  if magic != expected:
    found = "nothing" if magic is None else f"0x{magic:08x}"
    raise ValueError(
      f"{path}: expected the IDX magic number 0x{expected:08x} (unsigned"
      f" bytes, {rank} axes), got {found}; is it another file, or still"
      " compressed?"
    )
  start = 4 + 4 * rank
  if len(content) < start:
    raise ValueError(
      f"{path}: truncated: expected a header of {start} bytes, got"
      f" {len(content)} bytes; download it again"
    )
  shape = struct.unpack(f">{rank}I", content[4:start])
  size = start + math.prod(shape)
  if len(content) != size:
    problem = "truncated" if len(content) < size else "too long"
    raise ValueError(
      f"{path}: {problem}: expected {size} bytes for shape {shape}, got"
      f" {len(content)} bytes; download it again"
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def fashion_mnist(
  *, data_dir: str | os.PathLike[str] | None = None
) -> sources.Dataset:
  """Fashion-MNIST: 60,000 and 10,000 images of 28x28, 10 classes.

  Args:
    data_dir: folder with the four IDX files of the original distribution, with
      or without `.gz`; None reads the data set `fashion_mnist` that TFDS has
      prepared.

  Raises:
    FileNotFoundError: no such folder, or files missing; lists them and says
      where to get them.
    ValueError: a corrupt file, or a label out of range.

  References:
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
    Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
  """
  if not data_dir:
    return tfds_source.tfds(dataset="fashion_mnist")
  folder = pathlib.Path(data_dir).expanduser()
  found: dict[str, pathlib.Path] = {}
  missing = []
  for name in (name for pair in _FILES.values() for name in pair):
    candidates = (folder / name, folder / f"{name}.gz")
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
      missing.append(name)
    else:
      found[name] = path
  if missing:
    state = "is missing" if not folder.is_dir() else "lacks files"
    raise FileNotFoundError(
      f"fashion_mnist: data_dir {str(folder)!r} {state}: expected"
      f" {', '.join(missing)} (each may end in .gz). Get them from"
      " https://github.com/zalandoresearch/fashion-mnist or from Debian's"
      " package dataset-fashion-mnist, or leave data_dir out to read what"
      " TFDS has prepared."
    )
  splits = {}
  for split, (image_file, label_file) in _FILES.items():
    image_path = found[image_file]
    label_path = found[label_file]
    labels = read_idx(label_path, rank=1)
    sources.check_labels(labels, 10, what=str(label_path))
    splits[split] = sources.from_arrays(
      read_idx(image_path, rank=3),
      labels,
      name=f"fashion_mnist/{split}",
      class_names=FASHION_MNIST_CLASSES,
    )
  return sources.Dataset(splits["train"], splits["test"], splits["train"])
