# SPDX-License-Identifier: Apache-2.0
"""A source as those see it who read embeddings in the place of inputs."""

from __future__ import annotations

import dataclasses

import numpy as np

from tgt_jax.data import sources


def embedded(source: sources.Source, embeddings: np.ndarray) -> sources.Source:
  """Returns the source with embeddings as its inputs.

  Args:
    source: any source.
    embeddings: float32 [N, T, 1, D], of its examples.

  Raises:
    ValueError: not one embedding per example, or one that is not finite.
  """
  if embeddings.ndim != 4 or len(embeddings) != len(source):
    raise ValueError(
      f"{source.name}: expected embeddings of shape ({len(source)}, T, 1, D),"
      f" got {embeddings.shape}"
    )
  bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=(1, 2, 3)))
  if bad.size:
    raise ValueError(
      f"{source.name}: the embedding of example {bad[0]} is not finite"
      f" ({bad.size} of {len(source)}): compute them anew"
    )
  return dataclasses.replace(
    source,
    name=f"{source.name}, embedded",
    input_shape=embeddings.shape[1:],
    read=lambda ids: embeddings.take(ids, axis=0),
    fingerprint=sources.digest(source.fingerprint, embeddings),
    text=None,
  )
