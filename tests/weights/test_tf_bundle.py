# SPDX-License-Identifier: Apache-2.0
"""TensorFlow checkpoints against a writer of our own, whole and damaged."""

from __future__ import annotations

import pathlib

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.weights import tf_writer
from tgt_jax.weights.crc32c import crc32c
from tgt_jax.weights.leveldb_table import snappy_uncompress
from tgt_jax.weights.readers import read_arrays

# RFC 3720, B.4, and the usual check value.
CHECKSUMS = [
  (b"", 0),
  (b"123456789", 0xE3069283),
  (bytes(32), 0x8A9136AA),
  (b"\xff" * 32, 0x62A8AB43),
  (bytes(range(32)), 0x46DD794E),
  (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "expected"), CHECKSUMS)
def test_known_checksums(data, expected):
  assert crc32c(data) == expected
  assert tf_writer.crc32c(data) == expected


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 3000, 2**14 + 7])
def test_checksums_of_any_length(size):
  data = np.random.default_rng(size).bytes(size)
  assert crc32c(data) == tf_writer.crc32c(data)
  array = np.frombuffer(b"x" + data, np.uint8)[1:]  # Not aligned.
  assert crc32c(array) == tf_writer.crc32c(data)


def test_checksums_of_more_than_a_block():
  part = np.random.default_rng(0).bytes(2**12)
  whole = np.frombuffer(part * (2**11 + 2), np.uint8)
  assert whole.size > 2**23
  # Appending a message's own checksum leaves a constant residue.
  checked = np.append(
    whole, np.frombuffer(crc32c(whole).to_bytes(4, "little"), np.uint8)
  )
  assert crc32c(checked) ^ 0xFFFFFFFF == 0xB798B438
  checked[whole.size // 2] ^= 4
  assert crc32c(checked) ^ 0xFFFFFFFF != 0xB798B438


@hypothesis.given(
  st.lists(st.sampled_from([b"abcd", b"abcdabcd", b"\0" * 70, b"xyz"]))
)
def test_snappy(parts):
  data = b"".join(parts)
  for wide in (False, True):
    assert snappy_uncompress(tf_writer.snappy(data, wide=wide)) == data


def test_snappy_elements():
  # The example of the format's description: a copy that overlaps itself.
  assert snappy_uncompress(b"\x08\x04xa" + b"\x0a\x02\x00" * 2) == b"xaxaxaxa"
  long = np.random.default_rng(0).bytes(70_000)
  for data in (long[:60], long[:61], long[:257], long):
    assert snappy_uncompress(tf_writer.snappy(data)) == data
  repeated = long + long[:9]  # 70,000 bytes back: an offset of four bytes.
  packed = tf_writer.snappy(repeated)
  assert packed[-5] & 3 == 3
  assert snappy_uncompress(packed) == repeated


@pytest.mark.parametrize(
  ("data", "match"),
  [
    (b"\x05\x10abc", "literal that is cut"),
    (b"\x05\xf4\x01", "element that is cut"),
    (b"\x05\x00a\x01", "element that is cut"),
    (b"\x05\x00a\x05\x00", "copy from 0 of 1"),
    (b"\x05\x00a\x05\x02", "copy from 2 of 1"),
    (b"\x05\x00a", "1 bytes where Snappy announced 5"),
    (b"\x01\x08abc", "3 bytes where Snappy announced 1"),
    (b"\xff", "cut short"),
    (b"\xff" * 11, "does not end"),
  ],
)
def test_damaged_snappy(data, match):
  with pytest.raises(ValueError, match=match):
    snappy_uncompress(data)


def _arrays() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  arrays = {
    f"Module/Block_{i}/conv/{leaf}": rng.normal(size=shape).astype(np.float32)
    for i in range(6)
    for leaf, shape in (("w", (3, 3, 2, 4)), ("b", (4,)))
  }
  for dtype in tf_writer.CODES:
    values = (10 * rng.normal(size=(2, 3))).astype(np.int8)
    arrays[f"dtypes/{dtype.name}"] = values.astype(dtype)
  return arrays | {
    "global_step": np.int64(12345)[()].reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "ünicode": np.float32([1.5]),
  }


def _same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    assert found[name].shape == array.shape, name
    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("per_block", [1, 7, 1000])
def test_bundle(tmp_path: pathlib.Path, shards, compress, per_block):
  prefix, arrays = tmp_path / "model.ckpt-100", _arrays()
  tf_writer.write_bundle(
    prefix,
    arrays,
    shards=shards,
    compress=compress,
    per_block=per_block,
    strings={"_CHECKPOINTABLE_OBJECT_GRAPH": b"\x05hello"},
  )
  for path in (prefix, f"{prefix}.index", tmp_path):
    _same(read_arrays(path), arrays)


def test_tf_hub_folder(tmp_path: pathlib.Path):
  arrays = {"a": np.float32([1, 2]).astype(ml_dtypes.bfloat16)}
  tf_writer.write_bundle(tmp_path / "variables" / "variables", arrays)
  (tmp_path / "saved_model.pb").write_bytes(b"")
  _same(read_arrays(tmp_path), arrays)
  _same(read_arrays(tmp_path / "variables"), arrays)


def test_arrays_stay_on_the_disk(tmp_path: pathlib.Path):
  tf_writer.write_bundle(tmp_path / "m", {"a": np.ones(3, np.float32)})
  array = read_arrays(tmp_path / "m")["a"]
  base = array
  while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
    base = base.base
  assert isinstance(base, np.memmap)
  assert not array.flags.writeable


@pytest.fixture(name="prefix")
def _prefix(tmp_path: pathlib.Path) -> pathlib.Path:
  prefix = tmp_path / "m"
  tf_writer.write_bundle(prefix, _arrays(), shards=2)
  return prefix


def _index(prefix):
  return prefix.with_name("m.index")


def _shard(prefix):
  return prefix.with_name("m.data-00001-of-00002")


def _flip(path: pathlib.Path, position: int) -> None:
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_a_missing_shard(prefix):
  _shard(prefix).unlink()
  with pytest.raises(FileNotFoundError, match="m.data-00001.*one of the 2"):
    read_arrays(prefix)


def test_a_flipped_bit_of_a_tensor(prefix):
  _flip(_shard(prefix), 2)
  with pytest.raises(ValueError, match="00001-of.*checksum 0x.* of Module/B"):
    read_arrays(prefix)


def test_a_shard_that_is_cut_short(prefix):
  path = _shard(prefix)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match="00001-of.*expected .* bytes for"):
    read_arrays(prefix)


def test_an_empty_shard(prefix):
  _shard(prefix).write_bytes(b"")
  with pytest.raises(ValueError, match="a file of 0 bytes"):
    read_arrays(prefix)


@pytest.mark.parametrize("position", [0, 20, 200, 500])
def test_a_flipped_bit_of_the_index(prefix, position):
  _flip(_index(prefix), position)
  with pytest.raises(ValueError, match="m.index: expected checksum 0x.*got 0x"):
    read_arrays(prefix)


def test_every_cut_of_the_index_is_one_clear_error(prefix):
  data = _index(prefix).read_bytes()
  for size in (0, 10, 47, 48, 100, len(data) - 1):
    _index(prefix).write_bytes(data[:size])
    with pytest.raises(ValueError, match="m.index: expected .*download it ag"):
      read_arrays(prefix)


def test_no_byte_of_the_index_can_crash_the_reader(prefix):
  data = _index(prefix).read_bytes()
  expected = _arrays()
  for position in range(len(data) - 60, len(data)):
    damaged = bytearray(data)
    damaged[position] ^= 0x81
    _index(prefix).write_bytes(damaged)
    try:
      found = read_arrays(prefix)
    except ValueError:
      continue
    _same(found, expected)  # The place of a block that is not needed.


def test_another_file_is_no_index(tmp_path):
  path = tmp_path / "x.index"
  path.write_bytes(b"something else" * 10)
  with pytest.raises(ValueError, match="index of a TensorFlow checkpoint"):
    read_arrays(path)


@pytest.mark.parametrize(
  ("extra", "match"),
  [
    (
      {b"sliced": tf_writer.entry(1, (4,), b"", more=b"\x3a\x00")},
      r"whole variables, got 1 stored in slices \(sliced\).*partitioner",
    ),
    (
      {b"odd": tf_writer.entry(12, (1,), b"1")},
      "odd of a dtype among .*number 12",
    ),
    (
      {b"long": tf_writer.entry(1, (4,), b"12345678")},
      r"expected 16 bytes for long of shape \(4,\).*got 8",
    ),
    (
      {b"far": tf_writer.entry(1, (1,), b"1234", shard=5)},
      "expected 1 data files, got shard 5",
    ),
    ({b"bad": b"\x12\xff"}, "an entry of b'bad', got an integer that is cut"),
    ({b"bad": b"\x12\x50"}, "an entry of b'bad', got a field that is cut"),
    ({b"bad": b"\x13"}, "an entry of b'bad', got a field of wire type 3"),
    ({b"": tf_writer.header(1, endianness=1)}, "little-endian"),
    ({b"": b""}, "counts shards"),
  ],
)
def test_entries_that_cannot_be_read(tmp_path, extra, match):
  tf_writer.write_bundle(
    tmp_path / "m", {"a": np.ones(3, np.float32)}, extra=extra
  )
  with pytest.raises(ValueError, match=match):
    read_arrays(tmp_path / "m")
