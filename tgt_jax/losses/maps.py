# SPDX-License-Identifier: Apache-2.0
"""Published distillation losses between feature maps [B, H, W, C].

Channels are last. Every function treats each example on its own and returns
one value per example, [B], of which the mean over the batch is the published
loss of one layer. `where` [B] keeps examples; padding has value and gradient 0.
The teacher's gradient is left on.

What a layer learns before it is compared is not here: FitNet's hint is
`embedding_mse` behind a learned map of the student's features.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks
from tgt_jax.losses import _embeddings
from tgt_jax.types import Array

_PRECISION = jax.lax.Precision.HIGHEST


def _windows(size: int, smaller: int) -> np.ndarray:
  """[smaller, size]: means over windows that cover an axis evenly."""
  weights = np.zeros((smaller, size))
  for i in range(smaller):
    start, end = i * size // smaller, -(-(i + 1) * size // smaller)
    weights[i, start:end] = 1.0 / (end - start)
  return weights


def _pooled(maps: Array, height: int, width: int) -> Array:
  """Average pooling of [B, H, W, C] to a height and width."""
  for axis, size in ((1, height), (2, width)):
    if maps.shape[axis] != size:
      weights = jnp.asarray(_windows(maps.shape[axis], size), maps.dtype)
      maps = jnp.tensordot(maps, weights, ((axis,), (1,)), precision=_PRECISION)
      maps = jnp.moveaxis(maps, -1, axis)
  return maps


def _same_size(student: Array, teacher: Array) -> tuple[Array, Array]:
  """Both maps pooled to the smaller height and the smaller width."""
  height = min(student.shape[1], teacher.shape[1])
  width = min(student.shape[2], teacher.shape[2])
  return _pooled(student, height, width), _pooled(teacher, height, width)


def attention_transfer(
  student: Array,
  teacher: Array,
  *,
  p: float = 2.0,
  where: Array | None = None,
) -> Array:
  """AT: where in the image the activations are strong.

  Mean over positions of (Qs - Qt)^2, Q the mean over channels of |F|^p,
  flattened and at length one. Maps of different sizes are first pooled by
  averages to the smaller one (Zagoruyko and Komodakis, 2017, "Paying more
  attention to attention", arXiv 1612.03928, in the squared form of its public
  code; the paper's formula has the norm itself).

  Args:
    student: [B, H, W, C].
    teacher: [B, H', W', C'].
    p: >= 1.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not such maps, `where` is not [B], or p < 1.
    TypeError: a map is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=4)
  checks.finite(p=p)
  checks.in_range(1.0, math.inf, p=p)

  attention = []
  for maps in _same_size(both.student, both.teacher):
    strength = jnp.square(maps) if p == 2 else jnp.abs(maps) ** p
    strength = jnp.mean(strength, axis=-1).reshape(len(both.kept), -1)
    attention.append(_embeddings.unit(strength))
  rows = jnp.mean(jnp.square(attention[0] - attention[1]), axis=1)
  return _embeddings.values(rows, both.kept)


def _channels(maps: Array) -> Array:
  """[B, C, HW]: each channel's pattern over positions, at length one."""
  flat = maps.reshape(maps.shape[0], -1, maps.shape[-1])
  return _embeddings.unit(jnp.swapaxes(flat, 1, 2))


def _kernel_mean(first: Array, second: Array) -> Array:
  """[B]: mean over pairs of channels of the squared inner product."""
  products = jnp.einsum("bip,bjp->bij", first, second, precision=_PRECISION)
  return jnp.mean(jnp.square(products), axis=(1, 2))


def neuron_selectivity(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """NST: which patterns over the image the channels respond to.

  The squared maximum mean discrepancy between the channels of the two sides
  under the kernel (x . y)^2, every channel's map flattened and at length one
  (Huang and Wang, 2017, "Like what you like: knowledge distill via neuron
  selectivity transfer", arXiv 1707.01219). Maps are first pooled to the
  smaller size.

  The kernel is the inner product of x x^T and y y^T. Where there are fewer
  positions than channels the discrepancy is computed as the distance of their
  means, otherwise from the three means of the kernel.

  Args:
    student: [B, H, W, C].
    teacher: [B, H', W', C'].
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: not such maps, or `where` is not [B].
    TypeError: a map is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=4)

  first, second = map(_channels, _same_size(both.student, both.teacher))
  if first.shape[2] <= max(first.shape[1], second.shape[1]):
    means = [
      jnp.einsum("bcp,bcq->bpq", x, x, precision=_PRECISION) / x.shape[1]
      for x in (first, second)
    ]
    rows = jnp.sum(jnp.square(means[0] - means[1]), axis=(1, 2))
  else:
    rows = _kernel_mean(first, first) + _kernel_mean(second, second)
    rows -= 2.0 * _kernel_mean(first, second)
  return _embeddings.values(rows, both.kept)


def factor_transfer(
  student: Array, teacher: Array, *, where: Array | None = None
) -> Array:
  """FT: mean absolute difference of two factors, flattened, at length one.

  The original form (Kim et al., 2018, "Paraphrasing complex network: network
  compression via factor transfer", arXiv 1802.04977). The factors are what the
  translator makes of the student's maps and the paraphraser, an auto-encoder
  trained beforehand, of the teacher's.

  Args:
    student: the translator's output, [B, ...].
    teacher: the paraphraser's, of the same shape.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B].

  Raises:
    ValueError: shapes differ or have fewer than two axes, or `where` is not
      [B].
    TypeError: a factor is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=None, same=True)

  first, second = (
    _embeddings.unit(side.reshape(len(both.kept), -1))
    for side in (both.student, both.teacher)
  )
  rows = jnp.mean(jnp.abs(first - second), axis=1)
  return _embeddings.values(rows, both.kept)


def variational_information(
  student: Array,
  teacher: Array,
  variance: Array,
  *,
  where: Array | None = None,
) -> Array:
  """VID: the teacher's features under a Gaussian that the student predicts.

  Mean over entries of ((t - s)^2 / variance + log variance) / 2: up to a
  constant the negative variational bound on the mutual information (Ahn et
  al., 2019, "Variational information distillation for knowledge transfer",
  arXiv 1904.05835). The mean s is a learned map of the student's features, the
  variance learns too, one value per channel: softplus(a) + 1e-5 in public
  code, starting at 5.

  Args:
    student: the predicted mean, [B, ..., C].
    teacher: of the same shape.
    variance: > 0, [C]; not checked, since it is traced.
    where: which examples are no padding, [B]; None for all.

  Returns:
    One value per example, [B]; negative where the variance is small and right.

  Raises:
    ValueError: shapes differ or have fewer than two axes, `variance` is not
      [C], or `where` is not [B].
    TypeError: an array is not floating point, or `where` not boolean.
  """
  both = _embeddings.pair(student, teacher, where, rank=None, same=True)
  checks.floating(variance=variance)
  channels = both.student.shape[-1]
  if jnp.shape(variance) != (channels,):
    raise ValueError(
      f"variance: expected one value for each of {channels} channels, got"
      f" shape {jnp.shape(variance)}"
    )

  variance = _embeddings.as_float(variance)[None, :]
  squares = jnp.square(both.teacher - both.student)
  squares = squares.reshape(len(both.kept), -1, channels)
  entries = 0.5 * (jnp.mean(squares, axis=1) / variance + jnp.log(variance))
  return _embeddings.values(jnp.mean(entries, axis=1), both.kept)
