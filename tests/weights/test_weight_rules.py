# SPDX-License-Identifier: Apache-2.0
"""Rule tables: names, layouts, both directions, and what does not fit."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import models, trees
from tgt_jax.weights import Rule, convert, export, rules, torch_layers
from tgt_jax.weights.patterns import pattern
from tgt_jax.weights.transforms import (
  TRANSFORMS,
  linear_reads_map,
  linear_writes_map,
  vector_of_map,
)


@pytest.mark.parametrize(
  ("source", "target", "name", "ours"),
  [
    ("a.{i}.b.{j}.w", "b_{i}_{j}/k", "a.0.b.12.w", "b_0_12/k"),
    ("a.{i}.b.{j}.w", "b_{j}/{i}", "a.3.b.4.w", "b_4/3"),
    ("block{i+1}/unit{j+1:02}/a", "s_{i}/b_{j}", "block2/unit03/a", "s_1/b_2"),
    ("up.{3-i}.w", "stage_{i}/w", "up.0.w", "stage_3/w"),
    ("x.{p:theta|phi}.w", "{p}/kernel", "x.phi.w", "phi/kernel"),
    ("{p}/w", "a/{p:key|value}/kernel", "value/w", "a/value/kernel"),
    ("module.{rest:*}", "{rest}", "module.a.b", "a.b"),
    ("w.{i}.{i}", "w_{i}", "w.7.7", "w_7"),
    ("plain+name", "other", "plain+name", "other"),
  ],
)
def test_names_in_both_directions(source, target, name, ours):
  table = [Rule(source, target)]
  assert rules.target_of(table, name)[1] == ours
  assert rules.source_of(table, ours)[1] == name


@pytest.mark.parametrize(
  ("source", "target", "name"),
  [
    ("a.{i}.w", "a_{i}", "a.b.w"),
    ("a.{i}.w", "a_{i}", "a.01.w"),  # It would come back as a.1.w.
    ("a.{i}.w", "a_{i}", "a.1.ww"),
    ("a.{i+1}", "a_{i}", "a.0"),
    ("a{i:02}", "a_{i}", "a1"),
    ("up.{3-i}", "a_{i}", "up.4"),
    ("x.{p:a|b}", "{p}", "x.c"),
    ("w.{i}.{i}", "w_{i}", "w.1.2"),
    ("aXb", "t", "a.b"),
    ("a.b", "t", "aXb"),  # A dot is a dot.
  ],
)
def test_names_that_are_others(source, target, name):
  with pytest.raises(KeyError):
    rules.target_of([Rule(source, target)], name)


def test_numbers_above_a_width_are_written_in_full():
  table = [Rule("u{i:02}", "b_{i}")]
  assert rules.target_of(table, "u100")[1] == "b_100"
  assert rules.source_of(table, "b_100")[1] == "u100"


def test_the_first_rule_that_fits_has_the_name():
  table = [
    Rule("block.w", "block_0/w"),
    Rule("block_{i}.w", "block_{i}/w"),
  ]
  assert rules.target_of(table, "block.w")[1] == "block_0/w"
  assert rules.source_of(table, "block_0/w")[1] == "block.w"
  assert rules.source_of(table, "block_2/w")[1] == "block_2.w"


def test_an_export_name_reads_back():
  # The second rule would write x.0.b for y_0, which the first one takes.
  table = [Rule("x.0.b", "z"), Rule("x.{i}.b", "y_{i}"), Rule("q.{i}", "y_{i}")]
  assert rules.source_of(table, "y_1")[1] == "x.1.b"
  assert rules.source_of(table, "y_0")[1] == "q.0"


@pytest.mark.parametrize(
  ("arguments", "match"),
  [
    (("a.{i}", "b"), "same fields"),
    (("a", "b.{i}"), "same fields"),
    (("a.{}", "b"), "cannot read the field"),
    (("a.{i*2}", "b.{i}"), "cannot read the field"),
    (("a.{p+1:x|y}", "b.{p}"), "counts with words"),
    (("a", "b", "transpose"), "unknown transform 'transpose'.*linear"),
    (("a.{i}", "b.{i}", "identity", {"c": 0}), "same fields"),
    (("a.{i}", "b.{i}", "identity", {}, ("c",)), "same fields"),
  ],
)
def test_rules_that_cannot_be(arguments, match):
  with pytest.raises(ValueError, match=match):
    Rule(*arguments)


SHAPES = {
  "identity": (3, 4),
  "linear": (3, 4),
  "conv": (5, 4, 3, 2),
  "conv_transpose": (5, 4, 3, 2),
  "conv1x1": (5, 4, 1, 1),
  "conv1x1_hwio": (1, 1, 4, 5),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_have_inverses(name):
  array = np.arange(np.prod(SHAPES[name])).reshape(SHAPES[name])
  change = TRANSFORMS[name]
  np.testing.assert_array_equal(change.inverse(change.forward(array)), array)


@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - {"identity"}))
def test_transforms_check_the_rank(name):
  with pytest.raises(ValueError, match=f"{name} expects"):
    TRANSFORMS[name].forward(np.zeros(3))


def test_flattened_maps():
  height, width, channels = sizes = (2, 3, 4)
  image = np.random.default_rng(0).normal(size=(height, width, channels))
  chw = image.transpose(2, 0, 1).ravel()
  weight = np.random.default_rng(1).normal(size=(5, 24))
  ours = linear_reads_map(*sizes).forward(weight)
  np.testing.assert_allclose(image.ravel() @ ours, weight @ chw, rtol=1e-13)
  np.testing.assert_array_equal(linear_reads_map(*sizes).inverse(ours), weight)

  x, bias = np.ones(5), np.arange(24.0)
  written = (weight.T @ x + bias).reshape(channels, height, width)
  ours = linear_writes_map(*sizes).forward(weight.T)
  ours_bias = vector_of_map(*sizes).forward(bias)
  np.testing.assert_allclose(
    (x @ ours + ours_bias).reshape(sizes), written.transpose(1, 2, 0)
  )
  np.testing.assert_array_equal(
    linear_writes_map(*sizes).inverse(ours), weight.T
  )
  np.testing.assert_array_equal(vector_of_map(*sizes).inverse(ours_bias), bias)
  for change in (linear_reads_map, linear_writes_map, vector_of_map):
    with pytest.raises(ValueError, match="24 values|rank"):
      change(*sizes).forward(np.zeros((23, 23)))


TABLE = [
  *torch_layers.conv("convs.{i}", "conv_{i}"),
  *torch_layers.batch_norm("norms.{i}", "norm_{i}"),
  Rule("unwanted.{rest:*}", None),
]


def _arrays():
  rng = np.random.default_rng(0)
  arrays = {"unwanted.x.y": np.zeros(3)}
  for i in range(2):
    arrays[f"convs.{i}.weight"] = rng.normal(size=(4, 3, 5, 5))
    arrays[f"norms.{i}.num_batches_tracked"] = np.int64(7)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      arrays[f"norms.{i}.{leaf}"] = rng.normal(size=4).astype(np.float16)
  return arrays


def _template():
  def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  return {
    "params": {
      **{f"conv_{i}": {"kernel": leaf(5, 5, 3, 4)} for i in range(2)},
      **{f"norm_{i}": {"scale": leaf(4), "bias": leaf(4)} for i in range(2)},
    },
    "model_state": {
      "batch_stats": {
        f"norm_{i}": {"mean": leaf(4), "var": leaf(4)} for i in range(2)
      }
    },
  }


def test_convert():
  arrays = _arrays()
  tree = convert(arrays, TABLE, _template())
  assert jax.tree.structure(tree) == jax.tree.structure(_template())
  for leaf in jax.tree.leaves(tree):
    assert leaf.dtype == np.float32 and leaf.flags.c_contiguous
    assert leaf.flags.owndata
  np.testing.assert_array_equal(
    tree["params"]["conv_1"]["kernel"][2, 3, 1, 0],
    np.float32(arrays["convs.1.weight"][0, 1, 2, 3]),
  )
  np.testing.assert_array_equal(
    tree["model_state"]["batch_stats"]["norm_0"]["var"],
    arrays["norms.0.running_var"],
  )


def test_export_is_the_inverse():
  arrays = _arrays()
  back = export(convert(arrays, TABLE, _template()), TABLE)
  assert back.keys() == arrays.keys() - {"unwanted.x.y"}
  for name, array in back.items():
    if name.endswith("num_batches_tracked"):
      assert array == 0 and array.dtype == np.int64 and array.shape == ()
    else:
      np.testing.assert_array_equal(array, arrays[name].astype(np.float32))
      assert array.flags.c_contiguous
  bare = export(convert(arrays, TABLE, _template()), TABLE, constants=False)
  assert not any("tracked" in name for name in bare)


def test_everything_that_does_not_fit_is_one_error():
  arrays = _arrays()
  arrays["norm.1.weight"] = arrays.pop("norms.1.weight")
  arrays["convs.2.weight"] = np.zeros((1, 1, 1, 1))
  arrays["convs.0.weight"] = arrays["convs.0.weight"][:2]
  arrays["norms.0.bias"] = np.arange(4)
  with pytest.raises(ValueError) as caught:
    convert(arrays, TABLE, _template(), what="x.npz")
  text = str(caught.value)
  for part in (
    "x.npz does not fit",
    "names in the file that the model has no place for (2)",
    "norm.1.weight (4,)",
    "convs.2.weight (1, 1, 1, 1)",
    "model that the file does not fill (1)",
    "params/norm_1/scale (4,), expected as norms.1.weight; the file has norm.1",
    "arrays of another shape or kind (2)",
    "expected (5, 5, 3, 4), got (5, 5, 3, 2) (in the file (2, 3, 5, 5), transf",
    "expected dtype float32, got int64",
    "The model has 10 arrays, the file 14",
  ):
    assert part in text, text


def test_long_lists_are_cut():
  arrays = {f"other.{i}": np.zeros(1) for i in range(25)}
  with pytest.raises(ValueError, match=r"\(25\):(?s:.)*and 15 more") as caught:
    convert(arrays, TABLE, {"params": {}, "model_state": {}})
  assert str(caught.value).count("other.") == 10


def test_a_file_of_another_model_is_refused_at_once():
  arrays = {f"layer.{i}.other.weight": np.zeros(1) for i in range(2000)}
  table = [Rule("layer.{i}.conv.weight", "params/layer_{i}")]
  leaf = jax.ShapeDtypeStruct((1,), jnp.float32)
  template = {"params": {f"layer_{i}": leaf for i in range(2000)}}
  begin = time.perf_counter()
  with pytest.raises(ValueError, match="expected as layer.0.conv.weight; the"):
    convert(arrays, table, template)
  # Comparing all names with all takes minutes.
  assert time.perf_counter() - begin < 10


def test_two_names_for_one_leaf():
  table = [Rule("a", "params/x"), Rule("b", "params/x")]
  template = {"params": {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}}
  with pytest.raises(ValueError, match=r"two names(?s:.)*a and b for params/x"):
    convert({"a": np.ones(2), "b": np.ones(2)}, table, template)
  # Either of them alone will do.
  convert({"b": np.ones(2)}, table, template)
  assert export({"params": {"x": np.ones(2)}}, table).keys() == {"a"}


def test_tied_names_hold_one_array():
  table = [Rule("{i}.w", "params/w_{i}", "linear", tied=("{i}.v", "{i}.u"))]
  array = np.arange(6.0).reshape(2, 3)
  template = {"params": {"w_4": array.T}, "model_state": {}}
  for names in (["4.w"], ["4.u"], ["4.v", "4.u"], ["4.u", "4.w", "4.v"]):
    tree = convert(dict.fromkeys(names, array), table, template)
    np.testing.assert_array_equal(tree["params"]["w_4"], array.T)
  written = export(tree, table)
  assert written.keys() == {"4.w", "4.v", "4.u"}
  for copy in written.values():
    np.testing.assert_array_equal(copy, array)
  with pytest.raises(ValueError, match="4.w and 4.v for params/w_4"):
    convert({"4.w": array, "4.v": -array}, table, template)


def test_what_a_file_may_lack():
  table = [
    Rule("w", "params/w"),
    Rule("shift", "params/shift", default=0.5),
    Rule("head", "params/head/kernel", optional=True),
  ]
  ones = np.ones(2, np.float32)
  whole = {"w": ones, "shift": 2 * ones, "head": 3 * ones}
  template = {
    "params": {"w": ones, "shift": ones, "head": {"kernel": ones}},
    "model_state": {},
  }
  tree = convert(whole, table, template)
  np.testing.assert_array_equal(tree["params"]["shift"], 2.0)
  np.testing.assert_array_equal(tree["params"]["head"]["kernel"], 3.0)
  tree = convert({"w": ones}, table, template)
  assert tree["params"].keys() == {"w", "shift"}
  assert tree["model_state"] == {}
  np.testing.assert_array_equal(tree["params"]["shift"], 0.5)
  # The model may lack the optional one, and neither of the others.
  del template["params"]["head"]
  assert convert(whole, table, template)["params"].keys() == {"w", "shift"}
  del template["params"]["shift"]
  with pytest.raises(ValueError, match=r"no place for(?s:.)*shift"):
    convert(whole, table, template)
  with pytest.raises(ValueError, match=r"does not fill(?s:.)*params/w"):
    convert({}, table, template)


def test_an_empty_file_says_what_is_missing():
  with pytest.raises(ValueError, match=r"does not fill \(10\)"):
    convert({}, TABLE, _template())


def test_a_leaf_without_a_rule():
  tree = {"params": {"extra": np.ones((2, 3))}}
  with pytest.raises(ValueError, match=r"no rule takes(?s:.)*extra \(2, 3\)"):
    export(tree, TABLE)
  with pytest.raises(ValueError, match="params/extra .*which no rule fills"):
    convert({}, TABLE, tree)


def test_two_leaves_for_one_name():
  table = [Rule("{p:*}", "params/{p}"), Rule("{p:*}", "{p}")]
  with pytest.raises(ValueError, match="no rule takes"):
    export({"params": {"a": np.ones(1)}, "a": np.ones(1)}, table)


def test_bfloat16_is_a_float():
  table = [Rule("x", "params/x")]
  template = {"params": {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}}
  x = np.array([1.5, -2.0], ml_dtypes.bfloat16)
  tree = convert({"x": x}, table, template)
  np.testing.assert_array_equal(tree["params"]["x"], np.float32([1.5, -2.0]))


def test_patterns_are_anchored_and_literal():
  assert pattern("a[0](b)").match("a[0](b)") == {}
  assert pattern("a").match("a\n") is None
  assert pattern("{p:*}.w").match("a.b.w") == {"p": "a.b"}
  assert pattern("{p:*}.w").match(".w") is None


@pytest.mark.parametrize("name", ["resnet20", "cnn"])
def test_our_own_trees_survive(name):
  network = models.MODELS[name](num_classes=3)
  x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  params, state = random_weights(network.init, x)
  tree = {"params": params, "model_state": state}
  table = [Rule("net.{rest:*}", "{rest}")]
  arrays = export(tree, table)
  assert len(arrays) == len(jax.tree.leaves(tree))
  back = convert(arrays, table, tree)
  assert trees.flatten_names(back).keys() == trees.flatten_names(tree).keys()
  jax.tree.map(np.testing.assert_array_equal, back, tree)
