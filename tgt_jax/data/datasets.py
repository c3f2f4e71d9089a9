# SPDX-License-Identifier: Apache-2.0
"""The data sets by name.

Each factory takes plain keyword arguments and returns a `Dataset`, so that
`load({"name": "cifar10", "data_dir": ...})` is all a config needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tgt_jax import registry
from tgt_jax.data import (
  cifar,
  cifar_test,
  glue,
  idx,
  image_list,
  long_tailed,
  magnatagatune,
  nuisance,
  openmic,
  photographs,
  reviews,
  sentences,
  soundfont,
  sources,
  stratified,
  synthetic,
  tfds_source,
  tones,
  topics,
)

_LATEST: dict[str, sources.Dataset] = {}


def load(spec: Mapping[str, Any]) -> sources.Dataset:
  """Reads the data set of a spec, and keeps it for `loaded`.

  Args:
    spec: `{"name": a key of DATASETS, **arguments}`.

  Raises:
    ValueError: an unknown name or argument, or what the factory raises.
  """
  found = registry.build(DATASETS, spec, family="data set")
  _LATEST.clear()
  _LATEST[_key(spec)] = found
  return found


def loaded(spec: Mapping[str, Any]) -> sources.Dataset:
  """The data set of a spec as it was read last, or else read now."""
  key = _key(spec)
  return _LATEST[key] if key in _LATEST else load(spec)


def _key(spec: Mapping[str, Any]) -> str:
  return json.dumps(dict(spec), sort_keys=True, default=str)


def digits(*, test_fraction: float = 0.3, seed: int = 0) -> sources.Dataset:
  """Handwritten digits of scikit-learn: 1,797 images of 8x8, 10 classes.

  They come with the library and have no official split. The test split takes
  the same share of every class.

  Args:
    test_fraction: share of each class to test on, strictly between 0 and 1.
    seed: of the split alone; runs that should be compared share it.

  Raises:
    ValueError: a fraction outside (0, 1), or one that leaves a split without
      some class.

  References:
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
    Machine Learning Repository, 1998.
  """
  from sklearn import datasets as sklearn_datasets

  bunch = sklearn_datasets.load_digits()
  images, labels = bunch.images / 16.0, bunch.target
  parts = stratified.split(
    labels, test_fraction=test_fraction, seed=seed, stream="digits"
  )
  train, test = (
    sources.from_arrays(
      images[rows],
      labels[rows],
      name=f"digits/{name}",
      num_classes=10,
      options={"test_fraction": test_fraction, "seed": seed},
    )
    for name, rows in zip(("train", "test"), parts, strict=True)
  )
  return sources.Dataset(train, test, train)


def arrays(
  *,
  train_images: Any,
  train_labels: Any,
  test_images: Any,
  test_labels: Any,
  class_names: Sequence[str] | None = None,
  num_classes: int | None = None,
  name: str = "arrays",
) -> sources.Dataset:
  """Arrays of the caller, for a notebook.

  A config is plain values, so it names a function that returns this:
  `config.data = {"name": "__main__:my_data"}`.

  Args:
    train_images: [N, H, W] or [N, H, W, C]; uint8, or floating point in [0, 1].
    train_labels: integers [N] in [0, K).
    test_images: as `train_images`, of the same image shape.
    test_labels: integers in [0, K).
    class_names: K names; by default the numbers.
    num_classes: K; by default counted from the training labels.
    name: what messages call it.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes that do not fit, or values or labels out of range.
  """
  train = sources.from_arrays(
    train_images,
    train_labels,
    name=f"{name}/train",
    num_classes=num_classes,
    class_names=class_names,
  )
  test = sources.from_arrays(
    test_images,
    test_labels,
    name=f"{name}/test",
    num_classes=train.num_classes,
    class_names=class_names,
  )
  if train.input_shape != test.input_shape:
    raise ValueError(
      f"{name}: training images have shape {train.input_shape}, test images"
      f" {test.input_shape}; they must be equal"
    )
  return sources.Dataset(train, test, train)


DATASETS: dict[str, Callable[..., sources.Dataset]] = {
  "cifar10": cifar.cifar10,
  "cifar10_test": cifar_test.cifar10_test,
  "cifar100": cifar.cifar100,
  "digits": digits,
  "fashion_mnist": idx.fashion_mnist,
  "glue": glue.glue,
  "image_list": image_list.image_list,
  "imagenet_lt": long_tailed.imagenet_lt,
  "imdb": reviews.imdb,
  "magnatagatune": magnatagatune.magnatagatune,
  "manifold": synthetic.manifold,
  "nuisance": nuisance.nuisance,
  "openmic": openmic.openmic,
  "photographs": photographs.photographs,
  "places_lt": long_tailed.places_lt,
  "reviews_csv": reviews.reviews_csv,
  "sentences": sentences.sentences,
  "soundfont": soundfont.soundfont,
  "sun_lt": long_tailed.sun_lt,
  "tfds": tfds_source.tfds,
  "tones": tones.tones,
  "topics": topics.topics,
}
