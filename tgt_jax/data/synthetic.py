# SPDX-License-Identifier: Apache-2.0
"""Images on a manifold of known dimension.

A latent z is uniform in [-1, 1]^d; the image is sigmoid(tanh(z A + a) B), and
the label the largest of K outputs of another small frozen network on z. The
labels therefore depend on the d coordinates of the manifold alone, and a
teacher's generator can be the exact one: `decode` and `logits` take `xp=jnp`
to run inside a JAX program.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, sources

_REFERENCE_POINTS = 4096


class Manifold(NamedTuple):
  """The frozen weights of a synthetic problem, all float32.

  Attributes:
    embed: [d, M], first layer of the decoder.
    embed_bias: [M].
    render: [M, D], second layer of the decoder.
    inner: [d, M], first layer of the labeler.
    inner_bias: [M].
    outer: [M, K], second layer of the labeler; with `outer_bias` it is scaled
      so that over the latents every logit has mean 0 and deviation 1, which
      keeps the classes of one size class of magnitude.
    outer_bias: [K].
  """

  embed: np.ndarray
  embed_bias: np.ndarray
  render: np.ndarray
  inner: np.ndarray
  inner_bias: np.ndarray
  outer: np.ndarray
  outer_bias: np.ndarray


def latents(seed: int, split: str, size: int, dimension: int) -> np.ndarray:
  """Returns the latents of a split, float32 [N, d] in [-1, 1)."""
  draw = draws.uniforms(seed, f"manifold/{split}", 0, (size, dimension))
  return (2 * draw - 1).astype(np.float32)


def make_manifold(
  *,
  dimension: int,
  pixels: int,
  num_classes: int,
  width: int = 128,
  sharpness: float = 2.0,
  seed: int = 0,
) -> Manifold:
  """Returns frozen random weights.

  Args:
    dimension: d, the number of latent coordinates.
    pixels: D, the number of values of an image, at least d.
    num_classes: K.
    width: M, hidden units of both networks, at least d.
    sharpness: scale of the labeler's first layer; larger values give more and
      smaller regions per class.
    seed: of the weights.

  Raises:
    ValueError: a number that is not positive, or fewer pixels or hidden units
      than dimensions.
  """
  checks.positive(
    dimension=dimension, num_classes=num_classes, sharpness=sharpness
  )
  if min(pixels, width) < dimension:
    raise ValueError(
      f"pixels and width must be >= dimension {dimension}, got {pixels} and"
      f" {width}: the images could not have that many degrees of freedom"
    )

  def unit(name: str, *shape: int, fan_in: int) -> np.ndarray:
    draw = 2 * draws.uniforms(seed, f"manifold/weights/{name}", 0, shape) - 1
    return draw * math.sqrt(3 / fan_in)  # Variance 1 / fan_in.

  inner = sharpness * unit("inner", dimension, width, fan_in=dimension)
  inner_bias = unit("inner_bias", width, fan_in=1)
  outer = unit("outer", width, num_classes, fan_in=width)
  points = latents(seed, "reference", _REFERENCE_POINTS, dimension)
  raw = np.tanh(points @ inner + inner_bias) @ outer
  weights = Manifold(
    embed=unit("embed", dimension, width, fan_in=dimension),
    embed_bias=unit("embed_bias", width, fan_in=1),
    render=4 * unit("render", width, pixels, fan_in=width),
    inner=inner,
    inner_bias=inner_bias,
    outer=outer / raw.std(axis=0),
    outer_bias=-raw.mean(axis=0) / raw.std(axis=0),
  )
  return Manifold(*(w.astype(np.float32) for w in weights))


def _affine(x: Any, weight: Any, bias: Any, xp: ModuleType) -> Any:
  """X @ weight + bias, with the ranks made equal as JAX's strict mode asks."""
  product = xp.matmul(x, weight)
  return product + xp.broadcast_to(bias, product.shape)


def decode(weights: Manifold, z: Any, *, xp: ModuleType = np) -> Any:
  """Returns flat images in (0, 1), [..., D], of latents [..., d]."""
  hidden = xp.tanh(_affine(z, weights.embed, weights.embed_bias, xp))
  # A sigmoid that cannot overflow.
  return 0.5 + 0.5 * xp.tanh(0.5 * xp.matmul(hidden, weights.render))


def logits(weights: Manifold, z: Any, *, xp: ModuleType = np) -> Any:
  """Returns the true labeler's scores, [..., K], of latents [..., d]."""
  hidden = xp.tanh(_affine(z, weights.inner, weights.inner_bias, xp))
  return _affine(hidden, weights.outer, weights.outer_bias, xp)


def manifold(
  *,
  dimension: int = 4,
  input_shape: tuple[int, int, int] = (8, 8, 1),
  num_classes: int = 10,
  train_size: int = 2000,
  test_size: int = 2000,
  width: int = 128,
  sharpness: float = 2.0,
  seed: int = 0,
) -> sources.Dataset:
  """Images on a manifold of `dimension` coordinates, labelled without noise.

  Args:
    dimension: d, the intrinsic dimension.
    input_shape: (H, W, C); D = H * W * C is the ambient dimension.
    num_classes: K.
    train_size: number of training examples.
    test_size: number of test examples.
    width: hidden units of the decoder and of the labeler.
    sharpness: how finely the labels cut the manifold.
    seed: of weights and latents.

  Raises:
    ValueError: see `make_manifold`; an `input_shape` that is not three sizes.
  """
  if len(input_shape) != 3:
    raise ValueError(f"input_shape: expected (H, W, C), got {input_shape}")
  checks.positive(train_size=train_size, test_size=test_size)
  options = {
    "dimension": dimension,
    "width": width,
    "sharpness": sharpness,
    "seed": seed,
  }
  weights = make_manifold(
    dimension=dimension,
    pixels=math.prod(input_shape),
    num_classes=num_classes,
    width=width,
    sharpness=sharpness,
    seed=seed,
  )
  splits = []
  for split, size in (("train", train_size), ("test", test_size)):
    z = latents(seed, split, size, dimension)
    splits.append(
      sources.from_arrays(
        decode(weights, z).reshape(size, *input_shape),
        logits(weights, z).argmax(axis=1),
        name=f"manifold/{split}",
        num_classes=num_classes,
        options=options,
      )
    )
  return sources.Dataset(splits[0], splits[1], splits[0])
