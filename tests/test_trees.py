# SPDX-License-Identifier: Apache-2.0
"""Trees, names and safetensors files."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import flax
import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from tgt_jax import trees


class Pair(NamedTuple):
  """A node that is a named tuple."""

  params: dict
  state: dict


def _same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert np.asarray(a).dtype == np.asarray(b).dtype
    np.testing.assert_array_equal(a, b)


def test_names():
  tree = {"b": {"y": 1, "x": 2}, "a": (3, {"k": 4})}
  assert trees.flatten_names(tree) == {
    "a/[0]": 3,
    "a/[1]/k": 4,
    "b/x": 2,
    "b/y": 1,
  }
  assert list(trees.flatten_names(tree, sep=".")) == [
    "a.[0]",
    "a.[1].k",
    "b.x",
    "b.y",
  ]
  assert trees.unflatten_names(trees.flatten_names(tree)) == tree


_KEYS = st.text("abc_0.-", min_size=1, max_size=4)
_TREES = st.recursive(
  st.integers(),
  lambda child: st.one_of(
    st.dictionaries(_KEYS, child, min_size=1, max_size=4),
    st.lists(child, min_size=1, max_size=12).map(tuple),
  ),
  max_leaves=20,
).filter(lambda tree: not isinstance(tree, int))


@hypothesis.given(_TREES)
def test_unflatten_is_the_inverse(tree):
  assert trees.unflatten_names(trees.flatten_names(tree)) == tree


@pytest.mark.parametrize(
  ("tree", "error", "match"),
  [
    ({"a/b": 1}, ValueError, "contain '/'"),
    ({"a": {"": 1}}, ValueError, "empty"),
    ({"[0]": 1}, ValueError, "index"),
    ({"a": {1: 2}}, TypeError, "got 1 under a"),
    (np.ones(2), TypeError, "expected a mapping"),
  ],
)
def test_trees_without_names(tree, error, match):
  with pytest.raises(error, match=match):
    trees.flatten_names(tree)


@pytest.mark.parametrize(
  "names", [["a", "a/b"], ["a/b", "a"], ["a/[0]", "a/[2]"], ["a/[0]", "a/b"]]
)
def test_names_without_a_tree(names):
  with pytest.raises(ValueError, match="name|indices"):
    trees.unflatten_names(dict.fromkeys(names, 0))


def _tree():
  rng = np.random.default_rng(0)
  return {
    "params": {
      "f32": rng.normal(size=(3, 4)).astype(np.float32),
      "bf16": rng.normal(size=5).astype(ml_dtypes.bfloat16),
      "f16": rng.normal(size=5).astype(np.float16),
      "f64": rng.normal(size=2),
    },
    "state": (
      {"scalar": np.float32(2.5)[()], "bool": np.array([True, False])},
    ),
    "int": np.array([[2**40, -1]], np.int64),
    "u8": np.arange(4, dtype=np.uint8),
    "empty": np.zeros((0, 3), np.int32),
  }


def test_a_file_keeps_every_bit(tmp_path: pathlib.Path):
  path = tmp_path / "x.safetensors"
  trees.save_tree(path, _tree(), {"fingerprint": "ab ü"})
  found, metadata = trees.load_tree(path)
  expected = _tree()
  expected["state"][0]["scalar"] = np.asarray(expected["state"][0]["scalar"])
  _same(found, expected)
  assert metadata == {"fingerprint": "ab ü"}


def test_transposed_and_foreign_byte_order_keep_their_values(tmp_path):
  """The safetensors writer alone permutes a transposed array, silently."""
  array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
  tree = {
    "transposed": array.T,
    "strided": array[:, ::2],
    "big": np.arange(3, dtype=">i4"),
  }
  trees.save_tree(tmp_path / "x", tree)
  found, _ = trees.load_tree(tmp_path / "x")
  for name, value in tree.items():
    np.testing.assert_array_equal(found[name], value)


def test_device_arrays_and_frozen_dicts(tmp_path):
  tree = flax.core.freeze({"a": {"b": jnp.arange(3.0)}})
  trees.save_tree(tmp_path / "x", tree)
  found, _ = trees.load_tree(tmp_path / "x")
  _same(found, {"a": {"b": np.arange(3, dtype=np.float32)}})


@pytest.mark.oracle
def test_other_readers_read_it(tmp_path):
  torch_reader = pytest.importorskip("safetensors.torch")
  pytest.importorskip("torch")
  trees.save_tree(tmp_path / "x", _tree())
  found = torch_reader.load_file(tmp_path / "x")
  assert set(found) == set(trees.flatten_names(_tree()))
  np.testing.assert_array_equal(
    found["params/bf16"].float().numpy(),
    _tree()["params"]["bf16"].astype(np.float32),
  )


def test_files_of_other_writers_are_read(tmp_path):
  safetensors.numpy.save_file(
    {"a/b": np.ones(2)}, tmp_path / "x", metadata={"format": "pt"}
  )
  found, metadata = trees.load_tree(tmp_path / "x")
  _same(found, {"a": {"b": np.ones(2)}})
  assert metadata == {"format": "pt"}


def test_bytes_are_the_same_in_every_process():
  code = (
    "import hashlib, numpy as np; from tgt_jax import trees;"
    "tree = {n: np.ones(2, np.float32) for n in 'dbca'};"
    "meta = {n: n for n in 'xyzuvw'};"
    "print(hashlib.sha256(trees.tree_bytes(tree, meta)).hexdigest())"
  )
  run = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).parents[1],
  )
  import hashlib

  tree = {n: np.ones(2, np.float32) for n in "abcd"}
  data = trees.tree_bytes(tree, {n: n for n in "wvuzyx"})
  assert run.stdout.strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
  ("tree", "metadata", "match"),
  [
    ({"a": np.ones(2, np.complex64)}, {}, "a: dtype complex64"),
    ({"a": np.array(["x"])}, {}, "a: dtype"),
    ({"a": np.ones(2)}, {"x": 1}, "strings, got 'x': 1"),
  ],
)
def test_what_cannot_be_stored(tree, metadata, match):
  with pytest.raises(TypeError, match=match):
    trees.tree_bytes(tree, metadata)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_file_cut_short_is_named(tmp_path, keep):
  path = tmp_path / "x.safetensors"
  data = trees.save_tree(path, _tree())
  path.write_bytes(data[:keep])
  with pytest.raises(ValueError, match=r"x\.safetensors is not a whole"):
    trees.load_tree(path)


def test_files_that_are_something_else(tmp_path):
  with pytest.raises(FileNotFoundError, match="no file"):
    trees.load_tree(tmp_path / "none")
  (tmp_path / "x").write_bytes(b"hello" * 100)
  with pytest.raises(ValueError, match="not a whole safetensors file"):
    trees.load_tree(tmp_path / "x")
  header = json.dumps(
    {"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
  ).encode()
  (tmp_path / "y").write_bytes(
    len(header).to_bytes(8, "little") + header + b"0"
  )
  with pytest.raises(ValueError, match="F8_E4M3"):
    trees.load_tree(tmp_path / "y")


def test_check_tree_restores_the_structure(tmp_path):
  expected = Pair({"w": jnp.ones((2, 3))}, {"empty": {}, "list": [jnp.ones(1)]})
  trees.save_tree(tmp_path / "x", expected)
  loaded, _ = trees.load_tree(tmp_path / "x")
  shapes = jax.eval_shape(lambda: expected)
  _same(trees.check_tree(loaded, shapes), jax.device_get(expected))


def test_check_tree_lists_both_sides():
  expected = {"a": np.ones(2), "b": {"c": np.ones(3)}, "d": np.ones(1)}
  loaded = {"b": {"e": np.ones(3)}, "a": np.ones((2, 1)), "d": np.ones(1, "f4")}
  with pytest.raises(ValueError) as caught:
    trees.check_tree(loaded, expected, what="the teacher")
  text = str(caught.value)
  assert text.startswith("the teacher does not fit: missing (1): b/c;")
  assert "unexpected (1): b/e" in text
  assert "a expected float64[2], got float64[2, 1]" in text
  assert "d expected float64[1], got float32[1]" in text


def test_check_tree_does_not_drown_the_reader():
  expected = {f"layer_{i}": np.ones(1) for i in range(100)}
  with pytest.raises(ValueError, match=r"missing \(100\): .* and 88 more"):
    trees.check_tree({}, expected)
