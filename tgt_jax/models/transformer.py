# SPDX-License-Identifier: Apache-2.0
"""The building blocks of BERT and BART: embeddings, attention, layers.

Text is one array x, either token ids, int32 [B, L], or soft tokens, float
[B, L, V]: a distribution over the vocabulary at each place, embedded as the
expectation of the embedding. Padding is the vocabulary's pad id, or one-hot
there; which places are padding is read off x, so no mask travels with it.

Layers normalise behind the residual sum (post-LN). Attention probabilities
[B, heads, queries, keys] are sown as "attention" into the collection
"intermediates".

References:
  Vaswani et al., 2017, "Attention Is All You Need"
  (https://arxiv.org/abs/1706.03762).
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models.layers import at_least_float32
from tgt_jax.types import Array

# Stands for minus infinity in the float32 scores of what is not attended to: a
# row without any place to attend to comes out uniform instead of NaN.
_MASKED = -1e30

normal_init = nn.initializers.normal(0.02)


def is_soft(x: Array, vocab_size: int) -> bool:
  """Tells soft tokens from token ids.

  Args:
    x: integers [B, L] or floating point [B, L, V].
    vocab_size: V.

  Raises:
    TypeError: floating point of rank 2 or integers of another.
    ValueError: neither rank 2 nor 3, or another V.
  """
  checks.rank({2, 3}, x=x)
  if x.ndim == 2:
    checks.integer(x=x)
    return False
  checks.floating(x=x)
  if x.shape[-1] != vocab_size:
    raise ValueError(
      f"x: soft tokens are distributions over {vocab_size} tokens, got shape"
      f" {x.shape}"
    )
  return True


def is_token(x: Array, token_id: int) -> Array:
  """Returns where a token stands, bool [B, L].

  Args:
    x: token ids, [B, L], or soft tokens, [B, L, V], which count as the token
      that they give at least one half.
    token_id: of the token.
  """
  return x == token_id if x.ndim == 2 else x[..., token_id] >= 0.5


def token_mask(x: Array, pad_id: int) -> Array:
  """Returns what is not padding, bool [B, L]; see `is_token`."""
  return ~is_token(x, pad_id)


def key_mask(mask: Array) -> Array:
  """Returns a mask of places, [B, L], as that of keys, [B, 1, 1, L]."""
  return mask[:, None, None, :]


def segment_ids(x: Array, sep_id: int, mask: Array) -> Array:
  """Returns 0 up to the first separator, 1 behind it, 0 for padding.

  Args:
    x: token ids, [B, L], or soft tokens, [B, L, V]; see `is_token`.
    sep_id: the separator, which itself belongs to what it ends.
    mask: what is not padding, bool [B, L].

  Returns:
    int32 [B, L].
  """
  separators = is_token(x, sep_id).astype(jnp.int32)
  before = jnp.cumsum(separators, axis=1) - separators
  return ((before > 0) & mask).astype(jnp.int32)


def mask_positions(mask: Array, pad_id: int) -> Array:
  """Returns rows of RoBERTa's position table, which counts tokens.

  Args:
    mask: what is not padding, bool [B, L].
    pad_id: the row of padding; tokens begin in the next one.

  Returns:
    int32 [B, L].
  """
  counted = jnp.cumsum(mask.astype(jnp.int32), axis=1) * mask
  return counted + pad_id


def embed_tokens(tokens: nn.Embed, x: Array) -> Array:
  """Returns embeddings [B, L, D]; of soft tokens their expectation."""
  if x.ndim == 2:
    return tokens(x)
  dtype = tokens.dtype
  return x.astype(dtype) @ tokens.embedding.astype(dtype)


def check_length(x: Array, max_positions: int) -> None:
  """Raises `ValueError` where texts are longer than there are positions."""
  if x.shape[1] > max_positions:
    raise ValueError(
      f"texts of {x.shape[1]} tokens are longer than max_positions"
      f" {max_positions}; cut them or choose a larger one"
    )


def check_heads(width: int, num_heads: int) -> None:
  """Raises `ValueError` unless the heads share the width evenly."""
  if width % num_heads:
    raise ValueError(
      f"width must be a multiple of num_heads, got {width} and {num_heads}"
    )


def table(
  rows: int, width: int, *, dtype: jnp.dtype, **kwargs: Any
) -> nn.Embed:
  """Returns an embedding table, drawn from N(0, 0.02^2)."""
  return nn.Embed(
    rows, width, dtype=dtype, embedding_init=normal_init, **kwargs
  )


def layer_norm(eps: float, dtype: jnp.dtype, **kwargs: Any) -> nn.LayerNorm:
  """Returns a layer normalisation.

  Its variance is that of the differences: that of the squares loses digits,
  and BERT's epsilon of 1e-12 does not cover them up.
  """
  return nn.LayerNorm(
    epsilon=eps, dtype=dtype, use_fast_variance=False, **kwargs
  )


def _flat_product(
  x: Array, kernel: Array, dimensions: Any, **kwargs: Any
) -> Array:
  """`x @ kernel` as one product of matrices, as `nn.Dense` asks for it.

  With batch and length as two axes XLA on a CPU transposes what the kernel's
  gradient contracts, and with it repeats the normalisation before it, a column
  at a time.
  """
  rows = x.reshape(-1, x.shape[-1])
  product = jax.lax.dot_general(
    rows, kernel, (((1,), (0,)), ((), ())), **kwargs
  )
  return product.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(features: int, dtype: jnp.dtype, **kwargs: Any) -> nn.Dense:
  """Returns an affine map, drawn from N(0, 0.02^2)."""
  return nn.Dense(
    features,
    dtype=dtype,
    kernel_init=normal_init,
    dot_general=_flat_product,
    **kwargs,
  )


class Attention(nn.Module):
  """Multi-head attention.

  Keys and values are computed apart, by `project`, so that a decoder can keep
  them.
  """

  width: int
  num_heads: int
  dropout: float
  dtype: jnp.dtype

  def setup(self) -> None:
    self.query = dense(self.width, self.dtype)
    self.key = dense(self.width, self.dtype)
    self.value = dense(self.width, self.dtype)
    self.out = dense(self.width, self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def _heads(self, x: Array) -> Array:
    """[B, L, D] to [B, L, heads, D / heads]."""
    return x.reshape(*x.shape[:2], self.num_heads, -1)

  def project(self, source: Array) -> tuple[Array, Array]:
    """Returns keys and values, each [B, L, heads, D / heads]."""
    return self._heads(self.key(source)), self._heads(self.value(source))

  def __call__(
    self, x: Array, keys_values: tuple[Array, Array], mask: Array, train: bool
  ) -> Array:
    """Attends.

    Args:
      x: what asks, [B, Q, D].
      keys_values: see `project`.
      mask: which keys a query sees, bool, broadcasts to [B, heads, Q, L].
      train: whether probabilities are dropped.
    """
    keys, values = keys_values
    queries = (
      self._heads(self.query(x)) * (self.width // self.num_heads) ** -0.5
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys)
    scores = jnp.where(mask, at_least_float32(scores), _MASKED)
    weights = jax.nn.softmax(scores).astype(self.dtype)
    self.sow("intermediates", "attention", weights)
    weights = self.drop(weights, deterministic=not train)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, values)
    return self.out(mixed.reshape(x.shape))


def gelu(x: Array) -> Array:
  """Returns the exact GELU, x times the normal distribution function at x.

  By erf: `jax.nn.gelu` goes by erfc, which takes XLA on a CPU more than twice
  the time (5.1 against 1.9 ms for three million numbers).
  """
  wide = at_least_float32(x)
  half = 0.5 * wide
  return (half + half * jax.lax.erf(wide * math.sqrt(0.5))).astype(x.dtype)


class FeedForward(nn.Module):
  """Two dense layers with the exact GELU between them."""

  width: int
  hidden: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = dense(self.hidden, self.dtype, name="up")(x)
    x = gelu(x)
    return dense(self.width, self.dtype, name="down")(x)


class Layer(nn.Module):
  """Self-attention and a feed-forward network, each with its residual.

  With `cross` a decoder's: between the two it attends to another text.
  """

  width: int
  num_heads: int
  mlp_width: int
  eps: float
  dropout: float
  dtype: jnp.dtype
  cross: bool = False

  def setup(self) -> None:
    shape = (self.width, self.num_heads, self.dropout, self.dtype)
    self.attention = Attention(*shape)
    self.attention_norm = layer_norm(self.eps, self.dtype)
    if self.cross:
      self.cross_attention = Attention(*shape)
      self.cross_norm = layer_norm(self.eps, self.dtype)
    self.mlp = FeedForward(self.width, self.mlp_width, self.dtype)
    self.mlp_norm = layer_norm(self.eps, self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def keys_values(self, x: Array) -> tuple[Array, Array]:
    """Returns what self-attention keeps of `x`."""
    return self.attention.project(x)

  def source_keys_values(self, source: Array) -> tuple[Array, Array]:
    """Returns what attention to the other text keeps of it."""
    return self.cross_attention.project(source)

  def attend(
    self,
    x: Array,
    keys_values: tuple[Array, Array],
    mask: Array,
    source_keys_values: tuple[Array, Array] | None,
    source_mask: Array | None,
    train: bool,
  ) -> Array:
    """Returns the layer's output, given all keys and values."""

    def add(x: Array, change: Array, norm: nn.LayerNorm) -> Array:
      return norm(x + self.drop(change, deterministic=not train))

    change = self.attention(x, keys_values, mask, train)
    x = add(x, change, self.attention_norm)
    if source_keys_values is not None and source_mask is not None:
      change = self.cross_attention(x, source_keys_values, source_mask, train)
      x = add(x, change, self.cross_norm)
    return add(x, self.mlp(x), self.mlp_norm)

  def __call__(
    self,
    x: Array,
    mask: Array,
    source: Array | None,
    source_mask: Array | None,
    train: bool,
  ) -> Array:
    """Computes the layer.

    Args:
      x: [B, L, D].
      mask: which places see which, bool, broadcasts to [B, heads, L, L].
      source: states of the other text, [B, S, D], or `None`.
      source_mask: which of them are seen, broadcasts to [B, heads, L, S].
      train: whether units are dropped.
    """
    kept = None if source is None else self.source_keys_values(source)
    return self.attend(x, self.keys_values(x), mask, kept, source_mask, train)


def layer_class(remat: bool) -> Any:
  """Returns `Layer`; with `remat` one whose inside a gradient recomputes."""
  return nn.remat(Layer, static_argnums=(5,)) if remat else Layer
