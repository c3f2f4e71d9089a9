# SPDX-License-Identifier: Apache-2.0
"""Small models of transformers with random weights, and texts for them."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCAB, CLASSES, POSITIONS = 60, 3, 128
PAD, SEP = 1, 5
# What is ours by its name of the factories' arguments.
SIZES = {
  "num_layers": 2,
  "width": 32,
  "num_heads": 4,
  "mlp_width": 48,
  "vocab_size": VOCAB,
  "max_positions": POSITIONS,
}


def import_transformers() -> Any:
  """Returns the module transformers, or skips the module of tests that asks."""
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return pytest.importorskip("transformers")


def config(name: str) -> Any:
  """Returns transformers' configuration of a small model by our name.

  Where the public files differ from its defaults, it is as they are.
  """
  transformers = import_transformers()
  shared = {
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "num_labels": CLASSES,
    "attn_implementation": "eager",
  }
  sizes = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
  }
  if name == "bert":
    return transformers.BertConfig(**sizes, **shared)
  if name == "roberta":
    sizes["max_position_embeddings"] += PAD + 1
    return transformers.RobertaConfig(
      **sizes, **shared, layer_norm_eps=1e-5, type_vocab_size=1
    )
  return transformers.DistilBertConfig(
    n_layers=2,
    dim=32,
    n_heads=4,
    hidden_dim=48,
    max_position_embeddings=POSITIONS,
    **shared,
  )


def bart_config() -> Any:
  """Returns transformers' configuration of a small BART."""
  return import_transformers().BartConfig(
    vocab_size=VOCAB,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    max_position_embeddings=POSITIONS,
    attn_implementation="eager",
    pad_token_id=PAD,
    forced_eos_token_id=None,
  )


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
