# SPDX-License-Identifier: Apache-2.0
"""Softened distances over the whole range of temperatures, in float32.

The references are sums in decimal arithmetic with fifty digits: in float64 the
textbook formulas cancel too.
"""

from __future__ import annotations

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tgt_jax import losses

NAMES = ("kl_divergence", "reverse_kl", "jensen_shannon", "decoupled_kd")
TEMPERATURES = (0.01, 1.0, 30.0, 1e2, 1e4, 1e6)
# The share of the mean squared difference of centred logits, as T -> inf.
SHARES = {"kl_divergence": 0.5, "reverse_kl": 0.5, "jensen_shannon": 0.125}


def draw(seed=0, shape=(6, 5), scale=2.0):
  rng = np.random.default_rng(seed)
  return [np.float32(scale * rng.normal(size=shape)) for _ in range(2)]


def softmax(logits, temperature):
  weights = [
    (decimal.Decimal(float(x)) / decimal.Decimal(temperature)).exp()
    for x in logits
  ]
  return [w / sum(weights) for w in weights]


def kl(p, q):
  return sum((a * (a / b).ln() for a, b in zip(p, q, strict=True)))


def divergence(name, q, p):
  if name == "kl_divergence":
    return kl(p, q)
  if name == "reverse_kl":
    return kl(q, p)
  if name == "jensen_shannon":
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (kl(p, m) + kl(q, m)) / 2
  top = max(range(len(p)), key=lambda k: p[k])
  rests = [[v for k, v in enumerate(x) if k != top] for x in (p, q)]
  pairs = [[x[top], sum(r)] for x, r in zip((p, q), rests, strict=True)]
  return kl(*pairs) + 8 * kl(*([v / sum(r) for v in r] for r in rests))


def reference(name, student, teacher, temperature):
  with decimal.localcontext() as context:
    context.prec = 50
    return [
      float(
        decimal.Decimal(temperature) ** 2
        * divergence(name, softmax(s, temperature), softmax(t, temperature))
      )
      for s, t in zip(student, teacher, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_values_at_every_temperature(name):
  loss = getattr(losses, name)
  student, teacher = draw()

  @jax.jit
  def values(student, teacher):
    return [loss(student, teacher, temperature=t) for t in TEMPERATURES]

  for found, temperature in zip(
    values(student, teacher), TEMPERATURES, strict=True
  ):
    expected = reference(name, student, teacher, temperature)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("temperature", [1e5, 1e6])
def test_the_hot_limit_in_float32(name, temperature):
  """Value, both gradients and a forward derivative tend to those of an MSE."""
  loss = functools.partial(getattr(losses, name), temperature=temperature)
  student, teacher = draw(1)
  difference = np.float64(student) - np.float64(teacher)
  difference -= difference.mean(-1, keepdims=True)
  share = SHARES[name]

  @jax.jit
  def everything(student, teacher):
    values, pull = jax.vjp(loss, student, teacher)
    slopes = pull(jnp.ones_like(values))
    _, forward = jax.jvp(
      lambda s: loss(s, teacher),
      (student,),
      (jnp.ones_like(student) * teacher,),
    )
    return values, slopes, forward

  values, slopes, forward = everything(student, teacher)
  rtol = 20 / temperature + 1e-6  # The next order of the limit is 1 / T.
  np.testing.assert_allclose(
    values, share * (difference**2).mean(-1), rtol=rtol
  )
  slope = 2 * share * difference / difference.shape[-1]
  for found, expected in zip(slopes, (slope, -slope), strict=True):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
  np.testing.assert_allclose(
    forward, (slope * teacher).sum(-1), rtol=rtol, atol=10 * rtol
  )


@pytest.mark.parametrize("name", NAMES)
def test_the_cold_limit(name):
  """Both sides are one-hot: KL costs T times the student's missing margin."""
  student, teacher = draw(2)
  found = jax.jit(functools.partial(getattr(losses, name), temperature=1e-6))(
    student, teacher
  )
  assert np.all(np.isfinite(found))
  sides = (student, teacher)
  if name in ("kl_divergence", "reverse_kl"):
    if name == "reverse_kl":
      sides = sides[::-1]
    rows = np.arange(len(student))
    gap = sides[0].max(-1) - sides[0][rows, sides[1].argmax(-1)]
    np.testing.assert_allclose(found, 1e-6 * gap, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("temperature", [1.0, 1e6])
def test_the_hessian_at_agreement_is_the_fisher_matrix(name, temperature):
  """diag(p) - p p^T for either KL, a quarter of it for Jensen-Shannon."""
  loss = functools.partial(getattr(losses, name), temperature=temperature)
  (student, _) = draw(3, shape=(4,), scale=1.0)
  hessian = jax.jit(jax.hessian(lambda s: loss(s, student)))(student)
  p = np.exp(np.float64(student) / temperature)
  p /= p.sum()
  expected = 2 * SHARES[name] * (np.diag(p) - np.outer(p, p))
  np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["jensen_shannon", "decoupled_kd"])
@pytest.mark.parametrize("scale", [0.05, 3.0])
def test_second_derivatives_of_both_sides(name, scale):
  """On either side of the switch between the series and the plain sums."""
  with jax.enable_x64(True):
    arguments = [np.float64(x) for x in draw(4, (2, 4), scale)]
    labels = np.array([1, 3], np.int32)
    loss = losses.jensen_shannon
    if name == "decoupled_kd":
      loss = functools.partial(losses.decoupled_kd, labels=labels, beta=2.0)
    loss = functools.partial(loss, temperature=1.5)
    check_grads(
      jax.jit(loss), arguments, 2, ("fwd", "rev"), atol=1e-5, rtol=1e-5
    )


def test_the_switch_to_the_series_leaves_no_step():
  """Values are smooth where log-ratios cross from small to large."""
  steps = np.linspace(0.3, 1.5, 4001, dtype=np.float32)
  student = np.stack([steps, 0 * steps, -steps], -1)
  teacher = np.zeros_like(student)
  for name, q_first in (("kl_divergence", False), ("reverse_kl", True)):
    found = np.asarray(jax.jit(getattr(losses, name))(student, teacher))
    q = np.exp(np.float64(student))
    q /= q.sum(-1, keepdims=True)
    p = np.full_like(q, 1 / 3)
    first, second = (q, p) if q_first else (p, q)
    expected = (first * np.log(first / second)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_soft_cross_entropy_is_entropy_plus_divergence():
  student, teacher = draw(5)

  @jax.jit
  def slopes(student, teacher):
    of = lambda f: jax.grad(lambda s: jnp.sum(f(s, teacher, temperature=1e6)))
    return of(losses.soft_cross_entropy)(student), of(losses.kl_divergence)(
      student
    )

  soft, plain = slopes(student, teacher)
  np.testing.assert_allclose(soft, plain, rtol=1e-6)
  sure = np.float32([[0, -1e4, -1e4]])
  np.testing.assert_array_equal(losses.soft_cross_entropy(sure, sure), [0.0])


@pytest.mark.parametrize("name", [*NAMES, "soft_cross_entropy", "dist"])
@pytest.mark.parametrize(
  "temperature", [0.0, -1.0, 1e-7, 1e7, float("inf"), float("nan")]
)
def test_a_temperature_out_of_range(name, temperature):
  student, teacher = draw()
  with pytest.raises(
    ValueError, match=f"temperature must be in .* {temperature}"
  ):
    getattr(losses, name)(student, teacher, temperature=temperature)


def test_dist_keeps_four_digits_up_to_its_highest_temperature():
  student, teacher = draw(6)
  loss = functools.partial(losses.dist, temperature=1e3, gamma=0.0)
  found = jax.jit(loss)(student, teacher)
  p, q = (
    np.exp(np.float64(x) / 1e3 - np.log(np.exp(x / 1e3).sum(-1, keepdims=True)))
    for x in (teacher, student)
  )
  expected = [
    1e6 * (1 - np.corrcoef(a, b)[0, 1]) for a, b in zip(p, q, strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  with pytest.raises(ValueError, match=r"\[1e-06, 1000"):
    losses.dist(student, teacher, temperature=2e3)
