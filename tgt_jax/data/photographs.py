# SPDX-License-Identifier: Apache-2.0
"""A small tree of real JPEG files, cut from photographs that ship with Python.

scikit-learn carries two photographs (a Chinese temple and a flower). Windows
of them, each class its own region, make a data set with the file layout of the
long-tailed benchmarks: enough to run every experiment end to end where the
benchmark itself is not at hand. What is learned from it means nothing.
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, image_list, sources


def write_tree(
  folder: str | pathlib.Path,
  *,
  counts: tuple[int, ...],
  test_per_class: int = 2,
  side: int = 160,
  prefix: str = "class_{label:03d}",
) -> pathlib.Path:
  """Writes JPEGs and the split files train.txt and test.txt.

  Args:
    folder: is made; files there are overwritten.
    counts: training images of each class.
    test_per_class: test images of each class.
    side: pixels; heights and widths vary by a quarter of it.
    prefix: folder of a class, with the field `label`.

  Returns:
    The folder.
  """
  from PIL import Image
  from sklearn.datasets import load_sample_images

  folder = pathlib.Path(folder)
  photographs = load_sample_images().images
  lines: dict[str, list[str]] = {"train": [], "test": []}
  for label, count in enumerate(counts):
    where = folder / prefix.format(label=label)
    where.mkdir(parents=True, exist_ok=True)
    photograph = photographs[label % len(photographs)]
    home = draws.uniforms(0, "photographs/class", label, (2,))
    for number in range(count + test_per_class):
      u = draws.uniforms(0, f"photographs/{label}", number, (4,))
      sides = (side * (1 + 0.25 * u[:2])).astype(int)
      room = np.array(photograph.shape[:2]) - sides
      corner = np.clip((0.8 * home + 0.2 * u[2:]) * room, 0, room).astype(int)
      window = photograph[
        corner[0] : corner[0] + sides[0], corner[1] : corner[1] + sides[1]
      ]
      path = where / f"{number:05d}.jpg"
      Image.fromarray(window).save(path, quality=90)
      split = "train" if number < count else "test"
      lines[split].append(f"{path.relative_to(folder).as_posix()} {label}")
  for split, text in lines.items():
    (folder / f"{split}.txt").write_text("\n".join(text) + "\n")
  return folder


def photographs(
  *, image_size: int = 64, num_classes: int = 4, head: int = 12
) -> sources.Dataset:
  """The tree above, written to a temporary folder and read back.

  Args:
    image_size: side of the squares.
    num_classes: classes; each has about half as many images as the one before.
    head: training images of the first class.
  """
  checks.positive(image_size=image_size, num_classes=num_classes, head=head)
  counts = tuple(max(1, head >> label) for label in range(num_classes))
  with tempfile.TemporaryDirectory() as folder:
    write_tree(folder, counts=counts)
    return image_list.image_list(
      data_dir=folder,
      train_list="train.txt",
      test_list="test.txt",
      image_size=image_size,
      in_memory=True,
      name="photographs",
    )
