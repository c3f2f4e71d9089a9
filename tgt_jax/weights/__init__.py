# SPDX-License-Identifier: Apache-2.0
"""Public weight files: reading, converting to our trees and back.

  arrays = weights.read_arrays("model.safetensors")
  tree = weights.convert(arrays, rules, template)
  torch_names = weights.export(tree, rules)

`python -m tgt_jax.weights` does the same from the command line.
"""

from __future__ import annotations

from tgt_jax.weights.rules import Rule, convert, export
from tgt_jax.weights.transforms import TRANSFORMS, Transform

__all__ = [
  "Rule",
  "TRANSFORMS",
  "Transform",
  "convert",
  "export",
]
