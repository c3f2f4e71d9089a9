# SPDX-License-Identifier: Apache-2.0
"""Contrast against a batch and against a memory."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses

N, B, D, K = 10, 4, 3, 5
TAU = 0.1
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, B, D)).astype(np.float32)
IDS = np.array([7, 0, 3, 9], np.int32)
NEGATIVES = RNG.integers(0, N, (B, K)).astype(np.int32)
BANK = losses.init_bank(jax.random.key(0), N, D)
contrast = jax.jit(losses.bank_contrast, static_argnames="temperature")
update = jax.jit(losses.update_bank, static_argnames="momentum")


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nce(scores, num_examples):
  """The published sum, entry by entry."""
  noise = (scores.shape[1] - 1) / num_examples
  values = []
  for row in np.asarray(scores, np.float64):
    value = np.log(row[0] / (row[0] + noise + 1e-7))
    for score in row[1:]:
      value += np.log(noise / (score + noise + 1e-7))
    values.append(-value)
  return np.array(values)


class TestInBatch:
  def test_chance_and_the_best(self):
    loss = jax.jit(losses.in_batch_contrastive)
    same = np.ones((B, D), np.float32)
    np.testing.assert_allclose(loss(same, same), np.log(B) * np.ones(B))
    eye = np.eye(4, dtype=np.float32)
    assert np.max(loss(eye, 5 * eye)) < 1e-5

  def test_each_direction(self):
    """Symmetric: the mean of both; alone: the student's."""

    @jax.jit
    def values(student, teacher):
      one = losses.in_batch_contrastive
      return (
        one(student, teacher),
        one(teacher, student),
        one(student, teacher, symmetric=True),
      )

    ours, theirs, both = values(STUDENT, TEACHER)
    np.testing.assert_allclose(both, (ours + theirs) / 2, rtol=1e-5)
    assert np.abs(ours - theirs).max() > 0.1


class TestNoiseContrastive:
  SCORES = np.abs(np.sin(np.arange(1.0, 13.0))).reshape(3, 4) / 50

  def test_golden_value(self):
    with jax.enable_x64(True):
      loss = functools.partial(losses.noise_contrastive, num_examples=1000)
      values = jax.device_get(jax.jit(loss)(self.SCORES))
    np.testing.assert_allclose(
      np.mean(values), 4.9629467311, rtol=0, atol=6e-11
    )
    np.testing.assert_allclose(values, nce(self.SCORES, 1000), rtol=1e-12)

  def test_gradients_and_padding(self):
    kept = np.array([True, False, True])
    scores = self.SCORES.astype(np.float32)
    expected = nce(scores, 1000)
    scores[1] = np.nan

    @jax.jit
    def both(scores):
      return jax.value_and_grad(
        lambda s: jnp.sum(
          losses.noise_contrastive(
            s, num_examples=1000, where=jnp.asarray(kept)
          )
        )
      )(scores)

    value, slope = both(scores)
    np.testing.assert_allclose(value, expected[kept].sum(), rtol=1e-6)
    np.testing.assert_array_equal(slope[1], np.zeros(4))
    # d/dP of the positive's term: -m / (P (P + m)); of a negative's: 1/(P + m).
    noise = 3e-3 + 1e-7
    p = scores[0].astype(np.float64)
    wanted = 1 / (p + noise)
    wanted[0] = -noise / (p[0] * (p[0] + noise))
    np.testing.assert_allclose(slope[0], wanted, rtol=1e-5)

  def test_a_score_of_zero_is_finite(self):
    scores = np.zeros((1, 3), np.float32)
    value, slope = jax.jit(
      jax.value_and_grad(
        lambda s: losses.noise_contrastive(s, num_examples=10)[0]
      )
    )(scores)
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope, np.zeros((1, 3)))

  def test_wrong_arguments_raise(self):
    loss = losses.noise_contrastive
    with pytest.raises(ValueError, match="num_examples must be > 0"):
      loss(np.ones((2, 3), np.float32), num_examples=0)
    with pytest.raises(ValueError, match="negatives must be"):
      loss(np.ones((2, 1), np.float32), num_examples=5)
    with pytest.raises(TypeError, match="scores: expected floating"):
      loss(np.ones((2, 3), int), num_examples=5)


class TestBank:
  def expected(self, bank, student, teacher):
    """Values and normalisers of a first batch, by the published steps."""
    shown = np.concatenate([IDS[:, None], NEGATIVES], axis=1)
    values, normalisers = np.zeros(len(student)), []
    for side, memory in ((student, bank.teacher), (teacher, bank.student)):
      side, memory = unit(np.float64(side)), np.float64(memory)
      raw = np.array(
        [
          [np.exp(side[i] @ memory[j] / TAU) for j in shown[i]]
          for i in range(len(side))
        ]
      )
      normalisers.append(raw.mean() * N)
      values += nce(raw / normalisers[-1], N)
    return values, normalisers

  def test_a_new_bank(self):
    bank = losses.init_bank(jax.random.key(1), 500, 48)
    for memory in (bank.student, bank.teacher):
      assert memory.shape == (500, 48)
      assert np.abs(memory).max() <= 0.25
      assert np.abs(memory).max() > 0.249
      lengths = np.linalg.norm(memory, axis=1)
      np.testing.assert_allclose(np.mean(lengths**2), 1.0, rtol=0.02)
    assert not np.array_equal(bank.student, bank.teacher)
    np.testing.assert_array_equal(bank.normalisers, [0, 0])

  def test_the_first_batch_sets_the_normalisers(self):
    values, bank = contrast(
      BANK, STUDENT, TEACHER, IDS, NEGATIVES, temperature=TAU
    )
    expected, normalisers = self.expected(BANK, STUDENT, TEACHER)
    np.testing.assert_allclose(values, expected, rtol=2e-5)
    np.testing.assert_allclose(bank.normalisers, normalisers, rtol=2e-5)
    np.testing.assert_array_equal(bank.student, BANK.student)
    _, again = contrast(bank, TEACHER, STUDENT, IDS, NEGATIVES, temperature=TAU)
    np.testing.assert_array_equal(again.normalisers, bank.normalisers)

  def test_gradients_reach_both_embeddings_and_not_the_bank(self):
    bank = BANK._replace(normalisers=jnp.array([30.0, 40.0]))

    @jax.jit
    def slopes(bank, student, teacher):
      def total(bank, student, teacher):
        values, after = losses.bank_contrast(
          bank, student, teacher, IDS, NEGATIVES, temperature=TAU
        )
        moved = losses.update_bank(after, student, teacher, IDS)
        return jnp.sum(values), sum(map(jnp.sum, (*after, *moved)))

      first = jax.grad(lambda *a: total(*a)[0], (0, 1, 2))
      second = jax.grad(lambda *a: total(*a)[1], (1, 2))
      return first(bank, student, teacher), second(bank, student, teacher)

    (of_bank, *of_sides), of_memory = slopes(bank, STUDENT, TEACHER)
    for slope in of_sides:
      assert np.abs(slope).max() > 1e-2
      # Only the direction counts.
    np.testing.assert_allclose(
      np.sum(of_sides[0] * STUDENT, axis=1), np.zeros(B), atol=2e-5
    )
    for slope in (*of_bank[:2], *of_memory):
      np.testing.assert_array_equal(slope, np.zeros_like(slope))

  def test_gradients_are_those_of_finite_differences(self):
    bank = BANK._replace(normalisers=jnp.array([30.0, 40.0]))
    with jax.enable_x64(True):
      student, teacher = np.float64(STUDENT), np.float64(TEACHER)
      loss = jax.jit(
        lambda s: jnp.sum(
          losses.bank_contrast(
            bank, s, teacher, IDS, NEGATIVES, temperature=TAU
          )[0]
        )
      )
      slope = jax.jit(jax.grad(loss))(student)
      way = RNG.normal(size=student.shape)
      step = 1e-6
      change = float(loss(student + step * way) - loss(student - step * way))
      np.testing.assert_allclose(
        np.sum(np.asarray(slope) * way), change / (2 * step), rtol=1e-6
      )

  def test_padding(self):
    kept = np.array([True, False, True, True])
    student, teacher, ids = STUDENT.copy(), TEACHER.copy(), IDS.copy()
    student[1], teacher[1], ids[1] = np.nan, np.inf, 5000
    expected, normalisers = self.expected(BANK, STUDENT, TEACHER)

    @jax.jit
    def run(student, teacher):
      def total(student, teacher):
        values, bank = losses.bank_contrast(
          BANK,
          student,
          teacher,
          ids,
          NEGATIVES,
          temperature=TAU,
          where=jnp.asarray(kept),
        )
        return jnp.sum(values), (values, bank)

      return jax.grad(total, (0, 1), has_aux=True)(student, teacher)

    slopes, (values, bank) = run(student, teacher)
    assert values[1] == 0
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(bank.normalisers))
    for slope in slopes:
      assert np.all(np.isfinite(slope))
      np.testing.assert_array_equal(slope[1], np.zeros(D))
    fixed = bank._replace(normalisers=jnp.asarray(normalisers, jnp.float32))
    values, _ = contrast(
      fixed, student, teacher, ids, NEGATIVES, temperature=TAU, where=kept
    )
    np.testing.assert_allclose(values[kept], expected[kept], rtol=2e-5)

  def test_an_id_out_of_range_is_nan_and_not_another_example(self):
    for wrong in (-1, N):
      ids = np.array([7, wrong, 3, 9], np.int32)
      known = BANK._replace(normalisers=jnp.array([30.0, 40.0]))
      values, _ = contrast(
        known, STUDENT, TEACHER, ids, NEGATIVES, temperature=TAU
      )
      np.testing.assert_array_equal(np.isnan(values), ids == wrong)
      bank = update(BANK, STUDENT, TEACHER, ids)
      changed = np.any(np.asarray(bank.student != BANK.student), axis=1)
      np.testing.assert_array_equal(np.flatnonzero(changed), [3, 7, 9])

  def test_update(self):
    kept = np.array([True, True, False, True])
    student = STUDENT.copy()
    student[2] = np.nan
    bank = update(
      BANK, 10 * student, TEACHER, IDS, momentum=0.8, where=jnp.asarray(kept)
    )
    for side, before, after in (
      (STUDENT, BANK.student, bank.student),
      (TEACHER, BANK.teacher, bank.teacher),
    ):
      expected = np.array(before)
      for row, i in zip(unit(side)[kept], IDS[kept], strict=True):
        expected[i] = unit(0.8 * expected[i] + 0.2 * row)
      np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)

  def test_coldest_temperature_is_finite(self):
    values, bank = contrast(
      BANK, STUDENT, TEACHER, IDS, NEGATIVES, temperature=0.02
    )
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(bank.normalisers))

  def test_wrong_arguments_raise(self):
    loss = losses.bank_contrast
    with pytest.raises(ValueError, match="temperature must be in"):
      loss(BANK, STUDENT, TEACHER, IDS, NEGATIVES, temperature=0.001)
    with pytest.raises(ValueError, match="expected width 2"):
      loss(BANK, STUDENT[:, :2], TEACHER[:, :2], IDS, NEGATIVES)
    with pytest.raises(ValueError, match="leading axes"):
      loss(BANK, STUDENT, TEACHER, IDS, NEGATIVES[:2])
    with pytest.raises(TypeError, match="ids: expected integers"):
      loss(BANK, STUDENT, TEACHER, IDS.astype(float), NEGATIVES)
    with pytest.raises(ValueError, match="shapes must be equal"):
      loss(BANK, STUDENT, TEACHER[:, :2], IDS, NEGATIVES)
    with pytest.raises(ValueError, match="momentum must be in"):
      losses.update_bank(BANK, STUDENT, TEACHER, IDS, momentum=1.5)
    with pytest.raises(ValueError, match="dim must be > 0"):
      losses.init_bank(jax.random.key(0), 3, 0)
