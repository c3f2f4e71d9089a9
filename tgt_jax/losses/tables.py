# SPDX-License-Identifier: Apache-2.0
"""The losses by name, as factories with one form per table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tgt_jax import longtail
from tgt_jax.losses import (
  contrastive,
  distances,
  embedding,
  geometry,
  labels,
  maps,
  relations,
  tags as tag_losses,
)
from tgt_jax.losses.transforms import Distance, standardised, with_priors
from tgt_jax.types import Array

LabelLoss = Callable[[Array, Array], Array]

# Arguments of one call, which a config cannot know.
_PER_CALL = ("axis", "where", "labels")


def _signature(factory: Callable, function: Callable) -> inspect.Signature:
  """The factory's own arguments and the hyper-parameters of `function`."""
  own = [
    p
    for p in inspect.signature(factory).parameters.values()
    if p.kind is not p.VAR_KEYWORD
  ]
  hyper = [
    p
    for p in inspect.signature(function).parameters.values()
    if p.kind is p.KEYWORD_ONLY
    and p.name not in (*_PER_CALL, *(q.name for q in own))
  ]
  return inspect.Signature(own + hyper)


def _name(function: Callable) -> str:
  return getattr(function, "__name__", repr(function))


def distance_factory(function: Distance) -> Callable[..., Distance]:
  """Turns a distance into a factory as in `DISTANCES`.

  Args:
    function: `(student_logits, teacher_logits, *, ...) -> [B]` that can be
      called without its per-call arguments (`axis`, `where`, `labels`).

  Returns:
    `factory(*, class_counts=None, priors=False, teacher_priors=None,
    standardise=False, **hyper) -> distance(student_logits, teacher_logits)`.
  """

  def factory(
    *,
    class_counts: Any = None,
    priors: bool = False,
    teacher_priors: bool | None = None,
    standardise: bool = False,
    **hyper: Any,
  ) -> Distance:
    teacher_priors = priors if teacher_priors is None else teacher_priors
    if (priors or teacher_priors) and class_counts is None:
      raise ValueError(
        f"{_name(function)} with priors needs class_counts, the numbers of"
        " training examples per class; got None"
      )
    distance: Distance = functools.partial(function, **hyper)
    if standardise:
      distance = standardised(distance)
    if priors or teacher_priors:
      log_prior = longtail.log_prior(class_counts)
      distance = with_priors(
        distance,
        student_log_prior=log_prior if priors else None,
        teacher_log_prior=log_prior if teacher_priors else None,
      )
    # A bad hyper-parameter fails here and not in the first training step.
    logits = _example(class_counts)
    jax.eval_shape(distance, logits, logits)
    return distance

  factory.__name__ = factory.__qualname__ = _name(function)
  factory.__doc__ = function.__doc__
  factory.__signature__ = _signature(factory, function)  # type: ignore[attr-defined]
  return factory


def label_loss_factory(
  function: Callable[..., Array], *, tags: bool = False
) -> Callable:
  """Turns a loss against labels into a factory as in `LABEL_LOSSES`.

  Args:
    function: `(logits, labels, *, ...) -> [B]`. If it takes `class_counts`,
      the factory requires them.
    tags: whether labels are floats [B, K], one for each class, instead of
      integers [B].

  Returns:
    `factory(*, class_counts=None, **hyper) -> loss(logits, labels)`.
  """
  needs_counts = "class_counts" in inspect.signature(function).parameters

  def factory(*, class_counts: Any = None, **hyper: Any) -> LabelLoss:
    if needs_counts:
      if class_counts is None:
        raise ValueError(
          f"{_name(function)} needs class_counts, the numbers of training"
          " examples per class; got None"
        )
      hyper["class_counts"] = np.asarray(class_counts)
    loss = functools.partial(function, **hyper)
    logits = _example(class_counts)
    classes = jax.ShapeDtypeStruct((2,), np.int32)
    jax.eval_shape(loss, logits, logits if tags else classes)
    return loss

  factory.__name__ = factory.__qualname__ = _name(function)
  factory.__doc__ = function.__doc__
  factory.__signature__ = _signature(factory, function)  # type: ignore[attr-defined]
  return factory


def embedding_distance_factory(function: Distance) -> Callable[..., Distance]:
  """Turns a distance of embeddings into a factory as in `EMBEDDING_DISTANCES`.

  Args:
    function: `(student, teacher, *, where=None, ...) -> [B]` of embeddings
      [B, D].

  Returns:
    `factory(**hyper) -> distance(student, teacher, *, where=None)`.
  """

  def factory(**hyper: Any) -> Distance:
    distance = functools.partial(function, **hyper)
    example = jax.ShapeDtypeStruct((4, 3), np.float32)
    jax.eval_shape(distance, example, example)
    return distance

  factory.__name__ = factory.__qualname__ = _name(function)
  factory.__doc__ = function.__doc__
  factory.__signature__ = _signature(factory, function)  # type: ignore[attr-defined]
  return factory


def _example(class_counts: Any) -> jax.ShapeDtypeStruct:
  """The shape of two examples' logits."""
  num_classes = 3 if class_counts is None else len(class_counts)
  return jax.ShapeDtypeStruct((2, num_classes), np.float32)


DISTANCES: dict[str, Callable[..., Distance]] = {
  "soft_cross_entropy": distance_factory(distances.soft_cross_entropy),
  "kl_divergence": distance_factory(distances.kl_divergence),
  "reverse_kl": distance_factory(distances.reverse_kl),
  "jensen_shannon": distance_factory(distances.jensen_shannon),
  "logit_mse": distance_factory(distances.logit_mse),
  "decoupled_kd": distance_factory(distances.decoupled_kd),
  "dist": distance_factory(relations.dist),
  "bernoulli_kl": distance_factory(tag_losses.bernoulli_kl),
}

LABEL_LOSSES: dict[str, Callable[..., LabelLoss]] = {
  "cross_entropy": label_loss_factory(labels.cross_entropy),
  "graded_cross_entropy": label_loss_factory(labels.graded_cross_entropy),
  "balanced_softmax": label_loss_factory(labels.balanced_softmax),
  "logit_adjustment": label_loss_factory(labels.logit_adjustment),
  "ldam": label_loss_factory(labels.ldam),
  "class_weighted": label_loss_factory(labels.class_weighted),
  "binary_cross_entropy": label_loss_factory(
    tag_losses.binary_cross_entropy, tags=True
  ),
}

_embedding = embedding_distance_factory
EMBEDDING_DISTANCES: dict[str, Callable[..., Distance]] = {
  "embedding_mse": _embedding(embedding.embedding_mse),
  "cosine": _embedding(embedding.cosine),
  "cosine_difference": _embedding(embedding.cosine_difference),
  "distance_correlation": _embedding(embedding.distance_correlation),
  "unbiased_distance_correlation": _embedding(
    embedding.unbiased_distance_correlation
  ),
  "cka": _embedding(embedding.cka),
  "relational": _embedding(geometry.relational),
  "similarity_preserving": _embedding(geometry.similarity_preserving),
  "probabilistic_transfer": _embedding(geometry.probabilistic_transfer),
  "correlation_congruence": _embedding(geometry.correlation_congruence),
  "in_batch_contrastive": _embedding(contrastive.in_batch_contrastive),
  "factor_transfer": _embedding(maps.factor_transfer),
}
