# SPDX-License-Identifier: Apache-2.0
"""Likelihoods, KL and the bound they make, against numpy and torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tgt_jax.generators import likelihood


def _draws(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  generator = np.random.default_rng(seed)
  return generator.normal(size=(4, 3, 2)), generator.uniform(size=(4, 3, 2))


def test_bernoulli_by_hand() -> None:
  # p = 1/2: log 2 per pixel whatever the pixel.
  got = likelihood.bernoulli_nll(
    jnp.zeros((1, 3)), jnp.asarray([[0.0, 0.3, 1]])
  )
  np.testing.assert_allclose(got, [3 * np.log(2.0)], rtol=1e-6)
  # p = 3/4: -log(3/4) for a one, -log(1/4) for a zero.
  logits = jnp.full((1, 2), np.log(3.0))
  got = likelihood.bernoulli_nll(logits, jnp.asarray([[1.0, 0.0]]))
  np.testing.assert_allclose(got, [np.log(4 / 3) + np.log(4.0)], rtol=1e-6)


def test_gaussian_by_hand() -> None:
  # At its mean the density of scale 1 / sqrt(2 pi) is one.
  scale = float(1 / np.sqrt(2 * np.pi))
  x = jnp.asarray([[0.2, 0.9]])
  got = likelihood.gaussian_nll(x, x, scale=scale)
  np.testing.assert_allclose(got, [0.0], atol=1e-6)


def test_kl_by_hand() -> None:
  mean, scale = jnp.asarray([[0.0, 2.0]]), jnp.asarray([[1.0, np.e]])
  expected = 0.0 + 0.5 * (4.0 + np.e**2 - 1.0) - 1.0
  got = likelihood.gaussian_kl(mean, scale)
  np.testing.assert_allclose(got, [expected], rtol=1e-6)


@pytest.mark.oracle
def test_terms_equal_torch_distributions() -> None:
  torch = pytest.importorskip("torch")
  distributions = torch.distributions
  draws, x = _draws()
  other = np.exp(_draws(1)[0])
  tensors = [torch.tensor(array) for array in (draws, x, other)]

  def total(values: torch.Tensor) -> np.ndarray:
    return values.sum((1, 2)).numpy()

  with jax.enable_x64(True):
    kl = likelihood.gaussian_kl(jnp.asarray(draws), jnp.asarray(other))
    gaussian = likelihood.gaussian_nll(
      jnp.asarray(draws), jnp.asarray(x), scale=0.3
    )
    bits = jnp.asarray(np.round(x))
    bernoulli = likelihood.bernoulli_nll(jnp.asarray(draws), bits)
  standard = distributions.Normal(0.0, 1.0)
  posterior = distributions.Normal(tensors[0], tensors[2])
  expected = total(distributions.kl_divergence(posterior, standard))
  np.testing.assert_allclose(kl, expected, rtol=1e-12)
  normal = distributions.Normal(tensors[0], 0.3)
  np.testing.assert_allclose(
    gaussian, -total(normal.log_prob(tensors[1])), rtol=1e-12
  )
  coins = distributions.Bernoulli(logits=tensors[0])
  np.testing.assert_allclose(
    bernoulli, -total(coins.log_prob(tensors[1].round())), rtol=1e-12
  )


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_bernoulli_is_finite_at_extreme_logits(logit: float) -> None:
  logits, x = jnp.full((1, 2), logit), jnp.asarray([[0.0, 1.0]])
  value, gradient = jax.value_and_grad(
    lambda logits: likelihood.bernoulli_nll(logits, x).sum()
  )(logits)
  assert float(value) == 1e4
  np.testing.assert_allclose(gradient[0], [float(logit > 0), -float(logit < 0)])


def test_bfloat16_is_computed_in_float32() -> None:
  x = jnp.full((1, 4096), 0.5, jnp.bfloat16)
  got = likelihood.bernoulli_nll(jnp.zeros_like(x), x)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, [4096 * np.log(2.0)], rtol=1e-6)


def test_gradients() -> None:
  with jax.enable_x64(True):
    draws, x = map(jnp.asarray, _draws())
    check_grads(lambda l: likelihood.bernoulli_nll(l, x), (draws,), 1, ["rev"])
    check_grads(
      lambda m: likelihood.gaussian_nll(m, x, scale=0.5), (draws,), 1, ["rev"]
    )
    check_grads(likelihood.gaussian_kl, (draws, x + 0.1), 1, ["rev"])


def test_bound_is_tight_for_a_linear_gaussian_model() -> None:
  """With the exact posterior, reconstruction + KL is `-log p(x)`.

  z ~ N(0, I), x | z ~ N(W z + b, s^2 I), the columns of W orthogonal, so that
  the posterior has independent dimensions. The expectation of a quadratic
  over a Gaussian is exact on the points mean +- sqrt(d) * scale along axes.
  """
  generator = np.random.default_rng(0)
  pixels, latents, noise = 6, 3, 0.4
  basis = np.linalg.qr(generator.normal(size=(pixels, latents)))[0]
  loadings = basis * np.array([0.5, 1.0, 2.0])
  offset = generator.normal(size=pixels)
  x = generator.normal(size=(5, pixels))
  precision = 1.0 + (loadings**2).sum(0) / noise**2
  mean = (x - offset) @ loadings / noise**2 / precision
  scale = np.broadcast_to(precision**-0.5, mean.shape)

  covariance = loadings @ loadings.T + noise**2 * np.eye(pixels)
  centred = x - offset
  solved = np.linalg.solve(covariance, centred.T).T
  log_evidence = -0.5 * (
    (centred * solved).sum(1)
    + np.linalg.slogdet(covariance)[1]
    + pixels * np.log(2 * np.pi)
  )

  def bound(mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    steps = np.sqrt(latents) * np.concatenate(
      [np.eye(latents), -np.eye(latents)]
    )
    points = [mean + scale * step for step in steps]
    terms = [
      likelihood.gaussian_nll(
        jnp.asarray(z @ loadings.T + offset), jnp.asarray(x), scale=noise
      )
      for z in points
    ]
    kl = likelihood.gaussian_kl(jnp.asarray(mean), jnp.asarray(scale))
    return np.mean(terms, axis=0) + np.asarray(kl)

  with jax.enable_x64(True):
    np.testing.assert_allclose(bound(mean, scale), -log_evidence, rtol=1e-12)
    assert np.all(bound(mean + 0.1, scale) > -log_evidence)
    assert np.all(bound(mean, 1.2 * scale) > -log_evidence)


def test_bad_arguments() -> None:
  ones = jnp.ones((2, 3))
  with pytest.raises(ValueError, match="shapes must be equal"):
    likelihood.bernoulli_nll(ones, jnp.ones((2, 1)))
  with pytest.raises(ValueError, match="shapes must be equal"):
    likelihood.gaussian_kl(ones, jnp.ones((3,)))
  with pytest.raises(ValueError, match=r"scale must be > 0, got 0"):
    likelihood.gaussian_nll(ones, ones, scale=0.0)
  with pytest.raises(TypeError, match="x: expected floating point"):
    likelihood.bernoulli_nll(ones, jnp.ones((2, 3), jnp.int32))
  with pytest.raises(
    ValueError, match="likelihood: unknown 'gauss'.*'gaussian'"
  ):
    likelihood.reconstruction_nll(
      ones, ones, likelihood="gauss", noise_scale=1.0
    )
