# SPDX-License-Identifier: Apache-2.0
"""Names of the tiny auto-encoder's weights in two kinds of files.

Both are flat sequences, in which layers without weights count too. diffusers
calls them `encoder.layers.N`; the original files hold one half each and call
it `N`: read them with the prefixes `encoder.` and `decoder.` in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tgt_jax.weights import torch_layers
from tgt_jax.weights.rules import Rule

_ENCODER, _DECODER = (1, 3, 3, 3), (3, 3, 3, 1)


def _encoder(blocks: Sequence[int]) -> Iterator[tuple[int, str]]:
  """Position in the sequence and our name, layer by layer."""
  number = 0
  for stage, count in enumerate(blocks):
    yield number, f"stage_{stage}_conv"
    number += 1
    for i in range(count):
      yield number, f"stage_{stage}_block_{i}"
      number += 1
  yield number, "conv_out"


def _decoder(blocks: Sequence[int]) -> Iterator[tuple[int, str]]:
  """The same for the decoder: an activation, and upsampling per stage."""
  yield 0, "conv_in"
  number = 2
  for stage, count in enumerate(blocks):
    for i in range(count):
      yield number, f"stage_{stage}_block_{i}"
      number += 1
    last = stage + 1 == len(blocks)
    number += 0 if last else 1
    yield number, "conv_out" if last else f"stage_{stage}_conv"
    number += 1


def _rules(
  encoder_blocks: Sequence[int],
  decoder_blocks: Sequence[int],
  prefix: str,
  shift: int,
) -> list[Rule]:
  rules = []
  for half, layers, first in (
    ("encoder", _encoder(encoder_blocks), 0),
    ("decoder", _decoder(decoder_blocks), shift),
  ):
    for number, name in layers:
      source = f"{half}.{prefix}{number + first}"
      target = f"{half}/{name}"
      if "block" not in name:
        rules += torch_layers.conv(source, target)
        continue
      for k in range(3):
        rules += torch_layers.conv(
          f"{source}.conv.{2 * k}", f"{target}/conv_{k}"
        )
  return rules


def diffusers(
  encoder_blocks: Sequence[int] = _ENCODER,
  decoder_blocks: Sequence[int] = _DECODER,
) -> list[Rule]:
  """The names of diffusers' `AutoencoderTiny`."""
  return _rules(encoder_blocks, decoder_blocks, "layers.", 0)


def original(
  encoder_blocks: Sequence[int] = _ENCODER,
  decoder_blocks: Sequence[int] = _DECODER,
) -> list[Rule]:
  """The original names; its decoder begins with a layer that clamps."""
  return _rules(encoder_blocks, decoder_blocks, "", 1)


def taesd(
  encoder_blocks: Sequence[int] = _ENCODER,
  decoder_blocks: Sequence[int] = _DECODER,
) -> list[Rule]:
  """Both; an export has diffusers' names."""
  return [
    *diffusers(encoder_blocks, decoder_blocks),
    *original(encoder_blocks, decoder_blocks),
  ]
