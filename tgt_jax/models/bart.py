# SPDX-License-Identifier: Apache-2.0
"""BART: a denoising auto-encoder of text.

The encoder's states are what exploration moves; the decoder turns them back
into text, in one pass over given tokens (`decode`, which is differentiable)
or token by token (`decoder`, for the functions of `decoding`).

References:
  Lewis et al., 2020, "BART" (https://arxiv.org/abs/1910.13461).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.models import decoding, layers, transformer
from tgt_jax.types import Array, Params

_EPSILON = 1e-5
# The first rows of the tables of positions are of no position.
_OFFSET = 2

KeysValues = tuple[Array, Array]  # Each [B, L, heads, D / heads].


class Source(NamedTuple):
  """What every step of the decoder reads of the encoded text.

  Attributes:
    mask: which states are seen, bool [B, 1, 1, L].
    keys_values: of each layer's attention to them.
  """

  mask: Array
  keys_values: tuple[KeysValues, ...]


def shift_right(x: Array, start_id: int) -> Array:
  """Returns what the decoder reads to write `x`: all but the last token.

  Args:
    x: token ids, [B, L], or soft tokens, [B, L, V].
    start_id: the token that stands in front.

  Returns:
    The shape and dtype of `x`.
  """
  if x.ndim == 2:
    start = jnp.full((x.shape[0], 1), start_id, x.dtype)
  else:
    one = jax.nn.one_hot(start_id, x.shape[-1], dtype=x.dtype)
    start = jnp.broadcast_to(one[None, None], (x.shape[0], 1, x.shape[-1]))
  return jnp.concatenate([start, x[:, :-1]], axis=1)


class BART(nn.Module):
  """Encoder and decoder that share their embeddings; see `bart`."""

  num_layers: int
  num_decoder_layers: int
  width: int
  num_heads: int
  mlp_width: int
  vocab_size: int
  max_positions: int
  pad_id: int
  start_id: int
  dropout: float
  remat: bool
  dtype: jnp.dtype

  def setup(self) -> None:
    table = functools.partial(
      transformer.table, width=self.width, dtype=self.dtype
    )
    norm = functools.partial(transformer.layer_norm, _EPSILON, self.dtype)
    layer = functools.partial(
      transformer.layer_class(self.remat),
      self.width,
      self.num_heads,
      self.mlp_width,
      _EPSILON,
      self.dropout,
      self.dtype,
    )
    self.tokens = table(self.vocab_size)
    self.encoder_positions = table(self.max_positions + _OFFSET)
    self.encoder_norm = norm()
    self.encoder_layer = [layer() for _ in range(self.num_layers)]
    self.decoder_positions = table(self.max_positions + _OFFSET)
    self.decoder_norm = norm()
    self.decoder_layer = [
      layer(cross=True) for _ in range(self.num_decoder_layers)
    ]
    self.logits_bias = self.param(
      "logits_bias", nn.initializers.zeros, (self.vocab_size,)
    )
    self.drop = nn.Dropout(self.dropout)

  def _embed(
    self,
    x: Array,
    table: nn.Embed,
    norm: nn.LayerNorm,
    train: bool,
    first: Array | int = 0,
  ) -> Array:
    transformer.is_soft(x, self.vocab_size)
    transformer.check_length(x, self.max_positions)
    positions = table(jnp.arange(x.shape[1])[None] + _OFFSET + first)
    embedded = transformer.embed_tokens(self.tokens, x) + positions
    return self.drop(norm(embedded), deterministic=not train)

  def _logits(self, states: Array) -> Array:
    # No weight of the published model: a constant that fine-tuning leaves.
    bias = jax.lax.stop_gradient(self.logits_bias)[None, None]
    return layers.at_least_float32(self.tokens.attend(states)) + bias

  def encode(self, x: Array, *, train: bool = False) -> Array:
    """Returns the states of a text, [B, L, D].

    Args:
      x: token ids, [B, L], or soft tokens, [B, L, V]; see `transformer`.
      train: whether units are dropped.
    """
    seen = transformer.key_mask(transformer.token_mask(x, self.pad_id))
    states = self._embed(x, self.encoder_positions, self.encoder_norm, train)
    for layer in self.encoder_layer:
      states = layer(states, seen, None, None, train)
    return states

  def decode(
    self,
    states: Array,
    source_mask: Array,
    decoder_x: Array,
    *,
    train: bool = False,
  ) -> Array:
    """Returns the logits of each next token, [B, T, V], at least float32.

    Args:
      states: of the encoder, [B, L, D].
      source_mask: which of them are of tokens, bool [B, L].
      decoder_x: what stands before each token, [B, T] or [B, T, V]; see
        `shift_right`.
      train: whether units are dropped.
    """
    seen = transformer.key_mask(source_mask)
    length = decoder_x.shape[1]
    past = jnp.tril(jnp.ones((length, length), bool))[None, None]
    x = self._embed(decoder_x, self.decoder_positions, self.decoder_norm, train)
    for layer in self.decoder_layer:
      x = layer(x, past, states.astype(self.dtype), seen, train)
    return self._logits(x)

  def source(self, states: Array, source_mask: Array) -> Source:
    """Returns what `step` reads of the encoded text."""
    states = states.astype(self.dtype)
    return Source(
      transformer.key_mask(source_mask),
      tuple(layer.source_keys_values(states) for layer in self.decoder_layer),
    )

  def step(
    self,
    tokens: Array,
    index: Array,
    past: tuple[KeysValues, ...],
    source: Source,
  ) -> tuple[Array, tuple[KeysValues, ...]]:
    """Decodes one place: `decode` at the `index`-th one.

    Args:
      tokens: what stands there, int [B].
      index: of the place, from 0.
      past: keys and values of the places before, with room for all.
      source: of the encoded text.

    Returns:
      Logits of the next token, [B, V], and the past with this place in it.
    """
    x = self._embed(
      tokens[:, None],
      self.decoder_positions,
      self.decoder_norm,
      False,
      first=index,
    )
    grown = []
    for layer, before, source_keys_values in zip(
      self.decoder_layer, past, source.keys_values, strict=True
    ):
      keys, values = (
        jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1)
        for old, new in zip(before, layer.keys_values(x), strict=True)
      )
      seen = (jnp.arange(keys.shape[1]) <= index)[None, None, None]
      x = layer.attend(
        x, (keys, values), seen, source_keys_values, source.mask, False
      )
      grown.append((keys, values))
    return self._logits(x)[:, 0], tuple(grown)

  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Returns the logits of a text given itself."""
    mask = transformer.token_mask(x, self.pad_id)
    states = self.encode(x, train=train)
    before = shift_right(x, self.start_id)
    return self.decode(states, mask, before, train=train)


def decoder(
  module: BART,
  params: Params,
  states: Array,
  source_mask: Array,
  *,
  max_length: int,
  copies: int = 1,
) -> tuple[decoding.Step, Any]:
  """Returns the step and the empty past that `decoding` works with.

  Keys and values of the encoded text are computed here, once. Discrete tokens
  have no gradient, so neither parameters nor states get one.

  Args:
    module: see `bart`.
    params: of it.
    states: of the encoder, perhaps moved, [B, L, D].
    source_mask: which of them are of tokens, bool [B, L].
    max_length: the largest number of tokens to be written.
    copies: beams per text; the step then takes B * copies tokens.

  Raises:
    ValueError: `max_length` is not in [1, max_positions].
  """
  checks.in_range(1, module.max_positions, max_length=max_length)
  params, states = jax.lax.stop_gradient((params, states))
  source: Any = module.apply(
    {"params": params}, states, source_mask, method="source"
  )
  source = jax.tree.map(lambda a: jnp.repeat(a, copies, axis=0), source)
  head_width = module.width // module.num_heads
  shape = (len(states) * copies, max_length, module.num_heads, head_width)
  empty = jnp.zeros(shape, module.dtype)

  def step(tokens: Array, index: Array, past: Any) -> tuple[Array, Any]:
    result: Any = module.apply(
      {"params": params}, tokens, index, past, source, method="step"
    )
    return result

  return step, ((empty, empty),) * module.num_decoder_layers


def bart(
  *,
  num_layers: int = 6,
  num_decoder_layers: int = 6,
  width: int = 768,
  num_heads: int = 12,
  mlp_width: int = 3072,
  vocab_size: int = 50265,
  max_positions: int = 1024,
  pad_id: int = 1,
  start_id: int = 2,
  dropout: float = 0.1,
  remat: bool = False,
  dtype: str = "float32",
) -> BART:
  """Builds BART; the defaults are those of bart-base.

  Args:
    num_layers: of the encoder.
    num_decoder_layers: of the decoder.
    width: of the states, D; a multiple of `num_heads`.
    num_heads: of each attention.
    mlp_width: hidden units of each feed-forward network.
    vocab_size: number of token ids V.
    max_positions: of the longest text, L.
    pad_id: of padding.
    start_id: of the token that the decoder begins with, `</s>`.
    dropout: probability of dropping a hidden unit or a weight of attention
      while training, in [0, 1).
    remat: computes the inside of each layer anew in the backward pass, which
      saves memory.
    dtype: compute dtype, "float32" or "bfloat16"; parameters and logits are
      float32.

  Returns:
    A flax module: `init(rng, x)`, and `apply` with `method` "encode" or
    "decode"; the whole, without a method, gives the logits of a text given
    itself.

  Raises:
    ValueError: an argument out of its range.
  """
  checks.positive(
    num_layers=num_layers,
    num_decoder_layers=num_decoder_layers,
    width=width,
    num_heads=num_heads,
    mlp_width=mlp_width,
    max_positions=max_positions,
  )
  checks.in_range(0, vocab_size - 1, pad_id=pad_id, start_id=start_id)
  checks.in_range(0.0, 0.999, dropout=dropout)
  transformer.check_heads(width, num_heads)
  return BART(
    num_layers=num_layers,
    num_decoder_layers=num_decoder_layers,
    width=width,
    num_heads=num_heads,
    mlp_width=mlp_width,
    vocab_size=vocab_size,
    max_positions=max_positions,
    pad_id=pad_id,
    start_id=start_id,
    dropout=dropout,
    remat=remat,
    dtype=layers.compute_dtype(dtype),
  )
