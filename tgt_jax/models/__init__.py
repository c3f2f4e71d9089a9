# SPDX-License-Identifier: Apache-2.0
"""Networks that classify: students and labelers.

A factory takes plain keyword arguments and returns a `Network`: two pure
functions over parameters and a model state. Inputs are images in [0, 1];
each network normalises them itself.
"""

from __future__ import annotations

from tgt_jax.models.cnn import cnn
from tgt_jax.models.mlp import mlp
from tgt_jax.models.network import (
  as_network,
  from_spec,
  has_convolution,
  normalisation,
  parameter_count,
  with_input_size,
)
from tgt_jax.models.resnet import resnet, resnet20, resnet32

MODELS = {
  "mlp": mlp,
  "cnn": cnn,
  "resnet": resnet,
  "resnet20": resnet20,
  "resnet32": resnet32,
}

__all__ = [
  "MODELS",
  "as_network",
  "cnn",
  "from_spec",
  "has_convolution",
  "mlp",
  "normalisation",
  "parameter_count",
  "resnet",
  "resnet20",
  "resnet32",
  "with_input_size",
]
