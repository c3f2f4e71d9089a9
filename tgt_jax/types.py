# SPDX-License-Identifier: Apache-2.0
"""Vocabulary shared by every floor of the package.

Arrays in this project are channels-last. An image `x` is float32 in [0, 1]
with shape [B, H, W, C]; each network applies its own normalisation, so that a
generator, a labeler and a student may disagree about it. A latent `z` has
shape [B, ...]: everything behind the leading axis belongs to one example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # A pytree of arrays.
ModelState = Any  # What a forward pass may change: batch statistics, codebooks.
Batch = Mapping[str, Any]  # Leading axis: examples. "mask" marks padding.


class Outputs(NamedTuple):
  """What every network returns.

  Attributes:
    logits: class scores before any softmax, shape [B, K].
    embedding: what the last linear layer reads, shape [B, D].
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
    decode: `(params, model_state, z) -> x` in [0, 1]; a VQ-VAE quantises here
      (straight-through), so that noise on `z` acts before quantisation.
    loss: `(params, model_state, x, *, rng) -> (loss [B], terms, model_state)`,
      the training objective per example with its named terms, each [B].
  """

  init: Callable[[Array, Array], tuple[Params, ModelState]]
  encode: Callable[[Params, ModelState, Array], Array]
  decode: Callable[[Params, ModelState, Array], Array]
  loss: Callable[..., tuple[Array, Mapping[str, Array], ModelState]]


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
