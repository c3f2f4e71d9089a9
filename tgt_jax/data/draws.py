# SPDX-License-Identifier: Apache-2.0
"""Random numbers that are a function of (seed, stream, index) and nothing else.

The raw bits of numpy's `Philox` and its `SeedSequence` are guaranteed not to
change between versions and platforms; the methods of `numpy.random.Generator`
are not. Everything random about the data is therefore computed from raw bits,
so that the order of a run's examples can be reproduced on another machine and
with another numpy, and a resumed run continues where it stopped without any
state being saved.

A seed is mixed with the name of the stream before use. Two runs with
neighbouring seeds hence share nothing, unlike with a shuffle whose key is
`seed + epoch`, where epoch 1 of seed 0 is epoch 0 of seed 1.
"""

from __future__ import annotations

import functools
import math
import zlib

import numpy as np

from tgt_jax import checks


@functools.lru_cache(maxsize=256)
def _key(seed: int, stream: str) -> np.ndarray:
  """Returns the 128-bit Philox key of a stream, uint64 [2]."""
  entropy = (zlib.crc32(stream.encode()), int(seed))
  return np.random.SeedSequence(entropy).generate_state(2, np.uint64)


def bits(seed: int, stream: str, index: int, size: int) -> np.ndarray:
  """Returns `size` independent 64-bit words, uint64 [size].

  Args:
    seed: any integer >= 0.
    stream: name of the consumer; different names draw independently.
    index: position within the stream, such as a step or an epoch; >= 0.
    size: number of words.

  Raises:
    ValueError: a negative argument.
  """
  checks.non_negative(seed=seed, index=index, size=size)
  # The index is the counter's highest word: streams of 2**192 words apart.
  counter = np.array([0, 0, 0, index], np.uint64)
  return np.random.Philox(key=_key(seed, stream), counter=counter).random_raw(
    size
  )


def uniforms(
  seed: int, stream: str, index: int, shape: tuple[int, ...]
) -> np.ndarray:
  """Returns independent uniform numbers in [0, 1), float64 of `shape`."""
  words = bits(seed, stream, index, math.prod(shape))
  return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def permutation(seed: int, stream: str, index: int, size: int) -> np.ndarray:
  """Returns a uniformly random order of `range(size)`, int64 [size]."""
  return np.argsort(bits(seed, stream, index, size), kind="stable")
