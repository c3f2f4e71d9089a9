# SPDX-License-Identifier: Apache-2.0
"""Names of BART: the bare model's, and with the prefix of a fine-tuned one."""

from __future__ import annotations

from tgt_jax.weights import torch_layers
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.rules import Rule
from tgt_jax.weights.transforms import Transform

_ROW = Transform(
  lambda array: array.reshape(-1), lambda array: array[None], "row"
)


def _attention(source: str, target: str) -> list[Rule]:
  return [
    rule
    for theirs, ours in (
      ("q_proj", "query"),
      ("k_proj", "key"),
      ("v_proj", "value"),
      ("out_proj", "out"),
    )
    for rule in torch_layers.dense(f"{source}.{theirs}", f"{target}/{ours}")
  ]


def _body(prefix: str) -> list[Rule]:
  part = f"{prefix}{{p:encoder|decoder}}"
  layer, ours = f"{part}.layers.{{i}}", "{p}_layer_{i}"
  return [
    Rule(f"{part}.embed_positions.weight", "params/{p}_positions/embedding"),
    *torch_layers.norm(f"{part}.layernorm_embedding", "{p}_norm"),
    *_attention(f"{layer}.self_attn", f"{ours}/attention"),
    *torch_layers.norm(
      f"{layer}.self_attn_layer_norm", f"{ours}/attention_norm"
    ),
    *_attention(f"{layer}.encoder_attn", f"{ours}/cross_attention"),
    *torch_layers.norm(
      f"{layer}.encoder_attn_layer_norm", f"{ours}/cross_norm"
    ),
    *torch_layers.dense(f"{layer}.fc1", f"{ours}/mlp/up"),
    *torch_layers.dense(f"{layer}.fc2", f"{ours}/mlp/down"),
    *torch_layers.norm(f"{layer}.final_layer_norm", f"{ours}/mlp_norm"),
  ]


def _tokens(prefix: str, *others: str) -> Rule:
  """One table of embeddings, which files have under one or more names."""
  return Rule(
    f"{prefix}shared.weight",
    "params/tokens/embedding",
    tied=(
      f"{prefix}encoder.embed_tokens.weight",
      f"{prefix}decoder.embed_tokens.weight",
      *others,
    ),
  )


BART = [
  _tokens("model.", "lm_head.weight"),
  *_body("model."),
  Rule("final_logits_bias", "params/logits_bias", _ROW, default=0.0),
  _tokens(""),
  *_body(""),
  # Of files from before 2020.
  Rule("{p:*}.version", None),
]

CONVERTERS = {
  "bart_base": Converter(
    family="generators",
    model={"name": "bart", "input_shape": (128,)},
    input_shape=(128,),
    rules=BART,
    licence="Apache-2.0",
    notes="facebook/bart-base, or a fine-tuned BartForConditionalGeneration.",
  )
}
