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
  done, told = [], []

  def work(piece):
    met.wait()
    done.append((piece.start, piece.stop))

  threads.for_rows(work, 4, pixels=512 * 512, done=told.append)
  assert sorted(done) == [(0, 1), (1, 2), (2, 3), (3, 4)]
  assert told == [1, 2, 3, 4]


def test_few_small_images_are_not():
  seen = []
  threads.for_rows(
    lambda piece: seen.append((piece, threading.current_thread())),
    64,
    pixels=32 * 32,
  )
  assert seen == [(slice(0, 64), threading.current_thread())]


def test_many_small_images_are_pieces_of_all():
  seen = []
  threads.for_rows(seen.append, 5000, pixels=32 * 32)
  rows = [row for piece in seen for row in range(5000)[piece]]
  assert sorted(rows) == list(range(5000))


def test_the_first_error_counts():
  def work(piece):
    if piece.start in (3, 5):
      raise ValueError(f"image {piece.start}")

  with pytest.raises(ValueError, match="image 3"):
    threads.for_rows(work, 8, pixels=512 * 512)


@pytest.mark.parametrize("name", ["random_resized_crop", "randaugment"])
def test_batches_are_the_same_on_one_core(monkeypatch, name):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 400, 400, 3), dtype=np.uint8)
  source = data.from_arrays(images, np.arange(8), name="x")
  batches = data.training_batches(
    source,
    batch_size=8,
    seed=0,
    num_steps=1,
    augment=[data.AUGMENTATIONS[name](), data.AUGMENTATIONS["erase"]()],
  )
  together = batches[0]["input"]
  monkeypatch.setattr(threads, "cores", lambda: 1)
  np.testing.assert_array_equal(batches[0]["input"], together)
