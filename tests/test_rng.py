# SPDX-License-Identifier: Apache-2.0
"""Random streams: named, repeatable, and independent of each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tgt_jax import rng

ROOT = jax.random.key(7)
NAMES = ("init", "explore", "augment", "augment/strong", "dropout", "", "é")


def bits(key):
  return np.asarray(jax.random.key_data(key))


def test_a_stream_by_hand():
  """The first four SHA-256 bytes of the name, folded into the key."""
  # printf explore | sha256sum
  expected = jax.random.fold_in(ROOT, 0x6F281157)
  np.testing.assert_array_equal(
    bits(rng.stream(ROOT, "explore")), bits(expected)
  )


def test_names_and_roots_have_keys_of_their_own():
  roots = [ROOT, jax.random.key(8), jax.random.fold_in(ROOT, 1)]
  keys = {tuple(bits(rng.stream(r, n))) for r in roots for n in NAMES}
  assert len(keys) == len(roots) * len(NAMES)
  assert not keys & {tuple(bits(root)) for root in roots}


def test_a_new_consumer_leaves_the_others_alone():
  """A key does not depend on which streams were asked for, or when."""
  first = {name: bits(rng.stream(ROOT, name)) for name in NAMES}
  for name in reversed(NAMES):
    rng.stream(ROOT, f"{name}/new")
    np.testing.assert_array_equal(bits(rng.stream(ROOT, name)), first[name])


def test_streams_of_streams_do_not_commute():
  inner = rng.stream(rng.stream(ROOT, "explore"), "init")
  outer = rng.stream(rng.stream(ROOT, "init"), "explore")
  assert np.any(bits(inner) != bits(outer))


@pytest.mark.parametrize("name", ["explore", ""])
def test_jit_is_eager(name):
  def draw(key):
    keys = rng.split_examples(rng.stream(key, name), 3)
    return jax.vmap(lambda k: jax.random.bits(k, (2,)))(keys)

  np.testing.assert_array_equal(jax.jit(draw)(ROOT), draw(ROOT))


def test_every_process_has_the_same_streams():
  """Python's own `hash` of a string differs from process to process."""
  code = """
    import jax
    from tgt_jax import rng
    key = rng.stream(jax.random.key(7), "explore")
    print(*jax.random.key_data(key), *jax.random.bits(key, (2,)))
  """
  found = helpers.finish(helpers.start(code, PYTHONHASHSEED="1"))
  key = rng.stream(ROOT, "explore")
  expected = [*bits(key), *np.asarray(jax.random.bits(key, (2,)))]
  assert found.split() == [str(value) for value in expected]


def test_a_step_is_a_fold_of_the_root():
  """A run that resumes at step n draws what it would have drawn."""

  def keys(start):
    return [
      bits(rng.stream(jax.random.fold_in(ROOT, step), "explore"))
      for step in range(start, 6)
    ]

  np.testing.assert_array_equal(keys(3), keys(0)[3:])
  assert len({tuple(key) for key in keys(0)}) == 6


@pytest.mark.parametrize("size, cuts", [(1, []), (5, [2]), (64, [16, 32, 48])])
def test_example_keys_are_all_different(size, cuts):
  keys = bits(rng.split_examples(ROOT, size))
  assert keys.shape[0] == size == len({tuple(key) for key in keys})
  # Devices that take parts of the batch take parts of the keys.
  np.testing.assert_array_equal(np.concatenate(np.split(keys, cuts)), keys)


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_an_examples_noise_does_not_depend_on_the_split(parts):
  """Every part of a batch draws alone what the whole batch draws."""
  draw = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (3,))))
  keys = rng.split_examples(ROOT, 8)
  alone = [draw(part) for part in jnp.split(keys, parts)]
  np.testing.assert_array_equal(np.concatenate(alone), draw(keys))


def correlation(first, second):
  return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


def test_streams_are_not_correlated():
  """Of independent samples a correlation has deviation 1 / sqrt(n)."""
  size = 40_000
  names = ("explore", "augment", "explore/1", "explore/2")
  drawn = [jax.random.normal(rng.stream(ROOT, n), (size,)) for n in names]
  next_step = jax.random.fold_in(ROOT, 1)
  drawn.append(jax.random.normal(rng.stream(next_step, "explore"), (size,)))
  for i, one in enumerate(drawn):
    assert abs(np.mean(one)) < 4 / np.sqrt(size)
    assert abs(np.std(one) - 1) < 4 / np.sqrt(2 * size)
    for other in drawn[:i]:
      assert abs(correlation(one, other)) < 4 / np.sqrt(size)


def test_neighbouring_examples_are_not_correlated():
  keys = rng.split_examples(rng.stream(ROOT, "explore"), 2000)
  noise = np.asarray(jax.vmap(lambda k: jax.random.normal(k, (20,)))(keys))
  for shift in (1, 2, 7):
    bound = 4 / np.sqrt(noise[shift:].size)
    assert abs(correlation(noise[shift:], noise[:-shift])) < bound
