# SPDX-License-Identifier: Apache-2.0
"""The data sets: what is read is what was written, and damage is named."""

from __future__ import annotations

import gzip
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from tgt_jax import data, registry
from tgt_jax.data import synthetic

_IDX_FILES = {
  "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def _build(name, **kwargs):
  spec = {"name": name, **kwargs}
  return registry.build(data.DATASETS, spec, family="data set")


def _idx(array):
  header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
  return header + array.tobytes()


def _write_idx(folder, *, compress=False):
  """Writes 20 and 10 random images; returns (images, labels) by split."""
  generator = np.random.default_rng(0)
  written = {}
  for split, size in (("train", 20), ("test", 10)):
    images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    labels = (np.arange(size) % 10).astype(np.uint8)
    written[split] = images, labels
    for file, array in zip(_IDX_FILES[split], (images, labels), strict=True):
      content = _idx(array)
      if compress:
        (folder / f"{file}.gz").write_bytes(gzip.compress(content))
      else:
        (folder / file).write_bytes(content)
  return written


def _check_split(source, images, labels):
  batch = source.fetch(np.arange(len(source)))
  np.testing.assert_array_equal(
    np.rint(batch["input"] * 255), images.reshape(batch["input"].shape)
  )
  np.testing.assert_array_equal(batch["label"], labels)


@pytest.mark.parametrize("compress", [False, True])
def test_fashion_mnist_reads_idx(tmp_path, compress):
  written = _write_idx(tmp_path, compress=compress)
  dataset = _build("fashion_mnist", data_dir=str(tmp_path))
  assert dataset.train.class_names[9] == "Ankle boot"
  assert dataset.train.input_shape == (28, 28, 1)
  _check_split(dataset.train, *written["train"])
  _check_split(dataset.test, *written["test"])
  assert dataset.train_full is dataset.train
  assert dataset.train.fingerprint != dataset.test.fingerprint


def _damage_magic(content):
  return b"\x00\x00\x0d\x03" + content[4:]


@pytest.mark.parametrize(
  "file, damage, message",
  [
    (
      "train-images-idx3-ubyte",
      _damage_magic,
      "expected the IDX magic number 0x00000803 .* got 0x00000d03",
    ),
    (
      "train-images-idx3-ubyte",
      lambda content: content[:-7],
      "truncated: expected 15696 bytes .* got 15689 bytes; download",
    ),
    (
      "t10k-images-idx3-ubyte",
      lambda content: content + b"x",
      "too long: expected 7856 bytes .* got 7857",
    ),
    (
      "train-labels-idx1-ubyte",
      lambda content: content[:6],
      "expected a header of 8 bytes, got 6",
    ),
    ("train-labels-idx1-ubyte", lambda content: b"", "got nothing"),
    (
      "train-labels-idx1-ubyte",
      lambda content: content[:-1] + b"\x0a",
      "train-labels-idx1-ubyte: label 10 of example 19 is out of range",
    ),
    (
      "t10k-labels-idx1-ubyte",
      lambda content: _idx(np.zeros(9, np.uint8)),
      "10 images but 9 labels",
    ),
    (
      "t10k-labels-idx1-ubyte",
      lambda content: gzip.compress(content),
      "got 0x1f8b.*still compressed",
    ),
  ],
)
def test_damaged_idx_is_named(tmp_path, file, damage, message):
  _write_idx(tmp_path)
  path = tmp_path / file
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=message):
    _build("fashion_mnist", data_dir=tmp_path)


def test_damaged_gzip_is_named(tmp_path):
  _write_idx(tmp_path, compress=True)
  path = tmp_path / "train-images-idx3-ubyte.gz"
  whole = path.read_bytes()
  middle = bytes([whole[len(whole) // 2] ^ 0xFF])
  half = len(whole) // 2
  for broken in (
    whole[:half],
    b"plain",
    whole[:half] + middle + whole[half + 1 :],
  ):
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="not a complete gzip file"):
      _build("fashion_mnist", data_dir=tmp_path)


def test_a_missing_file_is_named(tmp_path):
  _write_idx(tmp_path)
  (tmp_path / "t10k-labels-idx1-ubyte").unlink()
  message = "lacks files: expected t10k-labels-idx1-ubyte .*Get them from"
  with pytest.raises(FileNotFoundError, match=message):
    _build("fashion_mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100"])
def test_a_missing_folder_is_named(tmp_path, name):
  folder = tmp_path / "nowhere"
  with pytest.raises(FileNotFoundError, match="nowhere' is missing: expected"):
    _build(name, data_dir=folder)


def test_digits_are_scikit_learns():
  dataset = _build("digits")
  bunch = sklearn_datasets.load_digits()
  parts = [s.fetch(np.arange(len(s))) for s in (dataset.train, dataset.test)]
  rows = np.concatenate(
    [
      np.column_stack([p["label"], np.rint(p["input"].reshape(-1, 64) * 16)])
      for p in parts
    ]
  )
  expected = np.column_stack([bunch.target, bunch.data])
  np.testing.assert_array_equal(
    rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)]
  )
  # The same share of every class, to one example.
  share = dataset.test.class_counts() / np.bincount(bunch.target)
  np.testing.assert_allclose(share, 0.3, atol=0.5 / 174)


def test_digits_split_follows_its_seed():
  one, same, other = (
    _build("digits"),
    _build("digits"),
    _build("digits", seed=1),
  )
  assert one.train.fingerprint == same.train.fingerprint
  assert one.test.fingerprint != other.test.fingerprint


def test_arrays_keep_names_and_classes():
  images = np.zeros((3, 4, 4), np.uint8)
  dataset = data.arrays(
    train_images=images,
    train_labels=[0, 1, 2],
    test_images=images[:1],
    test_labels=[1],
    class_names=["a", "b", "c"],
  )
  assert dataset.test.num_classes == 3
  assert dataset.test.class_names == ("a", "b", "c")


def test_arrays_of_two_shapes_are_refused():
  with pytest.raises(ValueError, match="they must be equal"):
    data.arrays(
      train_images=np.zeros((1, 4, 4), np.uint8),
      train_labels=[0],
      test_images=np.zeros((1, 5, 5), np.uint8),
      test_labels=[0],
    )


def test_manifold_has_the_dimension_it_says():
  """At a random point the Jacobian of the images has d singular values."""
  weights = synthetic.make_manifold(dimension=3, pixels=40, num_classes=4)
  exact = synthetic.Manifold(*(w.astype(np.float64) for w in weights))
  for z in synthetic.latents(0, "probe", 5, 3).astype(np.float64):
    step = 1e-5 * np.eye(3)
    jacobian = (
      synthetic.decode(exact, z + step) - synthetic.decode(exact, z - step)
    ) / 2e-5
    assert np.linalg.svd(jacobian, compute_uv=False)[-1] > 0.05
  # And nothing else moves the image: it is a function of z.
  dataset = _build("manifold", dimension=3, train_size=50, test_size=10, seed=2)
  weights = synthetic.make_manifold(
    dimension=3, pixels=64, num_classes=10, seed=2
  )
  z = synthetic.latents(2, "train", 50, 3)
  assert z.min() >= -1 and z.max() < 1
  batch = dataset.train.fetch(np.arange(50))
  np.testing.assert_allclose(
    batch["input"].reshape(50, 64),
    synthetic.decode(weights, z, xp=jnp),
    atol=1e-6,
  )
  np.testing.assert_array_equal(
    batch["label"], synthetic.logits(weights, z, xp=jnp).argmax(axis=1)
  )


def test_manifold_classes_are_all_there():
  dataset = _build("manifold", train_size=2000)
  counts = dataset.train.class_counts()
  assert counts.min() > 40 and counts.max() < 600
  assert dataset.train.input_shape == (8, 8, 1)
  image = dataset.train.fetch(np.arange(2000))["input"]
  assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.2
  assert dataset.train.fingerprint != dataset.test.fingerprint
  other = _build("manifold", train_size=2000, seed=1)
  assert other.train.fingerprint != dataset.train.fingerprint


@pytest.mark.parametrize(
  "spec, message",
  [
    ({"name": "fashionmnist"}, "Did you mean 'fashion_mnist'"),
    ({"name": "digits", "test_fracton": 0.5}, "Did you mean 'test_fraction'"),
    ({"name": "digits", "test_fraction": 1.0}, r"must be in \(0, 1\), got 1.0"),
    ({"name": "digits", "test_fraction": 1e-4}, "at least one"),
    ({"name": "cifar100", "labels": "course"}, "Did you mean 'coarse'"),
    ({"name": "manifold", "dimension": 0}, "dimension must be > 0"),
    ({"name": "manifold", "dimension": 65}, "pixels and width must be >="),
    ({"name": "manifold", "input_shape": (8, 8)}, r"expected \(H, W, C\)"),
  ],
)
def test_bad_options_are_named(spec, message):
  with pytest.raises(ValueError, match=message):
    registry.build(data.DATASETS, spec, family="data set")
