# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: NPY002  # Published code drew from numpy's global stream.
"""Long-tailed training sets."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from tgt_jax import longtail

FASHION = [1000, 599, 359, 215, 129, 77, 46, 27, 16, 10]


@pytest.mark.parametrize(
  "head, num_classes, ratio, total",
  [
    (500, 100, 100, 10_847),  # CIFAR-100-LT
    (5000, 10, 100, 12_406),  # CIFAR-10-LT
    (1000, 10, 100, 2_478),  # Fashion-MNIST-LT
  ],
)
def test_sizes_of_known_training_sets(head, num_classes, ratio, total):
  counts = longtail.exponential_counts(head, num_classes, ratio)
  assert counts.sum() == total
  assert counts[0] == head
  assert counts[-1] == head // ratio


def test_counts_of_fashion_mnist_lt():
  assert longtail.exponential_counts(1000, 10, 100).tolist() == FASHION


@hypothesis.given(
  head=strategies.integers(1, 5000),
  num_classes=strategies.integers(1, 300),
  ratio=strategies.floats(1, 500),
)
def test_exponential_profile(head, num_classes, ratio):
  hypothesis.assume(ratio <= head)
  counts = longtail.exponential_counts(head, num_classes, ratio)
  assert counts.shape == (num_classes,)
  assert counts[0] == head
  assert np.all(np.diff(counts) <= 0)
  assert counts[-1] >= 1
  ratios = counts[1:] / (counts[:-1] + 1)  # Of reals that were rounded down.
  step = ratio ** (-1 / max(num_classes - 1, 1))
  assert np.all(ratios <= step + 1e-9)


def test_the_rarest_class_may_have_one_example_at_every_head():
  for head in range(1, 2000):
    for classes in (2, 10, 100):
      counts = longtail.exponential_counts(head, classes, head)
      assert (counts[0], counts[-1]) == (head, 1), (head, classes)


@hypothesis.given(
  head=strategies.integers(1, 5000),
  num_classes=strategies.integers(2, 40),
  ratio=strategies.integers(1, 5000),
)
def test_exponential_profile_in_whole_numbers(head, num_classes, ratio):
  """n <= head * ratio ** (-k / m) is n ** m * ratio ** k <= head ** m."""
  hypothesis.assume(ratio <= head)
  counts = longtail.exponential_counts(head, num_classes, ratio)
  m = num_classes - 1
  for k, n in enumerate(counts.tolist()):
    assert n**m * ratio**k <= head**m < (n + 1) ** m * ratio**k


def test_powers_that_are_whole_numbers():
  """1000 ** (1/3), 64 ** (1/6): a rounding below, and an example is lost."""
  assert longtail.exponential_counts(1000, 4, 1000).tolist() == [
    1000, 100, 10, 1,
  ]  # fmt: skip
  assert longtail.exponential_counts(64, 7, 64).tolist() == [
    64, 32, 16, 8, 4, 2, 1,
  ]  # fmt: skip


@pytest.mark.parametrize("power", [1e-9, 1e-3, 0.1, 6.0, 1e6, 1e9])
def test_pareto_profile_at_any_power(power):
  counts = longtail.pareto_counts(1000, 20, 5, power=power)
  assert (counts[0], counts[-1]) == (1000, 5)
  assert np.all(np.diff(counts) <= 0)
  # Towards an exponential law as the power grows, to a step as it falls.
  if power >= 1e6:
    law = np.log(20 / np.arange(1, 21)) / np.log(20)
    np.testing.assert_allclose(counts, 5 + 995 * law, atol=1.0)
  if power <= 1e-3:
    assert counts.tolist() == [1000] + [5] * 19


def test_pareto_profile_is_that_of_imagenet_lt():
  counts = longtail.pareto_counts(1280, 1000, 5)
  assert counts[0] == 1280
  assert counts[-1] == 5
  assert np.all(np.diff(counts) <= 0)
  # A random draw of it, ImageNet-LT, has 115.8 thousand images.
  assert 100_000 < counts.sum() < 130_000


def test_pareto_profile_by_hand():
  """(1 - u) ** -1 - 1 at u = 0, 1/4, 1/2, 3/4 is 0, 1/3, 1, 3."""
  counts = longtail.pareto_counts(101, 4, 11, power=1.0)
  assert counts.tolist() == [101, 41, 21, 11]
  assert longtail.pareto_counts(7, 1, 3).tolist() == [7]


@pytest.mark.parametrize(
  "call, match",
  [
    (lambda: longtail.exponential_counts(0, 3, 1), "head"),
    (lambda: longtail.exponential_counts(5, 0, 1), "num_classes"),
    (lambda: longtail.exponential_counts(5, 3, 0.5), "imbalance_ratio"),
    (lambda: longtail.exponential_counts(5, 3, 10), "at most 5"),
    (lambda: longtail.pareto_counts(5, 3, 6), "tail"),
    (lambda: longtail.pareto_counts(5, 3, 0), "tail"),
    (lambda: longtail.exponential_counts(5, 1, np.inf), "finite and >= 1"),
    (lambda: longtail.exponential_counts(5, 3, np.nan), "finite and >= 1"),
    (lambda: longtail.pareto_counts(5, 3, 1, power=0.0), "power"),
    (lambda: longtail.pareto_counts(5, 3, 1, power=np.inf), "power .* inf"),
    (lambda: longtail.pareto_counts(5, 3, 1, power=np.nan), "power .* nan"),
    (lambda: longtail.log_prior([3, 1], smoothing=np.inf), "smoothing"),
    (lambda: longtail.log_prior([3, np.nan]), "nan for class 1"),
    (lambda: longtail.ldam_ids([0, 1, 1], [1, 3]), "class 1: 3"),
    (lambda: longtail.class_counts([0, 3], 3), r"\[0, 3\)"),
    (lambda: longtail.class_counts([-1, 0], 3), r"\[-1, 0\]"),
    (lambda: longtail.class_counts([0.0, 1.0], 3), "integers"),
    (lambda: longtail.class_counts([[0, 1]], 3), "integers"),
    (lambda: longtail.subsample_ids([0, 1, 1], [2, 1]), "class 0: 2"),
    (lambda: longtail.effective_number([1, 2], beta=1.0), "beta"),
    (lambda: longtail.effective_number([1, 0], beta=0.9), "class 1"),
    (lambda: longtail.log_prior([3, 0]), "class 1"),
    (lambda: longtail.log_prior([3, 1], smoothing=-1.0), "smoothing"),
    (lambda: longtail.log_prior([[3, 1]]), "shape"),
    (lambda: longtail.many_medium_few([1], many=5, few=6), "few"),
    (lambda: longtail.sampling_probabilities([0], 1, scheme="no"), "square"),
    (lambda: longtail.sampling_probabilities(np.zeros(0, int), 1), "one ex"),
  ],
)
def test_bad_arguments(call, match):
  with pytest.raises(ValueError, match=match):
    call()


LABELS = np.random.default_rng(0).integers(0, 4, 400)


def test_a_subset_has_the_counts_asked_for():
  ids = longtail.subsample_ids(LABELS, [50, 20, 5, 0], seed=3)
  assert np.bincount(LABELS[ids], minlength=4).tolist() == [50, 20, 5, 0]
  assert np.all(np.diff(ids) > 0)  # Sorted, and none twice.


def test_a_larger_subset_contains_the_smaller():
  small = longtail.subsample_ids(LABELS, [9, 4, 2, 1])
  large = longtail.subsample_ids(LABELS, [9, 40, 20, 1])
  assert set(small) < set(large)


def test_a_class_does_not_depend_on_other_classes_counts():
  one = longtail.subsample_ids(LABELS, [30, 0, 0, 9])
  two = longtail.subsample_ids(LABELS, [5, 60, 7, 9])
  np.testing.assert_array_equal(one[LABELS[one] == 3], two[LABELS[two] == 3])


def test_seeds_differ_and_repeat():
  def pick(seed):
    return longtail.ids_hash(
      longtail.subsample_ids(LABELS, [50, 20, 5, 1], seed=seed)
    )

  assert len({pick(seed) for seed in range(20)}) == 20
  assert pick(7) == pick(7)


def test_a_subset_is_the_same_on_every_machine_and_version():
  ids = longtail.subsample_ids(np.arange(60) % 3, [5, 3, 1], seed=1)
  assert ids.tolist() == [15, 21, 36, 39, 42, 47, 49, 52, 58]
  assert longtail.ids_hash(ids) == "a3ff2a76dbaa"


def test_hash_of_ids_by_hand():
  """The digits of sha256 over eight little-endian bytes per id."""
  # printf '\\x01\\0\\0\\0\\0\\0\\0\\0\\x02\\0\\0\\0\\0\\0\\0\\0' | sha256sum
  digits = "0c730b69905c"
  assert longtail.ids_hash([2, 1]) == digits
  assert longtail.ids_hash(np.array([1, 2], np.uint8)) == digits
  assert longtail.ids_hash([1, 3]) != digits


def test_effective_number_by_hand():
  """E_n = 1 + beta + ... + beta ** (n - 1)."""
  counts = np.array([1, 2, 3, 50])
  series = [sum(0.9**i for i in range(n)) for n in counts]
  actual = longtail.effective_number(counts, beta=0.9)
  np.testing.assert_allclose(actual, series, rtol=1e-12)


def test_effective_number_lies_between_one_and_n():
  counts = np.array([1, 10, 10_000])
  np.testing.assert_array_equal(
    longtail.effective_number(counts, beta=0.0), np.ones(3)
  )
  np.testing.assert_allclose(
    longtail.effective_number(counts, beta=1 - 1e-12), counts, rtol=1e-6
  )


def test_weights_have_mean_one_and_favour_the_rare():
  weights = longtail.effective_number_weights([1000, 100, 10], beta=0.999)
  np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-12)
  assert np.all(np.diff(weights) > 0)


def test_rule_of_imagenet_lt():
  """More than 100, from 20 to 100, less than 20."""
  groups = longtail.many_medium_few([1280, 101, 100, 50, 20, 19, 5])
  assert groups.many.tolist() == [1, 1, 0, 0, 0, 0, 0]
  assert groups.medium.tolist() == [0, 0, 1, 1, 1, 0, 0]
  assert groups.few.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_thresholds_of_a_small_set():
  groups = longtail.many_medium_few([60, 30, 9, 3], many=40, few=10)
  assert [g.sum() for g in groups] == [1, 1, 2]


@hypothesis.given(
  strategies.lists(strategies.integers(0, 300), min_size=1, max_size=30)
)
def test_groups_part_the_classes(counts):
  groups = longtail.many_medium_few(counts)
  np.testing.assert_array_equal(np.sum(groups, axis=0), np.ones(len(counts)))


def test_log_prior():
  prior = longtail.log_prior([6, 3, 1])
  assert prior.dtype == np.float32
  np.testing.assert_allclose(np.exp(prior), [0.6, 0.3, 0.1], rtol=1e-6)
  np.testing.assert_allclose(
    np.exp(longtail.log_prior([3, 0], smoothing=1.0)), [0.8, 0.2], rtol=1e-6
  )


@pytest.mark.parametrize(
  "scheme, classes",
  [
    ("natural", [16 / 20, 4 / 20, 0]),
    ("square_root", [4 / 6, 2 / 6, 0]),
    ("class_balanced", [1 / 2, 1 / 2, 0]),
  ],
)
def test_sampling(scheme, classes):
  labels = np.array([0] * 16 + [1] * 4)
  probabilities = longtail.sampling_probabilities(labels, 3, scheme=scheme)
  by_class = np.bincount(labels, probabilities, minlength=3)
  np.testing.assert_allclose(by_class, classes, rtol=1e-12)
  assert len(set(probabilities[:16])) == len(set(probabilities[16:])) == 1


def test_ldam_ids_are_those_of_the_published_code():
  labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 40))
  counts = [40, 20, 10, 5, 2]
  state = np.random.get_state()
  try:  # The published code, with numpy's global stream.
    np.random.seed(0)
    expected = []
    for k, wanted in enumerate(counts):
      members = np.where(labels == k)[0]
      np.random.shuffle(members)
      expected += members[:wanted].tolist()
  finally:
    np.random.set_state(state)
  found = longtail.ldam_ids(labels, counts)
  assert found.tolist() == sorted(expected)
  with pytest.raises(ValueError, match="class 0: 41 examples wanted, 40"):
    longtail.ldam_ids(labels, [41, 1, 1, 1, 1])


@hypothesis.given(
  strategies.lists(strategies.integers(0, 6), min_size=1, max_size=60),
  strategies.sampled_from(sorted(longtail.SAMPLING)),
)
def test_sampling_is_a_distribution(labels, scheme):
  """Equal within a class, and n_k ** q between classes."""
  labels = np.array(labels)
  found = longtail.sampling_probabilities(labels, 7, scheme=scheme)
  assert found.shape == labels.shape
  np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-12)
  counts = np.bincount(labels, minlength=7)
  weights = np.where(counts > 0, counts ** longtail.SAMPLING[scheme], 0.0)
  np.testing.assert_allclose(
    np.bincount(labels, found, minlength=7), weights / weights.sum()
  )


def test_natural_sampling_is_uniform():
  labels = np.array([0, 0, 0, 2])
  found = longtail.sampling_probabilities(labels, 3, scheme="natural")
  np.testing.assert_allclose(found, np.full(4, 0.25), rtol=1e-12)


@hypothesis.given(
  strategies.lists(strategies.integers(1, 10_000), min_size=1, max_size=20)
)
def test_priors_are_frequencies(counts):
  prior = np.float64(longtail.log_prior(counts))
  np.testing.assert_allclose(np.exp(prior).sum(), 1.0, rtol=1e-5)
  np.testing.assert_allclose(
    prior - prior[0], np.log(counts) - np.log(counts[0]), atol=2e-6
  )
  doubled = longtail.log_prior([2 * n for n in counts])
  np.testing.assert_allclose(doubled, prior, atol=2e-6)
