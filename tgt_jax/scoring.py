# SPDX-License-Identifier: Apache-2.0
"""Scores of classifiers on a whole split.

Every example counts once: the last batch is padded and masked. Everything is
derived from sums over the split, the confusion matrix above all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import metrics, training
from tgt_jax.measures import defined
from tgt_jax.results import SeedResult
from tgt_jax.types import Array, Batch, Network

Scores = dict[str, np.ndarray]
Logits = Callable[[Any, Array], Array]


def _sums(logits: Array, batch: Batch) -> dict[str, Any]:
  labels, mask = metrics.nearest(batch["label"]), batch["mask"]
  sums = {
    "confusion": metrics.confusion_matrix(
      labels, metrics.predictions(logits), logits.shape[-1], mask=mask
    ),
    "nll": metrics.negative_log_likelihood(logits, labels, mask=mask),
    "calibration": metrics.calibration_bins(logits, labels, mask=mask),
  }
  if logits.shape[-1] > 10:
    sums["top5"] = metrics.top_k_accuracy(logits, labels, k=5, mask=mask)
  if "teacher_logits" in batch:
    sums["agreement"] = metrics.agreement(
      logits, batch["teacher_logits"], mask=mask
    )
  return sums


def _batch_sums(variables: Any, batch: Batch, *, logits: Logits) -> Any:
  """Sums of one batch for every seed."""
  one = lambda v: _sums(logits(v, batch["input"]), batch)
  if jax.tree.leaves(variables)[0].shape[0] > 1:
    return jax.vmap(one)(variables)
  result = one(jax.tree.map(lambda a: a[0], variables))
  return jax.tree.map(lambda a: a[None], result)


def score(
  variables: Any,
  batches: Iterable[Batch],
  *,
  logits: Logits,
  class_counts: np.ndarray,
  groups: tuple[float, float],
  jit: Callable[..., Callable] = jax.jit,
) -> Scores:
  """Scores several sets of parameters on one split.

  Args:
    variables: tree with leaves [S, ...].
    batches: of the whole split on the devices, with "mask"; with
      "teacher_logits" agreement is scored too.
    logits: `(variables of one seed, x) -> [B, K]`; the same function for the
      same network, so that it is compiled once.
    class_counts: training examples per class, [K], for many / medium / few.
    groups: thresholds, see `longtail.many_medium_few`.
    jit: compiles, with the options of `jax.jit`.

  Returns:
    Metrics by their names in results.json, each [S], and "per_class" [S, K].
    "top5" is among them where K > 10.
  """
  total, batch_sums = None, jit(_batch_sums, static_argnames="logits")
  for batch in batches:
    new = batch_sums(variables, batch, logits=logits)
    total = new if total is None else jax.tree.map(jnp.add, total, new)
  return _summary(jax.device_get(total), class_counts, groups)


def score_answers(
  logits: np.ndarray,
  teacher_logits: np.ndarray,
  labels: np.ndarray,
  *,
  targets: np.ndarray | None = None,
  class_counts: np.ndarray,
  groups: tuple[float, float],
) -> Scores:
  """Scores what was said of a whole split, without asking again.

  Args:
    logits: [N, K].
    teacher_logits: [N, K], for the agreement.
    labels: [N].
    targets: grades [N] or tags [N, K]; see `data.Source`.
    class_counts: training examples per class, [K].
    groups: thresholds, see `longtail.many_medium_few`.

  Returns:
    As `score`, of one seed.
  """
  if targets is not None and targets.ndim == 2:
    return score_tags(logits[None], targets)
  batch = {
    "label": labels,
    "mask": np.ones(len(labels), np.float32),
    "teacher_logits": teacher_logits,
  }
  total = jax.device_get(training.jit_once(_sums)(logits, batch))
  total = jax.tree.map(lambda a: np.asarray(a)[None], total)
  found = _summary(total, class_counts, groups)
  if targets is not None:
    predicted = metrics.expected_grade(jnp.asarray(logits))
    found |= score_grades(np.asarray(predicted)[None], targets)
  return found


def score_grades(predicted: np.ndarray, grades: np.ndarray) -> Scores:
  """Correlations of predicted grades [S, N] with true ones [N], each [S]."""
  each = [metrics.correlations(one, grades) for one in predicted]
  return {
    name: np.array([found[name] for found in each])
    for name in ("pearson", "spearman")
  }


def score_tags(logits: np.ndarray, tags: np.ndarray) -> Scores:
  """Scores where classes do not exclude each other.

  Args:
    logits: [S, N, K].
    tags: [N, K], in [0, 1] or -1 where nobody knows.

  Returns:
    "map", "roc_auc" and "macro_f1", each [S], NaN where a known tag's logit is;
    and as "per_class" the average precision of each class, [S, K].
  """
  # A class without both answers has no value; a network without one has none.
  broken = np.isnan(logits[:, tags >= 0]).any(axis=1)
  found = [
    {
      "per_class": metrics.average_precision(one, tags),
      "roc_auc": metrics.macro_mean(metrics.roc_auc(one, tags)),
      "macro_f1": metrics.macro_f1(1 / (1 + np.exp(-np.float64(one))), tags),
    }
    for one in logits
  ]
  for one, nothing in zip(found, broken, strict=True):
    one["map"] = metrics.macro_mean(one["per_class"])
    if nothing:
      one["map"] = one["roc_auc"] = np.nan
  return {name: np.array([one[name] for one in found]) for name in found[0]}


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
  means = {n: total[n] for n in ("nll", "top5", "agreement") if n in total}
  found |= metrics.to_host(means)
  found["ece"] = metrics.expected_calibration_error(total["calibration"])
  return {name: np.asarray(value) for name, value in found.items()}


def seed_results(scores: Scores, seeds: tuple[int, ...]) -> list[SeedResult]:
  """One `SeedResult` per seed; `None` for what is not defined."""
  return [
    SeedResult(
      seed,
      {n: defined(v[i]) for n, v in scores.items() if n != "per_class"},
      [defined(v) for v in scores["per_class"][i]],
    )
    for i, seed in enumerate(seeds)
  ]


@functools.cache
def network_logits(network: Network) -> Callable[[Any, Array], Array]:
  """`((params, model_state), x) -> logits` of a network in evaluation mode."""

  def logits(variables, x):
    params, model_state = variables
    return network.apply(params, model_state, x, train=False)[0].logits

  return logits
