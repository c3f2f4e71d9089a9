# SPDX-License-Identifier: Apache-2.0
"""Checks pass what is right and name what is wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import checks

VECTOR, MATRIX = jnp.zeros(3), jnp.zeros((3, 4))
COUNT = jnp.zeros(3, jnp.int32)


@pytest.mark.parametrize(
  "check",
  [
    lambda: checks.rank(2, logits=MATRIX),
    lambda: checks.rank({1, 2}, logits=MATRIX, labels=VECTOR),
    lambda: checks.same_shape(first=MATRIX, second=MATRIX + 1),
    lambda: checks.same_leading(logits=MATRIX, labels=VECTOR),
    lambda: checks.floating(a=VECTOR, b=jnp.zeros(2, jnp.bfloat16)),
    lambda: checks.floating(a=np.zeros(2)),
    lambda: checks.integer(a=COUNT, b=np.zeros(2, np.uint8)),
    lambda: checks.finite(shift=-1e300, count=0),
    lambda: checks.positive(step_size=1e-30),
    lambda: checks.positive(width=np.float32(2), depth=np.int64(1)),
    lambda: checks.non_negative(sigma=0.0, beta=1),
    lambda: checks.in_range(0, 1, smoothing=0.0, momentum=1),
    lambda: checks.inside(0, 1, share=0.5),
    lambda: checks.one_of(["kl", "mse"], distance="kl"),
    lambda: checks.one_of({"kl": 0}, distance="kl"),
  ],
)
def test_what_is_right_passes(check):
  assert check() is None


@pytest.mark.parametrize(
  "check, error, match",
  [
    (
      lambda: checks.rank(1, logits=MATRIX),
      ValueError,
      r"logits: expected rank 1, got shape \(3, 4\)",
    ),
    (
      lambda: checks.same_shape(student=MATRIX, teacher=VECTOR),
      ValueError,
      r"student \(3, 4\), teacher \(3,\)",
    ),
    (  # No silent broadcasting of [B, 1] against [B, K].
      lambda: checks.same_shape(a=jnp.zeros((3, 1)), b=jnp.zeros((3, 4))),
      ValueError,
      "equal",
    ),
    (
      lambda: checks.same_leading(logits=MATRIX, labels=jnp.zeros(4)),
      ValueError,
      r"leading axes must be equal, got logits \(3, 4\), labels \(4,\)",
    ),
    (
      lambda: checks.same_leading(logits=MATRIX, label=jnp.zeros(())),
      ValueError,
      r"label \(\)",
    ),
    (
      lambda: checks.floating(logits=COUNT),
      TypeError,
      "logits: expected floating point, got int32",
    ),
    (
      lambda: checks.integer(labels=VECTOR),
      TypeError,
      "labels: expected integers, got float32",
    ),
    (
      lambda: checks.integer(mask=jnp.zeros(3, bool)),
      TypeError,
      "mask: expected integers, got bool",
    ),
    (lambda: checks.positive(tau=0.0), ValueError, "tau must be > 0, got 0.0"),
    (lambda: checks.positive(tau=float("nan")), ValueError, "tau .* nan"),
    (lambda: checks.non_negative(sigma=-1), ValueError, "sigma must be >= 0"),
    (
      lambda: checks.non_negative(sigma=float("nan")),
      ValueError,
      "sigma .* nan",
    ),
    (
      lambda: checks.finite(shift=float("-inf")),
      ValueError,
      "shift must be finite, got -inf",
    ),
    (
      lambda: checks.positive(tau=float("inf")),
      ValueError,
      "tau must be finite, got inf",
    ),
    (
      lambda: checks.non_negative(sigma=0.0, beta=float("inf")),
      ValueError,
      "beta must be finite, got inf",
    ),
    (
      lambda: checks.in_range(0, 1, smoothing=float("nan")),
      ValueError,
      "smoothing .* nan",
    ),
    (
      lambda: checks.in_range(0, 1, smoothing=1.5),
      ValueError,
      r"smoothing must be in \[0, 1\], got 1.5",
    ),
    (
      lambda: checks.inside(0, 1, share=1.0),
      ValueError,
      r"share must be in \(0, 1\), got 1.0",
    ),
    (
      lambda: checks.one_of(["mse", "kl"], distance="mze"),
      ValueError,
      "distance: unknown 'mze'; choose from kl, mse. Did you mean 'mse'",
    ),
  ],
)
def test_what_is_wrong_is_named(check, error, match):
  with pytest.raises(error, match=match):
    check()


def test_the_second_of_two_is_named():
  with pytest.raises(ValueError, match="^second"):
    checks.rank(2, first=MATRIX, second=VECTOR)


def test_no_hint_where_nothing_is_near():
  with pytest.raises(ValueError) as caught:
    checks.one_of(["kl", "mse"], distance="wasserstein")
  assert "Did you mean" not in str(caught.value)


def test_shapes_are_checked_while_tracing():
  """Nothing is computed: the failure comes from abstract values."""

  @jax.jit
  def double(x):
    checks.rank(1, x=x)
    checks.floating(x=x)
    return 2 * x

  np.testing.assert_array_equal(double(VECTOR), VECTOR)
  with pytest.raises(ValueError, match="x: expected rank 1"):
    jax.eval_shape(double, MATRIX)
  with pytest.raises(TypeError, match="x: expected floating"):
    jax.eval_shape(double, COUNT)
