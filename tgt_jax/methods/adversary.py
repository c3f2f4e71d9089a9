# SPDX-License-Identifier: Apache-2.0
"""A masked language model that learns where student and teacher disagree.

The closest competitor of gradient exploration on text: words of a real text
are hidden, an adversary fills them in so that student and teacher disagree,
and the student is distilled on the result. Exploration moves a latent by the
gradient of the moment; the adversary is a network that keeps learning.

References:
  Rashid, Lioutas, Rezagholizadeh, MATE-KD: Masked Adversarial TExt, a
  Companion to Knowledge Distillation, 2021, arXiv 2105.05912.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import (
  checks,
  metrics as metrics_lib,
  models,
  registry,
  rng as rng_lib,
)
from tgt_jax.methods.base import Aux, InitFn, Recipe, weighted_mean
from tgt_jax.methods.guided import guided, read_weights
from tgt_jax.methods.neighbours import unchanged
from tgt_jax.methods.parts import Parts
from tgt_jax.models.layers import most_probable
from tgt_jax.types import Array, Batch, ModelState, Network, Params

_PARTICIPANT = "adversary"


def hide(
  tokens: Array, rng: Array, *, share: float, fixed_ids: tuple[int, ...]
) -> Array:
  """Draws which tokens to hide, bool [B, L].

  Args:
    tokens: ids, [B, L].
    rng: keys, [B].
    share: probability of each token, in (0, 1).
    fixed_ids: ids that are never hidden: padding and separators.
  """
  draw = lambda key: jax.random.bernoulli(key, share, tokens.shape[1:])
  free = ~jnp.isin(tokens, jnp.asarray(fixed_ids, tokens.dtype))
  return jax.vmap(draw)(rng) & free


def gumbel_tokens(
  logits: Array, rng: Array, *, temperature: float
) -> tuple[Array, Array]:
  """Draws tokens from logits, differentiably.

  Args:
    logits: [B, L, V].
    rng: keys, [B].
    temperature: of the relaxation, > 0.

  Returns:
    Token ids int32 [B, L], and the same as soft tokens [B, L, V], one-hot with
    the gradient of softmax((logits + Gumbel noise) / temperature).
  """
  draw = lambda key: jax.random.gumbel(key, logits.shape[1:], logits.dtype)
  noisy = logits + jax.vmap(draw)(rng)
  ids = most_probable(noisy)
  soft = jax.nn.softmax(noisy / temperature)
  hard = jax.nn.one_hot(ids, logits.shape[-1], dtype=logits.dtype)
  return ids, hard + soft - jax.lax.stop_gradient(soft)


class _Words(NamedTuple):
  """Ids with a meaning."""

  vocab_size: int
  pad_id: int
  cls_id: int
  sep_id: int
  mask_id: int

  @property
  def fixed(self) -> tuple[int, ...]:
    """What keeps its place in a text."""
    return self.pad_id, self.cls_id, self.sep_id


def _logits(
  network: Network,
  words: _Words,
  params: Params,
  state: ModelState,
  given: Array,
  rng: Array,
) -> Array:
  """What may stand in each place, [B, L, V]: words, no symbols."""
  outputs, _ = network.apply(
    params["encoder"], state, given, train=True, rng=rng
  )
  logits = outputs.features[-1].astype(jnp.float32) @ params["words"]
  ids = jnp.arange(words.vocab_size)
  reserved = jnp.isin(ids, jnp.array((*words.fixed, words.mask_id)))
  return jnp.where(reserved[None, None], -1e9, logits)


def _init(network: Network, words: _Words) -> InitFn:
  def init(rng: Array, batch: Batch) -> tuple[Params, ModelState]:
    drawn, output = jax.random.split(rng)
    params, state = network.init(drawn, batch["input"])
    shapes = jax.eval_shape(
      lambda: network.apply(params, state, batch["input"])[0]
    )
    width = shapes.features[-1].shape[-1]
    table = 0.02 * jax.random.normal(output, (width, words.vocab_size))
    return {"encoder": params, "words": table}, state

  return init


def _network(spec: Mapping[str, Any], words: _Words) -> Network:
  """An encoder, told of the words what it takes."""
  factory = registry.resolve(
    models.MODELS, spec.get("name", ""), family="model"
  )
  said = {
    k: v for k, v in words._asdict().items() if registry.takes(factory, k)
  }
  return models.from_spec(models.MODELS, {**said, **spec}, num_classes=1)


def mate_kd(
  parts: Parts,
  *,
  adversary: Mapping[str, Any],
  vocab_size: int,
  pad_id: int,
  cls_id: int,
  sep_id: int,
  mask_id: int,
  weights: Mapping[str, float] | None = None,
  share: float = 0.3,
  temperature: float = 1.0,
  fluency: float = 1.0,
) -> Recipe:
  """Distillation also on texts that an adversary filled in.

  Words are hidden in the start points. One step updates both: the student
  descends its loss on the filled text, the adversary ascends
  `parts.disagreement` there, through both networks.

  Args:
    parts: see `Parts`.
    adversary: spec of an encoder, see `models.MODELS`; of its words it is told
      what it takes.
    vocab_size: number of token ids V.
    pad_id: of padding.
    cls_id: of what begins a text.
    sep_id: of what ends it.
    mask_id: of a hidden word.
    weights: "label", "distill", "generated"; 1 each where not given.
    share: of the words that are hidden, in (0, 1).
    temperature: of the relaxed draws.
    fluency: weight of the adversary's likelihood of the hidden words, >= 0.
      [deviation] The paper's adversary comes pretrained and has none, where
      ours begins at random; and it takes ten steps to the student's hundred,
      where ours take each step together, by one optimiser.

  Raises:
    ValueError: an argument out of its range.
  """
  checks.inside(0.0, 1.0, share=share)
  checks.positive(temperature=temperature, vocab_size=vocab_size)
  checks.non_negative(fluency=fluency)
  words = _Words(vocab_size, pad_id, cls_id, sep_id, mask_id)
  network = _network(adversary, words)
  student_loss = guided(parts, read_weights(weights), unchanged(parts))

  def loss(params, model_state, frozen, batch, rng, step):
    points = batch.get("starts", batch)
    x, mask = points["input"], points.get("mask")
    keys = lambda name: rng_lib.split_examples(
      rng_lib.stream(rng, name), len(x)
    )
    hidden = hide(x, keys("hide"), share=share, fixed_ids=words.fixed)
    logits = _logits(
      network,
      words,
      params[_PARTICIPANT],
      model_state[_PARTICIPANT],
      jnp.where(hidden, mask_id, x),
      rng_lib.stream(rng, "adversary/dropout"),
    )
    ids, soft = gumbel_tokens(logits, keys("gumbel"), temperature=temperature)
    filled = jax.lax.stop_gradient(jnp.where(hidden, ids, x))
    starts = {**points, "input": filled}
    starts.pop("teacher_logits", None)  # They are those of x.
    total, aux = student_loss(
      params, model_state, frozen, {**batch, "starts": starts}, rng, step
    )
    soft = jnp.where(hidden[..., None], soft, jax.nn.one_hot(x, vocab_size))
    fixed = jax.lax.stop_gradient(params["student"])
    student, _ = parts.student.apply(fixed, model_state["student"], soft)
    teacher = parts.teacher.label(frozen, soft)
    values = parts.disagreement(student.logits, teacher.logits)
    total -= weighted_mean(values, mask)
    metrics = {"loss/adversary": metrics_lib.mean(values, mask)}
    if fluency:
      nll = _hidden_nll(logits, x, hidden)
      total += fluency * weighted_mean(nll, mask)
      metrics["loss/fluency"] = metrics_lib.mean(nll, mask)
    return total, Aux({**aux.metrics, **metrics}, aux.model_state)

  return Recipe(loss, {_PARTICIPANT: _init(network, words)})


def _hidden_nll(logits: Array, x: Array, hidden: Array) -> Array:
  """Mean negative log-likelihood of each text's hidden words, [B]."""
  its_own = jnp.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
  nll = jax.nn.logsumexp(logits, axis=-1) - its_own
  # At reserved ids the logit is a stand-in; they are never hidden.
  nll = jnp.where(hidden, nll, 0.0)
  return jnp.sum(nll, 1) / jnp.maximum(jnp.sum(hidden, 1), 1)
