# SPDX-License-Identifier: Apache-2.0
"""Frame rates brought together, and distances frame by frame."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses

n, t = np.arange(6.0)[:, None, None], np.arange(3.0)[None, :, None]
STUDENT = np.sin(0.7 * n + 0.2 * t + 1.3 * np.arange(5.0) + 0.5) + 0.05 * n
TEACHER = np.cos(0.9 * n + 0.1 * t - 0.4 * np.arange(7.0))


def frames(count, batch=2, width=3):
  shape = (batch, count, width)
  return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


class TestAlign:
  def test_frames_are_repeated_one_by_one(self):
    teacher = frames(2)
    student, repeated = losses.align(frames(6), teacher, teacher_repeat=3)
    np.testing.assert_array_equal(student, frames(6))
    np.testing.assert_array_equal(repeated, teacher[:, [0, 0, 0, 1, 1, 1]])

  @pytest.mark.parametrize(
    "student, teacher, repeats, expected",
    [
      (62, 10, (1, 6), 60),
      (62, 1, (1, 60), 60),
      (15, 29, (2, 1), 29),
      (15, 1, (1, 15), 15),
      (30, 31, (1, 1), 30),
    ],
  )
  def test_both_are_cut_to_the_shorter(
    self, student, teacher, repeats, expected
  ):
    """The frames of EAsT's students and teachers."""
    sides = losses.align(
      frames(student),
      frames(teacher, width=4),
      student_repeat=repeats[0],
      teacher_repeat=repeats[1],
    )
    assert [side.shape for side in sides] == [
      (2, expected, 3),
      (2, expected, 4),
    ]

  def test_the_mean_over_time_is_one_frame(self):
    student, teacher = frames(4), frames(5, width=2)
    sides = losses.align(student, teacher, student_repeat=-1, teacher_repeat=-1)
    for side, whole in zip(sides, (student, teacher), strict=True):
      np.testing.assert_allclose(side, whole.mean(1, keepdims=True))
    clip = teacher[:, :1]
    mean, same = losses.align(student, clip, student_repeat=-1)
    np.testing.assert_allclose(mean, student.mean(1, keepdims=True))
    np.testing.assert_array_equal(same, clip)

  def test_a_mean_of_low_precision_is_taken_in_float32(self):
    student = jnp.full((1, 1000, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(9.0)
    mean, _ = losses.align(student, student[:, :1], student_repeat=-1)
    assert mean.dtype == jnp.bfloat16
    np.testing.assert_allclose(mean.astype(float), [[[1.008]]], rtol=4e-3)

  def test_wrong_arguments_raise(self):
    with pytest.raises(ValueError, match="one frame"):
      losses.align(frames(4), frames(4), student_repeat=-1)
    with pytest.raises(ValueError, match="teacher_repeat must be 1 or more"):
      losses.align(frames(4), frames(4), teacher_repeat=0)
    with pytest.raises(ValueError, match="student_repeat must .* got -2"):
      losses.align(frames(4), frames(4), student_repeat=-2)
    with pytest.raises(ValueError, match="student: expected rank 3"):
      losses.align(frames(4)[:, 0], frames(4))
    with pytest.raises(ValueError, match="leading axes must be equal"):
      losses.align(frames(4), frames(4)[:1])
    with pytest.raises(TypeError, match="teacher: expected floating"):
      losses.align(frames(4), frames(4).astype(int))


class TestOverFrames:
  @pytest.mark.parametrize(
    "distance, golden",
    [
      (losses.distance_correlation, 0.0166111233),
      (losses.cosine_difference, 0.2468537341),
    ],
  )
  def test_golden_values(self, distance, golden):
    with jax.enable_x64(True):
      loss = jax.jit(losses.over_frames(distance))
      values = jax.device_get(loss(STUDENT, TEACHER))
    assert values.shape == (6,)
    np.testing.assert_allclose(np.mean(values), golden, rtol=0, atol=6e-11)

  def test_is_the_mean_of_single_frames(self):
    """Also with hyper-parameters, and without what `where` drops."""
    kept = np.array([True, True, False, True, True, True])
    student, teacher = (np.float32(x) for x in (STUDENT, TEACHER))
    alone = jax.jit(functools.partial(losses.cka, centred=False))
    expected = np.mean(
      [alone(student[kept, i], teacher[kept, i]) for i in range(3)], axis=0
    )
    student[2], teacher[2] = np.nan, np.inf

    @jax.jit
    def both(student):
      loss = losses.over_frames(losses.cka)
      values, pull = jax.vjp(
        lambda s: loss(s, teacher, where=jnp.asarray(kept), centred=False),
        student,
      )
      return values, pull(jnp.ones(6))[0]

    values, slope = both(student)
    np.testing.assert_allclose(values[kept], expected, rtol=1e-5, atol=1e-6)
    assert values[2] == 0
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[2], np.zeros((3, 5)))

  def test_numbers_of_frames_must_agree(self):
    loss = losses.over_frames(losses.cka)
    with pytest.raises(ValueError, match="same examples and frames.*align"):
      loss(frames(3), frames(4))
    with pytest.raises(ValueError, match="teacher: expected rank 3"):
      loss(frames(3), frames(3)[:, 0])
