# SPDX-License-Identifier: Apache-2.0
"""Names of the KL auto-encoder's weights in three kinds of files.

* `diffusers`: files that diffusers writes today;
* `diffusers_old`: those of 2022, which most published files are; they name
  the attention's layers otherwise;
* `compvis`: the original training code, also inside whole checkpoints of
  Stable Diffusion, under `first_stage_model.`.

`autoencoder_kl(levels)` reads them all and exports the first. `levels` is the
number of widths of the model: diffusers counts the decoder's levels from the
latent, all others from the image.
"""

from __future__ import annotations

from tgt_jax.weights import torch_layers
from tgt_jax.weights.rules import Rule

_QUANTISERS = (("quant_conv", "moments"), ("post_quant_conv", "latent"))


def _block(source: str, target: str, shortcut: str) -> list[Rule]:
  return [
    *torch_layers.norm(f"{source}.norm{{k+1}}", f"{target}/norm_{{k}}"),
    *torch_layers.conv(f"{source}.conv{{k+1}}", f"{target}/conv_{{k}}"),
    *torch_layers.dense(
      f"{source}.{shortcut}", f"{target}/shortcut", "conv1x1"
    ),
  ]


def _common(norm_out: str, prefix: str = "") -> list[Rule]:
  """The ends, which all files have in the same places."""
  rules = []
  for source, target in _QUANTISERS:
    rules += torch_layers.dense(prefix + source, target, "conv1x1")
  for half in ("encoder", "decoder"):
    rules += torch_layers.conv(f"{prefix}{half}.conv_in", f"{half}/conv_in")
    rules += torch_layers.conv(f"{prefix}{half}.conv_out", f"{half}/conv_out")
    rules += torch_layers.norm(f"{prefix}{half}.{norm_out}", f"{half}/norm_out")
  return rules


def _attention(
  source: str, target: str, names: tuple[str, ...], kind: str
) -> list[Rule]:
  """Norm, query, key, value and the last layer, under the file's names."""
  norm, *layers = names
  rules = torch_layers.norm(f"{source}.{norm}", f"{target}/norm")
  ours = ("query", "key", "value", "out")
  for theirs, mine in zip(layers, ours, strict=True):
    rules += torch_layers.dense(f"{source}.{theirs}", f"{target}/{mine}", kind)
  return rules


def _diffusers(levels: int, names: tuple[str, ...]) -> list[Rule]:
  last = levels - 1
  rules = _common("conv_norm_out")
  for half, level, sampler in (
    ("encoder", "down_blocks.{i}", "downsamplers"),
    ("decoder", f"up_blocks.{{{last}-i}}", "upsamplers"),
  ):
    source = f"{half}.{level}"
    block = f"{half}/level_{{i}}_block_{{j}}"
    rules += _block(f"{source}.resnets.{{j}}", block, "conv_shortcut")
    rules += torch_layers.conv(
      f"{source}.{sampler}.0.conv", f"{half}/level_{{i}}_conv"
    )
    middle, mine = f"{half}.mid_block", f"{half}/mid"
    rules += _block(
      f"{middle}.resnets.{{j}}", f"{mine}_block_{{j}}", "conv_shortcut"
    )
    attention = f"{middle}.attentions.0"
    rules += _attention(attention, f"{mine}_attention", names, "linear")
  return rules


def diffusers(levels: int = 4) -> list[Rule]:
  """Today's names."""
  names = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
  return _diffusers(levels, names)


def diffusers_old(levels: int = 4) -> list[Rule]:
  """The names of the first files, among them those of Stable Diffusion."""
  names = ("group_norm", "query", "key", "value", "proj_attn")
  return _diffusers(levels, names)


def compvis(prefix: str = "") -> list[Rule]:
  """The names of the original code; any number of levels.

  Args:
    prefix: in front of every name; `first_stage_model.` in a checkpoint of
      Stable Diffusion, whose other parts are then dropped.
  """
  rules = _common("norm_out", prefix)
  names = ("norm", "q", "k", "v", "proj_out")
  for half, level, sampler in (
    ("encoder", "down.{i}", "downsample"),
    ("decoder", "up.{i}", "upsample"),
  ):
    source = f"{prefix}{half}.{level}"
    block = f"{half}/level_{{i}}_block_{{j}}"
    rules += _block(f"{source}.block.{{j}}", block, "nin_shortcut")
    rules += torch_layers.conv(
      f"{source}.{sampler}.conv", f"{half}/level_{{i}}_conv"
    )
    middle, mine = f"{prefix}{half}.mid", f"{half}/mid"
    rules += _block(
      f"{middle}.block_{{j+1}}", f"{mine}_block_{{j}}", "nin_shortcut"
    )
    attention = f"{middle}.attn_1"
    rules += _attention(attention, f"{mine}_attention", names, "conv1x1")
  if not prefix:
    # Of the training code: the discriminator and the perceptual loss.
    return [*rules, Rule("loss.{rest:*}", None)]
  return [
    *rules,
    Rule("{part:model|cond_stage_model|model_ema}.{rest:*}", None),
    Rule("{schedule:betas|alphas_cumprod|alphas_cumprod_prev}", None),
  ]


def autoencoder_kl(levels: int = 4) -> list[Rule]:
  """All of them; an export has today's names."""
  return [
    *diffusers(levels),
    *diffusers_old(levels),
    *compvis(),
    *compvis("first_stage_model."),
  ]
