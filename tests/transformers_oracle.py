# SPDX-License-Identifier: Apache-2.0
"""Small models of transformers with random weights, and texts for them."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCAB, CLASSES, LENGTH = 60, 3, 16
PAD, SEP = 1, 5
# What is ours by its name of the factories' arguments.
SIZES = {
  "num_layers": 2,
  "width": 32,
  "num_heads": 4,
  "mlp_width": 48,
  "vocab_size": VOCAB,
  "max_positions": LENGTH,
}


def import_transformers() -> Any:
  """Returns the module transformers, or skips the module of tests that asks."""
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return pytest.importorskip("transformers")


def texts(*, lengths: tuple[int, ...] = (10, 7, 4)) -> np.ndarray:
  """Pairs of texts, int32 [B, L], with separators and padding."""
  draws = np.random.default_rng(0)
  x = draws.integers(SEP + 1, VOCAB, (len(lengths), max(lengths)))
  for row, length in zip(x, lengths, strict=True):
    row[length:] = PAD
    row[[length // 2, length - 1]] = SEP
  return x.astype(np.int32)


def soft_texts(x: np.ndarray) -> np.ndarray:
  """Distributions around texts, one-hot where there is padding."""
  draws = np.random.default_rng(1)
  noise = draws.dirichlet(np.ones(VOCAB), x.shape)
  sharp = np.eye(VOCAB)[x]
  return np.where((x == PAD)[..., None], sharp, 0.7 * sharp + 0.3 * noise)


def randomize(model: Any) -> Any:
  """Draws weights in float64 that no layer's output drowns in others'."""
  import torch

  draws = torch.Generator().manual_seed(0)
  model = model.double().eval()
  with torch.no_grad():
    for name, array in model.named_parameters():
      noise = torch.randn(array.shape, generator=draws, dtype=array.dtype)
      is_norm = "norm" in name.lower() and name.endswith("weight")
      array.copy_(1.0 + 0.2 * noise if is_norm else 0.3 * noise)
  return model


def state_arrays(model: Any) -> dict[str, np.ndarray]:
  """Returns a model's parameters and buffers by name."""
  return {name: t.detach().numpy() for name, t in model.state_dict().items()}


def difference(got: Any, want: Any) -> float:
  """Returns the largest difference, relative to the largest value."""
  got = np.asarray(got, np.float64)
  want = np.asarray(want, np.float64)
  assert got.shape == want.shape
  return float(np.abs(got - want).max() / np.abs(want).max())
