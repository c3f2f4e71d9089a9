# SPDX-License-Identifier: Apache-2.0
"""What a data set is: a table of labels and a vectorised way to read inputs.

A `Source` is addressed by integers 0..N-1 and never iterated: the order of a
run is computed elsewhere. Its labels are in memory, because samplers, priors
and class counts need all of them; its inputs, images or the token ids of
texts, may be anywhere.

A view (`subset`, `long_tail`, `holdout`) is a `Source` again. Its `ids` say
which rows of the source it was cut from it shows, so an array with one row per
example of the whole source (a teacher's cached logits) becomes the view's by
`array[view.ids]`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax.data.tokenizer import Tokenizer


class Text(NamedTuple):
  """What a source of text has besides.

  Attributes:
    lengths: int32 [N], token ids of each example, the rest being padding.
    pad_id: the id of padding.
    tokenizer: made the ids and turns them back into text.
    buckets: lengths of its batches; see `lengths.buckets`.
  """

  lengths: np.ndarray
  pad_id: int
  tokenizer: Tokenizer
  buckets: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """Labelled images or texts that are addressed by number.

  Attributes:
    name: what messages call it, such as `"digits/train"`.
    labels: int32 [N], each in [0, num_classes).
    num_classes: number of classes K; a class may have no example.
    class_names: K names.
    input_shape: (H, W, C) of one image, or (L,) of a text.
    read: ids [B] to images, float32 [B, H, W, C] in [0, 1], or to token ids,
      int32 [B, L]; a fresh array.
    fingerprint: hexadecimal digest of the content and of how it was selected.
    ids: int64 [N], the row of each example in the source that this one was
      cut from; 0..N-1 for a source that was not cut.
    text: of a source of text; None for images.
    targets: what is learned, where that is more than `labels` can say. Grades,
      float32 [N] in [0, num_classes - 1], of which labels are the nearest; or
      tags, float32 [N, K] in [0, 1] or -1 where nobody knows, for classes that
      do not exclude each other, of which labels are the first of the largest.
    embed: ids [B] to embeddings that come with the data, float32 [B, T, 1, D]
      for T frames of time (1 where there is none); a fresh array. None where
      there are none.
  """

  name: str
  labels: np.ndarray
  num_classes: int
  class_names: tuple[str, ...]
  input_shape: tuple[int, ...]
  read: Callable[[np.ndarray], np.ndarray]
  fingerprint: str
  ids: np.ndarray
  text: Text | None = None
  targets: np.ndarray | None = None
  embed: Callable[[np.ndarray], np.ndarray] | None = None

  def __post_init__(self) -> None:
    labels = check_labels(self.labels, self.num_classes, what=self.name)
    ids = np.array(self.ids, np.int64)
    labels.flags.writeable = ids.flags.writeable = False
    object.__setattr__(self, "labels", labels)
    object.__setattr__(self, "ids", ids)
    if ids.shape != labels.shape:
      raise ValueError(
        f"{self.name}: ids: expected shape {labels.shape}, got {ids.shape}"
      )
    if len(self.class_names) != self.num_classes:
      raise ValueError(
        f"{self.name}: expected {self.num_classes} class names, got"
        f" {len(self.class_names)}"
      )

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def grades(self) -> np.ndarray | None:
    """Targets that are grades, [N]."""
    targets = self.targets
    return targets if targets is not None and targets.ndim == 1 else None

  @property
  def tags(self) -> np.ndarray | None:
    """Targets that are tags, [N, K]."""
    targets = self.targets
    return targets if targets is not None and targets.ndim == 2 else None

  @property
  def pad_id(self) -> int | None:
    """The id that fills texts up; None for images."""
    return None if self.text is None else self.text.pad_id

  def fetch(self, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the inputs and labels of some examples.

    Args:
      ids: integers [B] in [0, len(self)), in any order, repeats allowed.

    Returns:
      `{"input": float32 [B, H, W, C] in [0, 1] or int32 [B, L], "label": int32
      [B], or targets}`.

    Raises:
      IndexError: an id outside the source.
    """
    ids = np.asarray(ids)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
      raise IndexError(
        f"{self.name}: expected ids in [0, {len(self)}), got"
        f" {ids.min()}..{ids.max()}"
      )
    labels = self.labels if self.targets is None else self.targets
    return {"input": self.read(ids), "label": labels.take(ids, axis=0)}

  def class_counts(self) -> np.ndarray:
    """Returns the number of examples of each class, int64 [K]."""
    if self.tags is not None:
      return np.sum(self.tags > 0.5, axis=0)
    return np.bincount(self.labels, minlength=self.num_classes)


class Dataset(NamedTuple):
  """What a factory returns.

  Attributes:
    train: what students train on; cut it with `long_tail`.
    test: what they are evaluated on.
    train_full: the training examples before anything was cut away, for a
      generator that needs no labels or a teacher that has seen more.
    others: further test splits by their names.
  """

  train: Source
  test: Source
  train_full: Source
  others: Mapping[str, Source] = types.MappingProxyType({})


def check_labels(labels: Any, num_classes: int, *, what: str) -> np.ndarray:
  """Returns labels as a new int32 array [N] in [0, num_classes).

  Raises:
    TypeError: labels that are not integers.
    ValueError: not one axis, or a label outside the range; names the first.
  """
  labels = np.asarray(labels)
  if labels.dtype.kind not in "iu":
    raise TypeError(
      f"{what}: labels: expected integers, got {labels.dtype}; map names to"
      " numbers 0..K-1 first"
    )
  if labels.ndim != 1:
    raise ValueError(f"{what}: labels: expected shape [N], got {labels.shape}")
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    raise ValueError(
      f"{what}: label {labels[bad[0]]} of example {bad[0]} is out of range:"
      f" expected 0..{num_classes - 1} ({bad.size} of {labels.size} labels"
      " are outside); check num_classes, or count labels from 0"
    )
  return labels.astype(np.int32)


def check_grades(grades: Any, highest: int, *, what: str) -> np.ndarray:
  """Returns grades as a new float32 array [N] in [0, highest].

  Raises:
    ValueError: not one axis, or a grade outside the range; names the first.
  """
  grades = np.array(grades, np.float32)
  if grades.ndim != 1:
    raise ValueError(f"{what}: grades: expected shape [N], got {grades.shape}")
  wrong = np.flatnonzero(~((grades >= 0) & (grades <= highest)))
  if wrong.size:
    raise ValueError(
      f"{what}: grades: expected [0, {highest}], got {grades[wrong[0]]:g} at"
      f" example {wrong[0]}"
    )
  return grades


def check_tags(tags: Any, num_classes: int, *, what: str) -> np.ndarray:
  """Returns tags as a new float32 array [N, K], each in [0, 1] or -1.

  Raises:
    ValueError: another shape, or another value; names the first.
  """
  tags = np.array(tags, np.float32)
  if tags.ndim != 2 or tags.shape[1] != num_classes:
    raise ValueError(
      f"{what}: tags: expected shape [N, {num_classes}], got {tags.shape}"
    )
  wrong = np.argwhere(~((tags >= 0) & (tags <= 1) | (tags == -1)))
  if len(wrong):
    row, column = wrong[0]
    raise ValueError(
      f"{what}: tags: expected values in [0, 1], or -1 for unknown, got"
      f" {tags[row, column]:g} at example {row}, tag {column}"
    )
  return tags


def count_classes(
  labels: Any,
  num_classes: int | None,
  class_names: Sequence[str] | None,
  *,
  what: str,
) -> tuple[int, np.ndarray]:
  """Returns K and checked labels; K is that of the names, or else counted."""
  if num_classes is None and class_names is not None:
    num_classes = len(class_names)
  if num_classes is None:
    labels = check_labels(labels, np.iinfo(np.int32).max, what=what)
    num_classes = 1 + int(labels.max(initial=0))
  return num_classes, check_labels(labels, num_classes, what=what)


def check_images(images: Any, *, what: str, bounded: bool = True) -> np.ndarray:
  """Returns images as uint8 or float32 [N, H, W, C], without a copy if it can.

  Args:
    images: [N, H, W] or [N, H, W, C]; uint8, or floating point.
    what: the name for messages.
    bounded: whether floating values are to be in [0, 1].

  Raises:
    TypeError: another dtype.
    ValueError: another rank, or a floating value outside [0, 1] or NaN.
  """
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4:
    raise ValueError(
      f"{what}: images: expected shape [N, H, W] or [N, H, W, C], got"
      f" {images.shape}"
    )
  if images.dtype == np.uint8:
    return np.ascontiguousarray(images)
  if images.dtype.kind != "f":
    raise TypeError(
      f"{what}: images: expected uint8 in 0..255 or floating point in"
      f" [0, 1], got {images.dtype}; convert with .astype(np.uint8)"
    )
  if bounded and images.size and not (images.min() >= 0 and images.max() <= 1):
    raise ValueError(
      f"{what}: images: expected values in [0, 1], got"
      f" {images.min()}..{images.max()}; scale them, for example x / x.max()"
    )
  return np.ascontiguousarray(images, np.float32)


def digest(*parts: Any) -> str:
  """Returns a hexadecimal digest of arrays (by content) and of plain values."""
  state = hashlib.sha256()
  for part in parts:
    if isinstance(part, np.ndarray):
      state.update(f"{part.dtype.str}{part.shape}\0".encode())
      state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    else:
      state.update(f"{json.dumps(part, sort_keys=True)}\0".encode())
  return state.hexdigest()[:32]


def from_arrays(
  images: Any,
  labels: Any,
  *,
  name: str,
  num_classes: int | None = None,
  class_names: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  embeddings: np.ndarray | None = None,
  bounded: bool = True,
) -> Source:
  """Returns a source that holds its images in memory.

  Images of type uint8 stay so, a quarter of the memory; a batch is divided by
  255 when it is read.

  Args:
    images: [N, H, W] or [N, H, W, C]; uint8, or floating point in [0, 1].
    labels: integers [N] in [0, num_classes), or tags, floating point [N, K], see
      `Source`.
    name: what messages and the fingerprint call it, with the split.
    num_classes: K; by default that of `class_names`, else the largest label
      plus one.
    class_names: K names; by default the numbers.
    options: whatever else should change the fingerprint.
    embeddings: float32 [N, T, 1, D], see `Source.embed`.
    bounded: whether floating images are to be in [0, 1]; spectrograms are not.

  Raises:
    TypeError: a dtype that is neither uint8 nor floating point, or labels that
      are not integers.
    ValueError: shapes that do not fit, values or labels out of range.
  """
  images, tags = check_images(images, what=name, bounded=bounded), None
  if np.ndim(labels) == 2 and np.asarray(labels).dtype.kind == "f":
    tags = check_tags(labels, np.shape(labels)[1], what=name)
    num_classes, labels = tags.shape[1], np.argmax(tags, axis=1)
  num_classes, labels = count_classes(
    labels, num_classes, class_names, what=name
  )
  if len(images) != len(labels):
    raise ValueError(
      f"{name}: {len(images)} images but {len(labels)} labels; one label per"
      " image is expected"
    )

  def read(ids: np.ndarray) -> np.ndarray:
    rows = images.take(ids, axis=0)
    if rows.dtype == np.uint8:
      return np.divide(rows, np.float32(255), dtype=np.float32)
    return rows

  return Source(
    name=name,
    labels=labels,
    num_classes=num_classes,
    class_names=tuple(class_names or map(str, range(num_classes))),
    input_shape=images.shape[1:],
    read=read,
    fingerprint=digest(
      name,
      dict(options or {}),
      images,
      *(a for a in (labels, tags, embeddings) if a is not None),
    ),
    ids=np.arange(len(labels)),
    targets=tags,
    embed=None
    if embeddings is None
    else lambda ids: embeddings.take(ids, axis=0),
  )


def subset(source: Source, ids: Any, *, name: str | None = None) -> Source:
  """Returns the view of `source` that shows the given rows, in that order.

  Args:
    source: any source; a view of a view refers to the first source.
    ids: integers [n] in [0, len(source)); a row may appear more than once.
    name: what messages call the view; by default `source.name`.

  Raises:
    TypeError: ids that are not integers.
    ValueError: an id outside the source.
  """
  ids = np.asarray(ids)
  if ids.size == 0:
    ids = ids.astype(np.int64)
  if ids.dtype.kind not in "iu":
    raise TypeError(f"{source.name}: ids: expected integers, got {ids.dtype}")
  if ids.size and not 0 <= ids.min() <= ids.max() < len(source):
    raise ValueError(
      f"{source.name}: expected ids in [0, {len(source)}), got"
      f" {ids.min()}..{ids.max()}"
    )
  rows = ids.astype(np.int64)
  parent, text, embed = source.read, source.text, source.embed
  if text is not None:
    text = text._replace(lengths=text.lengths[rows])
  return dataclasses.replace(
    source,
    name=name or source.name,
    labels=source.labels[rows],
    targets=None if source.targets is None else source.targets[rows],
    ids=source.ids[rows],
    read=lambda ids: parent(rows.take(ids)),
    embed=None if embed is None else lambda ids: embed(rows.take(ids)),
    fingerprint=digest(source.fingerprint, rows),
    text=text,
  )
