# SPDX-License-Identifier: Apache-2.0
"""Moments of latents against numpy over all examples at once."""

from __future__ import annotations

import numpy as np
import pytest

from tgt_jax import generators


def test_moments_equal_numpy_whatever_the_batches() -> None:
  x = np.random.default_rng(0).normal(size=(50, 4, 3)) * [1.0, 5.0, 0.0] + 2.0
  for sizes in ([50], [1, 49], [16, 16, 16, 2], [20, 0, 30]):
    batches = np.split(x, np.cumsum(sizes)[:-1])
    got = generators.latent_statistics(lambda x: 3.0 * x, batches)
    np.testing.assert_allclose(got.mean, 3.0 * x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(got.std, 3.0 * x.std(0), rtol=1e-6, atol=1e-9)
    assert got.mean.shape == got.std.shape == (4, 3)
    assert got.mean.dtype == got.std.dtype == np.float32


def test_a_large_mean_costs_no_precision() -> None:
  x = np.float32(np.random.default_rng(0).normal(size=(1000, 2)) + 4096.0)
  got = generators.latent_statistics(lambda x: x, np.split(x, 10))
  np.testing.assert_allclose(got.std, np.float64(x).std(0), rtol=1e-6)


def test_nothing_has_no_statistics() -> None:
  with pytest.raises(ValueError, match="at least one example, got none"):
    generators.latent_statistics(lambda x: x, [])
