# SPDX-License-Identifier: Apache-2.0
"""What single label losses promise beyond the battery."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import losses

COUNTS = [100, 10, 1]


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_label_out_of_range_is_nan_and_not_another_class(label):
  labels = np.array([0, label], np.int32)
  value, slope = jax.jit(
    jax.value_and_grad(
      lambda s: jnp.sum(
        jnp.array([1.0, 0.0]) * jnp.nan_to_num(losses.cross_entropy(s, labels))
      )
    )
  )(np.zeros((2, 3), np.float32))
  plain = jax.jit(losses.cross_entropy)(np.zeros((2, 3), np.float32), labels)
  assert np.isnan(plain[1])
  # A padded example with such a label can still be masked away.
  np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
  np.testing.assert_array_equal(slope[1], np.zeros(3))


def test_logit_adjustment_ends_at_cross_entropy_and_balanced_softmax():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 3)).astype(np.float32)
  labels = np.array([0, 1, 2, 2], np.int32)

  @jax.jit
  def all_of_them(logits):
    adjusted = functools.partial(
      losses.logit_adjustment, logits, labels, class_counts=COUNTS
    )
    return (
      losses.cross_entropy(logits, labels),
      adjusted(tau=0.0),
      losses.balanced_softmax(logits, labels, class_counts=COUNTS),
      adjusted(tau=1.0),
    )

  plain, tau_0, balanced, tau_1 = all_of_them(logits)
  np.testing.assert_allclose(tau_0, plain, rtol=1e-6)
  np.testing.assert_array_equal(tau_1, balanced)


def test_counts_matter_only_up_to_a_factor():
  logits = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
  labels = np.arange(3, dtype=np.int32)

  @jax.jit
  def both(logits):
    return [
      [
        loss(logits, labels, class_counts=factor * np.array(COUNTS))
        for loss in (losses.balanced_softmax, losses.ldam)
      ]
      for factor in (1, 7)
    ]

  once, seven_times = both(logits)
  np.testing.assert_allclose(once, seven_times, rtol=1e-5)


def test_equal_counts_give_cross_entropy():
  logits = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
  labels = np.arange(3, dtype=np.int32)
  plain = losses.cross_entropy(logits, labels)
  for loss in (
    losses.balanced_softmax,
    losses.class_weighted,
    functools.partial(losses.ldam, max_margin=0.0, scale=1.0),
  ):
    actual = loss(logits, labels, class_counts=[5, 5, 5])
    np.testing.assert_allclose(actual, plain, rtol=1e-6)


def test_rare_classes_have_wider_margins():
  """At equal logits the loss grows as the class gets rarer."""
  values = losses.ldam(
    jnp.zeros((3, 3)), jnp.arange(3), class_counts=COUNTS, scale=1.0
  )
  assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize(
  "loss, hyper, match",
  [
    (losses.balanced_softmax, {"class_counts": [1, 2]}, "3 classes"),
    (losses.balanced_softmax, {"class_counts": [1, 0, 2]}, "class 1"),
    (losses.ldam, {"class_counts": COUNTS, "scale": 0.0}, "scale"),
    (losses.ldam, {"class_counts": COUNTS, "max_margin": -1.0}, "max_margin"),
    (losses.logit_adjustment, {"class_counts": COUNTS, "tau": -1.0}, "tau"),
    (losses.class_weighted, {"class_counts": [1, 2]}, "3 classes"),
    (
      losses.class_weighted,
      {"class_counts": COUNTS, "effective_beta": 1.0},
      "beta",
    ),
    (losses.cross_entropy, {"label_smoothing": 1.5}, "label_smoothing"),
  ],
)
def test_bad_arguments(loss, hyper, match):
  with pytest.raises(ValueError, match=match):
    loss(jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), **hyper)


class TestGrades:
  """Cross-entropy to a mixture of the two nearest classes."""

  LOGITS = np.random.default_rng(3).normal(size=(4, 6))

  def test_a_whole_grade_is_a_class(self):
    whole = np.array([0, 5, 2, 3])
    expected = losses.cross_entropy(self.LOGITS, whole)
    for grades in (whole, whole.astype(np.float32)):
      found = losses.graded_cross_entropy(self.LOGITS, grades)
      np.testing.assert_allclose(found, expected, rtol=1e-6)

  def test_between_two_classes(self):
    grades = np.array([0.25, 4.75, 2.4, 3.0])
    targets = np.zeros((4, 6))
    for row, (low, share) in enumerate(
      [(0, 0.25), (4, 0.75), (2, 0.4), (3, 0.0)]
    ):
      targets[row, low], targets[row, low + 1] = 1 - share, share
    log_probs = jax.nn.log_softmax(self.LOGITS)
    np.testing.assert_allclose(
      losses.graded_cross_entropy(self.LOGITS, grades),
      -np.sum(targets * log_probs, -1),
      rtol=1e-5,
    )
    np.testing.assert_allclose(targets @ np.arange(6), grades)

  def test_one_class_has_no_grades(self):
    with pytest.raises(ValueError, match="classes"):
      losses.graded_cross_entropy(np.zeros((2, 1)), np.zeros(2))
