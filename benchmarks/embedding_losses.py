# SPDX-License-Identifier: Apache-2.0
"""What a loss between embeddings costs, with its gradient, against PyTorch.

  python benchmarks/embedding_losses.py --threads=1 --clock=cpu

Value and student's gradient of one batch of random embeddings, alone, as a
part of a training step. PyTorch runs eagerly, on the same numbers, with
distances from inner products too; RKD's angles are from the differences of all
pairs, [B, B, D], as common public code has them. Both values are compared
before they are timed. Ours are compiled by XLA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common

_ANGLE_BATCH = 64  # Arrays of B^3: 256 takes 67 MB for each.


def _torch_losses() -> dict[str, Callable]:
  """The same losses in PyTorch, `(student, teacher) -> scalar`."""
  import torch
  from torch.nn import functional

  def squares(x: Any) -> Any:
    products = x @ x.T
    lengths = products.diagonal()
    return (lengths[:, None] + lengths[None, :] - 2 * products).clamp(min=0)

  def centred(matrix: Any) -> Any:
    means = matrix.mean(0)
    return matrix - means[:, None] - means[None, :] + means.mean()

  def distance_correlation(s: Any, t: Any) -> Any:
    a, b = (centred((squares(x) + 1e-12).sqrt()) for x in (s, t))
    powers = a.square().mean() * b.square().mean()
    return 1 - (a * b).mean() / (powers + 1e-9).sqrt()

  def cosine_difference(s: Any, t: Any) -> Any:
    s, t = (functional.normalize(x) for x in (s, t))
    return (s @ s.T - t @ t.T).abs().mean()

  def cka(s: Any, t: Any) -> Any:
    s, t = (x - x.mean(0) for x in (s, t))
    a, b = s @ s.T, t @ t.T
    return 1 - (a * b).sum() / (a.norm() * b.norm())

  def relative(x: Any) -> Any:
    roots = squares(x).clamp(min=1e-12).sqrt()
    roots = roots * (1 - torch.eye(len(x), device=x.device))
    return roots / roots[roots > 0].mean()

  def distances(s: Any, t: Any) -> Any:
    return 25 * functional.smooth_l1_loss(relative(s), relative(t))

  def angles(x: Any) -> Any:
    ways = functional.normalize(x[None, :] - x[:, None], dim=2)
    return torch.bmm(ways, ways.transpose(1, 2))

  def relational(s: Any, t: Any) -> Any:
    turns = functional.smooth_l1_loss(angles(s), angles(t))
    return distances(s, t) + 50 * turns

  return {
    "distance_correlation": distance_correlation,
    "cosine_difference": cosine_difference,
    "cka": cka,
    "relational, distances": distances,
    "relational": relational,
  }


def _ours() -> dict[str, Callable]:
  import functools

  from tgt_jax import losses

  return {
    "distance_correlation": losses.distance_correlation,
    "cosine_difference": losses.cosine_difference,
    "cka": losses.cka,
    "relational, distances": functools.partial(
      losses.relational, angle_weight=0.0
    ),
    "relational": losses.relational,
  }


def _contenders(
  ours: Callable, theirs: Callable, student: Any, teacher: Any
) -> dict[str, Callable[[], float]]:
  """Functions that compute value and gradient, and wait; each its value."""
  import jax
  import jax.numpy as jnp
  import torch

  device = "cuda" if torch.cuda.is_available() else "cpu"
  run = jax.jit(jax.value_and_grad(lambda s, t: jnp.mean(ours(s, t))))
  arrays = jax.device_put((student, teacher))
  fixed = torch.tensor(teacher, device=device)

  def of_jax() -> float:
    return float(jax.block_until_ready(run(*arrays))[0])

  def of_torch() -> float:
    x = torch.tensor(student, device=device, requires_grad=True)
    value = theirs(x, fixed)
    value.backward()
    if device == "cuda":
      torch.cuda.synchronize()
    return value.item()

  first, second = of_jax(), of_torch()
  if abs(first - second) > 1e-3 * abs(second) + 1e-5:
    raise ValueError(f"values differ: {first} here, {second} in PyTorch")
  return {"tgt_jax": of_jax, "torch": of_torch}


def main() -> None:
  options = common.parser(__doc__)
  options.add_argument("--batch_size", type=int, default=256)
  options.add_argument("--student_dim", type=int, default=512)
  options.add_argument("--teacher_dim", type=int, default=1280)
  args = options.parse_args()
  cores = common.prepare(args.threads)
  import numpy as np
  import torch

  torch.set_num_threads(cores)
  where = common.environment(cores)
  print(common.describe(where))
  ours, theirs = _ours(), _torch_losses()
  draws, rows, report = np.random.default_rng(0), [], {}
  for name, loss in ours.items():
    size = _ANGLE_BATCH if name == "relational" else args.batch_size
    student, teacher = (
      draws.normal(size=(size, width)).astype(np.float32)
      for width in (args.student_dim, args.teacher_dim)
    )
    timings = common.take_turns(
      _contenders(loss, theirs[name], student, teacher),
      rounds=args.rounds,
      seconds=args.seconds,
      clock=args.clock,
    )
    ratio = timings.ratio("torch", "tgt_jax")
    report[name] = {"batch_size": size, "ratio": ratio, **timings.report()}
    times = [f"{timings.ms(side):.2f}" for side in ("tgt_jax", "torch")]
    rows.append([name, size, *times, f"{ratio:.2f}"])
  header = ["loss", "batch", "tgt_jax ms", "torch ms", "torch / tgt_jax"]
  print(common.table(header, rows))
  common.finish(args.json, {"environment": where, "losses": report})


if __name__ == "__main__":
  main()
