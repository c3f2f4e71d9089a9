# SPDX-License-Identifier: Apache-2.0
"""Converted weights as one file: the arrays and what is known about them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tgt_jax import files, trees
from tgt_jax.types import ModelState, Params
from tgt_jax.weights.raw import bad_file

_METADATA = "weights_card"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How the images looked that the weights were trained on.

  Attributes:
    mean: subtracted from an image in [0, 1], per channel.
    std: divides it.
    size: pixels of the square input.
    crop: side of the central crop as a fraction of the resized image, (0, 1].
    interpolation: "bilinear", "bicubic", ...
    value_range: of the input that the public implementation expects. Ours
      takes [0, 1]; this is for those who compare the two.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  size: int
  crop: float = 1.0
  interpolation: str = "bilinear"
  value_range: tuple[float, float] = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class WeightsCard:
  """Where weights come from and what they are for.

  Attributes:
    name: of the converter.
    family: "models" or "generators".
    model: `{"name": ..., **arguments}` of the factory.
    input_shape: [H, W, C] or [L] that the shapes were taken from.
    source: the public file's name.
    sha256: of that file; see `readers.sha256_of`.
    licence: of the weights, an SPDX name where there is one.
    preprocessing: of the images, `None` for text.
    notes: what else a user should know.
    class_names: of the classifier, in the order of its outputs; () where the
      public file says none.
    words: of a text model, `Tokenizer.words` of the tokens that its rows stand
      for; "" where the public file came without a tokenizer.
  """

  name: str
  family: str
  model: Mapping[str, Any]
  input_shape: tuple[int, ...]
  source: str
  sha256: str
  licence: str
  preprocessing: Preprocessing | None = None
  notes: str = ""
  class_names: tuple[str, ...] = ()
  words: str = ""


def card_to_json(card: WeightsCard) -> str:
  """Returns the card as JSON, the same text for the same card."""
  return files.json_bytes(dataclasses.asdict(card)).decode()


def card_from_json(text: str, *, name: str = "card") -> WeightsCard:
  """Inverse of `card_to_json`.

  Args:
    text: JSON.
    name: where it comes from, for the error message.

  Raises:
    ValueError: not JSON, or keys that are missing or unknown.
  """
  try:
    content = json.loads(text)
    looked = content["preprocessing"]
    preprocessing = looked and Preprocessing(**_tuples(looked))
    fields = _tuples(content) | {"preprocessing": preprocessing}
    return WeightsCard(**fields | {"model": content["model"]})
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    keys = ", ".join(field.name for field in dataclasses.fields(WeightsCard))
    raise bad_file(
      name,
      expected=f"a card with {keys}",
      got=f"{type(error).__name__}: {error}",
      remedy="convert the weights again",
    ) from error


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
  return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


def save_converted(
  path: str | pathlib.Path, tree: Any, card: WeightsCard
) -> None:
  """Writes arrays and card as one safetensors file, whole or not at all.

  Args:
    path: the file.
    tree: `{"params": ..., "model_state": ...}`.
    card: what is known of them.
  """
  trees.save_tree(path, tree, {_METADATA: card_to_json(card)})


def load_converted(
  path: str | pathlib.Path,
) -> tuple[dict[str, Params | ModelState], WeightsCard]:
  """Returns what `save_converted` wrote.

  Raises:
    FileNotFoundError: no such file.
    ValueError: damaged, or a file without a card.
  """
  tree, metadata = trees.load_tree(path)
  if _METADATA not in metadata:
    raise bad_file(
      path,
      expected="converted weights with a card",
      got="a safetensors file without one",
      remedy="convert it first: python -m tgt_jax.weights convert",
    )
  card = card_from_json(metadata[_METADATA], name=str(path))
  # An empty mapping has no arrays, so the file cannot tell of it.
  return {"params": {}, "model_state": {}} | tree, card
