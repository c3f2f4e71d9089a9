# SPDX-License-Identifier: Apache-2.0
"""From a flax module to the two pure functions of a `Network`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks, registry
from tgt_jax.types import Array, ModelState, Network, Outputs, Params


def as_network(module: nn.Module) -> Network:
  """Wraps a flax module into a `Network`.

  Args:
    module: called as `module(x, train=...)`, returns `Outputs`. Its variable
      collections other than `params` become the model state. Random numbers
      it draws while training come from the stream `"dropout"`.

  Returns:
    A `Network`. Its `apply` raises `ValueError` where a module with
    `dropout > 0` or `drop_connect > 0` trains without `rng`.
  """

  def init(rng: Array, x: Array) -> tuple[Params, ModelState]:
    variables = dict(module.init(rng, x, train=False))
    params = variables.pop("params", {})
    return params, variables

  def apply(
    params: Params,
    model_state: ModelState,
    x: Array,
    *,
    train: bool = False,
    rng: Array | None = None,
  ) -> tuple[Outputs, ModelState]:
    for noise in ("dropout", "drop_connect"):
      if train and rng is None and getattr(module, noise, 0.0) > 0:
        raise ValueError(
          f"{type(module).__name__} has {noise}={getattr(module, noise)}:"
          " apply(..., train=True) needs rng, got None"
        )
    variables = {"params": params, **model_state}
    if not train:
      outputs: Any = module.apply(variables, x, train=False)
      return outputs, model_state
    result: Any = module.apply(
      variables,
      x,
      train=True,
      rngs={} if rng is None else {"dropout": rng},
      mutable=list(model_state),
    )
    outputs, changed = result
    return outputs, {**model_state, **changed}

  return Network(init=init, apply=apply)


def _behind(network: Network, change: Callable[[Array], Array]) -> Network:
  """Returns the network behind a change of its input."""
  return Network(
    init=lambda rng, x: network.init(rng, change(x)),
    apply=lambda params, model_state, x, **options: network.apply(
      params, model_state, change(x), **options
    ),
  )


def with_input_size(network: Network, size: int) -> Network:
  """Returns the network behind a resize of its square input.

  Data, generator, labeler and student may then differ in resolution: each
  scales what it is given. Scaling is bilinear, antialiased where it shrinks,
  and differentiable.

  Args:
    network: takes images [B, size, size, C].
    size: side of its input, pixels.
  """
  checks.positive(input_size=size)

  def resize(x: Array) -> Array:
    checks.rank(4, x=x)
    shape = (x.shape[0], size, size, x.shape[3])
    return x if x.shape == shape else jax.image.resize(x, shape, "bilinear")

  return _behind(network, resize)


def with_input_channels(network: Network, channels: int) -> Network:
  """Returns the network behind copies of its one input channel.

  Spectrograms and grey images have one channel; a network of photographs takes
  three.

  Args:
    network: takes images [B, H, W, channels].
    channels: of its input.
  """
  checks.positive(input_channels=channels)

  def widen(x: Array) -> Array:
    checks.rank(4, x=x)
    if x.shape[3] not in (1, channels):
      raise ValueError(
        f"input_channels: {channels} channels cannot be made of {x.shape[3]};"
        " expected images with one channel"
      )
    return jnp.broadcast_to(x, (*x.shape[:3], channels))

  return _behind(network, widen)


def with_input_range(network: Network, limits: tuple[float, float]) -> Network:
  """Returns the network behind a change of its input's scale.

  A network of photographs takes [0, 1] and has its own mean and deviation
  behind; a spectrogram has other values.

  Args:
    network: takes [0, 1].
    limits: values that become 0 and 1, low < high.

  Raises:
    ValueError: other limits.
  """
  if len(limits) != 2 or not limits[0] < limits[1]:
    raise ValueError(f"input_range: expected low < high, got {limits}")
  low, high = limits
  return _behind(network, lambda x: (x - low) / (high - low))


def with_translation(
  network: Network, translate: Callable[[np.ndarray], np.ndarray], length: int
) -> Network:
  """Returns the network behind another tokenizer.

  Token ids of one vocabulary are turned into text and into token ids of the
  network's own, on the host. That has no gradient: a network that gradient
  exploration looks through must share the generator's vocabulary. On a machine
  of one core jax 0.10 waits forever for more than 2^18 ids at a time.

  Args:
    network: takes token ids [B, length].
    translate: token ids [B, L] to those of the network, int32 [B, length].
    length: of its texts.
  """
  checks.positive(length=length)

  def ids(x: Array) -> Array:
    if x.ndim != 2:
      raise ValueError(
        "a network with a tokenizer of its own reads token ids, and was given"
        f" soft tokens of shape {x.shape}: no gradient passes from one"
        " vocabulary to another. Use random exploration, or a network of the"
        " generator's vocabulary"
      )
    shape = jax.ShapeDtypeStruct((x.shape[0], length), np.int32)
    found: Any = jax.pure_callback(
      translate, shape, x, vmap_method="sequential"
    )
    return found

  return Network(
    # The numbers do not depend on the words.
    init=lambda rng, x: network.init(
      rng, jnp.zeros((x.shape[0], length), jnp.int32)
    ),
    apply=lambda params, model_state, x, **options: network.apply(
      params, model_state, ids(x), **options
    ),
  )


def from_spec(
  table: Mapping[str, Any], spec: Mapping[str, Any], *, num_classes: int
) -> Network:
  """Returns the network of a spec.

  Args:
    table: names to factories.
    spec: `{"name": ..., **arguments}`; "input_size", "input_channels" and
      "input_range" are understood for every network, see `with_input_size`,
      `with_input_channels` and `with_input_range`.
    num_classes: number of logits K.

  Raises:
    ValueError: no or unknown name, or a key that the factory does not take.
  """
  spec = dict(spec)
  size, channels = spec.pop("input_size", 0), spec.pop("input_channels", 0)
  limits = spec.pop("input_range", None)
  network: Network = registry.build(
    table, spec, family="model", num_classes=num_classes
  )
  if limits is not None:
    network = with_input_range(network, limits)
  if channels:
    network = with_input_channels(network, channels)
  return with_input_size(network, size) if size else network


def normalisation(
  table: Mapping[str, Any], spec: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the "mean" and "std" of a spec, the factory's where it is silent.

  Args:
    table: names to factories.
    spec: `{"name": ..., **arguments}`.
  """
  factory = registry.resolve(table, spec["name"], family="model")
  defaults = inspect.signature(factory).parameters
  return {
    key: spec.get(key, defaults[key].default if key in defaults else neutral)
    for key, neutral in (("mean", 0.0), ("std", 1.0))
  }


def frames(feature_map: Array) -> Array:
  """Returns what a map of a spectrogram says of every moment.

  Time-aligned embeddings of two networks are compared frame by frame.

  Args:
    feature_map: shape [B, H, W, C]; height is frequency, width is time.

  Returns:
    The mean over frequency, shape [B, W, C], in at least float32.
  """
  checks.rank(4, feature_map=feature_map)
  dtype = jnp.promote_types(feature_map.dtype, jnp.float32)
  return feature_map.mean(axis=1, dtype=dtype)


def parameter_count(params: Params) -> int:
  """Returns the number of scalars in a pytree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def has_convolution(params: Params) -> bool:
  """Tells whether a pytree of parameters holds a spatial convolution.

  `jax.vmap` over such parameters turns each convolution into a grouped one,
  which is slower than turns; dense layers only become batched products. A 1x1
  convolution counts too. Expects the parameters of one network, not stacked.
  """

  def is_kernel(path: tuple[Any, ...], leaf: Any) -> bool:
    name = str(getattr(path[-1], "key", path[-1])) if path else ""
    return name == "kernel" and len(leaf.shape) >= 4

  leaves = jax.tree_util.tree_leaves_with_path(params)
  return any(is_kernel(path, leaf) for path, leaf in leaves)
