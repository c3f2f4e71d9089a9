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
from jax.test_util import check_grads

from tgt_jax.models import convolutions

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


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize("padding", convolutions.PADDINGS)
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("window", [3, 5])
def test_shifted_products(window, strides, padding, size) -> None:
  x, kernel = _draw(2, *size, 3), _draw(window, window, 1, 3, seed=1)
  pairs = tuple(convolutions.pad_pairs(padding, size, window, strides))
  theirs = functools.partial(_depthwise, strides=strides, pairs=pairs)
  want, transpose = jax.vjp(theirs, x, kernel)
  got, our_transpose = jax.vjp(
    lambda x, kernel: convolutions.shifted_products(x, kernel, strides, pairs),
    x,
    kernel,
  )
  np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
  cotangent = _draw(*want.shape, seed=2)
  for mine, other in zip(
    our_transpose(cotangent), transpose(cotangent), strict=True
  ):
    np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)
  tangents = (_draw(*x.shape, seed=3), _draw(*kernel.shape, seed=4))
  np.testing.assert_allclose(
    jax.jvp(
      lambda *a: convolutions.shifted_products(*a, strides, pairs),
      (x, kernel),
      tangents,
    )[1],
    jax.jvp(theirs, (x, kernel), tangents)[1],
    rtol=1e-12,
    atol=1e-12,
  )


def test_shifted_products_under_every_transformation() -> None:
  x, kernel = _draw(2, 5, 4, 3), _draw(3, 3, 1, 3, seed=1)
  pairs = ((0, 1), (1, 1))

  def loss(x, kernel):
    y = convolutions.shifted_products(x, kernel, 2, pairs)
    return jnp.sin(y).sum()

  check_grads(loss, (x, kernel), order=2, modes=("fwd", "rev"), rtol=1e-5)
  stacked = jax.vmap(jax.grad(loss, (0, 1)))(
    jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])
  )
  alone = jax.grad(loss, (0, 1))(2 * x, -kernel)
  for together, one in zip(stacked, alone, strict=True):
    np.testing.assert_allclose(together[1], one, rtol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (1, 3)])
@pytest.mark.parametrize("padding", convolutions.PADDINGS)
def test_max_pool(padding, size) -> None:
  x = _draw(2, *size, 3)
  pairs = convolutions.pad_pairs(padding, size, 3, 2)
  want, transpose = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2), pairs), x)
  got, ours = jax.vjp(
    functools.partial(convolutions.max_pool, padding=padding), x
  )
  assert got.shape[1:3] == tuple(math.ceil(n / 2) for n in size)
  np.testing.assert_array_equal(got, want)
  cotangent = _draw(*want.shape, seed=1)
  np.testing.assert_allclose(
    ours(cotangent)[0], transpose(cotangent)[0], rtol=1e-12
  )
  check_grads(
    lambda x: convolutions.max_pool(x, padding=padding, fill=0.0),
    (x,),
    order=1,
    modes=("fwd", "rev"),
    rtol=1e-5,
  )


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


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
@pytest.mark.parametrize("padding", convolutions.PADDINGS)
@pytest.mark.parametrize(
  "kernel, strides", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)]
)
def test_convolution(kernel, strides, padding, size) -> None:
  module = _Convolution(kernel, strides, padding)
  x = _draw(2, *size, 3)
  variables = module.init(jax.random.key(0), x)
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
