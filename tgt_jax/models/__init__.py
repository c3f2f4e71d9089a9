# SPDX-License-Identifier: Apache-2.0
"""Networks that classify: students and labelers.

A factory takes plain keyword arguments and returns a `Network`: two pure
functions over parameters and a model state. Inputs are images in [0, 1], which
each network normalises itself, texts (see `transformer`), or spectrograms (see
`cp_resnet`).
"""

from __future__ import annotations

from tgt_jax.models.cnn import cnn
from tgt_jax.models.compact import bottleneck
from tgt_jax.models.cp_resnet import cp_resnet
from tgt_jax.models.efficientnet import (
  efficientnet,
  efficientnet_b0,
  efficientnet_b1,
  efficientnet_b2,
  efficientnet_b3,
  efficientnet_lite0,
)
from tgt_jax.models.encoders import (
  bert,
  bert_base,
  bert_tiny,
  distilbert,
  distilbert_base,
  distilroberta_base,
  minilm_l6,
  roberta,
  roberta_base,
  roberta_large,
)
from tgt_jax.models.mlp import mlp
from tgt_jax.models.mobile_fcn import mobile_fcn
from tgt_jax.models.mobilenet_v3 import mobilenet_v3_large
from tgt_jax.models.network import (
  as_network,
  frames,
  from_spec,
  has_convolution,
  normalisation,
  parameter_count,
  with_input_channels,
  with_input_range,
  with_input_size,
  with_translation,
)
from tgt_jax.models.resnet import resnet, resnet20, resnet32
from tgt_jax.models.resnet_imagenet import (
  resnet10,
  resnet18,
  resnet50,
  resnet101,
  resnet152,
  resnet_imagenet,
  resnext50,
)
from tgt_jax.models.resnet_v2 import (
  ResNetV2Trunk,
  bit_resnet50,
  resnet50_v2,
  resnet_v2,
)

MODELS = {
  "mlp": mlp,
  "bottleneck": bottleneck,
  "cnn": cnn,
  "resnet": resnet,
  "resnet20": resnet20,
  "resnet32": resnet32,
  "resnet_imagenet": resnet_imagenet,
  "resnet10": resnet10,
  "resnet18": resnet18,
  "resnet50": resnet50,
  "resnet101": resnet101,
  "resnet152": resnet152,
  "resnext50": resnext50,
  "resnet_v2": resnet_v2,
  "resnet50_v2": resnet50_v2,
  "bit_resnet50": bit_resnet50,
  "mobilenet_v3_large": mobilenet_v3_large,
  "efficientnet": efficientnet,
  "efficientnet_b0": efficientnet_b0,
  "efficientnet_b1": efficientnet_b1,
  "efficientnet_b2": efficientnet_b2,
  "efficientnet_b3": efficientnet_b3,
  "efficientnet_lite0": efficientnet_lite0,
  "cp_resnet": cp_resnet,
  "mobile_fcn": mobile_fcn,
  "bert": bert,
  "bert_base": bert_base,
  "bert_tiny": bert_tiny,
  "minilm_l6": minilm_l6,
  "roberta": roberta,
  "roberta_base": roberta_base,
  "roberta_large": roberta_large,
  "distilroberta_base": distilroberta_base,
  "distilbert": distilbert,
  "distilbert_base": distilbert_base,
}

__all__ = [
  "MODELS",
  "ResNetV2Trunk",
  "as_network",
  "bert",
  "bert_base",
  "bert_tiny",
  "bit_resnet50",
  "bottleneck",
  "cnn",
  "cp_resnet",
  "distilbert",
  "distilbert_base",
  "distilroberta_base",
  "efficientnet",
  "efficientnet_b0",
  "efficientnet_b1",
  "efficientnet_b2",
  "efficientnet_b3",
  "efficientnet_lite0",
  "frames",
  "from_spec",
  "has_convolution",
  "minilm_l6",
  "mlp",
  "mobile_fcn",
  "mobilenet_v3_large",
  "normalisation",
  "parameter_count",
  "resnet",
  "resnet10",
  "resnet101",
  "resnet152",
  "resnet18",
  "resnet20",
  "resnet32",
  "resnet50",
  "resnet50_v2",
  "resnet_imagenet",
  "resnet_v2",
  "resnext50",
  "roberta",
  "roberta_base",
  "roberta_large",
  "with_input_channels",
  "with_input_range",
  "with_input_size",
  "with_translation",
]
