# SPDX-License-Identifier: Apache-2.0
"""What the ImageNet networks promise beyond the contract of every network."""

from __future__ import annotations

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import models, registry, trees
from tgt_jax.models import bottlenecks, mobilenet_v3
from tgt_jax.models.resnet_v2 import DEPTHS
from tgt_jax.weights import convert, export, rules
from tgt_jax.weights.tables import mobile, resnets

PLAIN = {"mean": 0.0, "std": 1.0}

# One of each file, as small as it gets.
THIN = {
  "resnet10": {},
  "mobilenet_v3_large": {"width": 0.25},
  "efficientnet": {"width": 0.25, "depth": 0.4},
}

# Every kind of block, and one behind another of its kind; else as published.
SHORT_MOBILENET = (
  ((3, 1, 1, 16, False, "relu"),),
  ((5, 2, 3, 40, True, "relu"), (5, 1, 3, 40, True, "relu")),
  ((3, 2, 6, 80, False, "hard_swish"),),
)
SHORT_EFFICIENTNET = ((1, 3, 1, 1, 16), (4, 5, 2, 6, 24))

# Of the publications, or of the libraries that publish the weights.
COUNTS = {
  ("resnet10",): 5_418_792,
  ("resnet18",): 11_689_512,
  ("resnet50",): 25_557_032,
  ("resnet101",): 44_549_160,
  ("resnet152",): 60_192_808,
  ("resnext50",): 25_028_904,
  ("resnet50_v2",): 25_549_352,
  ("bit_resnet50",): 25_549_352,
  ("bit_resnet50", ("num_classes", 21843)): 68_256_659,
  ("mobilenet_v3_large",): 5_483_032,
  ("mobilenet_v3_large", ("width", 0.75)): 3_993_528,
  ("efficientnet_b0",): 5_288_548,
  ("efficientnet_b1",): 7_794_184,
  ("efficientnet_b2",): 9_109_994,
  ("efficientnet_b3",): 12_233_232,
  ("efficientnet_lite0",): 4_652_008,
}


def _images(count: int = 2, size: int = 32) -> jax.Array:
  values = np.random.default_rng(7).uniform(size=(count, size, size, 3))
  return jnp.asarray(values, jnp.result_type(float))


def _build(name: str, **kwargs):
  options = {"num_classes": 5, **PLAIN, **THIN.get(name, {}), **kwargs}
  return registry.build(
    models.MODELS, {"name": name, **options}, family="model"
  )


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
  """Networks of few blocks: what the test says, it says of every block."""
  monkeypatch.setattr(mobilenet_v3, "_STAGES", SHORT_MOBILENET)
  # The function of the same name hides the module from `import`.
  efficientnet = importlib.import_module("tgt_jax.models.efficientnet")
  monkeypatch.setattr(efficientnet, "_STAGES", SHORT_EFFICIENTNET)
  monkeypatch.setitem(DEPTHS, 50, (2, 1))


def _template(network, size: int = 64):
  x = jnp.zeros((1, size, size, 3))
  params, state = jax.eval_shape(network.init, jax.random.key(0), x)
  return {"params": params, "model_state": state}


@pytest.mark.parametrize("key", COUNTS, ids=lambda key: str(key[0]))
def test_parameter_counts(key) -> None:
  name, *options = key
  network = models.MODELS[name](**{"num_classes": 1000, **dict(options)})
  params = _template(network, 224)["params"]
  assert models.parameter_count(params) == COUNTS[key]


def test_channels_are_multiples_of_eight() -> None:
  given = (16 * 0.75, 24 * 0.75, 72 * 0.75, 32 * 1.1, 3.0, 44.0)
  assert [bottlenecks.round_channels(c) for c in given] == [
    16, 24, 56, 32, 8, 48,
  ]  # fmt: skip


def test_thin_mobilenets_keep_their_last_layer() -> None:
  params = _template(_build("mobilenet_v3_large", width=0.5))["params"]
  assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 16)
  assert params["head"]["kernel"].shape == (1280, 5)
  expanded = [
    shape.expanded
    for stage in mobilenet_v3._shapes(0.75, 1.0)
    for shape in stage
  ]
  # The table of the published width 0.75.
  assert expanded == [
    16, 64, 72, 72, 96, 96, 192, 160, 144, 144, 384, 528, 528, 720, 720,
  ]  # fmt: skip


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", [*THIN, "resnet50_v2", "bit_resnet50"])
def test_remat_recomputes_every_block(name: str) -> None:
  def blocks_of(remat: bool) -> int:
    network = _build(name, remat=remat)
    tree = _template(network)
    jaxpr = jax.make_jaxpr(functools.partial(network.apply, train=False))(
      tree["params"], tree["model_state"], _images()
    )
    return sum(e.primitive.name.startswith("remat") for e in jaxpr.eqns)

  params = _template(_build(name))["params"]
  params = params.get("trunk", params)
  assert blocks_of(False) == 0
  assert blocks_of(True) == sum("_block_" in key for key in params) > 1


@pytest.mark.thorough
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ["resnet10", "mobilenet_v3_large"])
def test_remat_changes_no_number(name: str) -> None:
  """Nor the statistics; in float64, as one pixel is left to normalise."""
  with jax.enable_x64(True):
    x = _images(8)
    params, state = random_weights(_build(name).init, x)

    def run(remat: bool):
      network = _build(name, remat=remat, dtype="float64")

      def loss(params):
        outputs, new_state = network.apply(params, state, x, train=True)
        return jnp.sin(outputs.logits).sum(), new_state

      return jax.jit(jax.grad(loss, has_aux=True))(params)

    pairs = zip(
      jax.tree.leaves(run(True)), jax.tree.leaves(run(False)), strict=True
    )
  for got, want in pairs:
    scale = float(np.abs(want).max())
    np.testing.assert_allclose(got, want, atol=1e-8 * scale + 1e-12)


@pytest.mark.thorough
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", THIN)
def test_forward_and_reverse_mode_agree(name: str) -> None:
  with jax.enable_x64(True):
    network, x = _build(name, dtype="float64"), _images()
    params, state = random_weights(network.init, x)
    move = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    def loss(x):
      return jnp.sin(network.apply(params, state, x)[0].logits).sum()

    tangent = jax.jit(lambda x: jax.jvp(loss, (x,), (move,))[1])(x)
    gradient = jax.jit(jax.grad(loss))(x)
  want = np.vdot(np.asarray(gradient), np.asarray(move))
  scale = np.abs(np.asarray(gradient)).sum()
  assert scale > 0.0
  np.testing.assert_allclose(tangent, want, atol=1e-10 * scale)


@pytest.mark.usefixtures("short")
@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_bfloat16_is_close_to_float32(name: str) -> None:
  x = _images(8)
  params, state = random_weights(_build(name).init, x)

  def logits(dtype: str):
    network = _build(name, dtype=dtype)
    return jax.jit(network.apply)(params, state, x)[0].logits

  exact, got = logits("float32"), logits("bfloat16")
  assert got.dtype == jnp.float32
  scale = float(np.abs(exact).max())
  np.testing.assert_allclose(got, exact, atol=0.05 * scale)


@pytest.mark.thorough
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", THIN)
def test_first_weights(name: str) -> None:
  """Activations neither vanish nor explode, and statistics are neutral."""
  network, x = _build(name), _images(4)

  @jax.jit
  def run(rng):
    params, state = network.init(rng, x)
    return (
      params,
      state,
      network.apply(params, state, x, train=True, rng=rng)[0],
    )

  params, state, outputs = run(jax.random.key(0))
  for feature in outputs.features:
    assert 0.02 < float(np.std(feature)) < 20.0
  for path, leaf in trees.flatten_names(state).items():
    assert np.all(leaf == float(path.endswith("var"))), path
  for path, leaf in trees.flatten_names(params).items():
    if path.endswith("depthwise_conv/kernel"):
      std = np.sqrt(2.0) / leaf.shape[0]
      np.testing.assert_allclose(np.std(leaf), std, rtol=0.25)
    if name == "resnet10" and path.endswith("norm_1/scale"):
      assert not np.any(leaf), path
    if name != "resnet10" and path == "head/kernel":
      assert 0.9 < np.abs(leaf).max() * np.sqrt(5) <= 1.0


def test_drop_connect_skips_whole_examples() -> None:
  """Every example's residual is gone, or scaled up by the same factor."""
  block = bottlenecks.InvertedBottleneck(
    shape=bottlenecks.Shape(3, 1, 8, 8, 0, "relu"),
    norms=bottlenecks.Norms("SAME", 1e-3, 0.99, True, jnp.dtype("float32")),
    squeeze_activation="relu",
    gate="sigmoid",
    drop_connect=0.5,
  )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4, 4, 8)))
  x = x.astype(jnp.float32)
  variables = block.init({"params": jax.random.key(0)}, x)

  def residual(block):
    y, _ = block.apply(
      variables,
      x,
      rngs={"dropout": jax.random.key(1)},
      mutable=["batch_stats"],
    )
    return np.asarray(y - x)

  whole = residual(block.clone(drop_connect=0.0))
  got = residual(block)
  kept = np.abs(got).max(axis=(1, 2, 3)) > 1e-6
  assert 16 < kept.sum() < 48
  np.testing.assert_allclose(got[kept], 2.0 * whole[kept], atol=1e-5)
  np.testing.assert_allclose(got[~kept], 0.0, atol=1e-6)


@pytest.mark.usefixtures("short")
def test_drop_connect_needs_random_numbers() -> None:
  network = _build("efficientnet", dropout=0.0, drop_connect=0.9)
  x = _images()
  params, state = random_weights(network.init, x)
  with pytest.raises(ValueError, match=r"drop_connect=0.9: .* needs rng"):
    network.apply(params, state, x, train=True)
  apply = jax.jit(functools.partial(network.apply, train=True))
  first, second = (
    apply(params, state, x, rng=jax.random.key(seed))[0].logits
    for seed in (0, 1)
  )
  assert not np.array_equal(first, second)


def test_shallow_mobilenet_keeps_the_first_blocks_of_each_stage() -> None:
  whole = _template(_build("mobilenet_v3_large"))["params"]
  for depth, count in ((0.5, 9), (0.01, 6)):
    shallow = _template(_build("mobilenet_v3_large", depth=depth))["params"]
    blocks = {name for name in shallow if "_block_" in name}
    assert len(blocks) == count
    assert {f"stage_{stage}_block_0" for stage in range(6)} <= blocks
    for name in blocks:
      same = jax.tree.map(
        lambda a, b: a.shape == b.shape,
        *(tree[name]["depthwise_conv"] for tree in (shallow, whole)),
      )
      assert all(jax.tree.leaves(same)), name


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", ["mobilenet_v3_large", "efficientnet"])
def test_paddings_differ(name: str) -> None:
  x = _images()
  params, state = random_weights(_build(name).init, x)
  logits = [
    jax.jit(_build(name, padding=padding).apply)(params, state, x)[0].logits
    for padding in ("SAME", "torch")
  ]
  assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize(
  "name, kwargs, message",
  [
    (
      "resnet_imagenet",
      {"depth": 20},
      "depth must be one of 10, 14, 18, .* got 20",
    ),
    ("resnet_imagenet", {"depth": 18, "groups": 2}, "depth 18 has no bottle"),
    ("resnet_imagenet", {"groups": 0}, "groups must be > 0, got 0"),
    ("resnet50", {"dropout": 1.0}, r"dropout must be in \[0.0, 0.999\]"),
    ("resnet_v2", {"depth": 18}, "depth must be one of 50, 101, 152, got 18"),
    ("resnet50_v2", {"norm": "layer"}, "norm: unknown 'layer'; choose from"),
    ("resnet50_v2", {"stride_on": "conv"}, "stride_on: unknown 'conv'"),
    ("bit_resnet50", {"standardize_eps": 0.0}, "standardize_eps must be > 0"),
    ("mobilenet_v3_large", {"width": 0.0}, "width must be > 0, got 0"),
    ("mobilenet_v3_large", {"depth": 1.5}, r"depth must be in \[0.0, 1.0\]"),
    ("efficientnet", {"padding": "valid"}, "padding: unknown 'valid'"),
    ("efficientnet", {"drop_connect": -0.1}, "drop_connect must be in"),
    ("efficientnet_b0", {"std": 0.0}, r"std\[0\] must be > 0, got 0.0"),
  ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    _build(name, **kwargs)


CONVERTERS = {**resnets.CONVERTERS, **mobile.CONVERTERS}


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_leaf_has_one_name_in_the_file(name: str) -> None:
  converter = CONVERTERS[name]
  network = registry.build(models.MODELS, converter.model, family="model")
  leaves = trees.flatten_names(_template(network))
  names = [rules.source_of(converter.rules, leaf)[1] for leaf in leaves]
  assert len(set(names)) == len(names)


@pytest.mark.parametrize(
  "name, table",
  [
    ("resnet10", resnets.TIMM_RESNET),
    ("mobilenet_v3_large", mobile.TIMM_MOBILENET_V3),
    ("efficientnet_lite0", mobile.EFFICIENTNET_LITE0),
  ],
)
def test_names_there_and_back(name: str, table: list) -> None:
  network = _build(name)
  params, state = random_weights(network.init, _images())
  tree = {"params": params, "model_state": state}
  again = convert(export(tree, table), table, tree)
  jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_counters_of_a_bit_file() -> None:
  arrays = {
    "resnet/root_block/standardized_conv2d/kernel": np.zeros(1),
    "resnet/block1/unit01/a/standardized_conv2d_12/kernel": np.ones(2),
  }
  got = resnets.prepare_bit(arrays)
  assert [name.split("/")[-2] for name in got] == ["standardized_conv2d"] * 2
  arrays["resnet/block1/unit01/a/standardized_conv2d/kernel"] = np.ones(2)
  with pytest.raises(ValueError, match="expected 3 names .* got 2"):
    resnets.prepare_bit(arrays)
