# SPDX-License-Identifier: Apache-2.0
"""From a flax module to the two pure functions of a `Network`."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax

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
