# SPDX-License-Identifier: Apache-2.0
"""Embeddings with a time axis: to one frame rate, and frame by frame.

Students and teachers of sound and video give one embedding per frame, [B, T,
C], at rates of their own. `align` repeats frames until the two agree, and
`over_frames` applies a distance between [B, C] and [B, C'] to every frame, as
Ding and Lerch (2023, "Audio embeddings as teachers for music classification",
arXiv 2306.17424) do:

  distance = over_frames(distance_correlation)
  values = distance(*align(student, teacher, teacher_repeat=6))
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tgt_jax import checks
from tgt_jax.losses import _embeddings
from tgt_jax.losses.transforms import Distance
from tgt_jax.types import Array

# In place of a number of repeats: the mean of all frames.
_MEAN = -1


def _repeated(frames: Array, repeat: int) -> Array:
  if repeat == _MEAN:
    mean = jnp.mean(_embeddings.as_float(frames), axis=1, keepdims=True)
    return mean.astype(frames.dtype)
  return jnp.repeat(frames, repeat, axis=1)


def align(
  student: Array,
  teacher: Array,
  *,
  student_repeat: int = 1,
  teacher_repeat: int = 1,
) -> tuple[Array, Array]:
  """Two sequences with one number of frames.

  Every frame is repeated so many times, then both sequences are cut to the
  shorter. With -1 a side is its mean over time, one frame; the other side must
  come to one frame as well, as a clip's single embedding does.

  Args:
    student: [B, Ts, Cs].
    teacher: [B, Tt, Ct].
    student_repeat: how often a student's frame comes, >= 1, or -1.
    teacher_repeat: how often a teacher's frame comes, >= 1, or -1.

  Returns:
    Student [B, T, Cs] and teacher [B, T, Ct].

  Raises:
    ValueError: not such sequences, a repeat that is neither positive nor -1,
      or the mean of one side against several frames of the other.
    TypeError: a side is not floating point.
  """
  checks.rank(3, student=student, teacher=teacher)
  checks.floating(student=student, teacher=teacher)
  checks.same_leading(student=student, teacher=teacher)
  repeats = {"student_repeat": student_repeat, "teacher_repeat": teacher_repeat}
  for name, repeat in repeats.items():
    if repeat != _MEAN and repeat < 1:
      raise ValueError(f"{name} must be 1 or more, or -1, got {repeat}")

  first = _repeated(jnp.asarray(student), student_repeat)
  second = _repeated(jnp.asarray(teacher), teacher_repeat)
  if _MEAN in repeats.values() and first.shape[1] != second.shape[1]:
    raise ValueError(
      "a mean over time is one frame: -1 on one side needs one frame, or -1,"
      f" on the other; got student {jnp.shape(student)} with"
      f" {student_repeat} and teacher {jnp.shape(teacher)} with"
      f" {teacher_repeat}"
    )
  frames = min(first.shape[1], second.shape[1])
  return first[:, :frames], second[:, :frames]


def over_frames(distance: Distance) -> Distance:
  """`distance` of every frame, averaged over frames.

  Args:
    distance: `(student [B, Cs], teacher [B, Ct], *, where=None) -> [B]`.

  Returns:
    `(student [B, T, Cs], teacher [B, T, Ct], *, where=None) -> [B]`. `where`
    keeps examples, [B], the same of every frame; other keywords reach
    `distance`. It raises `ValueError` unless both have T frames.
  """

  @functools.wraps(distance)
  def wrapped(
    student: Array,
    teacher: Array,
    *,
    where: Array | None = None,
    **kwargs: Any,
  ) -> Array:
    checks.rank(3, student=student, teacher=teacher)
    if jnp.shape(student)[:2] != jnp.shape(teacher)[:2]:
      raise ValueError(
        "student and teacher must have the same examples and frames, got"
        f" {jnp.shape(student)} and {jnp.shape(teacher)}; see `align`"
      )
    frame = functools.partial(distance, where=where, **kwargs)
    frames = jax.vmap(frame, in_axes=1)(student, teacher)
    return jnp.mean(frames, axis=0)

  return wrapped
