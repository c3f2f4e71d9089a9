# SPDX-License-Identifier: Apache-2.0
"""One battery for every loss between embeddings: a row of `embedding_rows`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses import embedding_rows
from tests.losses.embedding_rows import ROWS
from tgt_jax import losses


def rows(condition=lambda row: True):
  """The test runs once for each row for which `condition` holds."""
  names = [name for name, row in ROWS.items() if condition(row)]
  return pytest.mark.parametrize("name", names)


def draw(name, seed=0):
  """Float64 student and teacher, and weights of the examples' values."""
  rng = np.random.default_rng(seed)
  student, teacher = (rng.normal(size=shape) for shape in ROWS[name].shapes)
  return student, teacher, rng.uniform(0.5, 1.5, len(student))


TRACES: dict[tuple[str, bool], int] = {}


@functools.cache
def _program(name, x64):
  loss = ROWS[name].loss

  def run(student, teacher, kept, weights):
    TRACES[name, x64] = TRACES.get((name, x64), 0) + 1
    values, pull = jax.vjp(
      lambda s, t: loss(s, t, where=kept), student, teacher
    )
    _, pull_stopped = jax.vjp(
      lambda t: loss(student, jax.lax.stop_gradient(t), where=kept), teacher
    )
    return values, (*pull(weights), *pull_stopped(weights))

  return jax.jit(run)


def evaluate(name, student, teacher, kept=None, weights=None, *, x64=False):
  """Values, and gradients of their weighted sum: one program for all tests.

  The gradients are the student's, the teacher's, and the teacher's behind a
  `stop_gradient`.
  """
  dtype = np.float64 if x64 else np.float32
  ones = np.ones(len(student))
  arrays = [student, teacher, ones if weights is None else weights]
  student, teacher, weights = (np.asarray(a, dtype) for a in arrays)
  kept = np.ones(len(student), bool) if kept is None else kept
  with jax.enable_x64(x64):
    return jax.device_get(_program(name, x64)(student, teacher, kept, weights))


def evaluate64(name, *arrays):
  return evaluate(name, *arrays, x64=True)


@rows(lambda row: row.golden)
def test_golden_value(name):
  *sides, value = ROWS[name].golden
  values, _ = evaluate64(name, *sides)
  np.testing.assert_allclose(np.mean(values), value, rtol=0, atol=6e-11)


def test_golden_value_of_variational_information():
  """The published mean is three maps with a ReLU between; here identities."""
  with jax.enable_x64(True):
    values = losses.variational_information(
      np.maximum(embedding_rows.STUDENT_MAPS, 0.0),
      embedding_rows.SAME_MAPS,
      np.full(3, np.log1p(np.exp(4.9932291827)) + 1e-5),
    )
    values = jax.device_get(values)
  np.testing.assert_allclose(np.mean(values), 0.8153987413, rtol=0, atol=6e-11)


def test_golden_inputs():
  assert embedding_rows.STUDENT[1, 2] == pytest.approx(-0.5618578909, abs=6e-11)
  assert embedding_rows.TEACHER[1, 2] == pytest.approx(1.0550041653, abs=6e-11)
  found = embedding_rows.STUDENT_MAPS[1, 3, 4, 2]
  assert found == pytest.approx(0.6530407516, abs=6e-11)


@rows()
def test_mean_is_the_published_loss(name):
  for seed in range(5):
    student, teacher, _ = draw(name, seed)
    expected = ROWS[name].reference(student, teacher)
    values, _ = evaluate64(name, student, teacher)
    np.testing.assert_allclose(np.mean(values), expected, rtol=1e-9, atol=1e-13)
    values, _ = evaluate(name, student, teacher)
    assert values.dtype == np.float32 and values.shape == (len(student),)
    np.testing.assert_allclose(np.mean(values), expected, rtol=3e-5, atol=1e-6)


@rows()
def test_gradients_are_those_of_finite_differences(name):
  """In float64, of both sides, for unequal weights of the examples."""
  rng = np.random.default_rng(1)
  student, teacher, weights = draw(name)
  _, slopes = evaluate64(name, student, teacher, None, weights)
  step = 1e-5
  for side, slope in enumerate(slopes[:2]):
    for _ in range(3):
      way = rng.normal(size=slope.shape)
      ends = []
      for sign in (1, -1):
        sides = [student, teacher]
        sides[side] = sides[side] + sign * step * way
        ends.append(weights @ evaluate64(name, *sides)[0])
      expected = (ends[0] - ends[1]) / (2 * step)
      np.testing.assert_allclose(
        np.sum(slope * way), expected, rtol=2e-6, atol=1e-8
      )


@rows()
def test_stopped_teacher_gets_exact_zeros(name):
  """The loss leaves the teacher's gradient on; stop_gradient turns it off."""
  _, (_, free, stopped) = evaluate(name, *draw(name)[:2])
  assert np.abs(free).max() > 1e-5
  np.testing.assert_array_equal(stopped, np.zeros_like(stopped))


@rows(lambda row: row.optimum)
def test_optimum(name):
  student, teacher, _ = draw(name)
  worse = np.mean(evaluate64(name, student, teacher)[0])
  values, (slope, *_) = evaluate64(name, *ROWS[name].optimum(student, teacher))
  np.testing.assert_allclose(np.mean(values), 0.0, atol=2e-9)
  assert worse > 1e-4
  # A sum of absolute values turns there at once.
  if name not in ("factor_transfer", "cosine_difference"):
    np.testing.assert_allclose(slope, np.zeros_like(slope), atol=1e-6)


@rows()
def test_where_is_the_subset(name):
  """Also with garbage, NaN included, in the examples that are dropped."""
  student, teacher, _ = draw(name)
  kept = np.ones(len(student), bool)
  kept[[1, -1]] = False
  expected = ROWS[name].reference(student[kept], teacher[kept])
  student[1], teacher[1] = np.nan, np.inf
  student[-1], teacher[-1] = 1e30, np.nan
  for x64, tolerance in ((True, 1e-9), (False, 5e-5)):
    values, slopes = evaluate(name, student, teacher, kept, x64=x64)
    np.testing.assert_allclose(
      np.mean(values[kept]), expected, rtol=tolerance, atol=2e-6 * (not x64)
    )
    np.testing.assert_array_equal(values[~kept], np.zeros(2))
    for slope in slopes:
      assert np.all(np.isfinite(slope))
      np.testing.assert_array_equal(slope[~kept], np.zeros_like(slope[~kept]))


@rows()
def test_padding_alone_is_zero(name):
  student, teacher, _ = draw(name)
  nothing = np.zeros(len(student), bool)
  for leaf in jax.tree.leaves(evaluate(name, student, teacher, nothing)):
    np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def _zeros(x):
  return 0 * x


def _duplicates(x):
  return np.repeat(x[::2], 2, axis=0)


def _some_zeros(x):
  return x * (np.arange(len(x)) % 2).reshape((-1,) + (1,) * (x.ndim - 1))


def _all_equal(x):
  return np.repeat(x[:1], len(x), axis=0) + 100.0


def _corners(x):
  """Every two rows at one distance, as far as the width allows."""
  flat = np.eye(len(x), x[0].size).reshape(x.shape)
  return 0.1 * flat


EXTREMES = {
  "large": lambda x: 1e4 * x,
  "small": lambda x: 1e-4 * x,
  "bfloat16": lambda x: np.asarray(x, jnp.bfloat16),
  "far": lambda x: x + 1e3,
  "duplicates": _duplicates,
  "zero rows": _some_zeros,
  "all equal": _all_equal,
  "all zero": _zeros,
  "equidistant": _corners,
}


@rows()
def test_extremes_are_finite(name):
  student, teacher, _ = draw(name)
  for kind, change in EXTREMES.items():
    for sides in (
      (change(student), teacher),
      (student, change(teacher)),
      (change(student), change(teacher)),
    ):
      values, slopes = evaluate(name, *sides)
      for leaf in (values, *slopes):
        assert np.all(np.isfinite(leaf)), kind
      # No division by what is left of equal numbers.
      assert np.abs(slopes[0]).max() < 1e6, kind


@rows()
def test_bfloat16_is_computed_in_float32(name):
  sides = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ROWS[name].shapes]
  assert jax.eval_shape(ROWS[name].loss, *sides).dtype == jnp.float32


@rows(lambda row: "turn" in row.invariant)
def test_turning_a_side_changes_nothing(name):
  student, teacher, _ = draw(name)
  expected, _ = evaluate64(name, student, teacher)
  rng = np.random.default_rng(2)
  for side in (0, 1):
    sides = [student, teacher]
    width = sides[side].shape[1]
    turn, _ = np.linalg.qr(rng.normal(size=(width, width)))
    sides[side] = sides[side] @ turn
    actual, _ = evaluate64(name, *sides)
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-10)


@rows(lambda row: "shift" in row.invariant)
def test_shifting_a_side_changes_nothing(name):
  student, teacher, _ = draw(name)
  expected, _ = evaluate64(name, student, teacher)
  for sides in ((student + 3.0, teacher), (student, teacher - 5.0)):
    actual, _ = evaluate64(name, *sides)
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-10)


@rows(lambda row: "scale" in row.invariant)
def test_the_size_of_a_side_changes_nothing(name):
  """Up to the small constants of the published forms."""
  student, teacher, _ = draw(name)
  expected, _ = evaluate64(name, student, teacher)
  for sides in ((8.0 * student, teacher), (student, 0.5 * teacher)):
    actual, _ = evaluate64(name, *sides)
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


@rows()
def test_order_of_examples_goes_with_the_values(name):
  student, teacher, weights = draw(name)
  order = np.random.default_rng(3).permutation(len(student))
  expected = evaluate64(name, student, teacher, None, weights)
  actual = evaluate64(
    name, student[order], teacher[order], None, weights[order]
  )
  for found, wanted in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(found, wanted[order], rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("name", ["cosine_difference", "factor_transfer"])
def test_jit_is_eager_and_where_may_be_none(name):
  student, teacher, _ = draw(name)
  eager = ROWS[name].loss(
    np.asarray(student, np.float32), np.asarray(teacher, np.float32)
  )
  jitted, _ = evaluate(name, student, teacher)
  np.testing.assert_allclose(eager, jitted, rtol=1e-5, atol=1e-6)


@rows()
def test_wrong_arguments_raise(name):
  loss = functools.partial(jax.eval_shape, ROWS[name].loss)
  student, teacher = (a.astype(np.float32) for a in draw(name)[:2])
  size = len(student)
  with pytest.raises(ValueError, match=rf"teacher \({size - 1}"):
    loss(student, teacher[:-1])
  with pytest.raises(ValueError, match=r"got shape"):
    loss(student.reshape(size, -1)[:, 0], teacher)
  with pytest.raises(TypeError, match="student: expected floating"):
    loss(student.astype(np.int32), teacher)
  with pytest.raises(TypeError, match="teacher: expected floating"):
    loss(student, teacher.astype(np.int32))
  with pytest.raises(TypeError, match="where: expected booleans"):
    loss(student, teacher, where=np.ones(size))
  with pytest.raises(ValueError, match="where: expected shape"):
    loss(student, teacher, where=np.ones((size, 1), bool))
  if ROWS[name].shapes[0] == ROWS[name].shapes[1]:
    with pytest.raises(ValueError, match="shapes must be equal"):
      loss(student, teacher[..., :-1])


@rows()
def test_traced_once(name):
  for seed in range(3):
    evaluate(name, *draw(name, seed)[:2])
  assert TRACES[name, False] == 1
