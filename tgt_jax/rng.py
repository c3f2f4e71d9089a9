# SPDX-License-Identifier: Apache-2.0
"""Named random streams: every key is a function of (seed, step, name).

No key is ever stored: a run that resumes at step n folds n into the same root
and draws the same numbers. Naming a stream keeps the others unchanged when a
new consumer of randomness is added.
"""

from __future__ import annotations

import hashlib

import jax

from tgt_jax.types import Array


def stream(rng: Array, name: str) -> Array:
  """Returns the key of the stream `name` under `rng`.

  Args:
    rng: a typed PRNG key.
    name: any string; its first four SHA-256 bytes are folded in.
  """
  number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
  return jax.random.fold_in(rng, number)


def split_examples(rng: Array, batch_size: int) -> Array:
  """Returns one key per example, shape [B].

  Noise drawn from an example's own key does not depend on how the batch is
  split over devices.
  """
  return jax.random.split(rng, batch_size)
