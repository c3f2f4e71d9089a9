# SPDX-License-Identifier: Apache-2.0
"""Codebooks against a float64 derivation in numpy, and as k-means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import generators
from tgt_jax.generators import quantization


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def _codebook(vectors: np.ndarray) -> generators.Codebook:
  vectors = jnp.asarray(vectors)
  return generators.Codebook(vectors, jnp.ones(len(vectors)), vectors)


def test_nearest_code_equals_all_distances() -> None:
  vectors, z = _normal(0, (7, 3)), _normal(1, (4, 2, 5, 3))
  distances = ((z[..., None, :] - vectors) ** 2).sum(-1)

  got = generators.nearest_code(jnp.asarray(vectors), jnp.asarray(z))
  np.testing.assert_array_equal(got, distances.argmin(-1))


def test_nearest_code_takes_the_first_of_equals() -> None:
  vectors = jnp.asarray([[1.0], [-1.0], [1.0]])
  assert generators.nearest_code(vectors, jnp.zeros((1, 1))).tolist() == [0]


def test_quantize_returns_codes_and_passes_gradients_straight() -> None:
  vectors, z = _normal(0, (7, 3)), _normal(1, (4, 5, 3))
  weights = jnp.asarray(_normal(2, (4, 5, 3)))

  def loss(vectors, z):
    return (weights * generators.quantize(vectors, z)).sum()

  quantized = generators.quantize(jnp.asarray(vectors), jnp.asarray(z))
  expected = vectors[((z[..., None, :] - vectors) ** 2).sum(-1).argmin(-1)]
  np.testing.assert_allclose(quantized, expected, atol=1e-6)
  to_vectors, to_z = jax.grad(loss, (0, 1))(
    jnp.asarray(vectors), jnp.asarray(z)
  )
  np.testing.assert_array_equal(to_z, weights)
  np.testing.assert_array_equal(to_vectors, np.zeros((7, 3)))


def test_updates_equal_numpy() -> None:
  decay, epsilon, codes = 0.9, 1e-5, 5
  vectors = _normal(0, (codes, 3))
  counts, sums = np.ones(codes), vectors.copy()
  with jax.enable_x64(True):
    codebook = _codebook(vectors)
    update = jax.jit(quantization.update_codebook, static_argnames=("decay",))
    for step in range(6):
      z = 0.5 * _normal(10 + step, (4, 2, 3))
      z[0, 0] = vectors[2]  # At least one code is in use.
      flat = z.reshape(-1, 3)
      chosen = ((flat[:, None] - vectors) ** 2).sum(-1).argmin(-1)
      for code in range(codes):
        members = flat[chosen == code]
        counts[code] = decay * counts[code] + (1 - decay) * len(members)
        sums[code] = decay * sums[code] + (1 - decay) * members.sum(0)
      total = counts.sum()
      smoothed = (counts + epsilon) / (total + codes * epsilon) * total
      vectors = sums / smoothed[:, None]

      indices = generators.nearest_code(codebook.vectors, jnp.asarray(z))
      np.testing.assert_array_equal(indices.reshape(-1), chosen)
      codebook = update(codebook, jnp.asarray(z), indices, decay=decay)
      np.testing.assert_allclose(codebook.counts, counts, rtol=1e-12)
      np.testing.assert_allclose(codebook.sums, sums, rtol=1e-12, atol=1e-14)
      np.testing.assert_allclose(
        codebook.vectors, vectors, rtol=1e-12, atol=1e-14
      )


def test_no_decay_is_one_step_of_k_means() -> None:
  z = np.float32([[0.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
  codebook = _codebook(np.float32([[0.0, 0.0], [4.0, 4.0]]))
  indices = generators.nearest_code(codebook.vectors, jnp.asarray(z))
  updated = generators.update_codebook(
    codebook, jnp.asarray(z), indices, decay=0.0, epsilon=1e-9
  )

  np.testing.assert_allclose(updated.counts, [2.0, 1.0])
  np.testing.assert_allclose(updated.vectors, [[0, 2], [5, 5]], rtol=1e-6)


def test_full_decay_changes_nothing() -> None:
  codebook = _codebook(np.float32(_normal(0, (4, 2))))
  z = jnp.asarray(_normal(1, (6, 2)), jnp.float32)
  indices = generators.nearest_code(codebook.vectors, z)
  updated = generators.update_codebook(
    codebook, z, indices, decay=1.0, epsilon=1e-9
  )

  np.testing.assert_allclose(updated.vectors, codebook.vectors, rtol=1e-6)


def test_no_gradient_reaches_the_codebook() -> None:
  codebook = _codebook(np.float32(_normal(0, (4, 2))))

  def loss(z):
    indices = generators.nearest_code(codebook.vectors, z)
    new = generators.update_codebook(codebook, z, indices, decay=0.5)
    return sum(leaf.sum() for leaf in new)

  gradient = jax.grad(loss)(jnp.asarray(_normal(1, (6, 2)), jnp.float32))
  assert not np.any(gradient)


def test_smoothing_keeps_unused_codes_finite() -> None:
  codebook = _codebook(np.float32([[0.0], [9.0]]))
  z = jnp.zeros((4, 1))
  indices = generators.nearest_code(codebook.vectors, z)
  for decay in (0.0, 0.5):
    updated = generators.update_codebook(codebook, z, indices, decay=decay)
    assert np.isfinite(updated.vectors).all()


def test_codes_converge_to_the_centres_of_clusters() -> None:
  centres = np.float32([[0, 0], [6, 0], [0, 6], [6, 6]])
  data = centres[:, None] + 0.2 * _normal(0, (4, 64, 2))
  z = jnp.asarray(data.reshape(-1, 2), jnp.float32)

  def step(_, codebook):
    indices = generators.nearest_code(codebook.vectors, z)
    return generators.update_codebook(codebook, z, indices, decay=0.8)

  start = _codebook(centres[::-1] + np.float32(_normal(1, (4, 2))))
  codebook = jax.jit(lambda c: jax.lax.fori_loop(0, 80, step, c))(start)
  assert np.abs(start.vectors - centres[::-1]).max() > 1.0
  np.testing.assert_allclose(codebook.vectors, data.mean(1)[::-1], atol=1e-4)
  np.testing.assert_allclose(codebook.counts, 64.0, rtol=1e-5)


def test_restart_moves_dead_codes_alone_onto_the_batch() -> None:
  vectors = jnp.asarray(_normal(0, (5, 2)), jnp.float32)
  counts = jnp.asarray([0.5, 0.01, 3.0, 0.0, 0.1])
  codebook = generators.Codebook(vectors, counts, vectors * counts[:, None])
  z = jnp.asarray(_normal(1, (3, 4, 2)) + 20.0, jnp.float32)
  got = generators.restart_dead_codes(
    codebook, z, rng=jax.random.key(0), threshold=0.1
  )

  alive = np.array([0, 2, 4])
  for before, after in zip(codebook, got, strict=True):
    np.testing.assert_array_equal(before[alive], after[alive])
  rows = {tuple(row) for row in np.asarray(z).reshape(-1, 2).tolist()}
  for code in (1, 3):
    assert tuple(got.vectors[code].tolist()) in rows
    assert got.counts[code] == 1.0
  np.testing.assert_array_equal(got.sums[1], got.vectors[1])


def test_perplexity() -> None:
  def perplexity(*counts: float) -> float:
    return float(generators.perplexity(jnp.asarray(counts)))

  assert perplexity(3.0, 3.0, 3.0, 3.0) == pytest.approx(4.0, rel=1e-6)
  assert perplexity(0.0, 7.0, 0.0) == pytest.approx(1.0)
  assert perplexity(0.0, 0.0) == pytest.approx(1.0)
  usage = np.array([0.5, 0.25, 0.25])
  expected = np.exp(-(usage * np.log(usage)).sum())
  assert perplexity(*(8 * usage), 0.0) == pytest.approx(expected, rel=1e-6)


def test_code_counts() -> None:
  indices = jnp.asarray([[0, 2], [2, 2]])
  counts = generators.code_counts(indices, 4)
  np.testing.assert_array_equal(counts, [1, 0, 3, 0])


def test_bad_arguments() -> None:
  codebook = _codebook(np.float32(_normal(0, (4, 2))))
  z, indices = jnp.ones((3, 2)), jnp.zeros(3, jnp.int32)
  with pytest.raises(ValueError, match=r"z: expected last axis 2 .* \(3, 5\)"):
    generators.nearest_code(codebook.vectors, jnp.ones((3, 5)))
  with pytest.raises(
    ValueError, match=r"indices: expected .* \(3,\), got \(2,\)"
  ):
    generators.update_codebook(codebook, z, indices[:2], decay=0.9)
  with pytest.raises(ValueError, match=r"decay must be in \[0.0, 1.0\], got 2"):
    generators.update_codebook(codebook, z, indices, decay=2.0)
  with pytest.raises(ValueError, match="epsilon must be > 0, got 0"):
    generators.update_codebook(codebook, z, indices, decay=0.9, epsilon=0.0)
  with pytest.raises(TypeError, match="indices: expected integers"):
    generators.update_codebook(codebook, z, jnp.zeros(3), decay=0.9)
  with pytest.raises(ValueError, match="threshold must be in"):
    generators.restart_dead_codes(
      codebook, z, rng=jax.random.key(0), threshold=3.0
    )
