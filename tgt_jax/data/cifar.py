# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 from the files of their home page.

Two distributions are read. The binary one is a sequence of records: one label
byte (CIFAR-100: coarse, then fine) and 3072 bytes of planes R, G, B. The
Python one is a pickle of a dict; a pickle may call anything, so it is read by
an unpickler that knows numpy arrays and plain values and refuses the rest.
"""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import pickles, sources, tfds_source

_PIXELS = 3 * 32 * 32
_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


class _Layout(NamedTuple):
  """Where one distribution keeps what.

  Attributes:
    folder: the name its archive unpacks to.
    train: files of the training split, in order.
    test: files of the test split.
    names: the file with the class names.
    label_key: key of the labels in a pickle.
    names_key: key of the class names in a pickle.
    label_bytes: label bytes of a binary record.
    label_byte: which of them is the label.
    num_classes: number of classes.
  """

  folder: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  names: str
  label_key: str
  names_key: str
  label_bytes: int
  label_byte: int
  num_classes: int


def _layouts10() -> tuple[_Layout, _Layout]:
  """Returns the binary and the Python layout of CIFAR-10."""
  batches = tuple(f"data_batch_{i}" for i in range(1, 6))
  python = _Layout(
    folder="cifar-10-batches-py",
    train=batches,
    test=("test_batch",),
    names="batches.meta",
    label_key="labels",
    names_key="label_names",
    label_bytes=1,
    label_byte=0,
    num_classes=10,
  )
  binary = python._replace(
    folder="cifar-10-batches-bin",
    train=tuple(f"{name}.bin" for name in batches),
    test=("test_batch.bin",),
    names="batches.meta.txt",
  )
  return binary, python


def _layouts100(labels: str) -> tuple[_Layout, _Layout]:
  """Returns the binary and the Python layout of CIFAR-100."""
  python = _Layout(
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    names="meta",
    label_key=f"{labels}_labels",
    names_key=f"{labels}_label_names",
    label_bytes=2,
    label_byte=0 if labels == "coarse" else 1,
    num_classes=20 if labels == "coarse" else 100,
  )
  binary = python._replace(
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    names=f"{labels}_label_names.txt",
  )
  return binary, python


def _unpickle(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = pickles.Unpickler(
      io.BytesIO(path.read_bytes()), encoding="bytes"
    ).load()
    items = dict(content).items()
  except Exception as error:  # A damaged pickle may raise almost anything.
    raise ValueError(
      f"{path}: not a CIFAR pickle ({type(error).__name__}: {error});"
      f" download it again from {_HOME}"
    ) from error
  return {k.decode() if isinstance(k, bytes) else k: v for k, v in items}


def _read_pickle(
  path: pathlib.Path, layout: _Layout
) -> tuple[np.ndarray, np.ndarray]:
  content = _unpickle(path)
  key = layout.label_key
  if key not in content or "data" not in content:
    raise ValueError(
      f"{path}: expected the keys 'data' and {key!r}, got"
      f" {', '.join(map(str, sorted(content)))}"
    )
  data, labels = np.asarray(content["data"]), np.asarray(content[key])
  if data.dtype != np.uint8 or data.shape != (len(labels), _PIXELS):
    raise ValueError(
      f"{path}: data: expected uint8 ({len(labels)}, {_PIXELS}), got"
      f" {data.dtype} {data.shape}"
    )
  return data, labels


def _read_binary(
  path: pathlib.Path, layout: _Layout
) -> tuple[np.ndarray, np.ndarray]:
  content = np.fromfile(path, np.uint8)
  record = layout.label_bytes + _PIXELS
  if content.size == 0 or content.size % record:
    raise ValueError(
      f"{path}: expected whole records of {record} bytes, got"
      f" {content.size} bytes ({content.size % record} too many); download"
      f" it again from {_HOME}"
    )
  rows = content.reshape(-1, record)
  return rows[:, layout.label_bytes :], rows[:, layout.label_byte]


def _class_names(path: pathlib.Path, layout: _Layout) -> tuple[str, ...]:
  if path.suffix == ".txt":
    names = path.read_text(encoding="utf-8").split()
  else:
    raw = _unpickle(path).get(layout.names_key, [])
    names = [n.decode() if isinstance(n, bytes) else n for n in raw]
  if len(names) != layout.num_classes:
    raise ValueError(
      f"{path}: expected {layout.num_classes} class names, got {len(names)}"
    )
  return tuple(names)


def _locate(
  folder: pathlib.Path, name: str, layouts: tuple[_Layout, ...]
) -> tuple[pathlib.Path, _Layout]:
  """Returns the folder and the layout that is complete there."""
  nearest: tuple[int, str] | None = None
  for layout in layouts:
    wanted = [*layout.train, *layout.test, layout.names]
    for place in (folder, folder / layout.folder):
      missing = [f for f in wanted if not (place / f).is_file()]
      if not missing:
        return place, layout
      if nearest is None or len(missing) < nearest[0]:
        nearest = (len(missing), ", ".join(missing))
  assert nearest is not None
  state = "lacks files" if folder.is_dir() else "is missing"
  raise FileNotFoundError(
    f"{name}: data_dir {str(folder)!r} {state}: expected {nearest[1]}, or the"
    f" folder {' or '.join(layout.folder for layout in layouts)} with all its"
    f" files. Get the archive from {_HOME} and unpack it, or leave data_dir"
    " out to read what TFDS has prepared."
  )


def _read_dataset(
  name: str, folder: pathlib.Path, layouts: tuple[_Layout, ...]
) -> sources.Dataset:
  place, layout = _locate(folder, name, layouts)
  class_names = _class_names(place / layout.names, layout)
  splits = {}
  for split, files in (("train", layout.train), ("test", layout.test)):
    parts = []
    for file in files:
      path = place / file
      reader = _read_binary if path.suffix == ".bin" else _read_pickle
      pixels, labels = reader(path, layout)
      sources.check_labels(labels, layout.num_classes, what=str(path))
      parts.append((pixels, labels.astype(np.int32)))
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    splits[split] = sources.from_arrays(
      pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
      labels,
      name=f"{name}/{split}",
      class_names=class_names,
    )
  return sources.Dataset(splits["train"], splits["test"], splits["train"])


def cifar10(
  *, data_dir: str | os.PathLike[str] | None = None
) -> sources.Dataset:
  """CIFAR-10: 50,000 and 10,000 images of 32x32x3, 10 classes.

  Args:
    data_dir: folder of the binary or the Python distribution (or the folder
      above it); None reads the data set `cifar10` that TFDS has prepared.

  Raises:
    FileNotFoundError: no such folder, or files missing.
    ValueError: a corrupt file, or a label out of range.

  References:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
    2009.
  """
  if not data_dir:
    return tfds_source.tfds(dataset="cifar10")
  folder = pathlib.Path(data_dir).expanduser()
  return _read_dataset("cifar10", folder, _layouts10())


def cifar100(
  *,
  data_dir: str | os.PathLike[str] | None = None,
  labels: str = "fine",
) -> sources.Dataset:
  """CIFAR-100: 50,000 and 10,000 images of 32x32x3, 100 or 20 classes.

  Args:
    data_dir: as in `cifar10`.
    labels: "fine" (100 classes) or "coarse" (20).

  Raises:
    FileNotFoundError: no such folder, or files missing.
    ValueError: a corrupt file, or a label out of range.
  """
  checks.one_of(("fine", "coarse"), labels=labels)
  if not data_dir:
    key = "label" if labels == "fine" else "coarse_label"
    return tfds_source.tfds(dataset="cifar100", label_key=key)
  folder = pathlib.Path(data_dir).expanduser()
  return _read_dataset("cifar100", folder, _layouts100(labels))
