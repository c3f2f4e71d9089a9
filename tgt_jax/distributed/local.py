# SPDX-License-Identifier: Apache-2.0
"""Computation of each example alone: no collective, and a way to prove it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, PartitionSpec

from tgt_jax.distributed.sharding import BATCH_AXES

Function = TypeVar("Function", bound=Callable[..., Any])

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
)


def per_example(
  mesh: Mesh | None, *, axis: str | tuple[str, ...] = BATCH_AXES
) -> Callable[[Function], Function]:
  """Runs a function of (replicated, split) on each device's examples alone.

  `per_example(mesh)(fn)(replicated, split)` equals `fn(replicated, split)` for
  an `fn` that treats examples separately, and compiles to no collective. It
  can be vmapped over a leading axis of seeds, and `fn` may take gradients with
  respect to what is split, as exploration does.

  `fn` sees only the examples of one device. It must not reduce over them, and
  must draw randomness from one key per example (given in `split`): one
  replicated key would give the same noise on every device. To train
  parameters differentiate an ordinary jitted loss instead: a gradient taken
  inside and averaged by hand is silently multiplied by the number of devices.

  Args:
    mesh: from `make_mesh`; None returns functions as they are.
    axis: mesh axes over which the leading axis of `split` lies.
  """
  if mesh is None:
    return lambda fn: fn

  def transform(fn: Function) -> Function:
    # Without check_vma a loop whose carry starts as a constant is no type
    # error, so fn need not know where it runs. There is nothing to check: no
    # collectives inside, and all that comes out is split.
    return jax.shard_map(  # type: ignore[return-value]
      fn,
      mesh=mesh,
      in_specs=(PartitionSpec(), PartitionSpec(axis)),
      out_specs=PartitionSpec(axis),
      check_vma=False,
    )

  return transform


def collectives(compiled_text: str) -> dict[str, int]:
  """Counts the collective operations of a compiled program.

  Args:
    compiled_text: `jax.jit(f).lower(...).compile().as_text()`.

  Returns:
    A count for each name of `COLLECTIVES`; an asynchronous pair counts once.
  """
  # An operation stands between the type of its result and its operands;
  # names (%all-reduce.1) and metadata are followed by other characters.
  return {
    name: len(re.findall(rf"(?<=[\s}}\])]){name}(?:-start)?\(", compiled_text))
    for name in COLLECTIVES
  }
