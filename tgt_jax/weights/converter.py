# SPDX-License-Identifier: Apache-2.0
"""What is known about one set of public weights; tables are made of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax.weights.cards import Preprocessing
from tgt_jax.weights.rules import Rule

Prepare = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class Converter(NamedTuple):
  """A model of ours and a public file that fits it.

  Attributes:
    family: "models" or "generators".
    model: `{"name": ..., **arguments}`, a key of the family's table.
    input_shape: [H, W, C] of an image or [L] of a text, from which the shapes
      are taken.
    rules: names in the file and ours.
    licence: of the weights, an SPDX name where there is one.
    preprocessing: of the images they were trained on. Its `mean` and `std`
      are given to a network, which normalises for itself. `None` for text.
    prepare: what is done to the file's arrays before the rules, such as
      folding a spectral norm into its kernel; with it there is no export.
    notes: what else a user should know.
  """

  family: str
  model: Mapping[str, Any]
  input_shape: tuple[int, ...]
  rules: Sequence[Rule]
  licence: str
  preprocessing: Preprocessing | None = None
  prepare: Prepare | None = None
  notes: str = ""
