# SPDX-License-Identifier: Apache-2.0
"""The teacher: three pure functions over one frozen pytree.

A teacher knows where data lie (`encode`, `decode`: a generator that was
trained without task labels) and what they are (`label`: one network or
several). All its arrays travel as one argument, `frozen`; they are never
closed over (a compiled step would carry them as constants) and never donated.

Functions take batches, [B, ...] in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax.types import (
  Array,
  Generator,
  Network,
  NetworkApply,
  Outputs,
  Params,
)


def _everywhere(x: Array) -> Array | None:
  del x
  return None


def no_embedding(frozen: Params, x: Array) -> Any:
  """In the place of what an input without an embedding cannot be asked."""
  del frozen, x
  raise ValueError(
    "the teacher has no encoder, so that nothing embeds an input that comes"
    " without an embedding: name one in config.encoder, or use data that bring"
    " embeddings along"
  )


class Teacher(NamedTuple):
  """What explores and labels.

  Attributes:
    encode: `(frozen, x) -> z`.
    decode: `(frozen, z, x) -> x'`, differentiable in `z`; `x` is what `z` was
      encoded from, see `Generator.decode`.
    label: `(frozen, x) -> Outputs`.
    render: `(frozen, z, x, rng) -> x'`, what the student is shown of `z`, with
      keys [B]: a constant to the student's gradient.
    where: `x -> bool`, broadcasting to `z`: the coordinates that may move;
      `None`: all.
    embed: `(frozen, x) -> e`, [B, T, 1, D]: T frames of D numbers.
  """

  encode: Callable[[Params, Array], Array]
  decode: Callable[[Params, Array, Array], Array]
  label: Callable[[Params, Array], Outputs]
  render: Callable[[Params, Array, Array, Array], Array]
  where: Callable[[Array], Array | None] = _everywhere
  embed: Callable[[Params, Array], Array] = no_embedding


class Frozen(NamedTuple):
  """The arrays of one network that no longer learns.

  Attributes:
    params: its parameters.
    state: its batch statistics or codebook, `{}` where it has none.
  """

  params: Params
  state: Params


def triple(generator: Generator, label: Callable) -> Teacher:
  """Joins a generator and a labeler.

  Args:
    generator: its arrays are `frozen["generator"]`, a `Frozen`.
    label: `(frozen["labeler"], x) -> Outputs`, see `single` and `ensemble`.
  """

  def encode(frozen, x):
    params, state = frozen["generator"]
    return generator.encode(params, state, x)

  def decode(frozen, z, x):
    params, state = frozen["generator"]
    return generator.decode(params, state, z, x)

  def render(frozen, z, x, rng):
    params, state = frozen["generator"]
    if generator.render is None:
      shown = generator.decode(params, state, z, x)
    else:
      shown = generator.render(params, state, z, x, rng)
    return jax.lax.stop_gradient(shown)

  return Teacher(
    encode=encode,
    decode=decode,
    label=lambda frozen, x: label(frozen["labeler"], x),
    render=render,
    where=generator.where or _everywhere,
  )


def without_generator(label: Callable) -> Teacher:
  """A teacher whose latent space is the input space itself.

  Exploring with it moves pixels. It is the ablation that shows what the
  decoder is for: the same noise or the same ascent without a manifold.

  Args:
    label: `(frozen["labeler"], x) -> Outputs`.
  """

  def decode(frozen, z, x):
    del frozen, x
    return jnp.clip(z, 0.0, 1.0)

  return Teacher(
    encode=lambda frozen, x: x,
    decode=decode,
    label=lambda frozen, x: label(frozen["labeler"], x),
    render=lambda frozen, z, x, rng: jax.lax.stop_gradient(
      decode(frozen, z, x)
    ),
  )


def embedding(network: Network) -> Callable[[Params, Array], Array]:
  """What a frozen network makes of an input, as an image of one pixel.

  Args:
    network: whose last linear layer reads what is wanted.

  Returns:
    `(frozen, x) -> e` over a `Frozen`, [B, 1, 1, D].
  """

  def embed(frozen, x):
    found = single(network.apply)(frozen, x).embedding
    return found[:, None, None, :]

  return embed


def with_encoder(
  teacher: Teacher, encoder: Network, probe: Callable | None = None
) -> Teacher:
  """A teacher that also embeds.

  Args:
    teacher: the rest of it.
    encoder: its arrays are `frozen["encoder"]`, a `Frozen`.
    probe: `(frozen["labeler"], e) -> Outputs`, a labeler that reads the
      embedding in the place of the input.
  """
  of = embedding(encoder)

  def embed(frozen, x):
    return of(frozen["encoder"], x)

  def label(frozen, x):
    assert probe is not None
    return probe(frozen["labeler"], embed(frozen, x))

  changed = teacher._replace(embed=embed)
  return changed if probe is None else changed._replace(label=label)


def single(apply: NetworkApply) -> Callable[[Params, Array], Outputs]:
  """One network as a labeler, over a `Frozen`."""

  def label(frozen, x):
    return apply(frozen.params, frozen.state, x, train=False)[0]

  return label


def ensemble(
  applies: Sequence[NetworkApply],
) -> Callable[[Params, Array], Outputs]:
  """Several networks as one labeler: their mean in probability space.

  Args:
    applies: the members; `frozen` is a sequence of `Frozen` in their order.

  Returns:
    A labeler whose logits are log of the mean probability; its embedding is
    the members' embeddings side by side.
  """
  if not applies:
    raise ValueError("an ensemble needs at least one member")
  members = [single(apply) for apply in applies]

  def label(frozen, x):
    outputs = [m(f, x) for m, f in zip(members, frozen, strict=True)]
    log_probs = jnp.stack([jax.nn.log_softmax(o.logits) for o in outputs])
    logits = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(outputs))
    return Outputs(logits, jnp.concatenate([o.embedding for o in outputs], -1))

  return label


def labeler(networks: Sequence[Network]) -> Callable[[Params, Array], Outputs]:
  """A labeler over a tuple of `Frozen`, one for each of its networks."""
  if len(networks) == 1:
    alone = single(networks[0].apply)
    return lambda frozen, x: alone(frozen[0], x)
  return ensemble([network.apply for network in networks])
