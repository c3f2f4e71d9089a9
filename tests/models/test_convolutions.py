# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pooling written out, against XLA's own, in float64."""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax.models import convolutions, depthwise

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _draw(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _depthwise(x, kernel, *, strides, pairs):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (strides, strides),
    pairs,
    dimension_numbers=DIMENSIONS,
    feature_group_count=x.shape[-1],
  )


def _in_every_mode(function, primals: tuple) -> list:
  """Value, both derivatives, and the derivative of the gradient."""
  moves = [_draw(*x.shape, seed=10 + i) for i, x in enumerate(primals)]

  def loss(*primals):
    return jnp.sin(function(*primals)).sum()

  @jax.jit
  def run(primals, moves):
    gradient = jax.grad(loss, tuple(range(len(primals))))
    value, moved = jax.jvp(function, primals, moves)
    return value, moved, *jax.jvp(gradient, primals, moves)

  return jax.tree.leaves(run(primals, tuple(moves)))


def _equal(got: list, want: list) -> None:
  for mine, other in zip(got, want, strict=True):
    np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
  "window, strides, padding, size",
  [
    (3, 1, "SAME", (8, 5)),
    (3, 2, "SAME", (8, 5)),
    (3, 2, "torch", (8, 5)),
    (5, 1, "torch", (4, 7)),
    (5, 2, "SAME", (4, 7)),
    (5, 2, "torch", (1, 2)),
  ],
)
def test_shifted_products(window, strides, padding, size) -> None:
  x, kernel = _draw(2, *size, 3), _draw(window, window, 1, 3, seed=1)
  pairs = tuple(convolutions.pad_pairs(padding, size, window, strides))
  theirs = functools.partial(_depthwise, strides=strides, pairs=pairs)

  def ours(x, kernel):
    return depthwise.shifted_products(x, kernel, strides, pairs)

  _equal(_in_every_mode(ours, (x, kernel)), _in_every_mode(theirs, (x, kernel)))


def test_shifted_products_of_many_kernels() -> None:
  x, kernel = _draw(2, 5, 4, 3), _draw(3, 3, 1, 3, seed=1)

  def gradient(x, kernel):
    return jax.grad(
      lambda *args: jnp.sin(
        depthwise.shifted_products(*args, 2, ((0, 1), (1, 1)))
      ).sum(),
      (0, 1),
    )(x, kernel)

  stacked = jax.jit(jax.vmap(gradient))(
    jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])
  )
  alone = jax.jit(gradient)(2 * x, -kernel)
  _equal([leaf[1] for leaf in stacked], list(alone))


@pytest.mark.parametrize(
  "padding, size", [("torch", (8, 7)), ("SAME", (8, 7)), ("torch", (1, 3))]
)
def test_max_pool(padding, size) -> None:
  x = _draw(2, *size, 3)
  pairs = convolutions.pad_pairs(padding, size, 3, 2)

  def theirs(x, fill=-math.inf):
    return jax.lax.reduce_window(
      jnp.pad(x, ((0, 0), *pairs, (0, 0)), constant_values=fill),
      -math.inf,
      jax.lax.max,
      (1, 3, 3, 1),
      (1, 2, 2, 1),
      "VALID",
    )

  def ours(x, fill=-math.inf):
    return convolutions.max_pool(x, padding=padding, fill=fill)

  assert ours(x).shape[1:3] == tuple(math.ceil(n / 2) for n in size)
  _equal(_in_every_mode(ours, (x,)), _in_every_mode(theirs, (x,)))
  np.testing.assert_array_equal(ours(x, 0.0), theirs(x, 0.0))


def test_max_pool_sees_the_fill() -> None:
  x = -1.0 - jnp.zeros((1, 4, 4, 1))
  np.testing.assert_array_equal(convolutions.max_pool(x)[0, :, :, 0], -1.0)
  np.testing.assert_array_equal(
    convolutions.max_pool(x, fill=0.0)[0, :, :, 0], [[0.0, 0.0], [0.0, -1.0]]
  )
  same = convolutions.max_pool(x, fill=0.0, padding="SAME")
  np.testing.assert_array_equal(same[0, :, :, 0], [[-1.0, 0.0], [0.0, 0.0]])


def test_of_equal_maxima_the_first_gets_the_gradient() -> None:
  gradient = jax.grad(lambda x: convolutions.max_pool(x).sum())(
    jnp.ones((1, 2, 2, 1))
  )
  np.testing.assert_array_equal(gradient[0, :, :, 0], [[1.0, 0.0], [0.0, 0.0]])


class _Convolution(nn.Module):
  kernel: int
  strides: int
  padding: str

  @nn.compact
  def __call__(self, x):
    return convolutions.conv(
      x,
      4,
      self.kernel,
      strides=self.strides,
      padding=self.padding,
      dtype=x.dtype,
      name="conv",
    )


@pytest.mark.parametrize("padding", convolutions.PADDINGS)
@pytest.mark.parametrize(
  "kernel, strides", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)]
)
def test_convolution(kernel, strides, padding) -> None:
  module = _Convolution(kernel, strides, padding)
  x = _draw(2, 8, 5, 3)
  variables = random_weights(module.init, x)
  pairs = [(kernel // 2, kernel // 2)] * 2 if padding == "torch" else "SAME"
  want = jax.lax.conv_general_dilated(
    x,
    jnp.asarray(variables["params"]["conv"]["kernel"], x.dtype),
    (strides, strides),
    pairs,
    dimension_numbers=DIMENSIONS,
  )
  np.testing.assert_allclose(
    module.apply(variables, x), want, rtol=1e-12, atol=1e-12
  )


def test_standardized_kernel() -> None:
  module = convolutions.StandardizedConv(
    features=5,
    kernel=3,
    strides=1,
    padding="torch",
    epsilon=1e-10,
    dtype=jnp.dtype("float64"),
  )
  x, raw = _draw(2, 6, 6, 4), _draw(3, 3, 4, 5, seed=1)
  kernel = np.asarray(raw).reshape(-1, 5)
  kernel = (kernel - kernel.mean(0)) / np.sqrt(kernel.var(0) + 1e-10)
  want = jax.lax.conv_general_dilated(
    x,
    jnp.asarray(kernel.reshape(3, 3, 4, 5)),
    (1, 1),
    "SAME",
    dimension_numbers=DIMENSIONS,
  )
  got = module.apply({"params": {"kernel": raw}}, x)
  np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
  # Neither the scale nor the mean of the stored kernel matters.
  moved = module.apply({"params": {"kernel": 3.0 * raw + 2.0}}, x)
  np.testing.assert_allclose(moved, want, rtol=1e-8, atol=1e-8)


def test_padding_is_checked() -> None:
  with pytest.raises(ValueError, match="padding: unknown 'valid'; choose from"):
    convolutions.max_pool(jnp.zeros((1, 4, 4, 1)), padding="valid")
