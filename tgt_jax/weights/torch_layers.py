# SPDX-License-Identifier: Apache-2.0
"""The rules of one PyTorch layer and the flax layer that stands for it.

`source` is the layer's path in PyTorch, `target` its path below `params`, both
with fields. Rules of a bias are part of every group: a layer without one leaves
them unused.
"""

from __future__ import annotations

import numpy as np

from tgt_jax.weights.rules import Rule
from tgt_jax.weights.transforms import Transform


def _kernel(source: str, target: str, transform: str | Transform) -> list[Rule]:
  return [
    Rule(f"{source}.weight", f"params/{target}/kernel", transform),
    Rule(f"{source}.bias", f"params/{target}/bias"),
  ]


def dense(
  source: str, target: str, transform: str | Transform = "linear"
) -> list[Rule]:
  """`nn.Linear`, or with "conv1x1" a 1x1 convolution, as `nn.Dense`."""
  return _kernel(source, target, transform)


def conv(source: str, target: str) -> list[Rule]:
  """`nn.Conv2d` with any groups, depthwise included, as `nn.Conv`."""
  return _kernel(source, target, "conv")


def conv_transpose(source: str, target: str) -> list[Rule]:
  """`nn.ConvTranspose2d` as `nn.ConvTranspose`."""
  return _kernel(source, target, "conv_transpose")


def norm(source: str, target: str) -> list[Rule]:
  """`nn.GroupNorm` or `nn.LayerNorm` as flax's."""
  return [
    Rule(f"{source}.weight", f"params/{target}/scale"),
    Rule(f"{source}.bias", f"params/{target}/bias"),
  ]


def batch_norm(source: str, target: str) -> list[Rule]:
  """`nn.BatchNorm2d` with its running statistics as `nn.BatchNorm`."""
  stats = f"model_state/batch_stats/{target}"
  count = {f"{source}.num_batches_tracked": np.int64(0)}
  return [
    *norm(source, target),
    Rule(f"{source}.running_mean", f"{stats}/mean", also=count),
    Rule(f"{source}.running_var", f"{stats}/var"),
  ]
