# SPDX-License-Identifier: Apache-2.0
"""Teaching by embeddings, compressed for the task (arXiv 2402.06761).

A teacher's embedding e knows much that the task does not need. A compressor T
makes a narrow one of it, z = T(e), and learns from the task's labels through a
classifier c of its own, while the student's embedding learns to be like z:

  student:     (1 - weight) l(f(x), y) + weight D(s(x), stop_gradient(z))
  compressor:  l(c(z), y)

Neither hears of the other's loss, so that one optimiser step serves both, and
z cannot become small or constant to please D. Without a compressor z = e,
which is EAsT (arXiv 2306.17424).

D asks for no labels: where a batch has start points of its own
(`config.starts.source`), D is taken on them, and the labels' losses on the
batch.

[deviation] Of the compression paper only the outline is known to us (a
trainable transformation of the teacher's embedding, a loss of its own, a
distance): widths, weights and layers are a reconstruction. EAsT is known in
full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import (
  checks,
  losses,
  metrics as metrics_lib,
  models,
  rng as rng_lib,
)
from tgt_jax.methods import likeness as likeness_lib
from tgt_jax.methods.base import (
  Aux,
  InitFn,
  LossFn,
  Recipe,
  deinterleave,
  interleave,
  weighted_mean,
)
from tgt_jax.methods.guided import teacher_logits
from tgt_jax.methods.likeness import Likeness
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array, Batch, ModelState, Network, Outputs, Params

# Parameters, model states, what the student says, the other side, the batch
# and a key; to values and the model states that changed.
_Compare = Callable[..., tuple[Array, Mapping[str, ModelState]]]
_LIKENESSES = ("distance", "variance", "memory")

_OBJECTIVES = ("labels", "reconstruction", "none")


class _Compact(NamedTuple):
  """What the compressor makes of a batch.

  Attributes:
    frames: z, [B, T, 1, d].
    logits: c(z), [B, K]; None without a compressor.
    state: the compressor's new model state.
  """

  frames: Array
  logits: Array | None
  state: ModelState


def compress(
  parts: Parts,
  *,
  weight: float = 0.8,
  objective: str = "labels",
  stop_gradient: bool = True,
  distill: float = 0.0,
  feature: int | None = None,
  student_repeat: int = 1,
  teacher_repeat: int = 1,
  projector: bool = False,
  likeness: str = "distance",
  negatives: int = 1024,
  num_examples: int = 0,
) -> Recipe:
  """Labels, and likeness to the teacher's (compact) embedding.

  The distance is `config.embedding_distance`, the compressor
  `config.compressor`; without one the embedding stays as it is.

  Args:
    parts: see `Parts`.
    weight: lambda of the distance, in [0, 1]; EAsT's own are 0.6 to 0.9.
    objective: what the compressor learns from: "labels"; "reconstruction" of
      the embedding by a linear decoder (an autoencoder); "none".
    stop_gradient: whether the distance leaves the compressor alone. Without,
      both sides move towards each other, and may meet in a constant. With it
      and objective "none" the compressor stays as `config.compressor_start`
      has it: trained before the student (two stages) where that is an arm.
    distill: share of distillation on logits in the distance's weight: EAsT-KD
      has 0.3.
    feature: which of the student's features is compared; None: its embedding.
      One with frames, [B, H, T, C], is compared frame by frame, where the
      teacher's embedding has frames too.
    student_repeat: how often each frame of the student's side is repeated, so
      that both sides have frames of one length; a tenth may be cut off the
      longer one's end. Of one frame that is not repeated the other side's mean
      is taken.
    teacher_repeat: the same of the teacher's side.
    projector: a linear map of the student's side to the width of the other,
      learned with it; distances that do not compare coordinates do without.
    likeness: "distance"; "variance", VID, or "memory", CRD, in its place.
    negatives: of CRD, per example.
    num_examples: training examples, which CRD remembers.

  Raises:
    ValueError: an argument out of its range, or a compressor and an objective
      that do not go together.
  """
  checks.in_range(0.0, 1.0, weight=weight, distill=distill)
  checks.positive(student_repeat=student_repeat, teacher_repeat=teacher_repeat)
  _check(parts, objective, stop_gradient)
  repeat = student_repeat, teacher_repeat
  like = _likeness(parts, likeness, projector, repeat, negatives, num_examples)
  compare = _comparison(like, feature)
  recipe_loss = _loss(parts, compare, weight, distill, objective, stop_gradient)
  stays = _stays(parts, objective, stop_gradient)
  return Recipe(
    recipe_loss,
    _others(parts, objective, feature, like),
    untaught=() if objective == "labels" else ("compressor",),
    still=("compressor",) if stays else (),
  )


def _stays(parts: Parts, objective: str, stop_gradient: bool) -> bool:
  """Whether there is a compressor that learns from nothing."""
  return parts.compressor is not None and objective == "none" and stop_gradient


def _check(parts: Parts, objective: str, stop_gradient: bool) -> None:
  """Raises `ValueError` where there is nothing to compress, or to compare."""
  checks.one_of(_OBJECTIVES, objective=objective)
  if parts.compressor is None and (objective != "none" or not stop_gradient):
    raise ValueError(
      "compress: without a compressor nothing is compressed: name one in"
      " config.compressor, or set objective 'none' and stop_gradient True"
    )
  if not parts.embedding_shape:
    raise ValueError(
      "compress: the teacher has no embedding: set config.embedding_shape, and"
      " config.encoder where the data bring none along"
    )


def _loss(
  parts: Parts,
  compare: _Compare,
  weight: float,
  distill: float,
  objective: str,
  stop_gradient: bool,
) -> LossFn:
  """The loss of the module docstring; see `compress`."""
  held = jax.lax.stop_gradient if stop_gradient else lambda a: a
  learns = not _stays(parts, objective, stop_gradient)

  def loss(params, model_state, frozen, batch, rng, step):
    del step
    labels, points = batch["label"], batch.get("starts")
    pair = lambda pick: (pick(batch), None if points is None else pick(points))
    outputs, state = parts.student.apply(
      params["student"],
      model_state["student"],
      _joined(*pair(lambda some: some["input"])),
      train=True,
      rng=rng_lib.stream(rng, "dropout"),
    )
    embedding = _joined(*pair(lambda some: _embedding(parts, frozen, some)))
    compact = _compact(parts, params, model_state, embedding, rng, learns)
    changed = {"student": state}
    if parts.compressor is not None:
      changed["compressor"] = compact.state
    # What has labels, and what is compared: the same without start points.
    parted = lambda tree: _parted(tree, len(labels), points is not None)
    (named, outputs), (known, compact) = (
      parted(outputs),
      parted(compact._replace(state={})),
    )
    compared = batch if points is None else points
    mask, other = batch.get("mask"), compared.get("mask")
    told = outputs, held(compact.frames), compared
    alike, moved = compare(params, model_state, *told, rng)
    terms = {
      "label": (1.0 - weight, parts.label_loss(named.logits, labels), mask),
      "embedding": (weight * (1.0 - distill), alike, other),
    }
    if distill:
      said = teacher_logits(parts, frozen, compared)
      tags = labels if points is None else None
      values = losses.where_known(parts.distance, outputs.logits, said, tags)
      terms["distill"] = (weight * distill, values, other)
    if objective == "labels":
      terms["compressor"] = (1.0, parts.label_loss(known.logits, labels), mask)
    if objective == "reconstruction":
      wanted = parted(embedding)[1]
      values = _reconstruction(params["decoder"], compact.frames, wanted)
      terms["compressor"] = (1.0, values, other)
    total, metrics = _summed(terms)
    metrics["train/accuracy"] = metrics_lib.right(
      named.logits, labels, mask=mask
    )
    return total, Aux(metrics, {**model_state, **changed, **moved})

  return loss


def _summed(
  terms: Mapping[str, tuple[float, Array, Array | None]],
) -> tuple[Array, dict[str, Any]]:
  """The loss and its metrics: weights, values [B], and which of them count."""
  total, metrics = jnp.zeros(()), {}
  for name, (factor, values, counted) in terms.items():
    total += factor * weighted_mean(values, counted)
    metrics[f"loss/{name}"] = metrics_lib.mean(values, counted)
  return total, metrics


def _joined(first: Array, second: Array | None) -> Array:
  """Two batches as one, or the first alone."""
  return first if second is None else interleave(first, second)


def _parted(tree: Any, size: int, apart: bool) -> tuple[Any, Any]:
  """What `_joined` put together; twice the same where nothing was."""
  if not apart:
    return tree, tree
  halves = [deinterleave(leaf, size) for leaf in jax.tree.leaves(tree)]
  shape = jax.tree.structure(tree)
  first, second = ([half[i] for half in halves] for i in (0, 1))
  return jax.tree.unflatten(shape, first), jax.tree.unflatten(shape, second)


def _reconstruction(decoder: Params, frames: Array, embedding: Array) -> Array:
  """Mean squared error of a linear decoder, [B]."""
  made = frames @ decoder["kernel"]
  made += jnp.broadcast_to(decoder["bias"], made.shape)
  return jnp.mean(jnp.square(made - embedding), axis=(1, 2, 3))


def _embedding(parts: Parts, frozen: Params, batch: Batch) -> Array:
  """The teacher's, from the cache where the batch carries it, [B, T, 1, D]."""
  if "embedding" in batch:
    return batch["embedding"]
  embed = parts.per_example(lambda arrays, x: parts.teacher.embed(arrays, x))
  return jax.lax.stop_gradient(embed(frozen, batch["input"]))


def _compact(
  parts: Parts,
  params: Params,
  model_state: ModelState,
  embedding: Array,
  rng: Array,
  learns: bool,
) -> _Compact:
  if parts.compressor is None:
    return _Compact(embedding, None, {})
  outputs, state = parts.compressor.apply(
    params["compressor"],
    model_state["compressor"],
    embedding,
    train=learns,
    rng=rng_lib.stream(rng, "compressor"),
  )
  return _Compact(_frames_of(outputs), outputs.logits, state)


def _frames_of(outputs: Outputs) -> Array:
  """Frames of what a compressor made, [B, T, 1, d]; its embedding is one."""
  if outputs.features and outputs.features[-1].ndim == 4:
    return outputs.features[-1]
  return outputs.embedding[:, None, None, :]


def _own(outputs: Outputs, feature: int | None) -> Array:
  """The student's side, frames [B, T, C]; one where it has no time."""
  if feature is None:
    return outputs.embedding[:, None]
  count = len(outputs.features)
  checks.in_range(-count, count - 1, feature=feature)
  found = outputs.features[feature]
  if found.ndim == 4:
    return models.frames(found)
  return found if found.ndim == 3 else found[:, None]


def _comparison(likeness: Likeness, feature: int | None) -> _Compare:
  """The likeness of a student's feature and the other side."""

  def compare(params, model_state, outputs, target, batch, rng):
    own = _own(outputs, feature).astype(jnp.float32)
    other = jnp.mean(target, axis=2)
    return likeness.compare(params, model_state, own, other, batch, rng)

  return compare


def _likeness(
  parts: Parts,
  by: str,
  projector: bool,
  repeat: tuple[int, int],
  negatives: int,
  num_examples: int,
) -> Likeness:
  """How both sides are compared.

  Raises:
    ValueError: another name, or there is no distance.
  """
  checks.one_of(_LIKENESSES, likeness=by)
  if projector and by != "distance":
    raise ValueError(
      f"compress: likeness {by!r} maps the student's side by itself: set"
      " projector to False"
    )
  if by == "memory":
    if repeat != (1, 1):
      raise ValueError(
        "compress: likeness 'memory' compares means over frames: set"
        " student_repeat and teacher_repeat to 1"
      )
    return likeness_lib.by_memory(num_examples, negatives=negatives)
  if by == "variance":
    return likeness_lib.by_variance(repeat=repeat)
  if parts.embedding_distance is None:
    raise ValueError("compress: name a distance in config.embedding_distance")
  return likeness_lib.by_distance(
    parts.embedding_distance, projector=projector, repeat=repeat
  )


def _others(
  parts: Parts, objective: str, feature: int | None, likeness: Likeness
) -> dict[str, InitFn]:
  """Who learns beside the student."""
  zeros = jnp.zeros((1, *parts.embedding_shape))
  found: dict[str, InitFn] = {}
  compressor = parts.compressor
  if compressor is not None:
    found["compressor"] = lambda rng, batch: compressor.init(rng, zeros)

  def width() -> int:
    if compressor is None:
      return parts.embedding_shape[-1]
    return _shape(compressor, zeros, _frames_of)[-1]

  if objective == "reconstruction":

    def decoder(rng: Array, batch: Batch) -> tuple[Params, Any]:
      del batch
      shape = width(), parts.embedding_shape[-1]
      bias = jnp.zeros(shape[1:])
      return {"kernel": likeness_lib.kernel(rng, shape), "bias": bias}, {}

    found["decoder"] = decoder

  def adapted(init: likeness_lib.Init) -> InitFn:
    def begin(rng: Array, batch: Batch) -> tuple[Params, Any]:
      own = _shape(parts.student, batch["input"], lambda o: _own(o, feature))
      return init(rng, (own[-1], width()))

    return begin

  for name, init in likeness.others.items():
    found[name] = adapted(init)
  return found


def _shape(
  network: Network, x: Array, pick: Callable[[Outputs], Array]
) -> tuple[int, ...]:
  """Shape of something that a network gives, nothing computed."""

  def run(x: Array) -> Array:
    params, state = network.init(jax.random.key(0), x)
    return pick(network.apply(params, state, x)[0])

  shape: tuple[int, ...] = jax.eval_shape(run, x).shape
  return shape
