# SPDX-License-Identifier: Apache-2.0
"""Vocabulary shared by every floor of the package.

An input `x` is one array, [B, ...]. An image is float32 in [0, 1] with shape
[B, H, W, C], channels last; each network applies its own normalisation, so
that a generator, a labeler and a student may disagree about it. A text is
int32 [B, L], token ids with the vocabulary's padding behind, or float
[B, L, V], soft tokens: a distribution per position, one-hot at the padding id
where there is padding. A latent `z` has shape [B, ...]: everything behind the
leading axis belongs to one example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any  # A pytree of arrays.
ModelState = Any  # What a forward pass may change: batch statistics, codebooks.
Batch = Mapping[str, Any]  # Leading axis: examples. "mask" marks padding.


def input_struct(
  input_shape: Sequence[int], batch_size: int = 1
) -> jax.ShapeDtypeStruct:
  """Shape and dtype of a batch of inputs.

  Args:
    input_shape: of one input: (H, W, C) of an image, (L,) of a text.
    batch_size: B.
  """
  dtype = jnp.int32 if len(input_shape) == 1 else jnp.float32
  return jax.ShapeDtypeStruct((batch_size, *input_shape), dtype)


class Outputs(NamedTuple):
  """What every network returns.

  Attributes:
    logits: class scores before any softmax, shape [B, K].
    embedding: what the last linear layer reads, before dropout, [B, D].
    features: intermediate activations from input to output, possibly empty.
  """

  logits: Array
  embedding: Array
  features: tuple[Array, ...] = ()


class Mean(NamedTuple):
  """A metric as its sum and its count; one division, on the host.

  Attributes:
    total: sum of the values.
    count: number of values (or sum of weights) that entered `total`.
  """

  total: Array
  count: Array  # type: ignore[assignment]  # Shadows tuple.count.


Metrics = Mapping[str, Mean]

# Seen by exploration: latents [B, ...] to one disagreement per example [B].
Field = Callable[[Array], Array]


class NetworkApply(Protocol):
  """A network's forward pass; see `Network.apply`."""

  def __call__(
    self,
    params: Params,
    model_state: ModelState,
    x: Array,
    *,
    train: bool = False,
    rng: Array | None = None,
  ) -> tuple[Outputs, ModelState]:
    """`(params, model_state, x, *, train, rng) -> (Outputs, model_state)`."""
    ...


class Network(NamedTuple):
  """A classifier as two pure functions.

  Attributes:
    init: `(rng, x) -> (params, model_state)`; `model_state` is `{}` for a
      network without batch statistics.
    apply: `(params, model_state, x, *, train=False, rng=None) ->
      (Outputs, model_state)`. With `train=False` the state is returned as it
      came and `rng` is not needed.
  """

  init: Callable[[Array, Array], tuple[Params, ModelState]]
  apply: NetworkApply


class Generator(NamedTuple):
  """A trainable auto-encoder as four pure functions.

  Attributes:
    init: `(rng, x) -> (params, model_state)`.
    encode: `(params, model_state, x) -> z`, deterministic: the posterior mean
      of a VAE, the vectors before quantisation of a VQ-VAE.
    decode: `(params, model_state, z, x) -> x'`, differentiable in `z`: an
      image in [0, 1], or soft tokens. A VQ-VAE quantises here
      (straight-through), so that noise on `z` acts before quantisation. `x` is
      what `z` was encoded from: a decoder of sequences takes their lengths
      from it, one of images does not look at it.
    loss: `(params, model_state, x, *, rng) -> (loss [B], terms, model_state)`,
      the training objective per example with its named terms, each [B].
    render: `(params, model_state, z, x, rng) -> x'`, what is shown of `z`,
      with keys [B]: tokens instead of soft ones. `None`: `decode` itself.
    where: `x -> bool`, broadcasting to `z`: which of its coordinates mean
      something and may move. `None`: all.
  """

  init: Callable[[Array, Array], tuple[Params, ModelState]]
  encode: Callable[[Params, ModelState, Array], Array]
  decode: Callable[..., Array]
  loss: Callable[..., tuple[Array, Mapping[str, Array], ModelState]]
  render: Callable[..., Array] | None = None
  where: Callable[[Array], Array] | None = None


class TrainState(NamedTuple):
  """Everything that a training step changes; arrays only.

  Attributes:
    step: number of updates done, int32 scalar.
    params: what learns, keyed by participant: `{"student": ..., ...}`.
    model_state: what a forward pass changes, keyed like `params`.
    opt_state: state of the optimiser(s).
    ema: running mean of `params`, or `None` where it is off.
  """

  step: Array
  params: Params
  model_state: ModelState
  opt_state: Any
  ema: Params | None = None


class Method(NamedTuple):
  """How one batch changes what is trained.

  Attributes:
    init: `(rng, batch) -> TrainState`.
    update: `(state, frozen, batch, rng) -> (state, metrics)`; `rng` belongs to
      this step alone.
  """

  init: Callable[[Array, Batch], TrainState]
  update: Callable[
    [TrainState, Params, Batch, Array], tuple[TrainState, Metrics]
  ]
