# SPDX-License-Identifier: Apache-2.0
"""How a student's embedding is compared with its teacher's.

By a distance; by how well it predicts the other, with a learned variance (VID);
or by whether it is told apart from those of other examples, which a memory
keeps (CRD). Both sides are frames, [B, Ts, Cs] and [B, Tt, Ct].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks, losses, rng as rng_lib
from tgt_jax.types import Array, Batch, ModelState, Params

# `(rng, (Cs, Ct)) -> (params, model_state)`.
Init = Callable[[Array, tuple[int, int]], tuple[Params, ModelState]]

_MEMORY_WIDTH = 128  # As CRD has it.
_FIRST_VARIANCE = 5.0  # As VID has it.


class Likeness(NamedTuple):
  """A comparison and what it learns.

  Attributes:
    compare: `(params, model_state, student, teacher, batch, rng) -> (values
      [B], model states that changed)`, both sides [B, T, C]; `params` and
      `model_state` are keyed by participant.
    others: what it learns, by participant.
  """

  compare: Callable[..., tuple[Array, Mapping[str, ModelState]]]
  others: Mapping[str, Init]


def kernel(rng: Array, shape: tuple[int, int]) -> Array:
  """A linear map's first values, of variance 1 / inputs."""
  return shape[0] ** -0.5 * jax.random.normal(rng, shape)


def _aligned(
  student: Array, teacher: Array, repeat: tuple[int, int]
) -> tuple[Array, Array]:
  """Both sides with one number of frames; the mean where one has no frames.

  Raises:
    ValueError: frames that are not of the same time.
  """
  frames = student.shape[1], teacher.shape[1]
  long = [count * times for count, times in zip(frames, repeat, strict=True)]
  if 1 in long and max(repeat) == 1:
    return losses.align(student, teacher, student_repeat=-1, teacher_repeat=-1)
  if min(long) < 0.9 * max(long):
    raise ValueError(
      f"compress: the student has {frames[0]} frames, {repeat[0]} times each,"
      f" and the teacher {frames[1]}, {repeat[1]} times: {long[0]} and {long[1]}"
      " are not of the same time. Set method.student_repeat or"
      " method.teacher_repeat so that they are within a tenth"
    )
  return losses.align(
    student,
    teacher,
    student_repeat=repeat[0],
    teacher_repeat=repeat[1],
  )


def _counted(batch: Batch) -> Array | None:
  mask = batch.get("mask")
  return None if mask is None else mask > 0


def by_distance(
  distance: Callable[..., Array],
  *,
  projector: bool = False,
  repeat: tuple[int, int] = (1, 1),
) -> Likeness:
  """A distance of EMBEDDING_DISTANCES, frame by frame.

  Args:
    distance: `(student [B, Cs], teacher [B, Ct], *, where) -> [B]`.
    projector: a learned linear map of the student's side to Ct.
    repeat: how often each frame of the student's and the teacher's side is
      repeated.
  """

  def compare(params, model_state, student, teacher, batch, rng):
    del model_state, rng
    if projector:
      student = student @ params["projector"]["kernel"]
    pair = _aligned(student, teacher, repeat)
    widths = student.shape[-1], teacher.shape[-1]
    try:
      return losses.over_frames(distance)(*pair, where=_counted(batch)), {}
    except ValueError as error:
      if widths[0] == widths[1]:
        raise
      raise ValueError(
        f"compress: the student's side has {widths[0]} numbers, the other"
        f" {widths[1]}, and the distance compares them one by one: set"
        " method.projector to True, or choose one that does not"
      ) from error

  def init(rng: Array, widths: tuple[int, int]) -> tuple[Params, ModelState]:
    return {"kernel": kernel(rng, widths)}, {}

  return Likeness(compare, {"projector": init} if projector else {})


def by_variance(*, repeat: tuple[int, int] = (1, 1)) -> Likeness:
  """VID: a linear map of the student predicts the teacher (1904.05835).

  [deviation] One linear map where the paper has three layers of convolutions:
  embeddings have no places.

  Args:
    repeat: see `by_distance`.
  """

  def compare(params, model_state, student, teacher, batch, rng):
    del model_state, rng
    learned = params["projector"]
    pair = _aligned(student @ learned["kernel"], teacher, repeat)
    variance = jax.nn.softplus(learned["spread"]) + 1e-5
    values = losses.variational_information(
      *pair, variance, where=_counted(batch)
    )
    return values, {}

  def init(rng: Array, widths: tuple[int, int]) -> tuple[Params, ModelState]:
    first = np.log(np.expm1(_FIRST_VARIANCE - 1e-5))
    spread = jnp.full((widths[1],), first, jnp.float32)
    return {"kernel": kernel(rng, widths), "spread": spread}, {}

  return Likeness(compare, {"projector": init})


def by_memory(
  num_examples: int, *, negatives: int, temperature: float = 0.07
) -> Likeness:
  """CRD: told apart from remembered examples (1910.10699).

  Both sides pass a linear map to 128 numbers that learns with the student. The
  negatives are drawn from all training examples.

  [deviation] The paper draws them from other classes, which takes labels.

  Args:
    num_examples: training examples, whose numbers are a batch's "id".
    negatives: remembered examples per example, published are 16 384.
    temperature: of the contrast.
  """
  checks.positive(negatives=negatives)
  if num_examples < 1:
    raise ValueError(
      "likeness 'memory' remembers every labelled training example: it goes"
      " neither with tags nor with start points of their own"
    )

  def compare(params, model_state, student, teacher, batch, rng):
    learned, ids = params["memory"], batch["id"]
    own = jnp.mean(student, axis=1) @ learned["student"]
    other = jnp.mean(teacher, axis=1) @ learned["teacher"]
    drawn = jax.random.randint(
      rng_lib.stream(rng, "negatives"),
      (ids.shape[0], negatives),
      0,
      num_examples,
    )
    where = _counted(batch)
    values, bank = losses.bank_contrast(
      losses.Bank(**model_state["memory"]),
      own,
      other,
      ids,
      drawn,
      temperature=temperature,
      where=where,
    )
    bank = losses.update_bank(bank, own, other, ids, where=where)
    return values, {"memory": bank._asdict()}

  def init(rng: Array, widths: tuple[int, int]) -> tuple[Params, ModelState]:
    keys = jax.random.split(rng, 3)
    params = {
      "student": kernel(keys[0], (widths[0], _MEMORY_WIDTH)),
      "teacher": kernel(keys[1], (widths[1], _MEMORY_WIDTH)),
    }
    bank = losses.init_bank(keys[2], num_examples, _MEMORY_WIDTH)
    return params, bank._asdict()

  return Likeness(compare, {"memory": init})
