# SPDX-License-Identifier: Apache-2.0
"""Generators made from generators: other units of the latent, less memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks, registry
from tgt_jax.generators.statistics import LatentStatistics
from tgt_jax.types import Array, Generator, ModelState, Params


def with_statistics(
  model_state: ModelState, statistics: LatentStatistics
) -> ModelState:
  """Returns the state of a whitened generator with measured moments.

  Args:
    model_state: of `whitened(generator)`.
    statistics: of the latents of the generator inside. A dimension whose
      deviation is zero keeps its unit.

  Raises:
    ValueError: moments of another shape than one latent.
  """
  latent = model_state["latent"]
  mean, std = np.asarray(statistics.mean), np.asarray(statistics.std)
  checks.same_shape(mean=mean, std=std, latent=latent["mean"])
  measured = {"mean": mean, "std": np.where(std > 0, std, np.ones_like(std))}
  return {**model_state, "latent": measured}


def whitened(generator: Generator) -> Generator:
  """A generator whose latents have mean 0 and deviation 1.

  Noise and step lengths of an exploration are then in units of the data's
  spread, dimension by dimension; those of a sequence are taken over all its
  positions. The moments are arrays of the model state,
  `{"generator": the state inside, "latent": {"mean", "std"}}`, so that they
  are kept and frozen with the weights. `init` leaves them at 0 and 1;
  `with_statistics` puts in what `latent_statistics` has measured.

  Args:
    generator: any; its weights are used as they are.

  Returns:
    `encode` is `(z - mean) / std`, `decode` takes that back, and `loss` is
    that of the generator inside.
  """

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    params, inner = generator.init(rng, x)
    z = jax.eval_shape(generator.encode, params, inner, x)
    shape = z.shape[1:]
    if generator.where is not None:
      shape = (1, *shape[1:])
    dtype = jnp.promote_types(z.dtype, jnp.float32)  # As they are measured.
    latent = {"mean": jnp.zeros(shape, dtype), "std": jnp.ones(shape, dtype)}
    return params, {"generator": inner, "latent": latent}

  def encode(params: Params, model_state: ModelState, x: Array) -> Array:
    latent = model_state["latent"]
    z = generator.encode(params, model_state["generator"], x)
    z = (z - latent["mean"][None]) / latent["std"][None]
    return (
      z if generator.where is None else jnp.where(generator.where(x), z, 0.0)
    )

  def plain(model_state: ModelState, z: Array) -> Array:
    latent = model_state["latent"]
    return z * latent["std"][None] + latent["mean"][None]

  def decode(
    params: Params,
    model_state: ModelState,
    z: Array,
    x: Array | None = None,
  ) -> Array:
    inner = model_state["generator"]
    return generator.decode(params, inner, plain(model_state, z), x)

  def render(
    params: Params, model_state: ModelState, z: Array, x: Array, rng: Array
  ) -> Array:
    made: Any = generator.render
    inner = model_state["generator"]
    return made(params, inner, plain(model_state, z), x, rng)

  def loss(
    params: Params, model_state: ModelState, x: Array, *, rng: Array
  ) -> tuple[Array, Mapping[str, Array], ModelState]:
    inner = model_state["generator"]
    value, terms, inner = generator.loss(params, inner, x, rng=rng)
    return value, terms, {**model_state, "generator": inner}

  return generator._replace(
    init=init,
    encode=encode,
    decode=decode,
    loss=loss,
    render=None if generator.render is None else render,
  )


def chunked(generator: Generator, size: int) -> Generator:
  """A generator that decodes and renders a batch `size` examples at a time.

  Memory is that of one turn, for the gradient too, which decodes each turn
  anew. The last turn is filled up with copies of the last example.

  Args:
    generator: any that treats examples one by one.
    size: examples per turn, >= 1.

  Raises:
    ValueError: `size` is not positive.
  """
  checks.positive(size=size)

  def in_turns(function: Callable[..., Array]) -> Callable[..., Array]:
    def run(
      params: Params, model_state: ModelState, z: Array, *more: Any
    ) -> Array:
      number = z.shape[0]
      if number <= size:
        return function(params, model_state, z, *more)
      turns = -(-number // size)
      places = jnp.minimum(jnp.arange(turns * size), number - 1)
      stack = lambda a: a[places].reshape(turns, size, *a.shape[1:])

      @jax.checkpoint
      def turn(rows: tuple[Any, ...]) -> Array:
        return function(params, model_state, *rows)

      made = jax.lax.map(turn, jax.tree.map(stack, (z, *more)))
      return made.reshape(turns * size, *made.shape[2:])[:number]

    return run

  decode = in_turns(generator.decode)
  render = generator.render
  return generator._replace(
    decode=lambda params, model_state, z, x=None: decode(
      params, model_state, z, x
    ),
    render=None if render is None else in_turns(render),
  )


def from_spec(
  table: Mapping[str, Any],
  spec: Mapping[str, Any],
  *,
  input_shape: Sequence[int],
) -> Generator:
  """Returns the generator of a spec.

  Args:
    table: names to factories.
    spec: `{"name": ..., **arguments}`; "chunk" (examples per turn, see
      `chunked`) and "whitened" (see `whitened`) are understood for each.
    input_shape: (H, W, C).

  Raises:
    ValueError: no or unknown name, or a key that the factory does not take.
  """
  spec = dict(spec)
  chunk, white = spec.pop("chunk", 0), spec.pop("whitened", False)
  made: Generator = registry.build(
    table, spec, family="generator", input_shape=tuple(input_shape)
  )
  made = chunked(made, chunk) if chunk else made
  return whitened(made) if white else made
