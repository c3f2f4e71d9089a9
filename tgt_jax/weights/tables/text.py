# SPDX-License-Identifier: Apache-2.0
"""Names of published encoders of text.

Files of one family differ in their prefix, in what they name the parameters of
a layer norm, and in the heads they carry. The first names are those that
transformers gives a classifier, and what an export writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tgt_jax.weights import torch_layers
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.rules import Rule


def _optional(rules: list[Rule]) -> list[Rule]:
  """Of a classifier, which a file need not have."""
  return [dataclasses.replace(rule, optional=True) for rule in rules]


def _norm(source: str, target: str) -> list[Rule]:
  """A layer norm, also by the names that it had in TensorFlow."""
  return [
    *torch_layers.norm(source, target),
    Rule(f"{source}.gamma", f"params/{target}/scale"),
    Rule(f"{source}.beta", f"params/{target}/bias"),
  ]


def _embedding(source: str, target: str) -> Rule:
  return Rule(f"{source}.weight", f"params/{target}/embedding")


def _bert_body(prefix: str) -> list[Rule]:
  """Embeddings and layers of BERT and RoBERTa."""
  embeddings = f"{prefix}embeddings"
  layer = f"{prefix}encoder.layer.{{i}}"
  words = "query|key|value"
  return [
    _embedding(f"{embeddings}.word_embeddings", "embeddings/word"),
    _embedding(f"{embeddings}.position_embeddings", "embeddings/position"),
    _embedding(f"{embeddings}.token_type_embeddings", "embeddings/segment"),
    *_norm(f"{embeddings}.LayerNorm", "embeddings/norm"),
    *torch_layers.dense(
      f"{layer}.attention.self.{{p:{words}}}", "layer_{i}/attention/{p}"
    ),
    *torch_layers.dense(
      f"{layer}.attention.output.dense", "layer_{i}/attention/out"
    ),
    *_norm(f"{layer}.attention.output.LayerNorm", "layer_{i}/attention_norm"),
    *torch_layers.dense(f"{layer}.intermediate.dense", "layer_{i}/mlp/up"),
    *torch_layers.dense(f"{layer}.output.dense", "layer_{i}/mlp/down"),
    *_norm(f"{layer}.output.LayerNorm", "layer_{i}/mlp_norm"),
  ]


# Counted once and for all, and what predicted masked tokens and next sentences.
_DROPPED = [
  Rule("{p:*}position_ids", None),
  Rule("cls.{p:*}", None),
  Rule("lm_head.{p:*}", None),
]

BERT = [
  *_bert_body("bert."),
  *_optional(torch_layers.dense("bert.pooler.dense", "pooler")),
  *_optional(torch_layers.dense("classifier", "head")),
  *_bert_body(""),
  *_optional(torch_layers.dense("pooler.dense", "pooler")),
  *_DROPPED,
]

# Its pooler is of the pre-training, the classifier has one of its own.
ROBERTA = [
  *_bert_body("roberta."),
  *_optional(torch_layers.dense("classifier.dense", "pooler")),
  *_optional(torch_layers.dense("classifier.out_proj", "head")),
  *_bert_body(""),
  Rule("roberta.pooler.{p:*}", None),
  Rule("pooler.{p:*}", None),
  *_DROPPED,
]


def _distilbert_body(prefix: str) -> list[Rule]:
  embeddings = f"{prefix}embeddings"
  layer = f"{prefix}transformer.layer.{{i}}"
  return [
    _embedding(f"{embeddings}.word_embeddings", "embeddings/word"),
    _embedding(f"{embeddings}.position_embeddings", "embeddings/position"),
    *_norm(f"{embeddings}.LayerNorm", "embeddings/norm"),
    *(
      rule
      for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))
      for rule in torch_layers.dense(
        f"{layer}.attention.{letter}_lin", f"layer_{{i}}/attention/{word}"
      )
    ),
    *torch_layers.dense(
      f"{layer}.attention.out_lin", "layer_{i}/attention/out"
    ),
    *_norm(f"{layer}.sa_layer_norm", "layer_{i}/attention_norm"),
    *torch_layers.dense(f"{layer}.ffn.lin1", "layer_{i}/mlp/up"),
    *torch_layers.dense(f"{layer}.ffn.lin2", "layer_{i}/mlp/down"),
    *_norm(f"{layer}.output_layer_norm", "layer_{i}/mlp_norm"),
  ]


DISTILBERT = [
  *_distilbert_body("distilbert."),
  *_optional(torch_layers.dense("pre_classifier", "pooler")),
  *_optional(torch_layers.dense("classifier", "head")),
  *_distilbert_body(""),
  Rule("{p:*}position_ids", None),
  Rule("vocab_{p:transform|layer_norm|projector}.{q:weight|bias}", None),
]

# sentence-transformers saves the bare encoder.
SENTENCE_BERT = [
  *_bert_body(""),
  Rule("pooler.{p:*}", None),
  *_optional(torch_layers.dense("classifier", "head")),
  *_DROPPED,
]


def _tf_dense(source: str, target: str) -> list[Rule]:
  """TensorFlow's kernels are [in, out], as ours."""
  return [
    Rule(f"{source}/kernel", f"params/{target}/kernel"),
    Rule(f"{source}/bias", f"params/{target}/bias"),
  ]


def _tf_norm(source: str, target: str) -> list[Rule]:
  return [
    Rule(f"{source}/LayerNorm/gamma", f"params/{target}/scale"),
    Rule(f"{source}/LayerNorm/beta", f"params/{target}/bias"),
  ]


_TF_LAYER = "bert/encoder/layer_{i}"
# The checkpoints of google-research/bert and its miniatures.
BERT_TF = [
  *(
    Rule(
      f"bert/embeddings/{theirs}_embeddings",
      f"params/embeddings/{ours}/embedding",
    )
    for theirs, ours in (
      ("word", "word"),
      ("position", "position"),
      ("token_type", "segment"),
    )
  ),
  *_tf_norm("bert/embeddings", "embeddings/norm"),
  *_tf_dense(
    f"{_TF_LAYER}/attention/self/{{p:query|key|value}}",
    "layer_{i}/attention/{p}",
  ),
  *_tf_dense(f"{_TF_LAYER}/attention/output/dense", "layer_{i}/attention/out"),
  *_tf_norm(f"{_TF_LAYER}/attention/output", "layer_{i}/attention_norm"),
  *_tf_dense(f"{_TF_LAYER}/intermediate/dense", "layer_{i}/mlp/up"),
  *_tf_dense(f"{_TF_LAYER}/output/dense", "layer_{i}/mlp/down"),
  *_tf_norm(f"{_TF_LAYER}/output", "layer_{i}/mlp_norm"),
  *_optional(_tf_dense("bert/pooler/dense", "pooler")),
  Rule("output_weights", "params/head/kernel", "linear", optional=True),
  Rule("output_bias", "params/head/bias", optional=True),
  Rule("cls/{p:*}", None),
  Rule("{p:*}/adam_{q:m|v}", None),
  Rule("global_step", None),
  # BLEURT's score.
  Rule("dense/{p:kernel|bias}", None),
]

_HEADLESS = (
  "The file need not have a classifier; one of another number of classes wants"
  " num_classes. "
)


def _entry(
  name: str, rules: Sequence[Rule], licence: str, source: str
) -> Converter:
  return Converter(
    family="models",
    model={"name": name, "num_classes": 2},
    input_shape=(128,),
    rules=rules,
    licence=licence,
    notes=f"{source}. {_HEADLESS}".strip(),
  )


CONVERTERS = {
  "bert_base_uncased": _entry(
    "bert_base", BERT, "Apache-2.0", "google-bert/bert-base-uncased"
  ),
  "bert_tiny": _entry(
    "bert_tiny", BERT, "Apache-2.0", "google/bert_uncased_L-2_H-128_A-2"
  ),
  "bert_tiny_tf": _entry(
    "bert_tiny", BERT_TF, "Apache-2.0", "TensorFlow checkpoint of bert_tiny"
  ),
  "roberta_base": _entry(
    "roberta_base", ROBERTA, "MIT", "FacebookAI/roberta-base"
  ),
  "roberta_large": _entry(
    "roberta_large", ROBERTA, "MIT", "FacebookAI/roberta-large"
  ),
  "distilroberta_base": _entry(
    "distilroberta_base",
    ROBERTA,
    "Apache-2.0",
    "distilbert/distilroberta-base",
  ),
  "distilbert_base_uncased": _entry(
    "distilbert_base",
    DISTILBERT,
    "Apache-2.0",
    "distilbert/distilbert-base-uncased",
  ),
  "minilm_l6": _entry(
    "minilm_l6",
    SENTENCE_BERT,
    "Apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2; its embeddings are divided by"
    " their norm before they are compared",
  ),
}
