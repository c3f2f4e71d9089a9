# SPDX-License-Identifier: Apache-2.0
"""Writes TensorFlow checkpoints from the format's description, for tests.

Nothing of the reader is used: checksums bit by bit, a Snappy compressor that
emits every kind of element, blocks with shared prefixes and restart points.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

CODES = {
  np.dtype(dtype): code
  for dtype, code in {
    np.float32: 1,
    np.float64: 2,
    np.int32: 3,
    np.uint8: 4,
    np.int16: 5,
    np.int8: 6,
    np.complex64: 8,
    np.int64: 9,
    np.bool_: 10,
    ml_dtypes.bfloat16: 14,
    np.uint16: 17,
    np.complex128: 18,
    np.float16: 19,
    np.uint32: 22,
    np.uint64: 23,
  }.items()
}


def crc32c(data: bytes) -> int:
  register = 0xFFFFFFFF
  for byte in data:
    register ^= byte
    for _ in range(8):
      register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
  return register ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> bytes:
  crc = crc32c(data)
  rotated = (crc >> 15) | (crc << 17 & 0xFFFFFFFF)
  return ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def varint(value: int) -> bytes:
  out = bytearray()
  while value > 127:
    out.append(value % 128 + 128)
    value //= 128
  return bytes([*out, value])


def _literal(data: bytes) -> bytes:
  if not data:
    return b""
  number = len(data) - 1
  if number < 60:
    return bytes([number * 4]) + data
  size = (number.bit_length() + 7) // 8
  return bytes([(59 + size) * 4]) + number.to_bytes(size, "little") + data


def _copies(length: int, offset: int, wide: bool) -> bytes:
  out = b""
  while length:
    part = min(length, 64)
    if 4 <= part <= 11 and offset < 2048 and not wide:
      tag = 1 | (part - 4) << 2 | offset >> 8 << 5
      out += bytes([tag, offset % 256])
    elif offset < 2**16 and not wide:
      out += bytes([2 | (part - 1) << 2]) + offset.to_bytes(2, "little")
    else:
      out += bytes([3 | (part - 1) << 2]) + offset.to_bytes(4, "little")
    length -= part
  return out


def snappy(data: bytes, *, wide: bool = False) -> bytes:
  """Compresses; `wide` writes offsets in four bytes throughout."""
  out, start, position = varint(len(data)), 0, 0
  seen: dict[bytes, int] = {}
  while position < len(data):
    key = data[position : position + 4]
    found = seen.get(key) if len(key) == 4 else None
    seen[key] = position
    if found is None:
      position += 1
      continue
    length = 4
    while (
      position + length < len(data)
      and data[found + length] == data[position + length]
    ):
      length += 1
    out += _literal(data[start:position])
    out += _copies(length, position - found, wide)
    position += length
    start = position
  return out + _literal(data[start:])


def _block(entries: Sequence[tuple[bytes, bytes]], interval: int) -> bytes:
  out, restarts, last = bytearray(), [0], b""
  for number, (key, value) in enumerate(entries):
    shared = 0
    if number % interval:
      while shared < min(len(key), len(last)) and key[shared] == last[shared]:
        shared += 1
    elif number:
      restarts.append(len(out))
    out += varint(shared) + varint(len(key) - shared) + varint(len(value))
    out += key[shared:] + value
    last = key
  for restart in [*restarts, len(restarts)]:
    out += restart.to_bytes(4, "little")
  return bytes(out)


def write_table(
  path: pathlib.Path,
  entries: Mapping[bytes, bytes],
  *,
  compress: bool = False,
  per_block: int = 5,
) -> None:
  """Writes a sorted table of LevelDB."""
  out = bytearray()

  def add(block: bytes) -> bytes:
    content = snappy(block) if compress else block
    handle = varint(len(out)) + varint(len(content))
    body = content + bytes([compress])
    out.extend(body + masked_crc(body))
    return handle

  ordered = sorted(entries.items())
  index = []
  for start in range(0, len(ordered), per_block):
    part = ordered[start : start + per_block]
    index.append((part[-1][0], add(_block(part, interval=3))))
  footer = add(_block([], 1)) + add(_block(index, 1))
  magic = 0xDB4775248B80FB57.to_bytes(8, "little")
  path.write_bytes(bytes(out) + footer.ljust(40, b"\0") + magic)


def _field(number: int, value: int | bytes) -> bytes:
  if isinstance(value, int):
    return varint(number << 3) + varint(value) if value else b""
  return varint(number << 3 | 2) + varint(len(value)) + value


def entry(
  dtype: int,
  shape: Sequence[int],
  data: bytes,
  *,
  shard: int = 0,
  offset: int = 0,
  more: bytes = b"",
) -> bytes:
  """A BundleEntryProto."""
  dimensions = b"".join(_field(2, _field(1, size)) for size in shape)
  checksum = varint(6 << 3 | 5) + masked_crc(data)
  return (
    _field(1, dtype)
    + _field(2, dimensions)
    + _field(3, shard)
    + _field(4, offset)
    + _field(5, len(data))
    + checksum
    + more
  )


def header(shards: int, *, endianness: int = 0) -> bytes:
  """A BundleHeaderProto, version included."""
  return _field(1, shards) + _field(2, endianness) + _field(3, _field(1, 1))


def write_bundle(
  prefix: pathlib.Path,
  arrays: Mapping[str, np.ndarray],
  *,
  shards: int = 1,
  strings: Mapping[str, bytes] | None = None,
  extra: Mapping[bytes, bytes] | None = None,
  **table: int,
) -> None:
  """Writes a checkpoint, its tensors dealt to the shards in turn.

  Args:
    prefix: of the files.
    arrays: name to array.
    shards: number of data files.
    strings: name to the bytes of a string tensor.
    extra: entries of the index, added as they are.
    **table: see `write_table`.
  """
  prefix.parent.mkdir(parents=True, exist_ok=True)
  files = [bytearray() for _ in range(shards)]
  entries = {b"": header(shards)}
  stored = {
    name: (CODES[array.dtype], array.shape, array.tobytes())
    for name, array in arrays.items()
  }
  for name, data in (strings or {}).items():
    stored[name] = (7, (), data)
  for number, (name, (code, shape, data)) in enumerate(stored.items()):
    shard = number % shards
    entries[name.encode()] = entry(
      code, shape, data, shard=shard, offset=len(files[shard])
    )
    files[shard] += data
  for shard, content in enumerate(files):
    name = f"{prefix.name}.data-{shard:05d}-of-{shards:05d}"
    prefix.with_name(name).write_bytes(content)
  index = prefix.with_name(prefix.name + ".index")
  write_table(index, entries | dict(extra or {}), **table)
