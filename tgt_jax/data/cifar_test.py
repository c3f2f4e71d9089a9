# SPDX-License-Identifier: Apache-2.0
"""The 10,000 test images of CIFAR-10, split anew.

The package bigbench carries them, losslessly, as a task for language models.
The 50,000 training images are not there, so 8,000 of the test images are
trained on. Accuracies are therefore **not comparable with published ones of
CIFAR-10**; call the data set "CIFAR-10 test, own split".
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import tarfile

import numpy as np

from tgt_jax.data import sources, stratified

FILE = "cifar10_test.npz"
_TASK = "bigbench/benchmark_tasks/cifar10_classification/hex/task.json"
_SHAPE = (32, 32, 3)
_PER_CLASS = 1000
CLASS_NAMES = (
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
)


def _task(archive: pathlib.Path) -> bytes:
  """Returns the file of the task; the archive is read up to it alone."""
  with tarfile.open(archive, "r|gz") as members:
    for member in members:
      if member.name.partition("/")[2] == _TASK:
        file = members.extractfile(member)
        assert file is not None
        return file.read()
  raise ValueError(f"{archive}: there is no {_TASK} in it")


def _pixels(text: str) -> np.ndarray:
  """Returns uint8 [32, 32, 3] of rows of colours such as `#81756c`."""
  raw = bytes.fromhex(text.replace("#", "").replace("\n", ""))
  return np.frombuffer(raw, np.uint8).reshape(_SHAPE)


def unpack(archive: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of the data set, from the source archive of bigbench.

  Raises:
    OSError: the archive cannot be read.
    ValueError: it holds something else.
  """
  examples = json.loads(_task(archive))["examples"]
  labels = []
  for example in examples:
    scores = example["target_scores"]
    labels.append(CLASS_NAMES.index(max(scores, key=scores.__getitem__)))
  content = io.BytesIO()
  np.savez(
    content,
    images=np.stack([_pixels(example["input"]) for example in examples]),
    labels=np.array(labels, np.uint8),
  )
  return {FILE: content.getvalue()}


def _read(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns images and labels, checked."""
  command = f"python -m tgt_jax.data.fetch cifar10_test --out={path.parent}"
  if not path.is_file():
    raise FileNotFoundError(
      f"cifar10_test: there is no {path}. Fetch it with: {command}"
    )
  try:
    with np.load(path) as content:
      images, labels = content["images"], content["labels"]
  except Exception as error:  # A damaged archive may raise almost anything.
    raise ValueError(
      f"{path}: not what fetch writes ({type(error).__name__}: {error}); write"
      f" it again with: {command}"
    ) from error
  size = _PER_CLASS * len(CLASS_NAMES)
  if images.shape != (size, *_SHAPE) or images.dtype != np.uint8:
    raise ValueError(
      f"{path}: images: expected uint8 {(size, *_SHAPE)}, got"
      f" {images.dtype} {images.shape}; write it again with: {command}"
    )
  labels = sources.check_labels(labels, len(CLASS_NAMES), what=str(path))
  counts = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
  if counts != [_PER_CLASS] * len(CLASS_NAMES):
    raise ValueError(
      f"{path}: expected {_PER_CLASS} images of each class, got {counts};"
      f" write it again with: {command}"
    )
  return images, labels


def cifar10_test(
  *, data_dir: str | os.PathLike[str], seed: int = 0
) -> sources.Dataset:
  """CIFAR-10 test, own split: 8,000 and 2,000 images of 32x32x3, 10 classes.

  800 images of each class are trained on, 200 tested on. Scores are not
  comparable with published ones of CIFAR-10, whose 50,000 training images are
  not used.

  Args:
    data_dir: where `python -m tgt_jax.data.fetch cifar10_test` wrote.
    seed: of the split alone; runs that should be compared share it.

  Raises:
    FileNotFoundError: it is not there; says the command that fetches it.
    ValueError: another content than fetch wrote.

  References:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
    2009.
    A. Srivastava et al., "Beyond the Imitation Game", arXiv:2206.04615.
  """
  images, labels = _read(pathlib.Path(data_dir).expanduser() / FILE)
  parts = stratified.split(
    labels, test_fraction=0.2, seed=seed, stream="cifar10_test"
  )
  train, test = (
    sources.from_arrays(
      images[rows],
      labels[rows],
      name=f"cifar10_test/{name}",
      class_names=CLASS_NAMES,
      options={"seed": seed},
    )
    for name, rows in zip(("train", "test"), parts, strict=True)
  )
  return sources.Dataset(train, test, train)
