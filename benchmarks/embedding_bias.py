# SPDX-License-Identifier: Apache-2.0
"""What distances of embeddings find where there is nothing to find.

  python benchmarks/embedding_bias.py

Means over many batches of independent Gaussian embeddings, for which
correlation of distance and kernel alignment should be 0; printed as the tables
of docs/losses.md.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import losses

_DRAWS = {16: 400, 64: 100, 128: 50, 256: 12}  # By batch size.


def _mean(
  loss: Callable[..., jax.Array],
  batch: int,
  widths: tuple[int, int],
  projected: int = 0,
) -> tuple[float, float]:
  """Mean and deviation of a loss over batches of independent embeddings.

  Where `projected` is given, the teacher's are projected to that many numbers.
  """
  rng = np.random.default_rng(0)
  found = jax.jit(lambda student, teacher: jnp.mean(loss(student, teacher)))
  values = []
  for _ in range(_DRAWS[batch]):
    student, teacher = (rng.normal(size=(batch, d)) for d in widths)
    if projected:
      teacher = teacher @ rng.normal(size=(widths[1], projected))
    values.append(found(student.astype(np.float32), teacher.astype(np.float32)))
  return float(np.mean(values)), float(np.std(values))


def main() -> None:
  """Prints both tables."""
  estimates = {
    "dCor²": losses.distance_correlation,
    "CKA": losses.cka,
    "unbiased dCor²": losses.unbiased_distance_correlation,
  }
  widths = ((2, 2), (32, 32), (256, 128), (512, 2048))
  names = [f"{a} / {b}" for a, b in widths]
  print("| Batch | Estimate |", " | ".join(names), "dimensions |")
  for batch in (16, 64, 256):
    for name, loss in estimates.items():
      row = (f"{1 - _mean(loss, batch, pair)[0]:.3f}" for pair in widths)
      print(f"| {batch} | {name} |", " | ".join(row), "|")
  print(
    "\nLoss of a student of 128 dimensions, and a teacher of 512 projected to"
  )
  print("| Batch | Estimate | 512 (not) | 128 | 32 | 8 | 2 |")
  for batch in (16, 128):
    for name in ("dCor²", "unbiased dCor²"):
      found = [
        _mean(estimates[name], batch, (128, 512), width)
        for width in (0, 128, 32, 8, 2)
      ]
      row = (f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in found)
      print(f"| {batch} | {name} |", " | ".join(row), "|")


if __name__ == "__main__":
  main()
