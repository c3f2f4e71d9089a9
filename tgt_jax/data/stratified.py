# SPDX-License-Identifier: Apache-2.0
"""A split of one's own, for data that come without an official one."""

from __future__ import annotations

import numpy as np

from tgt_jax.data import draws


def split(
  labels: np.ndarray, *, test_fraction: float, seed: int, stream: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows to train and to test on, each sorted, int64.

  The test split takes the same share of every class.

  Args:
    labels: integers [N].
    test_fraction: share of each class to test on, strictly between 0 and 1.
    seed: of the split alone; runs that should be compared share it.
    stream: name of the data set, so that no two draw alike.

  Raises:
    ValueError: a fraction outside (0, 1), or one that leaves a split without
      some class.
  """
  if not 0 < test_fraction < 1:
    raise ValueError(f"test_fraction must be in (0, 1), got {test_fraction}")
  train_parts, test_parts = [], []
  for label in np.unique(labels).tolist():
    rows = np.flatnonzero(labels == label)
    rows = rows[draws.permutation(seed, f"{stream}/split", label, len(rows))]
    size = round(test_fraction * len(rows))
    if not 0 < size < len(rows):
      raise ValueError(
        f"test_fraction {test_fraction} takes {size} of the {len(rows)}"
        f" examples of class {label}; every split needs at least one"
      )
    test_parts.append(rows[:size])
    train_parts.append(rows[size:])
  return np.sort(np.concatenate(train_parts)), np.sort(
    np.concatenate(test_parts)
  )
