# SPDX-License-Identifier: Apache-2.0
"""Reader of LevelDB's sorted table, the index of a TensorFlow checkpoint.

The file is a row of blocks and a footer. The footer points at the index block,
whose values point at the data blocks. A block is followed by one byte, its
compression, and the masked CRC-32C of both.

References:
  https://github.com/google/leveldb/blob/main/doc/table_format.md
  https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from tgt_jax.weights.crc32c import crc32c, masked
from tgt_jax.weights.raw import bad_file

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # Compression and checksum.
_STORED, _SNAPPY = 0, 1


def read_varint(data: bytes, position: int) -> tuple[int, int]:
  """Returns a variable-length integer and the position behind it.

  Raises:
    ValueError: it does not end within ten bytes or within the data.
  """
  value = 0
  for shift in range(0, 70, 7):
    if position >= len(data):
      raise ValueError("an integer that is cut short")
    byte = data[position]
    position += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, position
  raise ValueError("an integer that does not end")


def snappy_uncompress(data: bytes) -> bytes:
  """Returns the content of a raw Snappy stream.

  Raises:
    ValueError: the stream is damaged.
  """
  size, position = read_varint(data, 0)
  out = bytearray()
  while position < len(data):
    tag = data[position]
    kind, position = tag & 3, position + 1
    # The number of bytes that follow the tag and hold a length or an offset.
    extra = max(0, (tag >> 2) - 59) if kind == 0 else (0, 1, 2, 4)[kind]
    if position + extra > len(data):
      raise ValueError("a Snappy element that is cut short")
    number = int.from_bytes(data[position : position + extra], "little")
    position += extra
    if kind == 0:
      length = (number if extra else tag >> 2) + 1
      if position + length > len(data):
        raise ValueError("a Snappy literal that is cut short")
      out += data[position : position + length]
      position += length
      continue
    length, offset = (tag >> 2) + 1, number
    if kind == 1:
      length, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | number
    if not 0 < offset <= len(out):
      raise ValueError(f"a Snappy copy from {offset} of {len(out)} bytes back")
    # A copy may reach into what it writes: the last bytes then repeat.
    source = bytes(out[len(out) - offset :][:length])
    out += (source * (length // len(source) + 1))[:length]
    if len(out) > size:
      break
  if len(out) != size:
    raise ValueError(f"{len(out)} bytes where Snappy announced {size}")
  return bytes(out)


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Keys and values of a block; a key stores what its predecessor lacks."""
  if len(block) < 4:
    raise ValueError("a block without restart points")
  end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
  if end < 0:
    raise ValueError("more restart points than the block holds")
  position, key = 0, b""
  while position < end:
    shared, position = read_varint(block, position)
    fresh, position = read_varint(block, position)
    size, position = read_varint(block, position)
    if shared > len(key) or position + fresh + size > end:
      raise ValueError("an entry that leaves its block")
    key = key[:shared] + block[position : position + fresh]
    position += fresh
    yield key, block[position : position + size]
    position += size


class _Table:
  """The bytes of a table and where they come from."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.data = path.read_bytes()

  def block(self, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of the block that a handle (offset, size) points at."""
    try:
      offset, position = read_varint(handle, 0)
      size, _ = read_varint(handle, position)
    except ValueError as error:
      raise bad_file(
        self.path, expected="a block's place", got=error
      ) from error
    end = offset + size
    if end + _TRAILER_SIZE > len(self.data) - FOOTER_SIZE:
      raise bad_file(
        self.path,
        expected=f"a block at bytes {offset} to {end}",
        got=f"{len(self.data)} bytes",
      )
    stored = int.from_bytes(self.data[end + 1 : end + 5], "little")
    actual = masked(crc32c(self.data[offset : end + 1]))
    if stored != actual:
      raise bad_file(
        self.path,
        expected=f"checksum {stored:#010x} of the block at byte {offset}",
        got=f"{actual:#010x}",
      )
    kind = self.data[end]
    if kind not in (_STORED, _SNAPPY):
      raise bad_file(
        self.path,
        expected="a block that is stored (0) or in Snappy (1)",
        got=f"compression {kind}",
        remedy="write the checkpoint again with another compression",
      )
    content = self.data[offset:end]
    try:
      if kind == _SNAPPY:
        content = snappy_uncompress(content)
      yield from _entries(content)
    except ValueError as error:
      raise bad_file(
        self.path, expected=f"a whole block at byte {offset}", got=error
      ) from error


def read_table(path: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
  """Yields the keys and values of a table in the order of the keys.

  Raises:
    ValueError: not a table, cut short, or a checksum that is wrong.
  """
  table = _Table(path)
  footer = table.data[-FOOTER_SIZE:]
  magic = int.from_bytes(footer[-8:], "little")
  if len(footer) < FOOTER_SIZE or magic != MAGIC:
    raise bad_file(
      path,
      expected=f"the index of a TensorFlow checkpoint (ends in {MAGIC:#x})",
      got=f"{len(table.data)} bytes that end in {magic:#x}",
      remedy="pass the .index file or the checkpoint's prefix, or download it"
      " again",
    )
  try:
    position = 0
    for _ in range(2):  # The place of a block that nothing here needs.
      _, position = read_varint(footer, position)
  except ValueError as error:
    raise bad_file(path, expected="a footer", got=error) from error
  for _, handle in table.block(footer[position:-8]):
    yield from table.block(handle)
