# SPDX-License-Identifier: Apache-2.0
"""A fixed number of augmented forms of every example, drawn once.

Where a teacher is too slow to be asked about every augmented image in the step,
its answers about some forms of each can be kept: what a student sees then is
what the teacher was asked about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, sources
from tgt_jax.data.augment import Augmentation, apply_chain, draws_of


def views(
  source: sources.Source,
  chain: Sequence[Augmentation],
  *,
  number: int,
  seed: int,
  options: Any = None,
) -> sources.Source:
  """Returns the source with `number` augmented forms in place of each example.

  Args:
    source: images or texts, N of them.
    chain: augmentations, at least one.
    number: forms of each, V.
    seed: of what they are.
    options: whatever else tells the chain from others, for the fingerprint.

  Returns:
    A view of N V examples: forms of one example stand together and have its
    label, its id and the embedding that comes with it.

  Raises:
    ValueError: no augmentation, or a number that is not positive.
  """
  checks.positive(number=number)
  checks.non_negative(seed=seed)
  if not chain:
    raise ValueError("views: without augmentations all forms are equal")
  seen = sources.subset(source, np.repeat(np.arange(len(source)), number))
  shape = len(seen), draws_of(chain)
  uniforms = draws.uniforms(seed, "views", 0, shape)
  read = seen.read
  return dataclasses.replace(
    seen,
    name=f"{source.name}, {number} views",
    read=lambda ids: apply_chain(read(ids), chain, uniforms[ids]),
    fingerprint=sources.digest(seen.fingerprint, number, seed, options),
  )
