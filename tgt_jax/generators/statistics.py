# SPDX-License-Identifier: Apache-2.0
"""Mean and spread of latents: the unit of noise and of step lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np

from tgt_jax.types import Array


class LatentStatistics(NamedTuple):
  """Moments of the latents of a data set, for each latent dimension.

  Attributes:
    mean: float32, the shape of one latent.
    std: float32, the shape of one latent; zero where a dimension is constant.
  """

  mean: np.ndarray
  std: np.ndarray


def latent_statistics(
  encode: Callable[[np.ndarray], Array], batches: Iterable[np.ndarray]
) -> LatentStatistics:
  """Returns mean and standard deviation of each latent dimension.

  Moments are merged batch by batch in float64 on the host, so that neither
  the number of batches nor a large mean costs precision.

  Args:
    encode: `x -> z`, [B, ...] to [B, ...]; jitted by the caller.
    batches: images without padding, of any batch sizes.

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
