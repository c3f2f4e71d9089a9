# SPDX-License-Identifier: Apache-2.0
"""CIFAR: both distributions, and what is wrong with a damaged one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tgt_jax import data


def _build(name, **kwargs):
  return data.DATASETS[name](**kwargs)


def _check_split(source, images, labels):
  batch = source.fetch(np.arange(len(source)))
  np.testing.assert_array_equal(np.rint(batch["input"] * 255), images)
  np.testing.assert_array_equal(batch["label"], labels)


def _bin10(images, labels):
  planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  return np.concatenate([labels[:, None], planes], 1).tobytes()


def _old_pickle(content):
  """A pickle as Python 2's numpy wrote it: byte keys, the old module name."""
  raw = pickle.dumps(content, protocol=2)
  return raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def _write_cifar10(folder, kind):
  generator = np.random.default_rng(1)
  names = [f"class{i}" for i in range(10)]
  files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
  written = {"train": [], "test": []}
  for file in files:
    images = generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, 4).astype(np.uint8)
    written["test" if file == "test_batch" else "train"].append(
      (images, labels)
    )
    if kind == "bin":
      (folder / f"{file}.bin").write_bytes(_bin10(images, labels))
    else:
      planes = images.transpose(0, 3, 1, 2).reshape(4, -1)
      content = {b"data": planes, b"labels": labels.tolist()}
      (folder / file).write_bytes(_old_pickle(content))
  if kind == "bin":
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
  else:
    content = {b"label_names": [name.encode() for name in names]}
    (folder / "batches.meta").write_bytes(_old_pickle(content))
  return {
    split: [np.concatenate(part) for part in zip(*parts, strict=True)]
    for split, parts in written.items()
  }


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar10_reads_both_distributions(tmp_path, kind, nested):
  folder = tmp_path / f"cifar-10-batches-{kind}" if nested else tmp_path
  folder.mkdir(exist_ok=True)
  written = _write_cifar10(folder, kind)
  dataset = _build("cifar10", data_dir=tmp_path)
  _check_split(dataset.train, *written["train"])
  _check_split(dataset.test, *written["test"])
  assert dataset.train.class_names[3] == "class3"
  assert len(dataset.train) == 20 and len(dataset.test) == 4


def test_both_distributions_have_one_fingerprint(tmp_path):
  prints = set()
  for kind in ("bin", "py"):
    (tmp_path / kind).mkdir()
    _write_cifar10(tmp_path / kind, kind)
    train = _build("cifar10", data_dir=tmp_path / kind).train
    prints.add(train.fingerprint)
  assert len(prints) == 1


def _write_cifar100(folder, kind):
  generator = np.random.default_rng(2)
  for split, size in (("train", 6), ("test", 3)):
    images = generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(size, -1)
    fine = np.arange(size, dtype=np.uint8) + 90
    coarse = np.arange(size, dtype=np.uint8)
    if kind == "bin":
      rows = np.concatenate([coarse[:, None], fine[:, None], planes], 1)
      (folder / f"{split}.bin").write_bytes(rows.tobytes())
    else:
      content = {
        b"data": planes,
        b"fine_labels": fine.tolist(),
        b"coarse_labels": coarse.tolist(),
      }
      (folder / split).write_bytes(_old_pickle(content))
  names = {
    "fine_label_names": [f"f{i}" for i in range(100)],
    "coarse_label_names": [f"c{i}" for i in range(20)],
  }
  if kind == "bin":
    for key, value in names.items():
      (folder / f"{key}.txt").write_text("\n".join(value))
  else:
    (folder / "meta").write_bytes(
      _old_pickle(
        {k.encode(): [n.encode() for n in v] for k, v in names.items()}
      )
    )


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar100_has_two_labels(tmp_path, kind):
  _write_cifar100(tmp_path, kind)
  fine = _build("cifar100", data_dir=tmp_path)
  coarse = _build("cifar100", data_dir=tmp_path, labels="coarse")
  assert fine.train.labels.tolist() == [90, 91, 92, 93, 94, 95]
  assert fine.train.class_names[90] == "f90"
  assert coarse.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
  assert coarse.train.num_classes == 20
  np.testing.assert_array_equal(
    fine.test.fetch(np.arange(3))["input"],
    coarse.test.fetch(np.arange(3))["input"],
  )


class _Attack:
  def __reduce__(self):
    return eval, ("__import__('builtins').print('owned')",)


def test_a_pickle_cannot_call_anything(tmp_path, capsys):
  _write_cifar10(tmp_path, "py")
  (tmp_path / "data_batch_2").write_bytes(pickle.dumps({"data": _Attack()}))
  with pytest.raises(ValueError, match=r"refused to load builtins\.eval"):
    _build("cifar10", data_dir=tmp_path)
  assert "owned" not in capsys.readouterr().out


@pytest.mark.parametrize(
  "kind, file, content, message",
  [
    ("bin", "data_batch_1.bin", b"x" * 3074, "whole records of 3073 bytes"),
    ("bin", "test_batch.bin", b"", "got 0 bytes"),
    ("bin", "test_batch.bin", b"\x0b" + bytes(3072), "label 11 of example 0"),
    ("bin", "batches.meta.txt", b"a b c", "expected 10 class names, got 3"),
    ("py", "data_batch_3", b"garbage", "not a CIFAR pickle"),
    ("py", "data_batch_3", _old_pickle({b"data": 1}), "expected the keys"),
    (
      "py",
      "data_batch_3",
      _old_pickle({b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]}),
      r"expected uint8 \(2, 3072\), got uint8 \(2, 9\)",
    ),
  ],
)
def test_damaged_cifar_is_named(tmp_path, kind, file, content, message):
  _write_cifar10(tmp_path, kind)
  (tmp_path / file).write_bytes(content)
  with pytest.raises(ValueError, match=f"{file}.*{message}"):
    _build("cifar10", data_dir=tmp_path)


def test_a_missing_file_is_named(tmp_path):
  _write_cifar10(tmp_path, "bin")
  (tmp_path / "data_batch_4.bin").unlink()
  message = "lacks files: expected data_batch_4.bin, or the folder"
  with pytest.raises(FileNotFoundError, match=message):
    _build("cifar10", data_dir=tmp_path)
