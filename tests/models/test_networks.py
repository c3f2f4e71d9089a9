# SPDX-License-Identifier: Apache-2.0
"""The contract of every network, and what is special to each."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import models, registry
from tgt_jax.models import encoders

# Small forms of every network of images.
SMALL = {
  "mlp": {"widths": (8, 6)},
  "cnn": {"widths": (4, 6), "dense_widths": (8,)},
  "resnet": {"depth": 8},
  "resnet20": {},
  "resnet32": {},
  # These have no small form; tests/models/test_imagenet.py has more on them.
  **{
    name: {"mean": 0.0, "std": 1.0}
    for name in (
      "resnet_imagenet",
      "resnet10",
      "resnet18",
      "resnet50",
      "resnet101",
      "resnet152",
      "resnext50",
      "resnet_v2",
      "resnet50_v2",
      "bit_resnet50",
      "mobilenet_v3_large",
      "efficientnet",
      "efficientnet_b0",
      "efficientnet_b1",
      "efficientnet_b2",
      "efficientnet_b3",
      "efficientnet_lite0",
    )
  },
}
CHEAP = ("mlp", "cnn", "resnet")
# Deeper ones of a family: their tables are counted in test_imagenet.py.
DEEP = (
  "resnet101",
  "resnet152",
  "resnext50",
  "efficientnet_b1",
  "efficientnet_b2",
  "efficientnet_b3",
)


def _images(count: int = 4, shape: tuple[int, ...] = (9, 8, 2)) -> jax.Array:
  values = np.random.default_rng(7).uniform(size=(count, *shape))
  return jnp.asarray(values, jnp.float32)


def _build(name: str, **kwargs):
  options = {"name": name, **SMALL[name], **kwargs}
  return registry.build(models.MODELS, options, family="model", num_classes=5)


@functools.cache  # The tests share what is compiled.
def _ready(name: str, **kwargs):
  """A network with weights, and its forward pass, compiled on first use."""
  network = _build(name, **kwargs)
  params, state = random_weights(network.init, _images())
  return jax.jit(network.apply, static_argnames="train"), params, state


def test_every_model_is_under_test() -> None:
  # Those of text have a file of their own, test_encoders.py, those of
  # spectrograms test_audio_networks.py, and what reads embeddings
  # methods/test_compression.py.
  others = {"cp_resnet", "mobile_fcn", "bottleneck"}
  known = SMALL.keys() | set(encoders.__all__) | others
  assert known == models.MODELS.keys()


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.thorough) if name in DEEP else name
    for name in SMALL
  ],
)
def test_shapes(name: str) -> None:
  network, x = _build(name), _images()

  def run(rng, x):
    params, model_state = network.init(rng, x)
    return params, network.apply(params, model_state, x)[0]

  params, outputs = jax.eval_shape(run, jax.random.key(0), x)
  assert outputs.logits.shape == (4, 5)
  assert outputs.embedding.ndim == 2
  assert params["head"]["kernel"].shape == (outputs.embedding.shape[1], 5)
  assert outputs.features
  assert all(feature.shape[0] == 4 for feature in outputs.features)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CHEAP)
def test_dtypes(name: str, dtype: str) -> None:
  network, x = _build(name, dtype=dtype), _images()

  def run(rng, x):
    params, state = network.init(rng, x)
    outputs, new_state = network.apply(params, state, x, train=True, rng=rng)
    return params, state, outputs, new_state

  params, state, outputs, new_state = jax.eval_shape(run, jax.random.key(0), x)
  kept = jax.tree.leaves((params, state, new_state))
  assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
  assert outputs.logits.dtype == jnp.float32
  assert outputs.embedding.dtype == jnp.float32
  assert {feature.dtype for feature in outputs.features} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_bfloat16_is_close_to_float32(name: str) -> None:
  apply, params, state = _ready(name)
  rounded, _, _ = _ready(name, dtype="bfloat16")
  exact = apply(params, state, _images())[0].logits
  got = rounded(params, state, _images())[0].logits

  assert not np.array_equal(exact, got)
  scale = float(np.abs(exact).max())
  np.testing.assert_allclose(got, exact, atol=0.05 * scale)


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_one_trace_serves_every_batch_of_a_shape(name: str) -> None:
  network, x = _build(name), _images()
  params, state = random_weights(network.init, x)
  traces = []

  @jax.jit
  def apply(params, state, x):
    traces.append(None)
    return network.apply(params, state, x, train=True)

  _, state = apply(params, state, x)
  outputs, _ = apply(params, state, 1.0 - x)
  assert len(traces) == 1
  assert np.isfinite(outputs.logits).all()


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_initial_weights_keep_the_scale(name: str) -> None:
  network = models.MODELS[name](num_classes=5, mean=0.5, std=0.29)
  x = _images(64, (12, 12, 1))

  @jax.jit
  def run(rng, x):
    params, state = network.init(rng, x)
    return network.apply(params, state, x)[0]

  outputs = run(jax.random.key(0), x)
  # Taking the maximum of four raises the scale of the CNN somewhat.
  for feature in outputs.features:
    assert 0.5 < float(np.sqrt(np.mean(np.square(feature)))) < 4.0
  assert 0.3 < float(np.std(outputs.logits)) < 4.0


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_networks_without_statistics_have_an_empty_state(name: str) -> None:
  network, x = _build(name), _images()

  def run(rng, x):
    params, state = network.init(rng, x)
    return state, network.apply(params, state, x, train=True)[1]

  assert jax.eval_shape(run, jax.random.key(0), x) == ({}, {})


def test_statistics_move_in_training_alone() -> None:
  network, x = _build("resnet"), _images()
  params, state = random_weights(network.init, x)

  @jax.jit
  def train(state):
    return network.apply(params, state, x, train=True)[1]

  moved = train(state)
  assert jax.tree.structure(moved) == jax.tree.structure(state)
  for before, after in zip(
    jax.tree.leaves(state), jax.tree.leaves(moved), strict=True
  ):
    assert not np.array_equal(before, after)
  same = jax.eval_shape(lambda: network.apply(params, state, x))
  assert jax.tree.structure(same[1]) == jax.tree.structure(state)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_normalisation_is_inside_the_network(name: str) -> None:
  mean, std = (0.3, 0.5), (0.2, 0.4)
  plain, params, state = _ready(name)
  inside, _, _ = _ready(name, mean=mean, std=std)
  x = np.asarray(_images())
  expected = plain(params, state, (x - np.float32(mean)) / np.float32(std))[
    0
  ].logits

  got = inside(params, state, x)[0].logits
  np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("name", CHEAP)
def test_the_logits_read_the_embedding(name: str) -> None:
  apply, params, state = _ready(name)
  outputs, _ = apply(params, state, _images())
  kernel, bias = np.asarray(params["head"]["kernel"]), params["head"]["bias"]
  expected = np.asarray(outputs.embedding) @ kernel + np.asarray(bias)

  np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", CHEAP)
def test_dropout(name: str) -> None:
  apply, params, state = _ready(name, dropout=0.5)
  x = _images()

  def logits(**kwargs):
    return np.asarray(apply(params, state, x, **kwargs)[0].logits)

  first = logits(train=True, rng=jax.random.key(1))
  assert np.array_equal(first, logits(train=True, rng=jax.random.key(1)))
  assert not np.array_equal(first, logits(train=True, rng=jax.random.key(2)))
  plain = _ready(name)[0](params, state, x)[0].logits
  np.testing.assert_array_equal(logits(), plain)
  with pytest.raises(ValueError, match=r"dropout=0.5.* needs rng, got None"):
    logits(train=True)


def test_dropout_keeps_the_mean_and_leaves_the_embedding() -> None:
  for name, options in (
    ("mlp", {"widths": (500,)}),
    ("cnn", {"widths": (4,), "dense_widths": ()}),
  ):
    network = getattr(models, name)(num_classes=3, dropout=0.5, **options)
    x = _images(1)
    params, state = random_weights(network.init, x)
    plain = network.apply(params, state, x)[0]

    def train(rng, apply=network.apply, given=(params, state, x)):
      return apply(*given, train=True, rng=rng)[0]

    found = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(3), 4000))
    error = found.logits.std(0) / np.sqrt(4000)
    assert (error > 0).all()
    assert (np.abs(found.logits.mean(0) - plain.logits) < 5 * error).all()
    np.testing.assert_allclose(
      found.embedding[::500], np.stack(8 * [plain.embedding]), rtol=1e-5
    )


def test_mlp_takes_vectors_and_may_be_linear() -> None:
  network = models.mlp(num_classes=3, widths=())
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
  params, state = random_weights(network.init, x)
  outputs, _ = network.apply(params, state, x)
  assert params.keys() == {"head"}
  assert outputs.features == ()
  np.testing.assert_array_equal(outputs.embedding, x)


def test_cnn_mean_over_pixels_takes_images_of_any_size() -> None:
  network = models.cnn(num_classes=3, widths=(4,), spatial="mean")
  params, state = random_weights(network.init, _images())
  larger = _images(shape=(13, 11, 2))
  outputs, _ = jax.eval_shape(network.apply, params, state, larger)
  assert outputs.logits.shape == (4, 3)


def test_cnn_says_when_images_are_too_small() -> None:
  network = models.cnn(num_classes=3, widths=(4, 4, 4))
  with pytest.raises(ValueError, match="cannot pool 1x1 by 2x2: use fewer"):
    random_weights(network.init, _images(shape=(4, 4, 1)))


@pytest.mark.parametrize(
  "name, kwargs, message",
  [
    ("mlp", {"widths": (8, 0)}, r"widths\[1\] must be > 0, got 0"),
    ("mlp", {"dropout": 1.0}, r"dropout must be in \[0.0, 0.999\], got 1.0"),
    ("mlp", {"dtype": "float16"}, "dtype: unknown 'float16'.*'float64'|float"),
    ("mlp", {"std": 0.0}, r"std\[0\] must be > 0, got 0.0"),
    ("cnn", {"widths": ()}, "number_of_widths must be > 0, got 0"),
    ("cnn", {"dense_widths": (-1,)}, r"dense_widths\[0\] must be > 0, got -1"),
    ("cnn", {"spatial": "max"}, "spatial: unknown 'max'; choose from flatten"),
    ("cnn", {"std": (1.0, -1.0)}, r"std\[1\] must be > 0, got -1.0"),
    ("resnet", {"depth": 18}, r"depth must be 6n \+ 2 .* got 18"),
    ("resnet", {"width": 0}, "width must be > 0, got 0"),
    ("resnet", {"shortcut": "C"}, "shortcut: unknown 'C'; choose from A, B"),
    ("resnet", {"momentum": 1.5}, r"momentum must be in \[0.0, 1.0\], got 1.5"),
    ("resnet20", {"filters": 3}, "model 'resnet20' takes no 'filters'"),
  ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    _build(name, **kwargs)


@pytest.mark.parametrize("name", CHEAP)
def test_integer_images_are_refused(name: str) -> None:
  with pytest.raises(TypeError, match="x: expected floating point, got uint8"):
    _build(name).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1), jnp.uint8))


@pytest.mark.parametrize(
  "name, kwargs, count",
  [
    # Shortcut A has no parameters. Sums of 9*C*F per convolution, 2*C per
    # batch norm and 65 * 10 for the last layer.
    ("resnet20", {}, 269_722),
    ("resnet32", {}, 464_154),
    ("resnet20", {"shortcut": "B"}, 272_474),
    ("resnet32", {"shortcut": "B"}, 466_906),
    # (28 * 28 + 1) * 64 + 65 * 64 + 65 * 10.
    ("mlp", {}, 55_050),
    # 10 * 32 + (9 * 32 + 1) * 64 + (49 * 64 + 1) * 128 + 129 * 10.
    ("cnn", {}, 421_642),
  ],
)
def test_parameter_counts(name: str, kwargs: dict, count: int) -> None:
  network = models.MODELS[name](num_classes=10, **kwargs)
  shape = (1, 32, 32, 3) if name.startswith("resnet") else (1, 28, 28, 1)
  params, _ = jax.eval_shape(network.init, jax.random.key(0), jnp.ones(shape))
  assert models.parameter_count(params) == count


def test_has_convolution() -> None:
  def params_of(name: str):
    init = _build(name).init
    return jax.eval_shape(init, jax.random.key(0), _images())[0]

  assert not models.has_convolution(params_of("mlp"))
  assert models.has_convolution(params_of("cnn"))
  assert models.has_convolution(params_of("resnet"))
  assert not models.has_convolution({})


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_stacked_parameters_give_the_same_numbers(name: str) -> None:
  """Many seeds at once is `vmap` over parameters and state."""
  network, x = _build(name), _images()
  seeds = [random_weights(network.init, x, seed=seed) for seed in (0, 1)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)

  def apply(weights):
    outputs, state = network.apply(*weights, x, train=True)
    return outputs.logits, state

  together, one = jax.jit(jax.vmap(apply))(stacked), jax.jit(apply)
  for i, weights in enumerate(seeds):
    for got, want in zip(
      jax.tree.leaves(together), jax.tree.leaves(one(weights)), strict=True
    ):
      np.testing.assert_allclose(got[i], want, atol=2e-5)


def test_one_channel_serves_a_network_of_three() -> None:
  spec = {"name": "mlp", "widths": (4,), "input_channels": 3}
  network = models.from_spec(models.MODELS, spec, num_classes=2)
  grey = jnp.arange(16.0).reshape(2, 2, 4, 1)
  params, state = network.init(jax.random.key(0), grey)
  assert params["dense_0"]["kernel"].shape == (24, 4)
  wide = jnp.repeat(grey, 3, axis=3)
  said, same = (network.apply(params, state, x)[0].logits for x in (grey, wide))
  np.testing.assert_array_equal(said, same)
  with pytest.raises(ValueError, match="cannot be made of 2"):
    network.apply(params, state, wide[..., :2])


def test_a_range_becomes_that_of_pixels() -> None:
  spec = {"name": "mlp", "widths": (4,)}
  plain = models.from_spec(models.MODELS, spec, num_classes=2)
  ranged = models.from_spec(
    models.MODELS, {**spec, "input_range": (-1.0, 3.0)}, num_classes=2
  )
  pixels = jnp.linspace(0.0, 1.0, 16).reshape(2, 2, 4, 1)
  weights = plain.init(jax.random.key(0), pixels)
  said = ranged.apply(*weights, 4 * pixels - 1)[0].logits
  want = plain.apply(*weights, pixels)[0].logits
  np.testing.assert_allclose(said, want, atol=1e-6)
  for limits in ((1.0, 1.0), (0.0, 1.0, 2.0)):
    with pytest.raises(ValueError, match="low < high"):
      models.with_input_range(plain, limits)
