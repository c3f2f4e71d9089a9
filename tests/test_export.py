# SPDX-License-Identifier: Apache-2.0
"""A student leaves the house and comes back the same."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import tgt_jax
from tgt_jax import export, models

SHAPE = (8, 8, 1)


def _card(**changes):
  return {
    "model": {"name": "mlp", "widths": [5, 4]},
    "num_classes": 3,
    "input_shape": SHAPE,
    "class_names": ["a", "b", "ü"],
    "preprocessing": {"mean": [0.3], "std": [0.5]},
    "metrics": {"balanced": np.float32(0.5), "few": float("nan")},
    "fingerprint": "abcd",
  } | changes


def _student(name: str = "mlp", **kwargs):
  """A network with numbers of our own: drawing them by `init` compiles."""
  network = models.MODELS[name](num_classes=3, mean=[0.3], std=[0.5], **kwargs)
  rng = np.random.default_rng(1)
  params, state = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype),
    export.expected_trees(network, SHAPE),
  )
  return network, params, state


def _logits(network, params, state, images):
  apply = jax.jit(lambda *args: network.apply(*args)[0].logits)
  return np.asarray(apply(params, state, images))


@pytest.fixture(name="folder")
def _folder(tmp_path: pathlib.Path) -> pathlib.Path:
  _, params, state = _student(widths=(5, 4))
  export.export_student(tmp_path / "run", params, state, _card())
  return tmp_path / "run"


def test_the_same_logits_come_back(folder: pathlib.Path):
  network, params, state = _student(widths=(5, 4))
  again, params_again, state_again, card = export.load_student(folder)
  images = np.random.default_rng(0).uniform(size=(2, *SHAPE)).astype("f4")
  np.testing.assert_array_equal(
    _logits(again, params_again, state_again, images),
    _logits(network, params, state, images),
  )
  assert card["class_names"] == ["a", "b", "ü"]


def test_batch_statistics_come_back(tmp_path: pathlib.Path):
  _, params, state = _student("resnet", depth=8)
  card = _card(model={"name": "resnet", "depth": 8})
  export.export_student(tmp_path, params, state, card)
  _, params_again, state_again, _ = export.load_student(tmp_path)
  assert jax.tree.leaves(state)
  jax.tree.map(np.testing.assert_array_equal, params_again, params)
  jax.tree.map(np.testing.assert_array_equal, state_again, state)


def test_the_card_says_what_is_in_the_file(folder: pathlib.Path):
  card = json.loads((folder / "student.json").read_text(encoding="utf-8"))
  data = (folder / "student.safetensors").read_bytes()
  assert card["sha256"] == hashlib.sha256(data).hexdigest()
  assert card["parameters"] == 64 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3
  assert card["tgt_jax"] == tgt_jax.__version__
  assert card["metrics"] == {"balanced": 0.5, "few": None}
  assert card["input_shape"] == [8, 8, 1]
  arrays = safetensors.numpy.load(data)
  assert sum(array.size for array in arrays.values()) == card["parameters"]
  assert all(name.startswith("params/") for name in arrays)


def test_loading_needs_no_training_code(folder: pathlib.Path):
  code = (
    "import sys; from tgt_jax import export;"
    f"export.load_student({str(folder)!r});"
    "loaded = {m.split('.')[1] for m in sys.modules if m[:8] == 'tgt_jax.'};"
    "above = loaded & {'methods', 'training', 'data', 'build', 'train',"
    " 'checkpoint', 'teachers', 'generators', 'losses'};"
    "assert not above, above; assert 'optax' not in sys.modules"
  )
  root = pathlib.Path(__file__).parents[1]
  subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_dtype_of_computing_is_the_users(folder: pathlib.Path):
  student = export.load_student(folder, dtype="bfloat16")
  assert student.params["dense_0"]["kernel"].dtype == np.float32
  images = np.full((1, *SHAPE), 0.7, np.float32)
  half = _logits(*student[:3], images)
  full = _logits(*export.load_student(folder)[:3], images)
  assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_a_damaged_file_is_named(folder: pathlib.Path):
  path = folder / "student.safetensors"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match="sha256 is"):
    export.load_student(folder)
  path.write_bytes(data[:100])
  with pytest.raises(ValueError, match="damaged"):
    export.load_student(folder)
  path.unlink()
  with pytest.raises(FileNotFoundError, match=r"student\.safetensors"):
    export.load_student(folder)


def test_a_folder_without_a_student(tmp_path: pathlib.Path):
  with pytest.raises(FileNotFoundError, match=r"student\.json.*expected a"):
    export.load_student(tmp_path)


def _change_card(folder: pathlib.Path, **changes):
  path = folder / "student.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"format": 99, "tgt_jax": "9.9"}, r"expected format 1, got 99.*9\.9"),
    ({"model": "mlp"}, "'model' must be a mapping"),
    ({"num_classes": None}, "'num_classes' must be a whole number"),
    ({"class_names": ["a"]}, "1 class_names for num_classes=3"),
    ({"model": {"name": "mpl"}}, "Did you mean 'mlp'"),
    ({"model": {"name": "mlp", "width": 3}}, "takes no 'width'"),
    ({"model": {"name": "mlp", "widths": [5]}}, "unexpected .* params/dense_1"),
    ({"model": {"name": "mlp", "widths": [5, 4, 4]}}, "missing .*dense_2"),
    ({"input_shape": [9, 8, 1]}, r"expected float32\[72, 5\], got float32\[64"),
  ],
)
def test_a_card_that_does_not_fit(folder, changes, match):
  _change_card(folder, **changes)
  with pytest.raises(ValueError, match=match):
    export.load_student(folder)


def test_a_truncated_card(folder: pathlib.Path):
  path = folder / "student.json"
  path.write_text(path.read_text()[:-20])
  with pytest.raises(ValueError, match="is not JSON"):
    export.load_student(folder)
  path.write_text("[]")
  with pytest.raises(ValueError, match="expected an object, got list"):
    export.load_student(folder)


def test_a_card_cannot_import_code_unasked(folder: pathlib.Path):
  model = {"name": "tgt_jax.models:mlp", "widths": [5, 4]}
  _change_card(folder, model=model)
  with pytest.raises(ValueError, match="allow_imports=True"):
    export.load_student(folder)
  assert export.load_student(folder, allow_imports=True).card["model"] == model


def test_arrays_of_another_model_are_not_exported(tmp_path: pathlib.Path):
  _, params, state = _student(widths=(5,))
  with pytest.raises(ValueError, match=r"missing \(2\): params/dense_1"):
    export.export_student(tmp_path, params, state, _card())
  stacked = jax.tree.map(lambda leaf: leaf[None], _student(widths=(5, 4))[1])
  with pytest.raises(ValueError, match=r"got float32\[1, 64, 5\]"):
    export.export_student(tmp_path, stacked, {}, _card())
  assert list(tmp_path.iterdir()) == []


def test_the_same_student_gives_the_same_bytes(folder, tmp_path):
  _, params, state = _student(widths=(5, 4))
  export.export_student(tmp_path / "again", params, state, _card())
  for name in ("student.safetensors", "student.json"):
    assert (folder / name).read_bytes() == (
      tmp_path / "again" / name
    ).read_bytes()
