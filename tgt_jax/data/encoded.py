# SPDX-License-Identifier: Apache-2.0
"""Images that are stored encoded and decoded when they are read.

Pillow decodes, everywhere: TFDS would take OpenCV where it is installed, and
the two decode JPEG differently.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tgt_jax.data import sources, threads
from tgt_jax.progress import Progress

# Decoded images of a split are kept in memory up to this size.
IN_MEMORY_BYTES = 2**30


class Records(Protocol):
  """Encoded examples, addressed by number."""

  def __len__(self) -> int: ...

  def __getitems__(self, ids: Sequence[int]) -> Sequence[Any]: ...


class EncodedSplit(NamedTuple):
  """What is known of a split before its images are decoded.

  Attributes:
    name: for messages and the fingerprint.
    records: the examples, images still encoded.
    image_of: the encoded image of a record.
    label_of: the class of a record; None where `labels` is given.
    decode: an encoded image to uint8 of `shape`; see `decoder`.
    shape: (H, W, C).
    class_names: K names.
    options: whatever changes the decoded images; into the fingerprint.
    content: stands for the images in the fingerprint where they are not all
      read, such as the names and sizes of files.
    labels: integers [N] where they are known without reading the records.
    where: what an error calls an example.
  """

  name: str
  records: Records
  image_of: Callable[[Any], bytes]
  label_of: Callable[[Any], int] | None
  decode: Callable[[bytes], np.ndarray]
  shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  options: dict[str, Any]
  content: Any
  labels: np.ndarray | None = None
  where: Callable[[int], str] = "example {}".format


def decoder(
  shape: tuple[int, int, int], image_size: int | None
) -> Callable[[bytes], np.ndarray]:
  """Returns a function from an encoded image to uint8 of `shape`.

  Args:
    shape: (H, W, C) of the result; C is 1 or 3.
    image_size: scale the shorter side to this and cut the centre square; None
      for images that have the shape already.
  """
  from PIL import Image

  mode = {1: "L", 3: "RGB"}[shape[2]]

  def decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
      if image_size is not None:
        # JPEG can be decoded at a fraction of its size; keep twice the target.
        image.draft(mode, (2 * image_size, 2 * image_size))
      picture = image.convert(mode)
    if image_size is not None:
      picture = _square(picture, image_size)
    return np.asarray(picture, np.uint8).reshape(shape)

  return decode


def _square(picture: Any, size: int) -> Any:
  """Scales the shorter side to `size` and cuts the centre square."""
  from PIL import Image

  width, height = picture.size
  side = min(width, height)
  left, top = (width - side) / 2, (height - side) / 2
  return picture.resize(
    (size, size),
    Image.Resampling.BICUBIC,
    box=(left, top, left + side, top + side),
    reducing_gap=3.0,
  )


def input_shape(
  name: str, feature_shape: Sequence[int | None], image_size: int | None
) -> tuple[int, int, int]:
  """Returns the shape of decoded images.

  Args:
    name: for messages.
    feature_shape: (H, W, C) as stored, None where images differ.
    image_size: side of the square they are cut to, or None.

  Raises:
    ValueError: neither 1 nor 3 channels, or no common size.
  """
  height, width, channels = feature_shape
  if channels not in (1, 3):
    raise ValueError(
      f"{name}: expected images of 1 or 3 channels, got {channels}"
    )
  if image_size is not None:
    return image_size, image_size, channels
  if height is None or width is None:
    raise ValueError(
      f"{name}: its images differ in size; choose one with image_size"
    )
  return height, width, channels


def _decode(split: EncodedSplit, example: int, record: Any) -> np.ndarray:
  try:
    return split.decode(split.image_of(record))
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(
      f"{split.name}: the image of {split.where(example)} cannot be decoded:"
      f" {error}. Get the file anew"
    ) from error


def source(
  split: EncodedSplit, *, in_memory: bool | None = None
) -> sources.Source:
  """Returns a source that decodes once, or at every read.

  Args:
    split: what to read.
    in_memory: decode everything now; None: where it fits `IN_MEMORY_BYTES`.

  Raises:
    ValueError: an image that cannot be decoded, a label out of range.
  """
  size, shape = len(split.records), split.shape
  if in_memory is None:
    in_memory = size * math.prod(shape) <= IN_MEMORY_BYTES

  def read(ids: np.ndarray) -> np.ndarray:
    out = np.empty((len(ids), *shape), np.float32)

    def rows(piece: slice) -> None:
      numbers = ids[piece].tolist()
      batch = split.records.__getitems__(numbers)
      for image, number, record in zip(out[piece], numbers, batch, strict=True):
        np.divide(_decode(split, number, record), np.float32(255), out=image)

    threads.for_rows(rows, len(ids), pixels=math.prod(shape[:2]))
    return out

  label_of = split.label_of
  labels = np.empty(size, np.int64)
  if label_of is None:
    labels = np.asarray(split.labels)
  images = np.empty((size if in_memory else 0, *shape), np.uint8)

  def load(piece: slice) -> None:
    numbers = list(range(size)[piece])
    for number, record in zip(
      numbers, split.records.__getitems__(numbers), strict=True
    ):
      if label_of is not None:
        labels[number] = label_of(record)
      if in_memory:
        images[number] = _decode(split, number, record)

  if in_memory or label_of is not None:
    pixels = math.prod(shape[:2])
    with Progress(size, f"reading {split.name}", unit="image") as progress:
      threads.for_rows(load, size, pixels=pixels, done=progress.update)
  if in_memory:
    return sources.from_arrays(
      images,
      labels,
      name=split.name,
      class_names=split.class_names,
      options=split.options,
    )
  return sources.Source(
    name=split.name,
    labels=labels,
    num_classes=len(split.class_names),
    class_names=split.class_names,
    input_shape=shape,
    read=read,
    fingerprint=sources.digest(
      split.name, split.options, split.content, labels
    ),
    ids=np.arange(size),
  )
