# SPDX-License-Identifier: Apache-2.0
"""Scores from a network, and from answers that are at hand."""

from __future__ import annotations

import numpy as np

from tgt_jax import scoring


def test_answers_at_hand_score_as_when_asked_for():
  draws = np.random.default_rng(0)
  logits = draws.standard_normal((10, 3)).astype(np.float32)
  labels = draws.integers(0, 3, 10).astype(np.int32)
  counts = {"class_counts": np.array([30, 12, 3]), "groups": (20, 5)}

  def batches():
    for rows in (slice(0, 8), slice(8, 16)):
      size = len(labels[rows])
      fill = lambda array, size=size: np.concatenate(
        [array, np.zeros((8 - size, *array.shape[1:]), array.dtype)]
      )
      yield {
        "image": fill(logits[rows]),
        "label": fill(labels[rows]),
        "teacher_logits": fill(logits[rows]),
        "mask": fill(np.ones(size, np.float32)),
      }

  asked = scoring.score(
    np.zeros((1, 1)), batches(), logits=lambda variables, x: x, **counts
  )
  found = scoring.score_answers(logits, labels, **counts)
  assert found.keys() == asked.keys()
  for name, value in found.items():
    np.testing.assert_allclose(value, asked[name], rtol=1e-5, err_msg=name)
  assert found["agreement"] == 1.0
