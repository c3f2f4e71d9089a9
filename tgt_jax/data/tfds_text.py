# SPDX-License-Identifier: Apache-2.0
"""Text that TFDS has prepared, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tgt_jax.data import text, tfds_source


def _split(builder: Any, split: str, keys: tuple[str, str]) -> text.Split:
  records = tfds_source.open_records(builder, split, None)
  first, second, labels = [], [], []
  for record in records:
    first.append(record[keys[0]].decode())
    if keys[1]:
      second.append(record[keys[1]].decode())
    labels.append(record["label"])
  pairs = second if keys[1] else None
  return text.Split(first, np.array(labels), pairs)


def read(
  dataset: str,
  *,
  splits: Sequence[str],
  keys: tuple[str, str],
  class_names: Sequence[str],
) -> list[text.Split]:
  """Reads splits of a data set from where TFDS keeps what it prepared.

  Args:
    dataset: name in the catalogue.
    splits: their names.
    keys: features of the text and of the second text, "" for none.
    class_names: K names that the feature "label" is expected to have; none
      where it is a grade.

  Raises:
    FileNotFoundError: not prepared; says the command that prepares it.
    ValueError: other features or classes than expected.
  """
  try:
    builder = tfds_source.open_builder(dataset, None)
  except ValueError as error:
    # Without TensorFlow, TFDS knows some of its catalogue by their files alone.
    reason = "nothing of that name is prepared"
    raise tfds_source.not_prepared(dataset, None, reason) from error
  features = builder.info.features
  missing = [key for key in (*keys, "label") if key and key not in features]
  if missing:
    raise ValueError(
      f"tfds: {builder.info.full_name}: expected the features"
      f" {', '.join([*filter(None, keys), 'label'])}, got"
      f" {', '.join(features)}"
    )
  names = tuple(getattr(features["label"], "names", ()))
  if names != tuple(class_names):
    raise ValueError(
      f"tfds: {builder.info.full_name}: expected the classes"
      f" {', '.join(class_names)}, got {', '.join(names)}"
    )
  return [_split(builder, split, keys) for split in splits]
