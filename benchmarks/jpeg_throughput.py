# SPDX-License-Identifier: Apache-2.0
"""How fast JPEG files become batches, in images per second.

  python benchmarks/jpeg_throughput.py --threads=2 --json=jpeg.json

Files of about 380 x 380 pixels, cut from photographs, become float32 batches
of 256 x 256 after a random-resized crop and a mirror: by this package, as its
image experiments read (a centre square first, then the crop), by torchvision's
ImageFolder and PyTorch's DataLoader, and by tf.data where they are installed,
which both crop the file's image at once. Everyone may use the same cores. The
files are in the page cache; they take turns in every round, and the median
over the rounds counts.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import common
import input_throughput

from tgt_jax import data
from tgt_jax.data import photographs

_SIZE = 256
_CLASSES = 8
_PER_CLASS = 64


def ours(folder: pathlib.Path, batch_size: int) -> Iterator[Any]:
  source = data.DATASETS["image_list"](
    data_dir=str(folder),
    train_list="train.txt",
    test_list="test.txt",
    image_size=_SIZE,
    in_memory=False,
  ).train
  chain = [
    data.AUGMENTATIONS[name]()
    for name in ("random_resized_crop", "horizontal_flip")
  ]
  batches = data.training_batches(
    source, batch_size=batch_size, seed=0, num_steps=10**9, augment=chain
  )
  return iter(data.iterate(batches))


def torchvision(folder: pathlib.Path, batch_size: int) -> Iterator[Any]:
  import torch
  from torchvision import datasets, transforms

  chain = transforms.Compose(
    [
      transforms.RandomResizedCrop(_SIZE),
      transforms.RandomHorizontalFlip(),
      transforms.ToTensor(),
    ]
  )
  workers = len(os.sched_getaffinity(0))
  loader = torch.utils.data.DataLoader(
    datasets.ImageFolder(str(folder), chain),
    batch_size=batch_size,
    shuffle=True,
    drop_last=True,
    num_workers=workers,
    persistent_workers=True,
  )
  while True:
    for image, label in loader:
      yield {"image": image, "label": label}


def tf_data(folder: pathlib.Path, batch_size: int) -> Iterator[Any]:
  import tensorflow as tf

  files = sorted(str(path) for path in folder.glob("*/*.jpg"))
  threads = len(os.sched_getaffinity(0))

  def load(path: Any) -> Any:
    encoded = tf.io.read_file(path)
    shape = tf.io.extract_jpeg_shape(encoded)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      shape,
      tf.zeros((1, 0, 4)),
      area_range=(0.08, 1.0),
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(image, (_SIZE, _SIZE)) / 255.0
    return tf.image.random_flip_left_right(image)

  dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files))
  dataset = dataset.repeat().map(load, num_parallel_calls=threads)
  dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2)
  for image in dataset:
    yield {"image": image}


def main() -> None:
  parser = common.parser(__doc__)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.set_defaults(rounds=5, seconds=4.0)
  arguments = parser.parse_args()
  cores = common.prepare(arguments.threads)
  size = arguments.batch_size
  with tempfile.TemporaryDirectory() as scratch:
    folder = photographs.write_tree(
      scratch, counts=(_PER_CLASS,) * _CLASSES, side=340
    )
    made = {"tgt_jax": ours(folder, size)}
    for start in (torchvision, tf_data):
      iterator = start(folder, size)
      try:
        next(iterator)
      except (ImportError, RuntimeError) as error:
        print(f"{error}: its row is left out")
      else:
        made[start.__name__] = iterator
    rates = input_throughput.measure(
      made, size, arguments.rounds, arguments.rounds * arguments.seconds
    )
  where = common.environment(cores)
  print(common.describe(where))
  input_throughput.show(f"JPEG files to {_SIZE} x {_SIZE}", size, rates)
  common.finish(
    arguments.json,
    {"environment": where, "batch_size": size, "images_per_second": rates},
  )


if __name__ == "__main__":
  main()
