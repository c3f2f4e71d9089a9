# SPDX-License-Identifier: Apache-2.0
"""Data: sources addressed by number, and batches addressed by step."""

from __future__ import annotations

from tgt_jax.data.augment import IMAGE_AUGMENTATIONS, Augmentation
from tgt_jax.data.augment_text import TEXT_AUGMENTATIONS
from tgt_jax.data.bag_of_words import answers as bag_of_words
from tgt_jax.data.cuts import (
  PROFILES,
  Holdout,
  holdout,
  long_tail,
  long_tail_counts,
  split_off,
)
from tgt_jax.data.datasets import DATASETS, arrays, load, loaded
from tgt_jax.data.embedded import embedded
from tgt_jax.data.joins import stack_batches, zip_batches
from tgt_jax.data.lengths import buckets, with_buckets
from tgt_jax.data.orders import SAMPLERS, window
from tgt_jax.data.other_words import translation
from tgt_jax.data.pipeline import evaluation_batches, iterate, training_batches
from tgt_jax.data.sources import Dataset, Source, Text, from_arrays, subset
from tgt_jax.data.text import from_texts
from tgt_jax.data.tokenizer import (
  Tokenizer,
  load as load_tokenizer,
)

AUGMENTATIONS = {**IMAGE_AUGMENTATIONS, **TEXT_AUGMENTATIONS}

__all__ = [
  # Sources.
  "Source",
  "Dataset",
  "DATASETS",
  "load",
  "loaded",
  "arrays",
  "from_arrays",
  # Text.
  "Text",
  "Tokenizer",
  "load_tokenizer",
  "translation",
  "from_texts",
  "bag_of_words",
  "subset",
  "embedded",
  # Cuts.
  "PROFILES",
  "long_tail",
  "long_tail_counts",
  "Holdout",
  "holdout",
  "split_off",
  # Batches.
  "training_batches",
  "evaluation_batches",
  "zip_batches",
  "stack_batches",
  "iterate",
  "SAMPLERS",
  "window",
  "buckets",
  "with_buckets",
  # Augmentation.
  "Augmentation",
  "AUGMENTATIONS",
  "IMAGE_AUGMENTATIONS",
  "TEXT_AUGMENTATIONS",
]
