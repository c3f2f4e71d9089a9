# SPDX-License-Identifier: Apache-2.0
"""Mean and spread of latents: the unit of noise and of step lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax.types import Array


class LatentStatistics(NamedTuple):
  """Moments of the latents of a data set, for each latent dimension.

  Attributes:
    mean: float32, the shape of one latent, or [1, D] over the positions of
      sequences [L, D].
    std: of the same shape; zero where a dimension is constant.
  """

  mean: np.ndarray
  std: np.ndarray


def latent_statistics(
  encode: Callable[[np.ndarray], Array],
  batches: Iterable[np.ndarray],
  where: Callable[[Any], Array] | None = None,
) -> LatentStatistics:
  """Returns mean and standard deviation of each latent dimension.

  Moments are merged batch by batch in float64 on the host, so that neither
  the number of batches nor a large mean costs precision.

  Args:
    encode: `x -> z`, [B, ...] to [B, ...]; jitted by the caller.
    batches: inputs, of any batch sizes and without padded rows.
    where: `x -> bool` [B, L, 1], the positions of sequences that count, of
      which each is then an example; `None`: latents are no sequences.

  Returns:
    Moments over all examples; the standard deviation divides by their number.

  Raises:
    ValueError: no example.
  """
  count = 0
  mean: np.ndarray | np.float64 = np.float64(0.0)
  squares: np.ndarray | np.float64 = np.float64(0.0)
  for x in batches:
    z = np.asarray(jax.device_get(encode(x)), np.float64)
    if where is not None:
      z = z[np.asarray(where(x))[..., 0]][:, None]
    if not len(z):
      continue
    batch_mean = z.mean(axis=0)
    batch_squares = ((z - batch_mean) ** 2).sum(axis=0)
    total = count + len(z)
    delta = batch_mean - mean
    # Chan, Golub and LeVeque's pairwise update.
    squares = squares + batch_squares + delta**2 * (count * len(z) / total)
    mean = mean + delta * (len(z) / total)
    count = total
  if not count:
    raise ValueError("batches: expected at least one example, got none")
  return LatentStatistics(
    np.asarray(mean, np.float32),
    np.asarray(np.sqrt(squares / count), np.float32),
  )
