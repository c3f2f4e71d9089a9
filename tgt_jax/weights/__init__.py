# SPDX-License-Identifier: Apache-2.0
"""Public weight files: reading, converting to our trees and back.

  arrays = weights.read_arrays("model.safetensors")
  tree = weights.convert(arrays, rules, template)
  torch_names = weights.export(tree, rules)

`python -m tgt_jax.weights` does the same from the command line.
"""

from __future__ import annotations

from tgt_jax.weights import torch_layers
from tgt_jax.weights.cards import (
  Preprocessing,
  WeightsCard,
  load_converted,
  save_converted,
)
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.converters import (
  CONVERTERS,
  convert_file,
  export_file,
  load_model,
)
from tgt_jax.weights.readers import read_arrays, sha256_of
from tgt_jax.weights.rules import Rule, convert, export
from tgt_jax.weights.transforms import TRANSFORMS, Transform

__all__ = [
  "CONVERTERS",
  "Converter",
  "Preprocessing",
  "Rule",
  "TRANSFORMS",
  "Transform",
  "WeightsCard",
  "convert",
  "convert_file",
  "export",
  "export_file",
  "load_converted",
  "load_model",
  "read_arrays",
  "save_converted",
  "sha256_of",
  "torch_layers",
]
