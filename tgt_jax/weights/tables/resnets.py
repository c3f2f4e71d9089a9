# SPDX-License-Identifier: Apache-2.0
"""Names of published residual networks.

`TIMM_RESNET` is torchvision's layout too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tgt_jax.weights import torch_layers
from tgt_jax.weights.cards import Preprocessing
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.rules import Rule

TIMM_RESNET = [
  *torch_layers.conv("conv1", "stem_conv"),
  *torch_layers.batch_norm("bn1", "stem_norm"),
  *torch_layers.conv(
    "layer{i+1}.{j}.conv{k+1}", "stage_{i}_block_{j}/conv_{k}"
  ),
  *torch_layers.batch_norm(
    "layer{i+1}.{j}.bn{k+1}", "stage_{i}_block_{j}/norm_{k}"
  ),
  *torch_layers.conv(
    "layer{i+1}.{j}.downsample.0", "stage_{i}_block_{j}/shortcut"
  ),
  *torch_layers.batch_norm(
    "layer{i+1}.{j}.downsample.1", "stage_{i}_block_{j}/shortcut_norm"
  ),
  *torch_layers.dense("fc", "head"),
]

# Group normalisation uses the first two of the rules of a batch norm.
TIMM_RESNET_V2 = [
  *torch_layers.conv("stem.conv", "trunk/stem_conv"),
  *torch_layers.conv(
    "stages.{i}.blocks.{j}.conv{k+1}", "trunk/stage_{i}_block_{j}/conv_{k}"
  ),
  *torch_layers.batch_norm(
    "stages.{i}.blocks.{j}.norm{k+1}", "trunk/stage_{i}_block_{j}/norm_{k}"
  ),
  *torch_layers.conv(
    "stages.{i}.blocks.{j}.downsample.conv",
    "trunk/stage_{i}_block_{j}/shortcut",
  ),
  *torch_layers.batch_norm("norm", "trunk/norm"),
  *torch_layers.dense("head.fc", "head", "conv1x1"),
]


def _bit_unit(letter: str, k: int) -> list[Rule]:
  """One of the three convolutions of a unit and the norm in front of it."""
  source = f"resnet/block{{i+1}}/unit{{j+1:02}}/{letter}"
  target = "params/trunk/stage_{i}_block_{j}"
  return [
    Rule(f"{source}/standardized_conv2d/kernel", f"{target}/conv_{k}/kernel"),
    Rule(f"{source}/group_norm/gamma", f"{target}/norm_{k}/scale"),
    Rule(f"{source}/group_norm/beta", f"{target}/norm_{k}/bias"),
  ]


BIT_NPZ = [
  Rule(
    "resnet/root_block/standardized_conv2d/kernel",
    "params/trunk/stem_conv/kernel",
  ),
  *_bit_unit("a", 0),
  *_bit_unit("b", 1),
  *_bit_unit("c", 2),
  Rule(
    "resnet/block{i+1}/unit{j+1:02}/a/proj/standardized_conv2d/kernel",
    "params/trunk/stage_{i}_block_{j}/shortcut/kernel",
  ),
  Rule("resnet/group_norm/gamma", "params/trunk/norm/scale"),
  Rule("resnet/group_norm/beta", "params/trunk/norm/bias"),
  Rule("resnet/head/conv2d/kernel", "params/head/kernel", "conv1x1_hwio"),
  Rule("resnet/head/conv2d/bias", "params/head/bias"),
]


def prepare_bit(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Removes the counters that some files have in `standardized_conv2d_7`.

  Raises:
    ValueError: two arrays would get one name.
  """
  renamed = {
    re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name): array
    for name, array in arrays.items()
  }
  if len(renamed) != len(arrays):
    raise ValueError(
      f"expected {len(arrays)} names without their counters, got"
      f" {len(renamed)}; is this a file of one BiT network?"
    )
  return renamed


_IMAGENET = Preprocessing(
  mean=(0.485, 0.456, 0.406),
  std=(0.229, 0.224, 0.225),
  size=224,
  crop=0.875,
  interpolation="bilinear",
)
_HALF = dataclasses.replace(
  _IMAGENET, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
)
_TIMM = "Of timm's names, *.tv_in1k is torchvision's and BSD-3-Clause."
_BIT = (
  "Big Transfer. Files fine-tuned at 448 pixels want that size, those without"
  " ImageNet-1k's head num_classes=21843."
)


def _entry(
  name: str,
  rules: Sequence[Rule],
  preprocessing: Preprocessing,
  notes: str,
  prepare: Callable | None = None,
  **arguments: float,
) -> Converter:
  return Converter(
    family="models",
    model={"name": name, "num_classes": 1000, **arguments},
    input_shape=(224, 224, 3),
    rules=rules,
    licence="Apache-2.0",
    preprocessing=preprocessing,
    prepare=prepare,
    notes=notes,
  )


CONVERTERS = {
  **{
    f"timm_{source}": _entry(name, TIMM_RESNET, _IMAGENET, _TIMM)
    for source, name in (
      ("resnet18", "resnet18"),
      ("resnet50", "resnet50"),
      ("resnet101", "resnet101"),
      ("resnet152", "resnet152"),
      ("resnext50_32x4d", "resnext50"),
    )
  },
  "timm_resnetv2_50": _entry(
    "resnet50_v2",
    TIMM_RESNET_V2,
    dataclasses.replace(_IMAGENET, crop=0.95, interpolation="bicubic"),
    "",
  ),
  # timm standardises kernels with another epsilon.
  "timm_resnetv2_50x1_bit": _entry(
    "bit_resnet50", TIMM_RESNET_V2, _HALF, _BIT, standardize_eps=1e-8
  ),
  "bit_r50x1": _entry("bit_resnet50", BIT_NPZ, _HALF, _BIT, prepare_bit),
}
