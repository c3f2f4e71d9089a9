# SPDX-License-Identifier: Apache-2.0
"""Networks of spectrograms."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import models, registry
from tgt_jax.models.cp_resnet import MAX_RHO, kernel_sizes

# Small forms, and the smallest spectrograms they take.
SMALL = {
  "cp_resnet": ({"width": 4}, (15, 17, 1)),
  "mobile_fcn": ({"width": 4, "mels": 32}, (32, 97, 1)),
}


def _build(name: str, **kwargs):
  options = {"name": name, **SMALL[name][0], **kwargs}
  return registry.build(models.MODELS, options, family="model", num_classes=5)


def _spectrograms(name: str, count: int = 3) -> jax.Array:
  values = np.random.default_rng(7).normal(size=(count, *SMALL[name][1]))
  return jnp.asarray(values, jnp.float32)


@functools.cache  # The tests share what is compiled.
def _ready(name: str):
  network = _build(name)
  params, state = random_weights(network.init, _spectrograms(name))
  return jax.jit(network.apply, static_argnames="train"), params, state


def _shapes_of(network, shape: tuple[int, ...]):
  """Parameters and outputs of a network, without computing either."""

  def run(rng, x):
    params, state = network.init(rng, x)
    return params, network.apply(params, state, x)[0]

  return jax.eval_shape(run, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
  "name, kwargs, mels, count",
  [
    ("cp_resnet", {"num_classes": 20}, 128, 5_534_612),
    ("cp_resnet", {"num_classes": 20, "rho": 3}, 128, 3_830_676),
    ("mobile_fcn", {"num_classes": 50}, 96, 314_098),
    ("mobile_fcn", {"num_classes": 50, "mels": 128}, 128, 314_098),
  ],
)
def test_parameter_counts(
  name: str, kwargs: dict, mels: int, count: int
) -> None:
  network = models.MODELS[name](**kwargs)
  x = jnp.zeros((1, mels, 96, 1))
  params, _ = jax.eval_shape(network.init, jax.random.key(0), x)
  assert models.parameter_count(params) == count


@pytest.mark.parametrize(
  "name, kwargs, size, features, last",
  [
    # 10 s at 32 kHz, 320 samples apart.
    (
      "cp_resnet",
      {},
      (128, 1000),
      [(8, 62, 128), (8, 62, 256), (8, 62, 512)],
      (62, 512),
    ),
    # 29.1 s at 16 kHz.
    (
      "mobile_fcn",
      {},
      (96, 1455),
      [(4, 30, 128), (1, 15, 256), (1, 15, 256)],
      (15, 256),
    ),
    (
      "mobile_fcn",
      {"mels": 128},
      (128, 1455),
      [(4, 30, 128), (1, 15, 256), (1, 15, 256)],
      (15, 256),
    ),
  ],
)
def test_feature_shapes(name, kwargs, size, features, last) -> None:
  network = models.MODELS[name](num_classes=20, **kwargs)
  _, outputs = _shapes_of(network, (2, *size, 1))
  assert [f.shape for f in outputs.features] == [(2, *f) for f in features]
  assert outputs.logits.shape == (2, 20)
  assert outputs.embedding.shape == (2, last[1])
  aligned = jax.eval_shape(models.frames, outputs.features[-1])
  assert aligned.shape == (2, *last)


def test_kernel_sizes_at_rho_seven() -> None:
  assert kernel_sizes(7) == (
    ((3, 1), (3, 3), (3, 3), (3, 3)),
    ((3, 1), (1, 3), (1, 3), (1, 3)),
    ((1, 1), (1, 1), (1, 1), (1, 1)),
  )


def _view(rho: int) -> int:
  """Pixels that one pixel of the last map sees along an axis."""
  size, step = 5, 2
  for stage, blocks in enumerate(kernel_sizes(rho)):
    for i, kernels in enumerate(blocks):
      size += step * (sum(kernels) - 2)
      if stage == 0 and i in (0, 1, 3):
        size, step = size + step, 2 * step
  return size


def test_a_larger_rho_sees_no_less() -> None:
  views = [_view(rho) for rho in range(MAX_RHO + 1)]
  assert views[7] == 231
  idle = np.flatnonzero(np.diff(views) == 0) + 1
  np.testing.assert_array_equal(idle, [8, 10, 12, 14])
  sizes = [np.asarray(kernel_sizes(rho)) for rho in range(MAX_RHO + 1)]
  assert all(np.all(a <= b) for a, b in itertools.pairwise(sizes))


def test_the_view_is_what_reaches_a_pixel() -> None:
  network = models.cp_resnet(num_classes=2, rho=1, width=2)
  # Each example has a column of its own that is no number.
  x = jnp.where(jnp.eye(64, dtype=bool)[:, None, :, None], jnp.nan, 0.0)
  x = jnp.broadcast_to(x, (64, 15, 64, 1))
  params, state = random_weights(network.init, x)
  outputs, _ = jax.jit(network.apply)(params, state, x)
  reached = np.isnan(outputs.features[-1][:, 0, 2, 0])
  places = np.flatnonzero(reached)
  assert places[-1] - places[0] + 1 == len(places) == _view(1) == 31


def test_every_block_of_cp_resnet_begins_as_its_shortcut() -> None:
  network = models.cp_resnet(num_classes=5, width=12)
  x = _spectrograms("cp_resnet")

  @jax.jit
  def some(rng):
    params, _ = network.init(rng, x)
    names = ("stem_conv", "stage_0_block_1", "stage_2_block_0", "head")
    return [params[name] for name in names]

  stem, middle, last, head = some(jax.random.key(0))

  def has_deviation(layer, variance: float) -> None:
    got = np.std(layer["kernel"])
    np.testing.assert_allclose(got, np.sqrt(variance), rtol=0.15)

  has_deviation(stem, 2.0 / 25)
  has_deviation(middle["conv_0"], 2.0 / (9 * 12) / 12)
  has_deviation(last["conv_0"], 2.0 / 48 / 12)
  has_deviation(last["shortcut"], 2.0 / 48)
  for zeros in (middle["conv_1"]["kernel"], last["conv_1"]["kernel"]):
    np.testing.assert_array_equal(zeros, 0.0)
  np.testing.assert_array_equal(head["bias"], 0.0)


@pytest.mark.parametrize("name", SMALL)
def test_logits_read_the_mean_of_the_last_map(name: str) -> None:
  apply, params, state = _ready(name)
  outputs, _ = apply(params, state, _spectrograms(name))
  last = np.asarray(outputs.features[-1])
  np.testing.assert_allclose(outputs.embedding, last.mean((1, 2)), rtol=1e-5)
  head = params["head"]
  expected = np.asarray(outputs.embedding) @ head["kernel"] + head["bias"][None]
  np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SMALL)
def test_dtypes(name: str, dtype: str) -> None:
  network, x = _build(name, dtype=dtype), _spectrograms(name)

  def run(rng, x):
    params, state = network.init(rng, x)
    outputs, new_state = network.apply(params, state, x, train=True, rng=rng)
    return params, state, outputs, new_state

  params, state, outputs, new_state = jax.eval_shape(run, jax.random.key(0), x)
  kept = jax.tree.leaves((params, state, new_state))
  assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
  assert outputs.logits.dtype == outputs.embedding.dtype == jnp.float32
  assert {feature.dtype for feature in outputs.features} == {jnp.dtype(dtype)}
  assert models.frames(jnp.ones((1, 2, 3, 4), dtype)).dtype == jnp.float32


@pytest.mark.parametrize("name", SMALL)
def test_statistics_move_in_training_alone(name: str) -> None:
  apply, params, state = _ready(name)
  x = _spectrograms(name)
  _, moved = apply(params, state, x, train=True, rng=jax.random.key(0))
  for before, after in zip(
    jax.tree.leaves(state), jax.tree.leaves(moved), strict=True
  ):
    assert not np.array_equal(before, after)
  _, same = apply(params, state, x)
  jax.tree.map(np.testing.assert_array_equal, same, state)


def test_remat_changes_no_shape() -> None:
  def shapes(**kwargs):
    network = _build("cp_resnet", **kwargs)

    def run(rng, x):
      params, state = network.init(rng, x)
      return params, network.apply(params, state, x, train=True)

    return jax.eval_shape(run, jax.random.key(0), _spectrograms("cp_resnet"))

  assert shapes(remat=True) == shapes()


def test_dropout_of_mobile_fcn_lies_behind_the_features() -> None:
  apply, params, state = _ready("mobile_fcn")
  x = _spectrograms("mobile_fcn")

  def run(seed):
    key = jax.random.key(seed)
    return apply(params, state, x, train=True, rng=key)[0]

  first, again, other = run(1), run(1), run(2)
  np.testing.assert_array_equal(first.logits, again.logits)
  assert not np.array_equal(first.logits, other.logits)
  np.testing.assert_array_equal(first.features[0], other.features[0])
  assert not np.array_equal(first.features[1], other.features[1])
  with pytest.raises(ValueError, match=r"dropout=0.5.* needs rng, got None"):
    apply(params, state, x, train=True)


def test_frames_are_means_over_frequency() -> None:
  feature_map = jnp.asarray([[[[1.0], [2.0]], [[3.0], [8.0]], [[5.0], [2.0]]]])
  np.testing.assert_allclose(models.frames(feature_map), [[[3.0], [4.0]]])
  with pytest.raises(ValueError, match=r"feature_map: expected rank 4, got"):
    models.frames(jnp.ones((2, 3, 4)))


@pytest.mark.parametrize(
  "name, kwargs, message",
  [
    ("cp_resnet", {"rho": 23}, r"rho must be in \[0, 22\], got 23"),
    ("cp_resnet", {"rho": -1}, r"rho must be in \[0, 22\], got -1"),
    ("cp_resnet", {"width": 0}, "width must be > 0, got 0"),
    ("cp_resnet", {"std": 0.0}, r"std\[0\] must be > 0, got 0.0"),
    ("mobile_fcn", {"mels": 100}, "mels must be a multiple of 32.* got 100"),
    ("mobile_fcn", {"dropout": 1.0}, r"dropout must be in .* got 1.0"),
  ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    _build(name, **kwargs)


@pytest.mark.parametrize(
  "name, shape, message",
  [
    ("cp_resnet", (1, 128, 14, 1), r"at least 15 mels and frames, got .*14, 1"),
    ("mobile_fcn", (1, 32, 95, 1), r"at least 96 frames, got .*95, 1\)"),
    ("mobile_fcn", (1, 64, 96, 1), r"of 32 mels .* set mels=64"),
    ("mobile_fcn", (1, 32, 96), r"x: expected rank 4, got shape \(1, 32, 96\)"),
  ],
)
def test_bad_spectrograms(name: str, shape: tuple, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    _build(name).init(jax.random.key(0), jnp.zeros(shape))
