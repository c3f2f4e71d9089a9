# SPDX-License-Identifier: Apache-2.0
"""Any image-classification data set that TFDS has prepared.

Records are read by `tfds.data_source` over array_record, which needs no
TensorFlow; preparing a data set does, and is therefore left to the command
that the error message gives. Images are decoded here with Pillow: TFDS would
take OpenCV where it is installed, and the two decode JPEG differently.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import sources

_IN_MEMORY_BYTES = 2**30
_CHUNK = 512


def _not_prepared(name: str, data_dir: Any, reason: str) -> FileNotFoundError:
  place = f" --data_dir={data_dir}" if data_dir else ""
  return FileNotFoundError(
    f"tfds: data set {name!r} cannot be read: {reason}. Prepare it once (this"
    " alone needs TensorFlow: pip install 'tgt_jax[prepare]'): tfds build"
    f" {name} --file_format=array_record{place}"
  )


def _builder(name: str, data_dir: Any) -> Any:
  """Returns the builder of a prepared data set."""
  import tensorflow_datasets as tfds_library

  try:
    builder = tfds_library.builder(name, data_dir=data_dir)
  except tfds_library.core.DatasetNotFoundError as error:
    # TFDS says "Did you mean: <asked> -> <nearest> ?".
    near = re.search(r"Did you mean: .* -> (\S+)", str(error))
    hint = f" Did you mean {near[1]!r}?" if near else ""
    raise ValueError(
      f"tfds: unknown data set {name!r}.{hint} The catalogue is at"
      " https://www.tensorflow.org/datasets/catalog/overview"
    ) from error
  if not builder.info.splits:
    reason = f"nothing is prepared under {str(builder.data_path)!r}"
    raise _not_prepared(name, data_dir, reason)
  return builder


def _records(builder: Any, split: str, image_key: str, data_dir: Any) -> Any:
  """Returns the examples of a split, with images still encoded."""
  import tensorflow_datasets as tfds_library

  if split.partition("[")[0] not in builder.info.splits:
    raise ValueError(
      f"tfds: {builder.info.full_name} has no split {split!r}; choose from"
      f" {', '.join(builder.info.splits)}"
    )
  try:
    return builder.as_data_source(
      split=split,
      decoders={image_key: tfds_library.decode.SkipDecoding()},
    )
  except NotImplementedError as error:
    reason = (
      f"it is prepared as {builder.info.file_format.value}, which has no"
      " random access"
    )
    raise _not_prepared(builder.info.name, data_dir, reason) from error


def _decoder(
  image_shape: tuple[int, int, int], image_size: int | None
) -> Callable[[bytes], np.ndarray]:
  """Returns a function from an encoded image to uint8 [H, W, C]."""
  from PIL import Image

  mode = {1: "L", 3: "RGB"}[image_shape[2]]

  def decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
      if image_size is not None:
        # JPEG can be decoded at a fraction of its size; keep twice the target.
        image.draft(mode, (2 * image_size, 2 * image_size))
      picture = image.convert(mode)
    if image_size is not None:
      picture = _resize(picture, image_size)
    return np.asarray(picture, np.uint8).reshape(image_shape)

  return decode


def _resize(picture: Any, size: int) -> Any:
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


def _image_shape(
  name: str, feature_shape: Sequence[int | None], image_size: int | None
) -> tuple[int, int, int]:
  height, width, channels = feature_shape
  if channels not in (1, 3):
    raise ValueError(
      f"tfds: {name}: expected images of 1 or 3 channels, got {channels}"
    )
  if image_size is not None:
    return image_size, image_size, channels
  if height is None or width is None:
    raise ValueError(
      f"tfds: {name}: its images differ in size; choose one with image_size"
    )
  return height, width, channels


class _Split(NamedTuple):
  """What is known of a split before its records are read.

  Attributes:
    name: for messages and the fingerprint.
    records: the examples, images still encoded.
    decode: an encoded image to uint8 of `shape`.
    shape: (H, W, C).
    class_names: K names.
    content: the prepared files and the rows of each that belong to the split;
      it stands for the images where they are not all read.
  """

  name: str
  records: Any
  decode: Callable[[bytes], np.ndarray]
  shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  content: list[list[Any]]


def _split(
  builder: Any,
  split: str,
  *,
  keys: tuple[str, str],
  image_size: int | None,
  data_dir: Any,
) -> _Split:
  """Checks a split's features and opens its records."""
  info = builder.info
  for key in keys:
    if key not in info.features:
      raise ValueError(
        f"tfds: {info.full_name} has no feature {key!r}; it has"
        f" {', '.join(info.features)}: set image_key and label_key"
      )
  name = f"{info.full_name}/{split}"
  image_key, label_key = keys
  class_names = getattr(info.features[label_key], "names", None)
  if class_names is None:
    raise ValueError(f"tfds: {name}: feature {label_key!r} is no class label")
  records = _records(builder, split, image_key, data_dir)
  shape = _image_shape(name, info.features[image_key].shape, image_size)
  return _Split(
    name=name,
    records=records,
    decode=_decoder(shape, image_size),
    shape=shape,
    class_names=tuple(class_names),
    content=[
      [file.basename(), file.skip, file.take, file.examples_in_shard]
      for file in info.splits[split].file_instructions
    ],
  )


def _source(
  split: _Split,
  *,
  keys: tuple[str, str],
  image_size: int | None,
  in_memory: bool | None,
) -> sources.Source:
  """Reads the labels of a split, and its images where they fit in memory."""
  image_key, label_key = keys
  size, shape = len(split.records), split.shape
  if in_memory is None:
    in_memory = size * math.prod(shape) <= _IN_MEMORY_BYTES

  def decode_into(out: np.ndarray, batch: list[Any]) -> None:
    for row, record in enumerate(batch):
      out[row] = split.decode(record[image_key])

  def read(ids: np.ndarray) -> np.ndarray:
    out = np.empty((len(ids), *shape), np.uint8)
    decode_into(out, split.records.__getitems__(ids.tolist()))
    return np.divide(out, np.float32(255), dtype=np.float32)

  labels = np.empty(size, np.int64)
  images = np.empty((size if in_memory else 0, *shape), np.uint8)
  for start in range(0, size, _CHUNK):
    stop = min(start + _CHUNK, size)
    batch = split.records.__getitems__(list(range(start, stop)))
    labels[start:stop] = [record[label_key] for record in batch]
    if in_memory:
      decode_into(images[start:stop], batch)
  options = {"image_size": image_size, "keys": list(keys)}
  if in_memory:
    return sources.from_arrays(
      images,
      labels,
      name=split.name,
      class_names=split.class_names,
      options=options,
    )
  return sources.Source(
    name=split.name,
    labels=labels,
    num_classes=len(split.class_names),
    class_names=split.class_names,
    image_shape=shape,
    read=read,
    fingerprint=sources.digest(split.name, options, split.content, labels),
    ids=np.arange(size),
  )


def tfds(
  *,
  dataset: str,
  data_dir: str | os.PathLike[str] | None = None,
  train_split: str = "train",
  test_split: str = "test",
  image_key: str = "image",
  label_key: str = "label",
  image_size: int | None = None,
  in_memory: bool | None = None,
) -> sources.Dataset:
  """A data set of the TFDS catalogue, prepared beforehand.

  Args:
    dataset: name in the catalogue, such as "cifar10" or "name/config:1.0.0".
    data_dir: where it is prepared; None for the default of TFDS.
    train_split: split to train on, slices as in "train[:80%]" included.
    test_split: split to evaluate on, "validation" for ImageNet.
    image_key: feature that holds the image.
    label_key: feature that holds the class.
    image_size: scale the shorter side to this and cut the centre square;
      needed where images differ in size.
    in_memory: decode everything once, or at every read; None decides by size,
      up to 1 GiB in memory. Either way the labels are read once, which passes
      over all records. The fingerprint is of the decoded images, or else of
      the names and sizes of the prepared files, so the two differ.

  Raises:
    FileNotFoundError: not prepared, or prepared in a format without random
      access; says the command that prepares it.
    ValueError: unknown data set, split or feature.
  """
  if image_size is not None:
    checks.positive(image_size=image_size)
  builder = _builder(dataset, data_dir)
  keys = (image_key, label_key)
  train, test = (
    _source(
      _split(
        builder, split, keys=keys, image_size=image_size, data_dir=data_dir
      ),
      keys=keys,
      image_size=image_size,
      in_memory=in_memory,
    )
    for split in (train_split, test_split)
  )
  return sources.Dataset(train, test, train)
