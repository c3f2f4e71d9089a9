# SPDX-License-Identifier: Apache-2.0
"""The test images of CIFAR-10 out of a source archive, and their split."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import cifar_test


def _images(size=10_000):
  """Images that differ in their first pixels alone, ordered by class."""
  images = np.zeros((size, 32, 32, 3), np.uint8)
  images[:, 0, 0, :2] = np.stack(np.divmod(np.arange(size), 256), axis=1)
  return images, np.repeat(np.arange(10, dtype=np.uint8), size // 10)


def _archive(path, images, labels, member=cifar_test._TASK):
  examples = []
  for image, label in zip(images, labels, strict=True):
    rows = ("".join(f"#{p.tobytes().hex()}" for p in row) for row in image)
    scores = {n: int(i == label) for i, n in enumerate(cifar_test.CLASS_NAMES)}
    examples.append({"input": "\n".join(rows), "target_scores": scores})
  content = json.dumps({"examples": examples}).encode()
  with tarfile.open(path, "w:gz") as archive:
    info = tarfile.TarInfo(f"bigbench-1.0.0/{member}")
    info.size = len(content)
    archive.addfile(tarfile.TarInfo("bigbench-1.0.0/setup.py"))
    archive.addfile(info, io.BytesIO(content))
  return path


def test_pixels_come_out_as_they_went_in(tmp_path):
  generator = np.random.default_rng(0)
  images = generator.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
  path = _archive(tmp_path / "a.tar.gz", images, [9, 0, 3])
  written = cifar_test.unpack(path)
  with np.load(io.BytesIO(written["cifar10_test.npz"])) as content:
    np.testing.assert_array_equal(content["images"], images)
    assert content["labels"].tolist() == [9, 0, 3]
  assert cifar_test.unpack(path) == written
  other = _archive(tmp_path / "b.tar.gz", images, [9, 0, 3], member="else")
  with pytest.raises(ValueError, match="there is no bigbench/"):
    cifar_test.unpack(other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("cifar")
  images, labels = _images()
  np.savez(folder / "cifar10_test.npz", images=images, labels=labels)
  return folder


def test_the_split_is_by_class_and_has_all(folder):
  dataset = data.DATASETS["cifar10_test"](data_dir=folder)
  assert dataset.train.class_counts().tolist() == [800] * 10
  assert dataset.test.class_counts().tolist() == [200] * 10
  assert dataset.train_full is dataset.train
  assert dataset.train.class_names[6] == "frog"
  seen = []
  for source in (dataset.train, dataset.test):
    batch = source.fetch(np.arange(len(source)))
    pixels = np.rint(batch["input"][:, 0, 0] * 255).astype(int)
    rows = 256 * pixels[:, 0] + pixels[:, 1]
    np.testing.assert_array_equal(rows // 1000, batch["label"])
    seen.append(rows)
  np.testing.assert_array_equal(
    np.sort(np.concatenate(seen)), np.arange(10_000)
  )


def test_the_split_follows_its_seed(folder):
  one, same, other = (
    data.DATASETS["cifar10_test"](data_dir=folder, seed=seed)
    for seed in (0, 0, 1)
  )
  assert one.train.fingerprint == same.train.fingerprint
  assert one.test.fingerprint != other.test.fingerprint


def test_damage_is_named(tmp_path):
  build = lambda: data.DATASETS["cifar10_test"](data_dir=tmp_path)
  command = f"python -m tgt_jax.data.fetch cifar10_test --out={tmp_path}"
  with pytest.raises(FileNotFoundError, match=command):
    build()
  path = tmp_path / "cifar10_test.npz"
  path.write_bytes(b"no archive")
  with pytest.raises(ValueError, match=f"not what fetch writes.*{command}"):
    build()
  images, labels = _images()
  np.savez(path, images=images[1:], labels=labels[1:])
  with pytest.raises(ValueError, match=r"uint8 \(10000, 32, 32, 3\), got"):
    build()
  labels[0] = 1
  np.savez(path, images=images, labels=labels)
  with pytest.raises(ValueError, match=r"of each class, got \[999, 1001"):
    build()
