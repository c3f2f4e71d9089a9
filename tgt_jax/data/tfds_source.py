# SPDX-License-Identifier: Apache-2.0
"""Any image-classification data set that TFDS has prepared.

Records are read by `tfds.data_source` over array_record, which needs no
TensorFlow; preparing a data set does for most of the catalogue, and is
therefore left to the command that the error message gives.
"""

from __future__ import annotations

import os
import re
from typing import Any

from tgt_jax import checks
from tgt_jax.data import encoded, sources


def not_prepared(name: str, data_dir: Any, reason: str) -> FileNotFoundError:
  """The error that says how a data set is prepared."""
  place = f" --data_dir={data_dir}" if data_dir else ""
  return FileNotFoundError(
    f"tfds: data set {name!r} cannot be read: {reason}. Prepare it once (this"
    " alone needs TensorFlow: pip install 'tgt_jax[prepare]'): tfds build"
    f" {name} --file_format=array_record{place}"
  )


def open_builder(name: str, data_dir: Any) -> Any:
  """Returns the builder of a prepared data set.

  Raises:
    FileNotFoundError: not prepared; says the command that prepares it.
    ValueError: not in the catalogue.
  """
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
  if builder.info.splits:
    return builder
  try:  # With TensorFlow at hand TFDS looks for the newest version alone.
    return tfds_library.core.read_only_builder.builder_from_files(
      name, data_dir=data_dir
    )
  except tfds_library.core.DatasetNotFoundError as error:
    reason = f"nothing is prepared under {str(builder.data_path)!r}"
    raise not_prepared(name, data_dir, reason) from error


def open_records(
  builder: Any, split: str, data_dir: Any, decoders: Any = None
) -> Any:
  """Returns the examples of a split, by number.

  Args:
    builder: of a prepared data set.
    split: its name, slices as in "train[:80%]" included.
    data_dir: where it is prepared, for messages.
    decoders: of TFDS, by feature.

  Raises:
    FileNotFoundError: prepared in a format without random access.
    ValueError: no such split.
  """
  if split.partition("[")[0] not in builder.info.splits:
    raise ValueError(
      f"tfds: {builder.info.full_name} has no split {split!r}; choose from"
      f" {', '.join(builder.info.splits)}"
    )
  try:
    return builder.as_data_source(split=split, decoders=decoders)
  except NotImplementedError as error:
    reason = (
      f"it is prepared as {builder.info.file_format.value}, which has no"
      " random access"
    )
    raise not_prepared(builder.info.name, data_dir, reason) from error


def _split(
  builder: Any,
  split: str,
  *,
  keys: tuple[str, str],
  image_size: int | None,
  data_dir: Any,
) -> encoded.EncodedSplit:
  """Checks a split's features and opens its records."""
  import tensorflow_datasets as tfds_library

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
  still_encoded = {image_key: tfds_library.decode.SkipDecoding()}
  records = open_records(builder, split, data_dir, still_encoded)
  shape = encoded.input_shape(
    f"tfds: {name}", info.features[image_key].shape, image_size
  )
  return encoded.EncodedSplit(
    name=name,
    records=records,
    image_of=lambda record: record[image_key],
    label_of=lambda record: record[label_key],
    decode=encoded.decoder(shape, image_size),
    shape=shape,
    class_names=tuple(class_names),
    options={"image_size": image_size, "keys": list(keys)},
    # The prepared files and the rows of each that belong to the split.
    content=[
      [file.basename(), file.skip, file.take, file.examples_in_shard]
      for file in info.splits[split].file_instructions
    ],
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
  builder = open_builder(dataset, data_dir)
  keys = (image_key, label_key)
  train, test = (
    encoded.source(
      _split(
        builder, split, keys=keys, image_size=image_size, data_dir=data_dir
      ),
      in_memory=in_memory,
    )
    for split in (train_split, test_split)
  )
  return sources.Dataset(train, test, train)
