# SPDX-License-Identifier: Apache-2.0
"""Images in folders: split files, benchmarks, and their TFDS form."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tgt_jax import data
from tgt_jax.data import image_list, long_tailed, photographs, prepare

COUNTS = (6, 3, 2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  return photographs.write_tree(
    tmp_path_factory.mktemp("tree"), counts=COUNTS, side=48
  )


def load(folder, **changes):
  arguments = {
    "data_dir": folder,
    "train_list": "train.txt",
    "test_list": "test.txt",
    "image_size": 32,
    **changes,
  }
  return data.DATASETS["image_list"](**arguments)


@pytest.mark.parametrize("in_memory", [True, False])
def test_pixels_are_those_of_pillow(tree, in_memory):
  found = load(tree, in_memory=in_memory)
  assert found.train.class_counts().tolist() == list(COUNTS)
  assert len(found.test) == 6 and found.train.input_shape == (32, 32, 3)
  lines = (tree / "train.txt").read_text().splitlines()
  path, label = lines[7].split()
  with Image.open(tree / path) as picture:
    width, height = picture.size
    side = min(width, height)
    box = ((width - side) / 2, (height - side) / 2)
    expected = picture.resize(
      (32, 32),
      Image.Resampling.BICUBIC,
      box=(*box, box[0] + side, box[1] + side),
      reducing_gap=3.0,
    )
  batch = found.train.fetch(np.array([7]))
  assert batch["label"][0] == int(label)
  np.testing.assert_array_equal(
    np.rint(batch["input"][0] * 255), np.asarray(expected)
  )


def test_in_memory_or_not_is_the_same_data(tree):
  ids = np.array([3, 0, 10])
  np.testing.assert_array_equal(
    load(tree, in_memory=True).train.fetch(ids)["input"],
    load(tree, in_memory=False).train.fetch(ids)["input"],
  )


def test_a_part_refers_to_the_whole(tree, tmp_path):
  lines = (tree / "train.txt").read_text().splitlines()
  part = tmp_path / "part.txt"
  part.write_text("\n".join(lines[::3]))
  found = load(tree, train_list=str(part), full_list="train.txt")
  assert found.train.ids.tolist() == list(range(0, len(lines), 3))
  assert len(found.train_full) == len(lines)


@pytest.mark.parametrize(
  ("train", "match"),
  [
    (None, "no split file"),
    ("", "is empty"),
    ("class_000/00000.jpg", "line 1: expected 'relative/path.jpg 17'"),
    ("class_000/00000.jpg cat", "line 1"),
    ("class_000/none.jpg 0", "cannot read the image .*none.jpg"),
    ("class_002/00002.jpg 2", "1 images are in .* a test image must not"),
    ("class_000/00000.jpg 7", "label 7 .* expected 0..2"),
    ("broken.jpg 0", "broken.jpg cannot be decoded"),
  ],
)
def test_what_is_wrong_is_named(tree, tmp_path, train, match):
  (tree / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
  path = tmp_path / "train.txt"
  if train is not None:
    path.write_text(train)
  with pytest.raises((ValueError, FileNotFoundError), match=match):
    load(tree, train_list=str(path), num_classes=3)


def test_truncated_photograph(tree, tmp_path):
  whole = (tree / "class_000/00000.jpg").read_bytes()
  (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
  (tmp_path / "a.txt").write_text("cut.jpg 0")
  (tmp_path / "b.txt").write_text(str(tree / "class_000/00001.jpg") + " 0")
  with pytest.raises(ValueError, match=r"cut.jpg cannot be decoded.*truncated"):
    load(tmp_path, train_list="a.txt", test_list="b.txt")


@pytest.fixture
def places(tmp_path):
  """A part of Places-LT as its authors lay it out."""
  folder = photographs.write_tree(
    tmp_path / "places", counts=COUNTS, side=48, prefix="data_256/s{label}"
  )
  (folder / "train.txt").rename(folder / "Places_LT_train.txt")
  for split in ("val", "test"):
    text = (folder / "test.txt").read_text()
    (folder / f"Places_LT_{split}.txt").write_text(text)
  return folder


def test_a_benchmark_from_its_folder_and_from_tfds(places, tmp_path):
  options = {"image_size": 32, "check_counts": False}
  folder = data.DATASETS["places_lt"](data_dir=places, **options)
  prepare.prepare(
    "places_lt", places, data_dir=tmp_path / "tfds", check_counts=False
  )
  packed = data.DATASETS["places_lt"](
    data_dir=tmp_path / "tfds", source="tfds", **options
  )
  assert folder.train.num_classes == packed.train.num_classes == 365

  def content(source):
    batch = source.fetch(np.arange(len(source)))
    rows = zip(batch["label"].tolist(), batch["input"], strict=True)
    return sorted((label, image.tobytes()) for label, image in rows)

  assert content(folder.train) == content(packed.train)
  assert content(folder.test) == content(packed.test)


@pytest.mark.parametrize("name", sorted(long_tailed.BENCHMARKS))
def test_missing_files_say_what_to_download(name, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"lacks .*train.txt.*https://"):
    data.DATASETS[name](data_dir=tmp_path)
  with pytest.raises(ValueError, match=r"data_dir is empty"):
    data.DATASETS[name]()


def test_counts_are_compared_with_the_published_ones(places):
  with pytest.raises(ValueError, match=r"11 images, expected 62,500"):
    data.DATASETS["places_lt"](data_dir=places)
  with pytest.raises(ValueError, match=r"11 images, expected 62,500"):
    prepare.prepare("places_lt", places)
  benchmark = long_tailed.BENCHMARKS["places_lt"]
  counts = np.full(365, 158)
  counts[0], counts[-1] = 4980, 5
  counts[1] += 62_500 - counts.sum()
  long_tailed.check_counts(benchmark, np.repeat(np.arange(365), counts))


def test_the_command_answers_in_one_line(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "tgt_jax.data.prepare", "sun_lt"]
    + [f"--manual_dir={tmp_path}"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  assert done.stderr.startswith("error: SUN-LT: data_dir")


def test_photographs_are_a_long_tail():
  found = data.DATASETS["photographs"](image_size=16, head=8)
  assert found.train.class_counts().tolist() == [8, 4, 2, 1]
  again = data.DATASETS["photographs"](image_size=16, head=8)
  assert found.train.fingerprint == again.train.fingerprint


def test_split_files_may_have_spaces_and_empty_lines(tmp_path):
  path = tmp_path / "s.txt"
  path.write_text("a b/c d.jpg 3\n\n e.jpg 0 \n")
  found = image_list.read_split(path)
  assert found.paths == ["a b/c d.jpg", "e.jpg"]
  assert found.labels.tolist() == [3, 0]
