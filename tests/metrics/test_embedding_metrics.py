# SPDX-License-Identifier: Apache-2.0
"""Agreement of embeddings and their spread, against closed forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.embedding_rows import (
  STUDENT,
  TEACHER,
  cka_reference,
  unbiased_reference,
)
from tgt_jax import metrics
from tgt_jax.metrics import embedding as module

RNG = np.random.default_rng(0)


class TestAlignment:
  def test_golden_values(self):
    found = metrics.alignment(STUDENT, TEACHER)
    assert found["dcor"] == pytest.approx(0.9430589531, abs=6e-11)
    assert found["cka"] == pytest.approx(0.9066027627, abs=6e-11)

  def test_references(self):
    for _ in range(3):
      student, teacher = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 6))
      found = metrics.alignment(student, teacher)
      assert found["dcor"] == pytest.approx(
        1 - unbiased_reference(student, teacher), abs=1e-10
      )
      assert found["cka"] == pytest.approx(
        1 - cka_reference(student, teacher), abs=1e-10
      )

  def test_turned_shifted_and_scaled_is_the_same(self):
    student = RNG.normal(size=(40, 6))
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    teacher = np.float32(3.0 * student @ turn + 100.0)
    found = metrics.alignment(student, jnp.asarray(teacher))
    assert found == pytest.approx({"dcor": 1.0, "cka": 1.0}, abs=1e-5)

  def test_independent_embeddings(self):
    """dcor is near 0 where the biased one would be above 0.9."""
    found = [
      metrics.alignment(RNG.normal(size=(50, 256)), RNG.normal(size=(50, 128)))
      for _ in range(10)
    ]
    assert abs(np.mean([f["dcor"] for f in found])) < 0.03
    assert np.mean([f["cka"] for f in found]) > 0.7

  def test_of_many_examples_an_even_subset(self, monkeypatch):
    student, teacher = RNG.normal(size=(101, 3)), RNG.normal(size=(101, 2))
    monkeypatch.setattr(module, "MAX_EXAMPLES", 26)
    kept = np.arange(0, 101, 4)
    assert metrics.alignment(student, teacher) == pytest.approx(
      metrics.alignment(student[kept], teacher[kept])
    )

  def test_more_than_the_limit(self):
    student = RNG.normal(size=(module.MAX_EXAMPLES + 100, 2))
    found = metrics.alignment(student, -student)
    assert found == pytest.approx({"dcor": 1.0, "cka": 1.0})

  @pytest.mark.parametrize(
    "student",
    [
      np.full((8, 3), 0.1),
      np.full((8, 3), 1e4 / 3, np.float32),
      np.full((8, 3), np.nan),
    ],
  )
  def test_what_has_no_alignment(self, student):
    found = metrics.alignment(student, RNG.normal(size=(8, 2)))
    assert found.keys() == {"dcor", "cka"}
    assert all(map(np.isnan, found.values()))

  def test_wrong_arguments_raise(self):
    ok = np.ones((8, 3))
    with pytest.raises(ValueError, match="teacher: expected rank 2"):
      metrics.alignment(ok, ok[:, 0])
    with pytest.raises(ValueError, match="leading axes must be equal"):
      metrics.alignment(ok, ok[:7])
    with pytest.raises(ValueError, match="examples must be in"):
      metrics.alignment(ok[:3], ok[:3])
    with pytest.raises(TypeError, match="student: expected floating"):
      metrics.alignment(ok.astype(int), ok)


class TestEffectiveRank:
  def test_equal_directions_count_fully(self):
    corners = np.concatenate([np.eye(5), -np.eye(5)]) + 7.0
    assert metrics.effective_rank(corners) == pytest.approx(5.0)

  def test_closed_form_of_two_directions(self):
    """Singular values 3 and 1: exp of the entropy of (3/4, 1/4)."""
    line = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert metrics.effective_rank(line) == pytest.approx(expected)
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    wide = np.pad(line, [(0, 0), (0, 4)]) @ turn
    assert metrics.effective_rank(50 * wide - 3) == pytest.approx(expected)

  def test_a_line(self):
    along = RNG.normal(size=(20, 1)) * np.arange(1.0, 5.0)
    assert metrics.effective_rank(along) == pytest.approx(1.0)

  def test_noise_in_many_directions(self):
    found = metrics.effective_rank(RNG.normal(size=(2000, 16)))
    assert 15.9 < found <= 16.0

  @pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
  def test_collapse_is_zero_and_not_the_rank_of_rounding(self, dtype):
    constant = np.tile(RNG.normal(size=7), (30, 1)) / 3
    assert metrics.effective_rank(constant.astype(dtype)) == 0.0
    assert metrics.effective_rank(np.zeros((4, 3), dtype)) == 0.0
    near = constant + 1e-10 * RNG.normal(size=(30, 7))
    assert metrics.effective_rank(near) > 6  # Of float64 that is no rounding.
    assert metrics.effective_rank(near.astype(np.float32)) == 0.0

  def test_not_finite(self):
    assert np.isnan(metrics.effective_rank(np.full((4, 3), np.inf)))

  def test_wrong_arguments_raise(self):
    with pytest.raises(ValueError, match="embedding: expected rank 2"):
      metrics.effective_rank(np.ones(3))
    with pytest.raises(ValueError, match="examples must be > 0"):
      metrics.effective_rank(np.ones((0, 3)))
    with pytest.raises(TypeError, match="embedding: expected floating"):
      metrics.effective_rank(np.ones((2, 3), int))
