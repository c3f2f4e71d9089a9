# SPDX-License-Identifier: Apache-2.0
"""The mesh, and where the arrays of a batch and of a state live on it.

One mesh with two axes serves everything. The batch is split over both, so that
every device has examples of its own; parameters are replicated, or split over
`fsdp` by rules on their path. `jax.jit` finds the collectives from there.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any
Spec = PartitionSpec | tuple[Any, ...] | Literal["fsdp"]

DATA, FSDP = "data", "fsdp"
BATCH_AXES = (DATA, FSDP)


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  *,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """A mesh with axes ("data", "fsdp") over all devices of all processes.

  Args:
    data: groups of devices with a copy of the parameters each; -1 takes what
      `fsdp` leaves.
    fsdp: devices over which the parameters of one copy may be split.
    devices: instead of all devices.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  count = len(devices)
  if fsdp < 1 or (data < 1 and data != -1):
    raise ValueError(f"need fsdp >= 1 and data >= 1 or -1, got {fsdp}, {data}")
  size = count // fsdp if data == -1 else data
  if size * fsdp != count:
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    shown = "" if data == -1 else f"data={data} times "
    raise ValueError(
      f"{shown}fsdp={fsdp} does not give the {count} devices at hand; use"
      f" data=-1 and one of fsdp={divisors}"
    )
  return jax.make_mesh(
    (size, fsdp),
    BATCH_AXES,
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def process_batch_size(batch_size: int, mesh: Mesh | None) -> int:
  """How many examples of a batch this process reads.

  Args:
    batch_size: examples of one step over all processes.
    mesh: where they go; None for one device.

  Raises:
    ValueError: `batch_size` does not split evenly over the devices.
  """
  if mesh is None:
    return batch_size
  count = mesh.size
  if batch_size % count or batch_size < 1:
    below = batch_size // count * count
    near = f"{below} or {below + count}" if below else f"{count}"
    raise ValueError(
      f"batch_size {batch_size} is not divisible by the {count} devices of"
      f" the mesh {dict(mesh.shape)}; use {near}"
    )
  return batch_size * len(mesh.local_devices) // count


def batch_sharding(mesh: Mesh, *, leading_seeds: bool = False) -> NamedSharding:
  """Splits the axis of examples over all devices.

  Args:
    mesh: from `make_mesh`.
    leading_seeds: arrays are [seeds, examples, ...]; seeds are not split.
  """
  before = (None,) if leading_seeds else ()
  return NamedSharding(mesh, PartitionSpec(*before, BATCH_AXES))


def put_batch(batch: PyTree, sharding: NamedSharding | None) -> PyTree:
  """Hands this process's examples to its devices, without waiting.

  The result may share memory with `batch`, which must not be changed after.

  Args:
    batch: tree of host arrays, each with the examples of this process only.
    sharding: from `batch_sharding`; None for the default device.

  Returns:
    The same tree of arrays over all processes.
  """
  if jax.process_count() == 1:
    if sharding is None or sharding.num_devices == 1:
      return _on_one_device(sharding)(batch)
    return jax.device_put(batch, sharding)
  if sharding is None:
    raise ValueError("put_batch needs a sharding with more than one process")

  def one(leaf: Any) -> jax.Array:
    if _is_key(leaf):
      data = one(jax.random.key_data(leaf))
      return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

  return jax.tree.map(one, batch)


@functools.cache
def _on_one_device(sharding: NamedSharding | None) -> Callable[..., Any]:
  # The call of a compiled identity takes an eighth of the time of device_put
  # (25 against 200 us for four small arrays on a CPU).
  return jax.jit(lambda batch: batch, out_shardings=sharding)


def state_shardings(
  tree: PyTree, mesh: Mesh, rules: Sequence[tuple[str, Spec]] = ()
) -> PyTree:
  """A sharding for every leaf, by the first rule its path matches.

  A path is what `jax.tree_util.keystr` makes of it with "/" between the keys:
  `params/student/Dense_0/kernel`, `opt_state/0/mu/student/Dense_0/kernel`. A
  rule about a parameter therefore covers its optimiser state too.

  Args:
    tree: state, or its shapes.
    mesh: from `make_mesh`.
    rules: (regular expression, spec), searched in the path. A spec is a
      `PartitionSpec`, or a tuple of what it takes; or "fsdp": split the largest axis that divides evenly
      over the `fsdp` devices, replicate where there is none. Leaves without a
      rule are replicated.

  Raises:
    ValueError: a spec that is none, or does not fit a leaf, named by its path.
  """

  def one(path: Any, leaf: Any) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, spec in rules:
      if re.search(pattern, name):
        if spec == FSDP:
          spec = _largest_axis(leaf.shape, mesh.shape[FSDP])
        elif not isinstance(spec, tuple | list | PartitionSpec):
          raise ValueError(
            f"sharding rule {pattern!r}: expected 'fsdp' or a tuple of axes,"
            f" such as (None, 'fsdp'), got {spec!r}"
          )
        spec = PartitionSpec(*spec)
        _check_spec(name, leaf.shape, spec, mesh)
        return NamedSharding(mesh, spec)
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(one, tree)


def place(tree: PyTree, shardings: PyTree) -> PyTree:
  """Moves a tree that every process holds whole to its shardings.

  Args:
    tree: arrays, equal on all processes.
    shardings: one sharding, or a tree of them as `state_shardings` gives.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  if isinstance(shardings, jax.sharding.Sharding):
    shardings = jax.tree.map(lambda _: shardings, tree)

  def one(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if _is_key(leaf):
      data = one(jax.random.key_data(leaf), sharding)
      return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(
      whole.shape, sharding, lambda index: whole[index]
    )

  return jax.tree.map(one, tree, shardings)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """A whole copy of a tree on every device of the mesh."""
  return place(tree, NamedSharding(mesh, PartitionSpec()))


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(
    getattr(leaf, "dtype", None), jax.dtypes.prng_key
  )


def _largest_axis(shape: Sequence[int], parts: int) -> PartitionSpec:
  """Splits the largest axis divisible by `parts`; the last of equal ones."""
  fits = [(n, axis) for axis, n in enumerate(shape) if n and n % parts == 0]
  if parts == 1 or not fits:
    return PartitionSpec()
  _, axis = max(fits)
  return PartitionSpec(*[None] * axis, FSDP)


def _check_spec(
  name: str, shape: Sequence[int], spec: PartitionSpec, mesh: Mesh
) -> None:
  for axis, names in enumerate(spec):
    if names is None:
      continue
    names = names if isinstance(names, tuple) else (names,)
    parts = math.prod(mesh.shape[n] for n in names)
    if axis >= len(shape) or shape[axis] % parts:
      raise ValueError(
        f"{name} of shape {tuple(shape)} cannot be split by {spec}: axis"
        f" {axis} must be a multiple of {parts} ({', '.join(names)})"
      )
