# SPDX-License-Identifier: Apache-2.0
"""Random numbers as functions of (seed, stream, index)."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from tgt_jax.data import draws

_WORD = 2**64 - 1


def _philox_block(counter: list[int], key: list[int]) -> list[int]:
  """Philox4x64-10 in integers, after Salmon et al. (2011), section 3.3."""
  k0, k1 = key
  c = list(counter)
  for _ in range(10):
    a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
    c = [(b >> 64) ^ c[1] ^ k0, b & _WORD, (a >> 64) ^ c[3] ^ k1, a & _WORD]
    k0, k1 = (
      (k0 + 0x9E3779B97F4A7C15) & _WORD,
      (k1 + 0xBB67AE8584CAA73B) & _WORD,
    )
  return c


@pytest.mark.parametrize("index", [0, 1, 10**9])
def test_bits_are_philox_of_key_and_counter(index):
  entropy = (zlib.crc32(b"a stream"), 3)
  key = np.random.SeedSequence(entropy).generate_state(2, np.uint64).tolist()
  # numpy counts before it generates, so the first block is number one.
  expected = _philox_block([1, 0, 0, index], key) + _philox_block(
    [2, 0, 0, index], key
  )
  assert draws.bits(3, "a stream", index, 8).tolist() == expected


def test_permutation_is_pinned():
  """The order of finished runs; a change here makes them irreproducible."""
  assert draws.permutation(0, "order/natural", 0, 8).tolist() == [
    3,
    5,
    0,
    2,
    4,
    6,
    7,
    1,
  ]


def test_neighbouring_seeds_share_no_epoch():
  orders = {
    tuple(draws.permutation(seed, "order", epoch, 20))
    for seed in range(6)
    for epoch in range(6)
  }
  assert len(orders) == 36


def test_streams_differ():
  assert not np.array_equal(draws.bits(0, "a", 0, 4), draws.bits(0, "b", 0, 4))


def test_every_permutation_is_equally_likely():
  counts = {}
  for index in range(4800):
    order = tuple(draws.permutation(1, "perm", index, 4))
    counts[order] = counts.get(order, 0) + 1
  assert len(counts) == math.factorial(4)
  chi_square = sum((n - 200) ** 2 / 200 for n in counts.values())
  assert chi_square < 49.7  # 23 degrees of freedom, p = 0.001.


def test_uniforms_fill_the_unit_interval():
  draw = draws.uniforms(5, "u", 2, (100, 200))
  assert draw.shape == (100, 200) and draw.dtype == np.float64
  assert draw.min() >= 0 and draw.max() < 1
  counts, _ = np.histogram(draw, bins=20, range=(0, 1))
  assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # 19 df, p = 0.001.


@pytest.mark.parametrize("argument", ["seed", "index"])
def test_negative_numbers_are_refused(argument):
  arguments = {"seed": 1, "stream": "s", "index": 1, "size": 1, argument: -1}
  with pytest.raises(ValueError, match=f"{argument} must be >= 0"):
    draws.bits(**arguments)
