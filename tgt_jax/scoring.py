# SPDX-License-Identifier: Apache-2.0
"""Scores of classifiers on a whole split.

Every example counts once: the last batch is padded and masked. Everything is
derived from sums over the split, the confusion matrix above all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import metrics
from tgt_jax.results import SeedResult
from tgt_jax.types import Array, Batch

Scores = dict[str, np.ndarray]


class Scorer(NamedTuple):
  """Evaluates sets of parameters on one split.

  Attributes:
    score: `(variables, frozen) -> {metric: [S]}` and "per_class" [S, K];
      every leaf of `variables` is [S, ...].
  """

  score: Callable[[Any], Scores]


def _sums(logits: Array, batch: Batch) -> dict[str, Any]:
  labels, mask = batch["label"], batch["mask"]
  sums = {
    "confusion": metrics.confusion_matrix(
      labels, jnp.argmax(logits, -1), logits.shape[-1], mask=mask
    ),
    "nll": metrics.negative_log_likelihood(logits, labels, mask=mask),
    "calibration": metrics.calibration_bins(logits, labels, mask=mask),
  }
  if "teacher_logits" in batch:
    sums["agreement"] = metrics.agreement(
      logits, batch["teacher_logits"], mask=mask
    )
  return sums


def make_scorer(
  logits: Callable[[Any, Array], Array],
  batches: Iterable[Batch],
  *,
  class_counts: np.ndarray,
  groups: tuple[float, float],
  put: Callable[[Batch], Batch] = lambda batch: batch,
) -> Scorer:
  """Returns a function that scores parameters.

  Args:
    logits: `(variables, x) -> [B, K]`.
    batches: from `data.evaluation_batches`; read anew for each score.
    class_counts: training examples per class, [K], for many / medium / few.
    groups: thresholds, see `longtail.many_medium_few`.
    put: moves a host batch to the devices.
  """

  @jax.jit
  def sums(variables: Any, batch: Batch) -> dict[str, Any]:
    one = lambda v: _sums(logits(v, batch["image"]), batch)
    if jax.tree.leaves(variables)[0].shape[0] > 1:
      return jax.vmap(one)(variables)
    result = one(jax.tree.map(lambda a: a[0], variables))
    return jax.tree.map(lambda a: a[None], result)

  def score(variables: Any) -> Scores:
    total = None
    for batch in batches:
      new = sums(variables, put(batch))
      total = new if total is None else jax.tree.map(jnp.add, total, new)
    return _summary(jax.device_get(total), class_counts, groups)

  return Scorer(score)


def _summary(
  total: Mapping[str, Any],
  class_counts: np.ndarray,
  groups: tuple[float, float],
) -> Scores:
  """Metrics by their names in results.json, each [S]."""
  found = metrics.summarize_confusion(
    total["confusion"], class_counts, thresholds=groups
  )
  found["balanced"] = found.pop("balanced_accuracy")
  means = {n: total[n] for n in ("nll", "agreement") if n in total}
  found |= metrics.to_host(means)
  found["ece"] = metrics.expected_calibration_error(total["calibration"])
  return {name: np.asarray(value) for name, value in found.items()}


def seed_results(scores: Scores, seeds: tuple[int, ...]) -> list[SeedResult]:
  """One `SeedResult` per seed."""
  return [
    SeedResult(
      seed,
      {n: float(v[i]) for n, v in scores.items() if n != "per_class"},
      [float(v) for v in scores["per_class"][i]],
    )
    for i, seed in enumerate(seeds)
  ]


def network_logits(network: Any) -> Callable[[Any, Array], Array]:
  """`((params, model_state), x) -> logits` of a network in evaluation mode."""

  def logits(variables, x):
    params, model_state = variables
    return network.apply(params, model_state, x, train=False)[0].logits

  return logits
