# SPDX-License-Identifier: Apache-2.0
"""One battery for every loss: a new loss is one row of `loss_rows.ROWS`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.losses.loss_rows import COUNTS, ROWS, B, K, of


def rows(condition=lambda row: True):
  """The test runs once for each row for which `condition` holds."""
  names = [name for name, row in ROWS.items() if condition(row)]
  return pytest.mark.parametrize("name", names)


def draw(row, seed=0, scale=2.0, shape=(B, K)):
  """Float64 student logits and a target."""
  rng = np.random.RandomState(seed)
  student = scale * rng.randn(*shape)
  if row.labels:
    return student, rng.randint(0, K, shape[:-1]).astype(np.int32)
  return student, scale * rng.randn(*shape)


def to32(*arrays):
  arrays = [np.asarray(a) for a in arrays]
  return [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays]


TRACES: dict[str, int] = {}


@functools.cache
def compiled(name):
  """(student, target) -> values, and the gradients of their sum.

  The last gradient is the teacher's behind a `stop_gradient`. One program for
  many tests: compiling is what the battery spends its time on.
  """
  row = ROWS[name]

  def run(student, target):
    TRACES[name] = TRACES.get(name, 0) + 1
    if row.labels:
      values, pull = jax.vjp(lambda s: row.loss(s, target), student)
      return values, pull(jnp.ones_like(values))
    values, pull = jax.vjp(row.loss, student, target)
    stopped = jax.grad(
      lambda t: jnp.sum(row.loss(student, jax.lax.stop_gradient(t)))
    )(target)
    return values, (*pull(jnp.ones_like(values)), stopped)

  return jax.jit(run)


@rows()
def test_hand_value(name):
  student, target, value = ROWS[name].hand
  target = np.asarray(target, np.int32 if ROWS[name].labels else float)
  student = np.tile(np.asarray(student, float), (B, 1))
  target = np.stack([target] * B)
  actual, _ = compiled(name)(*to32(student, target))
  np.testing.assert_allclose(actual, [value] * B, rtol=2e-6, atol=1e-6)


@rows()
def test_matches_reference_in_float32(name):
  for seed in range(5):
    student, target = draw(ROWS[name], seed)
    actual, _ = compiled(name)(*to32(student, target))
    expected = ROWS[name].reference(student, target)
    assert actual.dtype == jnp.float32 and actual.shape == (B,)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


@rows()
def test_float64_value_and_gradients(name):
  """Of the student, and of the teacher too: exploration needs both."""
  row = ROWS[name]
  student, target = draw(row, scale=1.0)
  with jax.enable_x64(True):
    loss = jax.jit(row.loss)
    actual = loss(student, target)
    # A log-prior is kept in float32, whatever the logits are.
    np.testing.assert_allclose(
      actual, row.reference(student, target), rtol=1e-6, atol=1e-9
    )
    if row.labels:
      arguments, of_arguments = (student,), lambda s: loss(s, target)
    else:
      arguments, of_arguments = (student, target), loss
    check_grads(of_arguments, arguments, 1, ("rev",), atol=1e-6, rtol=1e-6)


@rows(lambda row: row.gradient)
def test_student_gradient_in_closed_form(name):
  student, target = draw(ROWS[name])
  _, (slope, *_) = compiled(name)(*to32(student, target))
  np.testing.assert_allclose(
    slope, ROWS[name].gradient(student, target), rtol=1e-5, atol=1e-6
  )


@rows(lambda row: not row.labels)
def test_equal_distributions_are_the_optimum(name):
  other, teacher = draw(ROWS[name])
  value, slopes = compiled(name)(*to32(teacher, teacher))
  np.testing.assert_allclose(slopes[0], np.zeros((B, K)), atol=5e-6)
  assert np.mean(compiled(name)(*to32(other, teacher))[0] - value) > 1e-2
  if ROWS[name].coupled:  # Examples trade parts of one correlation.
    value = np.mean(value)
  if name != "soft_cross_entropy":  # At best the teacher's entropy.
    np.testing.assert_allclose(value, np.zeros_like(value), atol=1e-6)


@rows(lambda row: row.minimum is not None)
def test_long_tail_optimum(name):
  """On labels with the training frequencies, logits are what theory says."""
  labels = np.repeat(np.arange(K), COUNTS)

  def total(logits):
    return jnp.sum(ROWS[name].loss(jnp.tile(logits[None], (16, 1)), labels))

  slope = jax.jit(jax.grad(total))(*to32(ROWS[name].minimum))
  np.testing.assert_allclose(slope, np.zeros(K), atol=2e-5)


@rows(lambda row: not row.labels)
def test_stopped_teacher_gets_exact_zeros(name):
  """The loss leaves the teacher's gradient on; stop_gradient turns it off."""
  _, (_, free, stopped) = compiled(name)(*to32(*draw(ROWS[name])))
  assert np.abs(free).max() > 1e-3
  np.testing.assert_array_equal(stopped, np.zeros((B, K)))


@rows(lambda row: not row.counts)
def test_where_is_the_subset_of_classes(name):
  """Also with garbage, NaN included, in the classes that are dropped."""
  row, kept = ROWS[name], np.array([0, 1, 3])
  where = np.isin(np.arange(K), kept)
  student, target = draw(row)
  student[:, ~where] = np.nan
  if row.labels:
    target, subset = kept[target % 3].astype(np.int32), target % 3
  else:
    target[:, ~where] = np.inf
    subset = target[:, kept]

  @jax.jit
  def masked(*arrays):
    fixed = arrays[1:] if row.labels else ()
    values, pull = jax.vjp(
      lambda *a: row.loss(*a, *fixed, where=jnp.asarray(where)),
      *arrays[: len(arrays) - len(fixed)],
    )
    return values, pull(jnp.ones_like(values))

  values, slopes = masked(*to32(student, target))
  expected = row.reference(student[:, kept], subset)
  np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-6)
  for slope in slopes:
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[:, ~where], np.zeros((B, 2)))


@rows()
@pytest.mark.parametrize("scale", [1e4, 1e-4, 0.0])
def test_extreme_logits_have_finite_gradients(name, scale):
  signs = np.array([[1, -1, 1, -1, 1], [-1, 1, 1, -1, -1]], np.float64)
  student = scale * np.concatenate([signs, signs])
  target = scale * np.concatenate([signs[:, ::-1], signs])
  if ROWS[name].labels:
    target = np.array([0, 1, 2, 3], np.int32)
  for leaf in jax.tree.leaves(compiled(name)(*to32(student, target))):
    assert np.all(np.isfinite(leaf))


@rows(lambda row: not row.labels)
def test_excluded_classes(name):
  """A class at -inf: what the teacher alone excludes, and what both do."""
  row = ROWS[name]
  student, teacher = to32(*draw(row))
  teacher[:, 2] = -np.inf
  value, _ = compiled(name)(student, teacher)
  kinds = {"finite": np.isfinite, "inf": np.isposinf, "nan": np.isnan}
  assert np.all(kinds[row.excluded](value))
  if row.excluded == "nan" or name == "logit_mse":
    return  # Documented: logits must be finite.
  student[:, 2] = -np.inf
  for leaf in jax.tree.leaves(compiled(name)(student, teacher)):
    assert np.all(np.isfinite(leaf))


@rows()
def test_an_example_without_classes_is_padding(name):
  """Its value and gradients are 0, whatever it holds; others are as alone."""
  row, padded = ROWS[name], 2
  real = np.arange(B) != padded
  student, target = draw(row)
  expected = row.reference(student[real], target[real])
  student[padded] = np.nan
  if not row.labels:
    target[padded] = np.inf

  @jax.jit
  def masked(student, target):
    def total(student, target):
      values = row.loss(student, target, where=jnp.asarray(real)[:, None])
      return jnp.sum(values), values

    sides = (0,) if row.labels else (0, 1)
    return jax.grad(total, sides, has_aux=True)(student, target)

  slopes, values = masked(*to32(student, target))
  np.testing.assert_allclose(values[real], expected, rtol=1e-5, atol=2e-6)
  assert values[padded] == 0
  for slope in slopes:
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[padded], np.zeros(K))


@rows()
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_network_that_overflows_is_seen(name, bad):
  """+inf and NaN are no logits: the value of that example is not finite."""
  row = ROWS[name]
  for side in range(1 if row.labels else 2):
    arguments = to32(*draw(row))
    arguments[side][1, 3] = bad
    values, _ = compiled(name)(*arguments)
    assert not np.isfinite(values[1])
    if not row.coupled:
      assert np.all(np.isfinite(np.delete(values, 1)))


@rows(lambda row: row.shift)
def test_constant_shift_changes_nothing(name):
  student, target = draw(ROWS[name])
  expected, _ = compiled(name)(*to32(student, target))
  target = target if ROWS[name].labels else target - 11.0
  actual, _ = compiled(name)(*to32(student + 7.0, target))
  np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=5e-6)


@rows(lambda row: not row.counts)
def test_order_of_classes_changes_nothing(name):
  student, target = draw(ROWS[name])
  expected, _ = compiled(name)(*to32(student, target))
  order = np.array([3, 0, 4, 1, 2])
  moved = np.argsort(order).astype(np.int32)
  target = moved[target] if ROWS[name].labels else target[:, order]
  actual, _ = compiled(name)(*to32(student[:, order], target))
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["with priors"])
def test_jit_is_eager(name):
  arguments = to32(*draw(ROWS[name]))
  np.testing.assert_allclose(
    ROWS[name].loss(*arguments),
    compiled(name)(*arguments)[0],
    rtol=1e-5,
    atol=1e-6,
  )


@rows(lambda row: not row.coupled)
def test_leading_axes_axis_and_vmap(name):
  row = ROWS[name]
  student, target = draw(row, shape=(2, 3, K))

  @jax.jit
  def both(student, target):
    moved = target if row.labels else jnp.moveaxis(target, -1, 0)
    return (
      jax.vmap(row.loss)(student, target),
      row.loss(jnp.moveaxis(student, -1, 0), moved, axis=0),
    )

  expected = [row.reference(s, t) for s, t in zip(student, target, strict=True)]
  for actual in both(*to32(student, target)):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


@rows()
def test_wrong_arguments_raise(name):
  loss = functools.partial(jax.eval_shape, ROWS[name].loss)
  student, target = to32(*draw(ROWS[name]))
  with pytest.raises(ValueError, match=r"\(4, 5\)|\(3,"):
    loss(student, target[:-1])
  with pytest.raises(ValueError):
    loss(student[:, :-1], target[None])
  with pytest.raises(TypeError, match="expected floating"):
    loss(student.astype(np.int32), target)
  with pytest.raises(TypeError, match=r"expected (floating|integers)"):
    loss(student, target.astype(float if ROWS[name].labels else int))
  with pytest.raises(TypeError, match="expected booleans"):
    loss(student, target, where=np.ones((B, K)))
  with pytest.raises(ValueError, match="where: shape"):
    loss(student, target, where=np.ones((B, K + 1), bool))


@rows()
def test_bfloat16_is_computed_in_float32(name):
  student, target = draw(ROWS[name])
  student = jnp.asarray(student, jnp.bfloat16)
  if not ROWS[name].labels:
    target = jnp.asarray(target, jnp.bfloat16)
  actual = jax.eval_shape(ROWS[name].loss, student, target)
  assert actual.dtype == jnp.float32


@rows()
def test_traced_once(name):
  for seed in range(3):
    compiled(name)(*to32(*draw(ROWS[name], seed)))
  assert TRACES[name] == 1


@pytest.mark.parametrize(
  ("name", "share"),
  [("kl_divergence", 0.5), ("reverse_kl", 0.5), ("jensen_shannon", 0.125)],
)
def test_hot_limit_is_centred_mse(name, share):
  """T -> inf: a share of the mean squared difference of centred logits."""
  student, teacher = draw(ROWS[name])
  with jax.enable_x64(True):
    actual = jax.jit(of(name, temperature=1e4))(student, teacher)
  np.testing.assert_allclose(
    actual, share * (student - teacher).var(-1), rtol=2e-3
  )
