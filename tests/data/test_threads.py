# SPDX-License-Identifier: Apache-2.0
"""Images of a batch at once: the same results, the first error."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import threads


@pytest.fixture(name="several", autouse=True)
def _several(monkeypatch):
  """Several threads, whatever the machine."""
  monkeypatch.setattr(threads, "cores", lambda: 4)
  threads._pool.cache_clear()
  yield
  threads._pool.cache_clear()


def test_large_images_are_worked_on_by_several_threads():
  met = threading.Barrier(4, timeout=30)  # Breaks if fewer are at work.
  done = []

  def work(number):
    met.wait()
    done.append(number)

  threads.for_each(work, 4, pixels=224 * 224)
  assert sorted(done) == [0, 1, 2, 3]


def test_small_images_are_not():
  seen = set()
  threads.for_each(
    lambda _: seen.add(threading.current_thread()), 8, pixels=32 * 32
  )
  assert seen == {threading.current_thread()}


def test_the_first_error_counts():
  def work(number):
    if number in (3, 5):
      raise ValueError(f"image {number}")

  with pytest.raises(ValueError, match="image 3"):
    threads.for_each(work, 8, pixels=224 * 224)


@pytest.mark.parametrize("name", ["random_resized_crop", "randaugment"])
def test_augmentation_is_the_same_one_image_at_a_time(name):
  rng = np.random.default_rng(0)
  augmentation = data.AUGMENTATIONS[name]()
  images = rng.random((6, 128, 128, 3), dtype=np.float32)
  uniforms = rng.random((6, augmentation.draws))
  together = augmentation.apply(images, uniforms)
  for row in range(6):
    one = augmentation.apply(images[row : row + 1], uniforms[row : row + 1])
    np.testing.assert_array_equal(together[row], one[0])
