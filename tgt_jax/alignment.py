# SPDX-License-Identifier: Apache-2.0
"""How far students took over their teacher's embedding, on the test split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import answers, build, data, fit, metrics
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
  embed = lambda network, variables, reads: embeddings(
    network,
    variables,
    experiment.source("test", reads),
    experiment.runtime,
    experiment.config["evaluation_batch_size"],
  )
  reads = arm.config["student_reads"]
  found = of_students(embed(arm.parts.student, variables, reads), given)
  compressor = arm.parts.compressor
  if compressor is not None:
    pair = state.params["compressor"], state.model_state["compressor"]
    compact = embed(compressor, pair, "embedding")
    found["compressor_rank"] = np.array([*map(metrics.effective_rank, compact)])
  return found


def of_students(own: np.ndarray, given: np.ndarray) -> Scores:
  """Likeness of students' embeddings and the teacher's, and their rank.

  Args:
    own: of the students, [S, N, D].
    given: the teacher's of the same examples, [N, T, 1, D'].

  Returns:
    "dcor", "cka" and "rank" as in `scores`, each [S].
  """
  pooled = given.mean(axis=(1, 2))
  each = [
    {**metrics.alignment(one, pooled), "rank": metrics.effective_rank(one)}
    for one in own
  ]
  return {name: np.array([one[name] for one in each]) for name in each[0]}


def embeddings(
  network: Network,
  variables: Any,
  source: data.Source,
  runtime: fit.Runtime,
  batch_size: int,
) -> np.ndarray:
  """A network's embeddings of a source, [S, N, D], of variables [S, ...]."""
  return answers.of_seeds(_ask(network), variables, source, runtime, batch_size)


def _ask(network: Network) -> Callable[[Any, jax.Array], jax.Array]:
  def embed(variables: Any, x: jax.Array) -> jax.Array:
    params, model_state = variables
    return network.apply(params, model_state, x, train=False)[0].embedding

  return embed
