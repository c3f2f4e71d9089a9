# SPDX-License-Identifier: Apache-2.0
"""CRC-32C (Castagnoli), vectorised in numpy.

A checkpoint of some hundred megabytes is checked in seconds: the bytes are cut
into lanes that advance side by side, two bytes a step, and are joined pairwise.
The remainder is linear over GF(2): appending n bytes to a message multiplies
its register by a 32 x 32 matrix, whatever the bytes are, and adds their own.

References:
  RFC 3720, section 12.1 and appendix B.4.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Bit-reversed 0x1EDC6F41.
_SMALL = 1 << 10  # Below this a loop over bytes is quicker.
_LARGE = 1 << 23  # Bytes at a time, so that the lanes stay in the cache.
_ONES = 0xFFFFFFFF


def _advance_bit(registers: np.ndarray) -> np.ndarray:
  odd = (registers & np.uint32(1)).astype(bool)
  shifted = registers >> np.uint32(1)
  return np.where(odd, shifted ^ np.uint32(_POLYNOMIAL), shifted)


@functools.cache
def _table(bits: int) -> np.ndarray:
  """The register after `bits` zeros, for each of the values of that width."""
  registers = np.arange(1 << bits, dtype=np.uint32)
  for _ in range(bits):
    registers = _advance_bit(registers)
  return registers


def _apply(columns: np.ndarray, registers: np.ndarray) -> np.ndarray:
  """Returns the product of a matrix, given by its 32 columns, and vectors."""
  result = np.zeros_like(registers)
  for bit in range(32):
    is_set = (registers >> np.uint32(bit)) & np.uint32(1)
    result ^= is_set * columns[bit]
  return result


@functools.cache
def _zeros(exponent: int) -> np.ndarray:
  """The matrix that appends `2 ** exponent` zero bytes, as its columns."""
  if exponent:
    half = _zeros(exponent - 1)
    return _apply(half, half)
  columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
  for _ in range(8):
    columns = _advance_bit(columns)
  return columns


def _block(data: np.ndarray, exponent: int) -> np.ndarray:
  """The register of `2 ** exponent` bytes, begun at zero."""
  lane = exponent // 2
  words = np.ascontiguousarray(data.view("<u2").reshape(-1, 1 << (lane - 1)).T)
  table = _table(16)
  registers = np.zeros(words.shape[1], np.uint32)
  for word in words:
    low = registers.astype(np.uint16) ^ word
    registers = table[low] ^ (registers >> np.uint32(16))
  for level in range(lane, exponent):
    pairs = registers.reshape(-1, 2)
    registers = _apply(_zeros(level), pairs[:, 0]) ^ pairs[:, 1]
  return registers


def crc32c(data: bytes | np.ndarray) -> int:
  """Returns the CRC-32C of bytes.

  Args:
    data: bytes, or a one-dimensional array of uint8.
  """
  data = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
  register = np.array([_ONES], np.uint32)
  start = 0
  while data.size - start >= _SMALL:
    size = min(data.size - start, _LARGE)
    exponent = size.bit_length() - 1
    part = data[start : start + (1 << exponent)]
    register = _apply(_zeros(exponent), register) ^ _block(part, exponent)
    start += 1 << exponent
  table, last = _table(8), int(register[0])
  for byte in data[start:].tolist():
    last = int(table[(last ^ byte) & 0xFF]) ^ (last >> 8)
  return last ^ _ONES


def masked(crc: int) -> int:
  """Returns a checksum as LevelDB and TensorFlow store it.

  Rotated and shifted, so that the checksum of bytes that hold checksums stays
  a good one.
  """
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES
