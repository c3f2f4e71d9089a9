# SPDX-License-Identifier: Apache-2.0
"""TFDS over a small array_record data set that is written here."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tgt_jax
from tgt_jax import data

tfds_library = pytest.importorskip("tensorflow_datasets")
array_record_module = pytest.importorskip(
  "array_record.python.array_record_module"
)
_NAMES = [f"name{i}" for i in range(10)]


def _png(image):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, "PNG")
  return buffer.getvalue()


def _record(image, label):
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  feature = example.features.feature
  feature["image"].bytes_list.value.append(_png(image))
  feature["label"].int64_list.value.append(label)
  feature["id"].bytes_list.value.append(b"some id")
  return example.SerializeToString()


def _prepare(data_dir, name, images, *, file_format="array_record"):
  """Writes a prepared data set as TFDS lays it out; images by split."""
  builder = tfds_library.builder(name, data_dir=str(data_dir))
  folder = pathlib.Path(str(builder.data_path))
  folder.mkdir(parents=True)
  splits = []
  for split, arrays in images.items():
    file = folder / f"{name}-{split}.{file_format}-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for label, image in enumerate(arrays):
      writer.write(_record(image, label))
    writer.close()
    splits.append(
      {
        "name": split,
        "shardLengths": [str(len(arrays))],
        "numBytes": "1",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
      }
    )
  (folder / "label.labels.txt").write_text("\n".join(_NAMES))
  (folder / "dataset_info.json").write_text(
    json.dumps(
      {
        "name": name,
        "version": str(builder.version),
        "fileFormat": file_format,
        "splits": splits,
      }
    )
  )


def _random(size, shape=(32, 32, 3), seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (size, *shape), dtype=np.uint8)


@pytest.fixture
def cifar(tmp_path):
  images = {"train": _random(6), "test": _random(3, seed=1)}
  _prepare(tmp_path, "cifar10", images)
  return tmp_path, images


@pytest.mark.parametrize("in_memory", [None, True, False])
def test_reads_what_was_written(cifar, in_memory):
  folder, images = cifar
  dataset = data.DATASETS["tfds"](
    dataset="cifar10", data_dir=folder, in_memory=in_memory
  )
  assert dataset.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
  assert len(dataset.test) == 3
  assert dataset.train.num_classes == 10
  assert dataset.train.class_names == tuple(_NAMES)
  ids = np.array([4, 1, 4])
  batch = dataset.train.fetch(ids)
  assert batch["input"].dtype == np.float32
  np.testing.assert_array_equal(
    np.rint(batch["input"] * 255), images["train"][ids]
  )
  assert dataset.train.fingerprint != dataset.test.fingerprint


def test_serves_a_pipeline_from_disk(cifar):
  folder, images = cifar
  train = data.DATASETS["tfds"](
    dataset="cifar10", data_dir=folder, in_memory=False
  ).train
  view = data.subset(train, [5, 2, 0])
  batches = data.training_batches(view, batch_size=3, seed=0, num_steps=2)
  for batch in data.iterate(batches, threads=2):
    np.testing.assert_array_equal(
      np.rint(batch["input"] * 255), images["train"][[5, 2, 0]][batch["id"]]
    )


def test_slices_of_a_split(cifar):
  folder, _ = cifar
  dataset = data.DATASETS["tfds"](
    dataset="cifar10",
    data_dir=folder,
    train_split="train[:4]",
    test_split="train[4:]",
  )
  assert dataset.train.labels.tolist() == [0, 1, 2, 3]
  assert dataset.test.labels.tolist() == [4, 5]


def test_images_of_any_size_are_cut_to_one(tmp_path):
  """A square in the middle of a wide picture fills the result."""
  wide = np.zeros((20, 60, 3), np.uint8)
  wide[:, 20:40] = 255
  tall = wide.transpose(1, 0, 2).copy()
  images = {"train": [wide, tall], "test": [wide]}
  _prepare(tmp_path, "imagenette", images)
  dataset = data.DATASETS["tfds"](
    dataset="imagenette",
    data_dir=tmp_path,
    image_size=10,
    train_split="train",
    test_split="test",
  )
  batch = dataset.train.fetch(np.arange(2))
  assert batch["input"].shape == (2, 10, 10, 3)
  assert batch["input"][:, 2:8, 2:8].min() > 0.99
  with pytest.raises(ValueError, match="choose one with image_size"):
    data.DATASETS["tfds"](
      dataset="imagenette", data_dir=tmp_path, test_split="test"
    )


def test_the_named_data_sets_use_it(cifar, monkeypatch):
  folder, images = cifar
  # TFDS reads TFDS_DATA_DIR when it is imported, which is long past.
  monkeypatch.setattr(
    "tensorflow_datasets.core.constants.DATA_DIR", str(folder)
  )
  train = data.DATASETS["cifar10"]().train
  np.testing.assert_array_equal(
    np.rint(train.fetch(np.arange(6))["input"] * 255), images["train"]
  )


@pytest.mark.parametrize(
  "arguments, error, message",
  [
    (
      {"dataset": "fashion_mnist"},
      FileNotFoundError,
      "tfds build fashion_mnist --file_format=array_record --data_dir=",
    ),
    ({"dataset": "cifar1O"}, ValueError, "unknown data set 'cifar1O'. Did you"),
    (
      {"dataset": "cifar10", "train_split": "validation"},
      ValueError,
      "has no split 'validation'; choose from train, test",
    ),
    (
      {"dataset": "cifar10", "image_key": "picture"},
      ValueError,
      "has no feature 'picture'; it has id, image, label",
    ),
    (
      {"dataset": "cifar10", "label_key": "id"},
      ValueError,
      "feature 'id' is no class label",
    ),
    ({"dataset": "cifar10", "image_size": 0}, ValueError, "image_size must be"),
  ],
)
def test_bad_requests_are_named(cifar, arguments, error, message):
  folder, _ = cifar
  with pytest.raises(error, match=message):
    data.DATASETS["tfds"](data_dir=folder, **arguments)


def test_another_file_format_is_named(tmp_path):
  _prepare(tmp_path, "cifar10", {"train": _random(2)}, file_format="tfrecord")
  with pytest.raises(
    FileNotFoundError, match="prepared as tfrecord, which has"
  ):
    data.DATASETS["tfds"](dataset="cifar10", data_dir=tmp_path)


def test_tensorflow_is_not_imported(cifar):
  folder, _ = cifar
  code = (
    "import sys; from tgt_jax import data;"
    "assert 'tensorflow_datasets' not in sys.modules;"
    "assert 'sklearn' not in sys.modules and 'PIL' not in sys.modules;"
    f"data.DATASETS['tfds'](dataset='cifar10', data_dir={str(folder)!r});"
    "assert 'tensorflow' not in sys.modules"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(tgt_jax.__file__).parent.parent,
  )
  assert result.returncode == 0, result.stderr
