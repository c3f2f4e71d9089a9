# SPDX-License-Identifier: Apache-2.0
"""Counting the multiplications of a program, and measuring a machine's rate.

The floor of a step is the time its matrix products and convolutions alone
would take at the rate that this machine reaches on them, everything else free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import take_turns
from setting import waiting


def _product(equation: Any) -> int:
  (contracting, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  terms = math.prod(left[axis] for axis in contracting)
  return 2 * math.prod(equation.outvars[0].aval.shape) * terms


def _convolution(equation: Any) -> int:
  """Taps that fall on padding or on the zeros of a dilation count too."""
  kernel = equation.invars[1].aval.shape
  out = equation.outvars[0].aval.shape
  _, depth, *window = equation.params["dimension_numbers"].rhs_spec
  terms = kernel[depth] * math.prod(kernel[axis] for axis in window)
  return 2 * math.prod(out) * terms


def _inner(value: Any) -> list[Any]:
  if isinstance(value, list | tuple):
    return [found for item in value for found in _inner(item)]
  value = getattr(value, "jaxpr", value)
  return [value] if hasattr(value, "eqns") else []


def count(jaxpr: Any) -> dict[str, int]:
  """Floating-point operations of a jaxpr in products and convolutions.

  Args:
    jaxpr: open or closed; scans count once for each iteration.

  Returns:
    {"product": ..., "convolution": ...}, a multiply-add being two.
  """
  total = {"product": 0, "convolution": 0}
  for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    kind = equation.primitive.name
    if kind == "dot_general":
      total["product"] += _product(equation)
    elif kind == "conv_general_dilated":
      total["convolution"] += _convolution(equation)
    repeats = equation.params.get("length", 1) if kind == "scan" else 1
    for value in equation.params.values():
      for inner in _inner(value):
        for key, number in count(inner).items():
          total[key] += repeats * number
  return total


def measured_rates(
  batch_size: int, dtype: str, *, rounds: int, seconds: float, clock: str
) -> dict[str, float]:
  """Operations per second of the best of several products and convolutions.

  Returns:
    {"product": ..., "convolution": ...}: the rate of a 1024^3 matrix product,
    and of the labeler's larger convolution in its better direction.
  """
  draws = np.random.default_rng(0)
  array = lambda *s: jnp.asarray(draws.standard_normal(s, np.float32), dtype)
  square = array(1024, 1024)
  images, kernel = array(batch_size, 14, 14, 32), array(3, 3, 32, 64)

  def convolve(x, w):
    return jax.lax.conv_general_dilated(
      x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  def pull_back(x, w, g):
    return jax.linear_transpose(lambda v: convolve(v, w), x)(g)

  slope = convolve(images, kernel)
  contenders = {
    "product": waiting(jnp.matmul, square, square),
    "convolution": waiting(convolve, images, kernel),
    "transposed": waiting(pull_back, images, kernel, slope),
  }
  times = take_turns(contenders, rounds=rounds, seconds=seconds, clock=clock)
  work = batch_size * 14 * 14 * 9 * 32 * 64 * 2
  fastest = min(times.best("convolution"), times.best("transposed"))
  return {
    "product": 2 * 1024**3 / times.best("product") * 1e3,
    "convolution": work / fastest * 1e3,
  }


def floor_ms(work: Mapping[str, int], rates: Mapping[str, float]) -> float:
  """Milliseconds for that work at those rates."""
  return 1e3 * sum(work[kind] / rates[kind] for kind in rates)
