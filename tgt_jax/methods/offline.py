# SPDX-License-Identifier: Apache-2.0
"""Distillation from a teacher that stays as it is: SKD, PKD, PESF-KD.

Each is plain distillation with one more idea: what is compared (directions of
logits, inner layers), or a small adapter that lets the teacher lean towards
the student. Plain KD and DIST are `kd` with their distances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks, losses, metrics as metrics_lib, rng as rng_lib
from tgt_jax.methods.base import Aux, InitFn, LossFn, Recipe, weighted_mean
from tgt_jax.methods.guided import teacher_logits
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, Outputs, Params

_MATCHES = ("skip", "last")


class _Asked(NamedTuple):
  """What the terms of a loss are made of."""

  student: Outputs
  teacher: Any  # What was asked of it; constants.
  batch: Batch
  params: Params
  rng: Array


# Name of a term -> its weight and its values, [B].
_Terms = Callable[[_Asked], Mapping[str, tuple[float, Array]]]


def _outputs(parts: Parts, frozen: Params, batch: Batch) -> Outputs:
  """All that the teacher answers."""
  ask = parts.per_example(lambda arrays, x: parts.teacher.label(arrays, x))
  return jax.lax.stop_gradient(ask(frozen, batch["input"]))


def _lesson(
  parts: Parts,
  terms: _Terms,
  ask: Callable[[Parts, Params, Batch], Any] = _outputs,
) -> LossFn:
  """A weighted sum of terms on one batch."""

  def loss(params, model_state, frozen, batch, rng, step):
    del step
    outputs, state = parts.student.apply(
      params["student"],
      model_state["student"],
      batch["input"],
      train=True,
      rng=rng_lib.stream(rng, "dropout"),
    )
    said = ask(parts, frozen, batch)
    mask, total, metrics = batch.get("mask"), jnp.zeros(()), {}
    for name, (weight, values) in terms(
      _Asked(outputs, said, batch, params, rng)
    ).items():
      total += weight * weighted_mean(values, mask)
      metrics[f"loss/{name}"] = metrics_lib.mean(values, mask)
    metrics["train/accuracy"] = metrics_lib.right(
      outputs.logits, batch["label"], mask=mask
    )
    return total, Aux(metrics, {**model_state, "student": state})

  return loss


def _distance(parts: Parts, own: Array, said: Array, batch: Batch) -> Array:
  return losses.where_known(parts.distance, own, said, batch["label"])


def skd(parts: Parts, *, alpha: float = 0.9, norm: str = "l2") -> LossFn:
  """Spherical distillation: logits of one length (arXiv 2010.07485).

  Both sides become m z / |z|, m the mean length of the teacher's logits in the
  batch, for the distance and for the labels.

  Args:
    parts: see `Parts`; its distance has the temperature.
    alpha: share of the teacher in the loss; the rest is labels.
    norm: "l2", the length, or "std", the deviation from the mean over classes.
      Two centred logits always become (1, -1) or (-1, 1): "std" teaches
      nothing where there are two classes, and is refused there.
  """
  checks.in_range(0.0, 1.0, alpha=alpha)
  checks.one_of(("l2", "std"), norm=norm)

  def length(logits: Array) -> Array:
    squares = jnp.sum(jnp.square(logits), -1, keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, 1e-18))

  def centred(logits: Array) -> Array:
    if norm == "l2":
      return logits
    if logits.shape[-1] == 2:
      raise ValueError(
        "skd: norm 'std' teaches nothing with two classes; use norm 'l2'"
      )
    return logits - jnp.mean(logits, -1, keepdims=True)

  def terms(asked: _Asked) -> dict[str, tuple[float, Array]]:
    student, teacher = (
      centred(logits.astype(jnp.float32))
      for logits in (asked.student.logits, asked.teacher)
    )
    mean = weighted_mean(length(teacher)[:, 0], asked.batch.get("mask"))
    own = mean * student / length(student)
    said = mean * teacher / length(teacher)
    labels = parts.label_loss(own, asked.batch["label"])
    distilled = _distance(parts, own, said, asked.batch)
    return {"label": (1.0 - alpha, labels), "distill": (alpha, distilled)}

  return _lesson(parts, terms, teacher_logits)


def matched_layers(
  student: int, teacher: int, match: str = "skip"
) -> list[tuple[int, int]]:
  """Which layer learns from which, both counted from 1.

  The last layers are left to the logits. [deviation] A student of one layer
  has no other: its one is matched with the teacher's last.

  Args:
    student: number of its layers k.
    teacher: number of its layers N, at least k.
    match: "skip" spreads the teacher's layers evenly, i N / k; "last" takes
      those before the last, N - k + i.
  """
  checks.one_of(_MATCHES, match=match)
  if student > teacher:
    raise ValueError(
      f"pkd: the student has {student} layers and the teacher {teacher}; give"
      " the pairs by `layers`"
    )
  if student == 1:
    return [(1, teacher)]
  if match == "last":
    return [(i, teacher - student + i) for i in range(1, student)]
  return [(i, i * teacher // student) for i in range(1, student)]


def _layers(outputs: Outputs) -> list[Array]:
  """One vector per example and layer, [B, D].

  The first token of a text, the mean over the places of an image.
  """
  found = list(outputs.features)
  if found and found[0].ndim == 3:
    return [states[:, 0] for states in found[1:]]  # The first are embeddings.
  axes = lambda a: tuple(range(1, a.ndim - 1))
  return [jnp.mean(a, axis=axes(a)) if a.ndim > 2 else a for a in found]


def pkd(
  parts: Parts,
  *,
  weights: Mapping[str, float] | None = None,
  match: str = "skip",
  layers: Sequence[tuple[int, int]] = (),
  normalise: bool = True,
) -> Recipe:
  """Patient distillation: inner layers too (arXiv 1908.09355).

  Mean squared difference of matched layers' vectors; where their widths
  differ a linear map of the student's is learned with it. [deviation] The
  paper's student is as wide as its teacher.

  Args:
    parts: see `Parts`; `parts.teacher.label` must give features.
    weights: "label" (default 0.5), "distill" (0.5), "patience" (100.0).
    match: see `matched_layers`.
    layers: pairs of a student's and a teacher's layer instead, from 1.
    normalise: vectors to length one first.

  Raises:
    ValueError: an argument out of its range, no such layers, or one network
      has none.
  """
  known = {"label": 0.5, "distill": 0.5, "patience": 100.0}
  for name, value in (weights or {}).items():
    checks.one_of(known, weights=name)
    checks.non_negative(**{name: value})
  known |= weights or {}
  checks.one_of(_MATCHES, match=match)
  if any(len(one) != 2 for one in layers):
    raise ValueError(
      "layers: expected pairs of a student's and a teacher's layer, such as"
      f" ((1, 2),), got {tuple(layers)}"
    )

  def pairs(student: list[Any], teacher: list[Any]) -> list[tuple[int, int]]:
    if not student or not teacher:
      raise ValueError("pkd: student and teacher must give features")
    found = list(layers) or matched_layers(len(student), len(teacher), match)
    for own, other in found:
      checks.in_range(1, len(student), layers=own)
      checks.in_range(1, len(teacher), layers=other)
    return [(own - 1, other - 1) for own, other in found]

  def unit(vectors: Array) -> Array:
    vectors = vectors.astype(jnp.float32)
    if not normalise:
      return vectors
    squares = jnp.sum(jnp.square(vectors), -1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squares, 1e-18))

  def terms(asked: _Asked) -> dict[str, tuple[float, Array]]:
    student, teacher = _layers(asked.student), _layers(asked.teacher)
    gaps = []
    for own, other in pairs(student, teacher):
      mine = student[own].astype(jnp.float32)
      if _pair(own, other) in asked.params["projection"]:
        mine = mine @ asked.params["projection"][_pair(own, other)]
      gap = unit(mine) - unit(teacher[other])
      gaps.append(jnp.mean(jnp.square(gap), axis=-1))
    logits = asked.student.logits
    return {
      "label": (known["label"], parts.label_loss(logits, asked.batch["label"])),
      "distill": (
        known["distill"],
        _distance(parts, logits, asked.teacher.logits, asked.batch),
      ),
      "patience": (known["patience"], jnp.mean(jnp.stack(gaps), axis=0)),
    }

  return Recipe(
    _lesson(parts, terms), {"projection": _projection(parts, pairs)}
  )


def _pair(own: int, other: int) -> str:
  return f"layer{own}-{other}"


def _projection(parts: Parts, pairs: Callable) -> InitFn:
  """A linear map for each pair of layers whose widths differ."""

  def init(rng: Array, batch: Batch) -> tuple[Params, Any]:
    student, teacher = _shapes(parts, batch)
    found = {}
    for own, other in pairs(student, teacher):
      widths = student[own].shape[-1], teacher[other].shape[-1]
      if widths[0] != widths[1]:
        key = jax.random.fold_in(jax.random.fold_in(rng, own), other)
        scale = widths[0] ** -0.5
        found[_pair(own, other)] = scale * jax.random.normal(key, widths)
    return found, {}

  return init


def _shapes(parts: Parts, batch: Batch) -> tuple[list[Any], list[Any]]:
  """Shapes of both networks' layers, nothing computed."""
  if parts.labeler is None:
    raise ValueError(
      "pkd: an ensemble has no layers, and neither has a probe of embeddings:"
      " set num_labelers to 1 and labeler_reads to 'input'"
    )
  key = jax.random.key(0)

  def layers(network: Any) -> list[Any]:
    def run(x: Array) -> list[Array]:
      params, state = network.init(key, x)
      return _layers(network.apply(params, state, x)[0])

    return jax.eval_shape(run, batch["input"])

  return layers(parts.student), layers(parts.labeler)


def pesf_kd(parts: Parts, *, alpha: float = 0.7, width: int = 64) -> Recipe:
  """A teacher that leans towards its student by an adapter (2205.15308).

  A(h) = W1 h + W3 relu(W2 h) of the teacher's embedding h is added to its
  logits. Student and adapter descend one loss: alpha times the distance, in
  both, and (1 - alpha) times both sides' labels. The teacher's body is no
  participant, so it stays as it is to the bit.

  [deviation] The released text code compares softened probabilities by their
  squared difference, and inner layers as PKD does; here there is
  `config.distance` alone. Its adapter has dropout 0.1, ours none.

  Args:
    parts: see `Parts`.
    alpha: share of the distance.
    width: of the adapter's hidden layer.
  """
  checks.in_range(0.0, 1.0, alpha=alpha)
  checks.positive(width=width)
  checks.integer(width=width)

  def terms(asked: _Asked) -> dict[str, tuple[float, Array]]:
    arrays = asked.params["adapter"]
    inside = asked.teacher.embedding.astype(jnp.float32)
    hidden = jax.nn.relu(inside @ arrays["W2"])
    said = asked.teacher.logits.astype(jnp.float32)
    said = said + inside @ arrays["W1"] + hidden @ arrays["W3"]
    own, labels = asked.student.logits, asked.batch["label"]
    return {
      "label": (1.0 - alpha, parts.label_loss(own, labels)),
      "adapter": (1.0 - alpha, parts.label_loss(said, labels)),
      "distill": (alpha, _distance(parts, own, said, asked.batch)),
    }

  return Recipe(_lesson(parts, terms), {"adapter": _adapter(parts, width)})


def _adapter(parts: Parts, width: int) -> InitFn:
  """Zero where it meets the logits: it begins as the teacher is."""

  def init(rng: Array, batch: Batch) -> tuple[Params, Any]:
    if parts.labeler is None:
      raise ValueError(
        "pesf_kd adapts one network that reads inputs: set num_labelers to 1"
        " and labeler_reads to 'input'"
      )
    network = parts.labeler

    def run(x: Array) -> Outputs:
      params, state = network.init(jax.random.key(0), x)
      return network.apply(params, state, x)[0]

    shapes = jax.eval_shape(run, batch["input"])
    inside, classes = shapes.embedding.shape[-1], shapes.logits.shape[-1]
    drawn = jax.random.normal(rng, (inside, width)) * inside**-0.5
    zeros = jnp.zeros
    return {
      "W1": zeros((inside, classes)),
      "W2": drawn,
      "W3": zeros((width, classes)),
    }, {}

  return init
