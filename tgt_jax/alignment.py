# SPDX-License-Identifier: Apache-2.0
"""How far students took over their teacher's embedding, on the test split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import answers, build, metrics
from tgt_jax.experiment import Experiment
from tgt_jax.scoring import Scores
from tgt_jax.types import Network


def scores(
  experiment: Experiment, arm: build.Arm, variables: Any, state: Any
) -> Scores:
  """Likeness to the embedding as it is, and how many directions are used.

  Args:
    experiment: the run.
    arm: what was trained.
    variables: the students' params and model state, leaves [S, ...].
    state: of everybody, for the compressor.

  Returns:
    "dcor" (unbiased) and "cka" of the student's and the teacher's embedding,
    "rank", the effective rank of the student's, and "compressor_rank", that of
    the compact embedding, each [S]; nothing where the teacher has no embedding.
  """
  given = experiment.embeddings("test")
  if given is None:
    return {}
  given = given.mean(axis=(1, 2))
  reads = arm.config["student_reads"]
  own = _embeddings(experiment, arm.parts.student, variables, reads)
  each: list[dict[str, float]] = []
  for one in own:
    found = metrics.alignment(one, given)
    each.append({**found, "rank": metrics.effective_rank(one)})
  compressor = arm.parts.compressor
  if compressor is not None:
    pair = state.params["compressor"], state.model_state["compressor"]
    compact = _embeddings(experiment, compressor, pair, "embedding")
    for found, one in zip(each, compact, strict=True):
      found["compressor_rank"] = metrics.effective_rank(one)
  return {name: np.array([one[name] for one in each]) for name in each[0]}


def _embeddings(
  experiment: Experiment, network: Network, variables: Any, reads: str
) -> np.ndarray:
  """A network's embeddings of the test split, [S, N, D]."""
  return answers.of_seeds(
    _ask(network),
    variables,
    experiment.source("test", reads),
    experiment.runtime,
    experiment.config["evaluation_batch_size"],
  )


def _ask(network: Network) -> Callable[[Any, jax.Array], jax.Array]:
  def embed(variables: Any, x: jax.Array) -> jax.Array:
    params, model_state = variables
    return network.apply(params, model_state, x, train=False)[0].embedding

  return embed
