# SPDX-License-Identifier: Apache-2.0
"""BERT, RoBERTa and DistilBERT as classifiers of text.

One encoder; the families differ in how they count positions, in whether they
know two segments, in epsilon and in the layer before the classifier.

References:
  Devlin et al., 2019, "BERT" (https://arxiv.org/abs/1810.04805).
  Liu et al., 2019, "RoBERTa" (https://arxiv.org/abs/1907.11692).
  Sanh et al., 2019, "DistilBERT" (https://arxiv.org/abs/1910.01108).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import layers, transformer
from tgt_jax.models.network import as_network
from tgt_jax.types import Array, Network, Outputs

__all__ = [
  "bert",
  "bert_base",
  "bert_tiny",
  "distilbert",
  "distilbert_base",
  "distilroberta_base",
  "minilm_l6",
  "roberta",
  "roberta_base",
  "roberta_large",
]

POOLINGS = ("first", "mean")
POOLERS = {"tanh": nn.tanh, "relu": nn.relu, "none": None}


class TextEmbeddings(nn.Module):
  """Tokens, positions and segments; summed, normalised."""

  width: int
  vocab_size: int
  max_positions: int
  num_segments: int
  pad_id: int
  sep_id: int
  count_tokens: bool
  eps: float
  dropout: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, mask: Array, train: bool) -> Array:
    def table(rows: int, name: str) -> nn.Embed:
      return transformer.table(rows, self.width, dtype=self.dtype, name=name)

    embedded = transformer.embed_tokens(table(self.vocab_size, "word"), x)
    if self.count_tokens:
      rows = self.max_positions + self.pad_id + 1
      positions = transformer.mask_positions(mask, self.pad_id)
    else:
      rows = self.max_positions
      positions = jnp.arange(x.shape[1])[None]
    embedded += table(rows, "position")(positions)
    if self.num_segments:
      segments = (
        transformer.segment_ids(x, self.sep_id, mask)
        if self.num_segments > 1
        else jnp.zeros(x.shape[:2], jnp.int32)
      )
      embedded += table(self.num_segments, "segment")(segments)
    embedded = transformer.layer_norm(self.eps, self.dtype, name="norm")(
      embedded
    )
    return nn.Dropout(self.dropout, deterministic=not train)(embedded)


class TextEncoder(nn.Module):
  """Embeddings, layers, pooling and a classifier; see `bert`."""

  num_classes: int
  num_layers: int
  width: int
  num_heads: int
  mlp_width: int
  vocab_size: int
  max_positions: int
  num_segments: int
  pad_id: int
  sep_id: int
  count_tokens: bool
  eps: float
  pooling: str
  pooler: str
  drop_pooled: bool
  zero_head: bool
  dropout: float
  remat: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Outputs:
    transformer.is_soft(x, self.vocab_size)
    transformer.check_length(x, self.max_positions)
    mask = transformer.token_mask(x, self.pad_id)
    states = TextEmbeddings(
      width=self.width,
      vocab_size=self.vocab_size,
      max_positions=self.max_positions,
      num_segments=self.num_segments,
      pad_id=self.pad_id,
      sep_id=self.sep_id,
      count_tokens=self.count_tokens,
      eps=self.eps,
      dropout=self.dropout,
      dtype=self.dtype,
      name="embeddings",
    )(x, mask, train)
    features = [states]
    layer = transformer.layer_class(self.remat)
    for i in range(self.num_layers):
      states = layer(
        self.width,
        self.num_heads,
        self.mlp_width,
        self.eps,
        self.dropout,
        self.dtype,
        name=f"layer_{i}",
      )(states, transformer.key_mask(mask), None, None, train)
      features.append(states)
    embedding = self._pool(states, mask, train)
    dropped = nn.Dropout(self.dropout, deterministic=not train)(embedding)
    zeros = nn.initializers.zeros
    logits = layers.head(
      dropped,
      self.num_classes,
      kernel_init=zeros if self.zero_head else transformer.normal_init,
    )
    return Outputs(logits, embedding, tuple(features))

  def _pool(self, states: Array, mask: Array, train: bool) -> Array:
    """Returns one vector per text, [B, D], in at least float32."""
    if self.pooling == "first":
      pooled = states[:, 0]
    else:
      pooled = mean_over_tokens(states, mask).astype(self.dtype)
    activation = POOLERS[self.pooler]
    if activation is not None:
      if self.drop_pooled:
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
      pooled = transformer.dense(self.width, self.dtype, name="pooler")(pooled)
      pooled = activation(pooled)
    return layers.at_least_float32(pooled)


def mean_over_tokens(states: Array, mask: Array) -> Array:
  """Returns the mean over what is not padding, in at least float32.

  Args:
    states: [B, L, D].
    mask: bool [B, L]; a text without any token has the mean zero.
  """
  states = layers.at_least_float32(states)
  weights = mask.astype(states.dtype)[..., None]
  return (states * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def bert(
  *,
  num_classes: int,
  num_layers: int = 12,
  width: int = 768,
  num_heads: int = 12,
  mlp_width: int = 3072,
  vocab_size: int = 30522,
  max_positions: int = 512,
  num_segments: int = 2,
  pad_id: int = 0,
  sep_id: int = 102,
  pooling: str = "first",
  pooler: str = "tanh",
  zero_head: bool = False,
  dropout: float = 0.1,
  remat: bool = False,
  dtype: str = "float32",
) -> Network:
  """Builds BERT; the defaults are those of bert-base-uncased.

  Args:
    num_classes: number of logits K.
    num_layers: depth.
    width: of the hidden states, D; a multiple of `num_heads`.
    num_heads: of each attention.
    mlp_width: hidden units of each feed-forward network.
    vocab_size: number of token ids V.
    max_positions: of the longest text, L.
    num_segments: 2 for pairs of texts; the second one begins behind the first
      separator. With 1 all belong to the first, 0 is without them.
    pad_id: of padding.
    sep_id: of the separator; unused unless `num_segments` is 2.
    pooling: what stands for a text, the state of its "first" token or the
      "mean" over its tokens.
    pooler: activation of the dense layer between that and the classifier,
      "tanh" or "relu"; "none" is without that layer.
    zero_head: whether the classifier begins at zero instead of at random.
    dropout: probability of dropping a hidden unit or a weight of attention
      while training, in [0, 1).
    remat: computes the inside of each layer anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters and logits are
      float32.

  Returns:
    A `Network` of token ids, int32 [B, L], or soft tokens, [B, L, V], padded
    on the right; see `transformer`. Features are the embeddings and each
    layer's output, [B, L, D].

  Raises:
    ValueError: an argument out of its range.
  """
  return _encoder(
    num_classes=num_classes,
    num_layers=num_layers,
    width=width,
    num_heads=num_heads,
    mlp_width=mlp_width,
    vocab_size=vocab_size,
    max_positions=max_positions,
    num_segments=num_segments,
    pad_id=pad_id,
    sep_id=sep_id,
    count_tokens=False,
    eps=1e-12,
    pooling=pooling,
    pooler=pooler,
    drop_pooled=False,
    zero_head=zero_head,
    dropout=dropout,
    remat=remat,
    dtype=dtype,
  )


def roberta(
  *,
  num_classes: int,
  num_layers: int = 12,
  width: int = 768,
  num_heads: int = 12,
  mlp_width: int = 3072,
  vocab_size: int = 50265,
  max_positions: int = 512,
  pad_id: int = 1,
  pooling: str = "first",
  pooler: str = "tanh",
  zero_head: bool = False,
  dropout: float = 0.1,
  remat: bool = False,
  dtype: str = "float32",
) -> Network:
  """Builds RoBERTa; the defaults are those of roberta-base.

  Its positions count tokens, not places, and it has one segment. For the
  arguments see `bert`. The published table of positions has 514 rows:
  `max_positions` 512 and two before them.

  Returns:
    A `Network`, as `bert`.

  Raises:
    ValueError: an argument out of its range.
  """
  return _encoder(
    num_classes=num_classes,
    num_layers=num_layers,
    width=width,
    num_heads=num_heads,
    mlp_width=mlp_width,
    vocab_size=vocab_size,
    max_positions=max_positions,
    num_segments=1,
    pad_id=pad_id,
    sep_id=0,
    count_tokens=True,
    eps=1e-5,
    pooling=pooling,
    pooler=pooler,
    drop_pooled=True,
    zero_head=zero_head,
    dropout=dropout,
    remat=remat,
    dtype=dtype,
  )


def _encoder(*, dtype: str, **fields: Any) -> Network:
  """Checks what the families share, and builds."""
  sizes = ("num_classes", "num_layers", "width", "num_heads", "mlp_width")
  checks.positive(**{name: fields[name] for name in sizes})
  checks.positive(max_positions=fields["max_positions"])
  checks.in_range(0, 2, num_segments=fields["num_segments"])
  checks.in_range(0.0, 0.999, dropout=fields["dropout"])
  checks.one_of(POOLINGS, pooling=fields["pooling"])
  checks.one_of(POOLERS, pooler=fields["pooler"])
  ids = ("pad_id", "sep_id") if fields["num_segments"] == 2 else ("pad_id",)
  for name in ids:
    checks.in_range(0, fields["vocab_size"] - 1, **{name: fields[name]})
  transformer.check_heads(fields["width"], fields["num_heads"])
  return as_network(TextEncoder(dtype=layers.compute_dtype(dtype), **fields))


# As BERT it has a dense layer behind the pooling, here with ReLU; no segments.
distilbert = functools.partial(
  bert, num_layers=6, num_segments=0, pooler="relu"
)

# The names of the published sizes.
bert_base = bert
bert_tiny = functools.partial(
  bert, num_layers=2, width=128, num_heads=2, mlp_width=512
)
roberta_base = roberta
roberta_large = functools.partial(
  roberta, num_layers=24, width=1024, num_heads=16, mlp_width=4096
)
distilbert_base = distilbert
distilroberta_base = functools.partial(roberta, num_layers=6)
# A sentence encoder: its embedding is the mean over tokens.
minilm_l6 = functools.partial(
  bert,
  num_layers=6,
  width=384,
  mlp_width=1536,
  pooling="mean",
  pooler="none",
)
