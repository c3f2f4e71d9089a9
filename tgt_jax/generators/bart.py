# SPDX-License-Identifier: Apache-2.0
"""BART as a generator: a text's latent is what its encoder makes of it.

z is a sequence, [B, L, D], the encoder's states, zero where there is padding.
Exploration moves states; the decoder makes a text of them:

* `decode` is differentiable: soft tokens, a distribution per position.
* `render` is what the student reads: token ids.

References:
  Lewis et al., BART, 2019, arXiv 1910.13461.
  Zaheer et al., Teacher Guided Training, 2022, arXiv 2208.06825.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks, registry, rng as rng_lib
from tgt_jax.generators.corruption import corrupt
from tgt_jax.models import decoding, transformer
from tgt_jax.models.bart import BART, bart as network_of, decoder, shift_right
from tgt_jax.models.layers import most_probable
from tgt_jax.types import Array, Generator, ModelState, Params

RELAXATIONS = ("soft", "straight_through")
RENDERINGS = ("greedy", "beam", "sample", "forced")


class _Tokens(NamedTuple):
  """Ids with a meaning."""

  pad: int
  cls: int
  sep: int
  mask: int

  @property
  def fixed(self) -> tuple[int, ...]:
    """What keeps its place in a text: nothing else may become it."""
    return self.pad, self.cls, self.sep


class _Decoder(NamedTuple):
  """How states become text; see `bart`."""

  relaxation: str
  temperature: float
  stepwise: bool
  rendering: str
  num_beams: int
  top_k: int


def _structure(logits: Array, x: Array, tokens: _Tokens) -> Array:
  """Logits under which a text has the separators and the padding of `x`.

  At a place where `x` has one of them nothing else is possible, and elsewhere
  none of them is.

  Args:
    logits: [B, L, V].
    x: token ids, [B, L].
    tokens: which ids these are, and the mask, which is no word.
  """
  ids = jnp.arange(logits.shape[-1])
  reserved = jnp.isin(ids, jnp.asarray((*tokens.fixed, tokens.mask)))
  is_fixed = jnp.isin(x, jnp.asarray(tokens.fixed))[..., None]
  its_own = ids[None, None] == x[..., None]
  possible = jnp.where(is_fixed, its_own, ~reserved[None, None])
  return jnp.where(possible, logits, -jnp.inf)


def _relax(logits: Array, options: _Decoder) -> Array:
  """Soft tokens, or hard ones with the gradient of soft ones."""
  soft = jax.nn.softmax(logits / options.temperature)
  if options.relaxation == "soft":
    return soft
  hard = jax.nn.one_hot(most_probable(soft), soft.shape[-1], dtype=soft.dtype)
  return hard + soft - jax.lax.stop_gradient(soft)


def _decode_stepwise(
  module: BART,
  params: Params,
  z: Array,
  x: Array,
  tokens: _Tokens,
  options: _Decoder,
) -> Array:
  """Feeds every soft token to the next step, place by place.

  The decoder runs once per place over the whole prefix, so that what it does
  is plain `decode`: a gradient through it costs L passes, in memory too.
  """
  mask = transformer.token_mask(x, tokens.pad)

  @jax.checkpoint
  def write(soft: Array, place: Array) -> tuple[Array, None]:
    before = shift_right(soft, module.start_id)
    logits: Any = module.apply(
      {"params": params}, z, mask, before, method="decode"
    )
    relaxed = _relax(_structure(logits, x, tokens), options)
    here = (jnp.arange(x.shape[1]) == place)[None, :, None]
    return jnp.where(here, relaxed, soft), None

  dtype = jnp.promote_types(z.dtype, jnp.float32)  # That of logits.
  blank = jax.nn.one_hot(x, module.vocab_size, dtype=dtype)
  written, _ = jax.lax.scan(write, blank, jnp.arange(x.shape[1]))
  return written


def _words_alone(step: decoding.Step, tokens: _Tokens) -> decoding.Step:
  """A decoder's step that writes words and separators, and nothing else."""
  others = jnp.asarray((tokens.pad, tokens.cls, tokens.mask))

  def restricted(written: Array, index: Array, past: Any) -> tuple[Array, Any]:
    logits, past = step(written, index, past)
    return logits.at[:, others].set(-jnp.inf), past

  return restricted


def _render(
  module: BART,
  params: Params,
  z: Array,
  x: Array,
  rng: Array,
  tokens: _Tokens,
  options: _Decoder,
) -> Array:
  """Token ids [B, L] of states."""
  size, length = x.shape
  mask = transformer.token_mask(x, tokens.pad)
  if options.rendering == "forced":
    before = shift_right(x, module.start_id)
    logits: Any = module.apply(
      {"params": params}, z, mask, before, method="decode"
    )
    return most_probable(_structure(logits, x, tokens)).astype(x.dtype)
  copies = options.num_beams if options.rendering == "beam" else 1
  step, past = decoder(
    module, params, z, mask, max_length=length, copies=copies
  )
  step = _words_alone(step, tokens)
  special = decoding.SpecialTokens(
    start_id=module.start_id,
    eos_id=tokens.sep,
    pad_id=tokens.pad,
    first_id=tokens.cls,
    last_id=tokens.sep,
  )
  # A pair has a separator in its middle: it ends with as many as it had.
  ends = jnp.sum(x == tokens.sep, axis=1)
  if options.rendering == "beam":
    return decoding.beam_search(
      step,
      past,
      count=size,
      num_beams=copies,
      length=length,
      special=special,
      ends=ends,
    )[0]
  if options.rendering == "greedy":
    return decoding.greedy(
      step, past, count=size, length=length, special=special, ends=ends
    )
  return decoding.sample(
    step,
    past,
    rng,
    length=length,
    special=special,
    ends=ends,
    temperature=options.temperature,
    top_k=options.top_k,
  )


class _Noise(NamedTuple):
  """What training hides; see `corruption.corrupt`."""

  infill: float
  span: float
  delete: float
  stop_ids: tuple[int, ...]


def _denoise(
  module: BART,
  params: Params,
  x: Array,
  rng: Array,
  tokens: _Tokens,
  noise: _Noise,
) -> tuple[Array, Array]:
  """Negative log-likelihood and accuracy per token of each text, [B]."""
  keys = rng_lib.split_examples(rng_lib.stream(rng, "corrupt"), len(x))
  hidden = corrupt(
    x,
    keys,
    pad_id=tokens.pad,
    mask_id=tokens.mask,
    special_ids=(tokens.cls, tokens.sep),
    **noise._asdict(),
  )
  dropout, more = jax.random.split(rng_lib.stream(rng, "dropout"))
  apply = lambda *args, key, method: module.apply(
    {"params": params}, *args, train=True, rngs={"dropout": key}, method=method
  )
  states = apply(hidden, key=dropout, method="encode")
  seen = transformer.token_mask(hidden, tokens.pad)
  before = shift_right(x, module.start_id)
  logits: Any = apply(states, seen, before, key=more, method="decode")
  # The vocabulary is the longest axis of all: as few passes as can be.
  its_own = jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
  nll = jax.nn.logsumexp(logits, axis=-1) - its_own
  right = (its_own >= jnp.max(logits, -1)).astype(jnp.float32)
  there = transformer.token_mask(x, tokens.pad)
  # A text without any token has neither.
  count = jnp.maximum(jnp.sum(there, 1), 1)
  return jnp.sum(nll * there, 1) / count, jnp.sum(right * there, 1) / count


def _generator(
  module: BART, tokens: _Tokens, options: _Decoder, noise: _Noise
) -> Generator:
  def where(x: Array) -> Array:
    return transformer.token_mask(x, tokens.pad)[..., None]

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    return module.init(rng, x)["params"], {}

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    del model_state
    states: Any = module.apply({"params": params}, x, method="encode")
    return jnp.where(where(x), states, 0.0)

  def decode(
    params: Params, model_state: ModelState, z: Array, x: Array
  ) -> Array:
    del model_state
    if options.stepwise:
      return _decode_stepwise(module, params, z, x, tokens, options)
    before = shift_right(x, module.start_id)
    logits: Any = module.apply(
      {"params": params}, z, where(x)[..., 0], before, method="decode"
    )
    return _relax(_structure(logits, x, tokens), options)

  def render(
    params: Params, model_state: ModelState, z: Array, x: Array, rng: Array
  ) -> Array:
    del model_state
    return _render(module, params, z, x, rng, tokens, options)

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> tuple[Array, Mapping[str, Array], ModelState]:
    value, right = _denoise(module, params, x, rng, tokens, noise)
    terms = {"token_nll": value, "token_accuracy": right}
    return value, terms, model_state

  return Generator(init, encode, decode, loss, render, where)


@registry.hands_on(network_of, fixed=("start_id",))
def bart(
  *,
  input_shape: Sequence[int],
  vocab_size: int = 50265,
  pad_id: int = 1,
  cls_id: int = 0,
  sep_id: int = 2,
  mask_id: int = 50264,
  relaxation: str = "soft",
  temperature: float = 1.0,
  stepwise: bool = False,
  rendering: str = "greedy",
  num_beams: int = 4,
  top_k: int = 0,
  infill: float = 0.3,
  span: float = 3.0,
  delete: float = 0.0,
  stop_ids: Sequence[int] = (),
  **network: Any,
) -> Generator:
  """A denoising auto-encoder of text; ids by default those of bart-base.

  Args:
    input_shape: (L,), the longest text.
    vocab_size: number of token ids V.
    pad_id: of padding.
    cls_id: of the token that begins a text, `<s>`.
    sep_id: of the token that ends it (and parts a pair), `</s>`, with which
      the decoder begins too.
    mask_id: of the token that stands for a hidden span.
    relaxation: how `decode` passes a gradient: "soft", distributions, or
      "straight_through", the most probable token with the gradient of its
      distribution.
    temperature: of these distributions, and of "sample"; > 0.
    stepwise: whether `decode` writes place by place, each soft token fed to
      the next, which costs L passes. Else one pass, with the tokens of x as
      what stands before each place.
    rendering: how `render` writes: "greedy", "beam", "sample" (from
      softmax(logits / temperature)), or "forced": in one pass like `decode`,
      the most probable token of every place.
    num_beams: of "beam".
    top_k: of "sample": the so many most probable tokens; 0 is all.
    infill: expected share of tokens that training hides; see `corrupt`.
    span: mean length of what one mask hides.
    delete: probability that training leaves a token out.
    stop_ids: ids that end a sentence; training shuffles sentences.
    **network: sizes, dropout, remat and dtype; see `models.bart.bart`.

  Returns:
    A `Generator`; its `loss` is the negative log-likelihood per token of the
    text given its corrupted form, with teacher forcing.
    [deviation] `decode` and "forced" keep length and separators of x.

  Raises:
    ValueError: an argument out of its range.
  """
  if len(tuple(input_shape)) != 1:
    raise ValueError(
      f"input_shape: expected (length,) of a text, got {tuple(input_shape)}"
    )
  checks.one_of(RELAXATIONS, relaxation=relaxation)
  checks.one_of(RENDERINGS, rendering=rendering)
  checks.positive(temperature=temperature, num_beams=num_beams)
  checks.in_range(0, vocab_size, top_k=top_k)
  checks.in_range(
    0, vocab_size - 1, cls_id=cls_id, sep_id=sep_id, mask_id=mask_id
  )
  module = network_of(
    vocab_size=vocab_size,
    pad_id=pad_id,
    start_id=sep_id,
    **network,
  )
  checks.in_range(1, module.max_positions, input_length=input_shape[0])
  return _generator(
    module,
    _Tokens(pad_id, cls_id, sep_id, mask_id),
    _Decoder(relaxation, temperature, stepwise, rendering, num_beams, top_k),
    _Noise(infill, span, delete, tuple(stop_ids)),
  )
