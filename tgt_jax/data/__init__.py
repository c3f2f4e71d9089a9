# SPDX-License-Identifier: Apache-2.0
"""Data: sources addressed by number, and batches addressed by step."""

from __future__ import annotations

from tgt_jax.data.augment import AUGMENTATIONS, Augmentation
from tgt_jax.data.cuts import (
  PROFILES,
  Holdout,
  holdout,
  long_tail,
  long_tail_counts,
)
from tgt_jax.data.datasets import DATASETS, arrays
from tgt_jax.data.pipeline import (
  SAMPLERS,
  evaluation_batches,
  iterate,
  stack_batches,
  training_batches,
  zip_batches,
)
from tgt_jax.data.sources import Dataset, Source, from_arrays, subset

__all__ = [
  # Sources.
  "Source",
  "Dataset",
  "DATASETS",
  "arrays",
  "from_arrays",
  "subset",
  # Cuts.
  "PROFILES",
  "long_tail",
  "long_tail_counts",
  "Holdout",
  "holdout",
  # Batches.
  "training_batches",
  "evaluation_batches",
  "zip_batches",
  "stack_batches",
  "iterate",
  "SAMPLERS",
  # Augmentation.
  "Augmentation",
  "AUGMENTATIONS",
]
