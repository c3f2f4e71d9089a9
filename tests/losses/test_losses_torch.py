# SPDX-License-Identifier: Apache-2.0
"""The losses against PyTorch and the published forms written in it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.oracle

B, K = 6, 7
COUNTS = np.array([500, 200, 90, 40, 20, 10, 5])
LABELS = np.array([0, 3, 6, 2, 2, 1], np.int32)
TORCH_LABELS = torch.tensor(LABELS, dtype=torch.long)
TORCH_COUNTS = torch.tensor(COUNTS, dtype=torch.float32)


def kl(s, t, temperature):
  return temperature**2 * functional.kl_div(
    functional.log_softmax(s / temperature, dim=1),
    functional.log_softmax(t / temperature, dim=1),
    reduction="batchmean",
    log_target=True,
  )


def decoupled(s, t, temperature=4.0, beta=8.0):
  """Target and rest of two softmaxes, as the paper's definition has it."""
  target = functional.one_hot(TORCH_LABELS, K).bool()
  p, q = (x.div(temperature).softmax(1) for x in (t, s))
  p_target, q_target = p[target], q[target]
  tckd = functional.kl_div(
    torch.stack([q_target, 1 - q_target], 1).log(),
    torch.stack([p_target, 1 - p_target], 1),
    reduction="batchmean",
  )
  rest = [
    x[~target].view(B, K - 1).div(temperature).log_softmax(1) for x in (s, t)
  ]
  nckd = functional.kl_div(*rest, reduction="batchmean", log_target=True)
  return temperature**2 * (tckd + beta * nckd)


def dist(s, t):
  """Mean correlations by torch.corrcoef."""
  q, p = s.softmax(1), t.softmax(1)

  def relation(a, b):
    pairs = zip(a, b, strict=True)
    rows = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    return 1 - torch.stack(rows).mean()

  return relation(q, p) + relation(q.T, p.T)


def ldam(s, _):
  margins = 0.5 * (TORCH_COUNTS.min() / TORCH_COUNTS) ** 0.25
  target = functional.one_hot(TORCH_LABELS, K)
  return functional.cross_entropy(30 * (s - target * margins), TORCH_LABELS)


def standardised(s, t):
  """The public code's Z-score, which divides by K - 1."""
  s, t = (
    (x - x.mean(1, True)) / (1e-7 + x.std(1, keepdim=True)) for x in (s, t)
  )
  return kl(s, t, 2.0)


def weighted(s, _):
  weights = (1 - 0.999) / (1 - 0.999**TORCH_COUNTS)
  weights = weights / weights.mean()
  each = functional.cross_entropy(s, TORCH_LABELS, weights, reduction="none")
  return each.mean()


def labelled(loss, **hyper):
  return lambda s, _: loss(s, LABELS, **hyper)


ours_standardised = functools.partial(
  losses.standardised(losses.kl_divergence),
  temperature=2.0 * ((K - 1) / K) ** -0.5,
)

PAIRS = {
  "kl_divergence": (
    functools.partial(losses.kl_divergence, temperature=3.0),
    lambda s, t: kl(s, t, 3.0),
  ),
  "soft_cross_entropy": (
    losses.soft_cross_entropy,
    lambda s, t: functional.cross_entropy(s, t.softmax(1)),
  ),
  "logit_mse": (losses.logit_mse, functional.mse_loss),
  "decoupled_kd": (
    functools.partial(losses.decoupled_kd, labels=LABELS),
    decoupled,
  ),
  "dist": (losses.dist, dist),
  "cross_entropy": (
    labelled(losses.cross_entropy, label_smoothing=0.1),
    lambda s, _: functional.cross_entropy(s, TORCH_LABELS, label_smoothing=0.1),
  ),
  "balanced_softmax": (
    labelled(losses.balanced_softmax, class_counts=COUNTS),
    lambda s, _: functional.cross_entropy(s + TORCH_COUNTS.log(), TORCH_LABELS),
  ),
  "ldam": (labelled(losses.ldam, class_counts=COUNTS), ldam),
  "class_weighted": (
    labelled(losses.class_weighted, class_counts=COUNTS),
    weighted,
  ),
}


def torch_gradients(loss, student, teacher):
  student, teacher = (
    torch.tensor(a, requires_grad=True) for a in (student, teacher)
  )
  value = loss(student, teacher)
  value.backward()
  zero = torch.zeros(B, K)
  return value.item(), *(
    (x.grad if x.grad is not None else zero).numpy() for x in (student, teacher)
  )


@pytest.mark.parametrize("name", PAIRS)
def test_mean_and_gradients_of_both_sides(name):
  ours, theirs = PAIRS[name]
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, B, K)).astype(np.float32)
  value, slopes = jax.jit(
    jax.value_and_grad(lambda s, t: jnp.mean(ours(s, t)), argnums=(0, 1))
  )(student, teacher)
  expected, *expected_slopes = torch_gradients(theirs, student, teacher)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for slope, wanted in zip(slopes, expected_slopes, strict=True):
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-6)


def test_standardised_is_the_public_form_at_another_temperature():
  """Up to the factor T^2, which is taken at the stated temperature."""
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, B, K)).astype(np.float32)
  value = jnp.mean(ours_standardised(student, teacher)) * (K - 1) / K
  expected = standardised(torch.tensor(student), torch.tensor(teacher))
  np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
