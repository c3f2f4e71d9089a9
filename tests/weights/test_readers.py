# SPDX-License-Identifier: Apache-2.0
"""Safetensors, npz and PyTorch files; folders; what is damaged."""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.weights import tf_writer
from tgt_jax.weights import read_arrays, sha256_of
from tgt_jax.weights.safetensors_file import DTYPES


def _arrays() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
    "a.half": rng.normal(size=5).astype(np.float16),
    "b/bf16": rng.normal(size=5).astype(ml_dtypes.bfloat16),
    "count": np.array(7, np.int64),
    "flag": np.array([True, False, True]),
    "none": np.zeros((0, 2), np.float32),
  }


def _same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    assert found[name].shape == array.shape, name
    np.testing.assert_array_equal(found[name], array)


def _save(path: pathlib.Path, arrays) -> pathlib.Path:
  path.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
  return path


def test_safetensors(tmp_path: pathlib.Path):
  path = _save(tmp_path / "model.safetensors", _arrays())
  _same(read_arrays(path), _arrays())
  _same(read_arrays(str(path)), _arrays())
  _same(read_arrays(tmp_path), _arrays())


def test_every_dtype_of_safetensors(tmp_path: pathlib.Path):
  arrays = {
    name: np.array([0, 1, 1], np.int8).astype(dtype)
    for name, dtype in DTYPES.items()
    if not name.startswith("F8")  # Their names in the library's writer differ.
  }
  path = _save(tmp_path / "x.safetensors", arrays)
  _same(read_arrays(path), arrays)


def _write_header(path: pathlib.Path, header, content: bytes = b"") -> None:
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_an_odd_header_leaves_arrays_unaligned(tmp_path: pathlib.Path):
  path = tmp_path / "x.safetensors"
  entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
  _write_header(path, {"x": entry, "__metadata__": {}}, b"\0\0\x80\x3f" * 2)
  assert path.stat().st_size % 4
  np.testing.assert_array_equal(read_arrays(path)["x"], [1, 1])


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
  ("header", "match"),
  [
    (b"{", "JSON header, got"),
    (b"\xff\xff", "JSON header, got"),
    (b"[]", "an object as header"),
    ({"x": {}}, "dtype, shape and data_offsets of x"),
    ({"x": 3}, "dtype, shape and data_offsets of x"),
    ({"x": ENTRY | {"dtype": "F4"}}, "x of a dtype among BOOL.*got F4"),
    ({"x": ENTRY | {"shape": [3]}}, "12 bytes for x, F32 of shape .*got 8"),
    ({"x": ENTRY | {"shape": [-2]}}, "bytes for x, F32"),
    ({"x": ENTRY | {"data_offsets": [4, 12]}}, "x at bytes 4 to 12.*got 8 byt"),
    ({"x": ENTRY | {"data_offsets": [-4, 4]}}, "x at bytes -4 to 4"),
    (
      {"x": ENTRY | {"shape": [1], "data_offsets": [0, 4]}},
      "4 bytes of arrays",
    ),
    ({}, "0 bytes of arrays, got 8"),
  ],
)
def test_headers_that_cannot_be(tmp_path: pathlib.Path, header, match):
  path = tmp_path / "x.safetensors"
  _write_header(path, header, bytes(8))
  with pytest.raises(ValueError, match=f"x.safetensors: expected.*{match}"):
    read_arrays(path)


@pytest.mark.parametrize("left", [0, 7, 8, 20, -1])
def test_safetensors_cut_short(tmp_path: pathlib.Path, left):
  path = _save(tmp_path / "x.safetensors", _arrays())
  path.write_bytes(path.read_bytes()[:left])
  with pytest.raises(ValueError, match="x.safetensors: expected.*download it"):
    read_arrays(path)


def _shards(folder: pathlib.Path) -> pathlib.Path:
  arrays, shards = _arrays(), {}
  for number, names in enumerate((list(arrays)[:2], list(arrays)[2:])):
    name = f"model-0000{number + 1}-of-00002.safetensors"
    _save(folder / name, {n: arrays[n] for n in names})
    shards |= dict.fromkeys(names, name)
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
  return index


def test_shards(tmp_path: pathlib.Path):
  index = _shards(tmp_path)
  _same(read_arrays(index), _arrays())
  _same(read_arrays(tmp_path), _arrays())


def test_a_missing_shard(tmp_path: pathlib.Path):
  index = _shards(tmp_path)
  (tmp_path / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match="00002-of-00002.*which.*names"):
    read_arrays(index)


def test_an_index_of_other_shards(tmp_path: pathlib.Path):
  index = _shards(tmp_path)
  _save(tmp_path / "model-00002-of-00002.safetensors", {"z": np.ones(1)})
  with pytest.raises(ValueError, match="b/bf16 in model-00002.*got 4 arrays"):
    read_arrays(index)


@pytest.mark.parametrize(
  ("text", "match"),
  [
    ("{", "JSON with a weight_map"),
    ("{}", "weight_map.*KeyError"),
    ("[]", "weight_map"),
    ('{"weight_map": []}', "weight_map"),
    ('{"weight_map": {"a": "../x.safetensors"}}', "files beside the index"),
  ],
)
def test_an_index_that_cannot_be(tmp_path: pathlib.Path, text, match):
  path = tmp_path / "model.safetensors.index.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=match):
    read_arrays(path)


def test_npz(tmp_path: pathlib.Path):
  arrays = _arrays()
  np.savez(tmp_path / "x.npz", **arrays)
  np.savez_compressed(tmp_path / "y.npz", **arrays)
  _same(read_arrays(tmp_path / "x.npz"), arrays)
  _same(read_arrays(tmp_path / "y.npz"), arrays)


def test_npz_holds_no_objects(tmp_path: pathlib.Path):
  path = tmp_path / "x.npz"
  np.savez(path, x=np.array([{}], object))
  with pytest.raises(ValueError, match="x.npz: expected.*plain arrays.*pickle"):
    read_arrays(path)


def test_damaged_npz(tmp_path: pathlib.Path):
  path = tmp_path / "x.npz"
  np.savez(path, x=np.arange(1000.0))
  data = path.read_bytes()
  flipped = data[:4000] + bytes([data[4000] ^ 1]) + data[4001:]
  np.save(tmp_path / "y.npy", np.ones(3))
  npy = (tmp_path / "y.npy").read_bytes()
  for damaged in (b"", data[:100], data[:-5], flipped, npy, b"text"):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"x.npz: expected a whole \.npz"):
      read_arrays(path)


def test_files_that_are_not_there(tmp_path: pathlib.Path):
  with pytest.raises(FileNotFoundError, match="no file .*nothing.npz"):
    read_arrays(tmp_path / "nothing.npz")
  with pytest.raises(FileNotFoundError, match="prefix of a TensorFlow"):
    read_arrays(tmp_path / "model.ckpt")


def test_formats_that_are_not_read(tmp_path: pathlib.Path):
  path = tmp_path / "flax_model.msgpack"
  path.write_bytes(b"x")
  with pytest.raises(ValueError, match=r"ends like.*npz.*got '\.msgpack'"):
    read_arrays(path)


def test_a_data_file_points_at_its_prefix(tmp_path: pathlib.Path):
  tf_writer.write_bundle(tmp_path / "m.ckpt", {"a": np.ones(3, np.float32)})
  with pytest.raises(ValueError, match=r"pass the prefix .*m\.ckpt$"):
    read_arrays(tmp_path / "m.ckpt.data-00000-of-00001")
  assert read_arrays(tmp_path / "m.ckpt").keys() == {"a"}


def test_a_folder_of_two(tmp_path: pathlib.Path):
  _save(tmp_path / "a.safetensors", {"a": np.ones(1)})
  _save(tmp_path / "b.safetensors", {"b": np.ones(1)})
  with pytest.raises(
    ValueError, match="got 2: a.safetensors, b.safet.*name on"
  ):
    read_arrays(tmp_path)


def test_a_folder_prefers_what_needs_no_torch(tmp_path: pathlib.Path):
  (tmp_path / "pytorch_model.bin").write_bytes(b"x")
  _save(tmp_path / "model.safetensors", {"a": np.ones(1)})
  assert read_arrays(tmp_path).keys() == {"a"}


def test_folders_without_weights(tmp_path: pathlib.Path):
  with pytest.raises(ValueError, match="folder with a weight file.*nothing"):
    read_arrays(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ValueError, match=r"got config\.json"):
    read_arrays(tmp_path)


def test_digest(tmp_path: pathlib.Path):
  path = _save(tmp_path / "x.safetensors", _arrays())
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert sha256_of(path) == digest
  assert sha256_of(tmp_path) == digest


def test_digest_of_several_files(tmp_path: pathlib.Path):
  index = _shards(tmp_path)
  before = sha256_of(index)
  lines = ""
  for path in [index, *sorted(tmp_path.glob("*.safetensors"))]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines += f"{digest}  {path.name}\n"
  assert before == hashlib.sha256(lines.encode()).hexdigest()
  tf_writer.write_bundle(tmp_path / "m", {"a": np.ones(3, np.float32)})
  first = sha256_of(tmp_path / "m")
  tf_writer.write_bundle(tmp_path / "m", {"a": np.zeros(3, np.float32)})
  assert sha256_of(tmp_path / "m") != first


def test_torch_is_asked_for(tmp_path: pathlib.Path, monkeypatch):
  path = tmp_path / "x.pth"
  path.write_bytes(b"x")
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ImportError, match=r"x\.pth.*tgt_jax\[oracle\]"):
    read_arrays(path)


@pytest.mark.oracle
class TestTorch:
  """Files of PyTorch's own writer."""

  @pytest.fixture(name="torch")
  def _torch(self):
    return pytest.importorskip("torch")

  def _tensors(self, torch):
    return {
      "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
      "view": torch.arange(6.0).reshape(2, 3).T,
      "bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
      "half": torch.tensor([0.5], dtype=torch.float16),
      "count": torch.tensor(3),
      "parameter": torch.nn.Parameter(torch.ones(2)),
    }

  @pytest.mark.parametrize("zipped", [True, False])
  @pytest.mark.parametrize("level", [True, False])
  def test_tensors(self, torch, tmp_path, zipped, level):
    tensors = self._tensors(torch)
    content = {"state_dict": tensors, "epoch": 3} if level else tensors
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(path) == zipped
    found = read_arrays(path)
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["view"], [[0, 3], [1, 4], [2, 5]])
    assert found["bf16"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found["bf16"].astype(float), [1.5, -2])
    assert found["half"].dtype == np.float16
    assert found["count"] == 3 and found["count"].dtype == np.int64

  def test_nothing_is_run(self, torch, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1), "path": pathlib.PurePosixPath("x")}, path)
    with pytest.raises(ValueError, match=r"x\.pt: expected.*tensors alone"):
      read_arrays(path)

  @pytest.mark.parametrize("content", [{"a": 3}, [1, 2]])
  def test_other_content(self, torch, tmp_path, content):
    path = tmp_path / "x.bin"
    torch.save(content, path)
    with pytest.raises(
      ValueError, match="mapping of names to tensors, got oth"
    ):
      read_arrays(path)

  def test_damaged(self, torch, tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(self._tensors(torch), path)
    for data in (b"", b"text", path.read_bytes()[:-200]):
      path.write_bytes(data)
      with pytest.raises(ValueError, match=r"x\.ckpt: expected a PyTorch file"):
        read_arrays(path)
