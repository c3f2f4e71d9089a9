# SPDX-License-Identifier: Apache-2.0
"""Embeddings of which a known share is nuisance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from tgt_jax import data, registry
from tgt_jax.data import nuisance


def _build(**kwargs):
  spec = {"name": "nuisance", **kwargs}
  return registry.build(data.DATASETS, spec, family="data set")


def _all(source):
  ids = np.arange(len(source))
  return source.read(ids), source.embed(ids)[:, 0, 0], source.labels


_NUMBERS = {"task_factors": 8, "nuisance_factors": 64, "input_factors": 24}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_share_is_that_of_the_variance(share):
  source = _build(share=share, train_size=9).test
  embeddings = _all(source)[1].astype(np.float64)
  found = nuisance.factors("test", 2000, **_NUMBERS)
  total = embeddings.var(axis=0).sum()
  np.testing.assert_allclose(total, 128, rtol=0.04)
  # What a linear map of v explains of e.
  v = found.nuisance - found.nuisance.mean(axis=0)
  weights = np.linalg.lstsq(v, embeddings, rcond=None)[0]
  explained = (v @ weights).var(axis=0).sum() / total
  np.testing.assert_allclose(explained, share, atol=0.05)


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_task_factors_can_be_read_off_the_embedding(share):
  embeddings = _all(_build(share=share, test_size=9).train)[1]
  embeddings = embeddings.astype(np.float64)
  task = nuisance.factors("train", 500, **_NUMBERS).task
  weights = np.linalg.lstsq(embeddings, task, rcond=None)[0]
  np.testing.assert_allclose(embeddings @ weights, task, atol=1e-4)


def test_the_share_changes_the_embedding_alone():
  one, other = (_build(share=share).train for share in (0.1, 0.8))
  first, second = _all(one), _all(other)
  np.testing.assert_array_equal(first[0], second[0])
  np.testing.assert_array_equal(first[2], second[2])
  assert np.abs(first[1] - second[1]).max() > 1
  assert one.fingerprint != other.fingerprint


def test_a_probe_of_few_labels_gets_worse_with_the_share():
  scores = []
  for share in (0.0, 0.5, 0.95):
    dataset = _build(share=share, test_size=1000)
    (_, train, labels), (_, test, truth) = map(
      _all, (dataset.train, dataset.test)
    )
    probe = RidgeClassifier(alpha=100.0).fit(train, labels)
    scores.append(probe.score(test, truth))
  # Measured: 0.72, 0.56, 0.48.
  assert scores[0] > 0.68
  assert scores[0] > scores[1] + 0.1 and scores[1] > scores[2] + 0.04


def test_what_is_returned():
  dataset = _build(input_shape=(8, 4, 2), num_classes=5, embedding_width=80)
  train = dataset.train
  assert len(train) == 500 and len(dataset.test) == 2000
  assert dataset.train_full is train and train.input_shape == (8, 4, 2)
  images, _, _ = _all(train)
  assert images.dtype == np.float32 and images.std() > 0.2
  assert images.min() >= 0 and images.max() <= 1
  embeddings = train.embed(np.array([3, 3]))
  assert embeddings.shape == (2, 1, 1, 80) and embeddings.dtype == np.float32
  assert train.class_counts().min() > 20
  assert train.fingerprint != dataset.test.fingerprint
  again = _build(input_shape=(8, 4, 2), num_classes=5, embedding_width=80)
  assert again.train.fingerprint == train.fingerprint
  assert _build(seed=1).train.fingerprint != _build().train.fingerprint


def test_normals_are_normal():
  draw = nuisance._normals(3, "stream", 100, 1000)
  np.testing.assert_allclose(draw.mean(), 0, atol=0.02)
  np.testing.assert_allclose((draw**2).mean(), 1, atol=0.02)
  np.testing.assert_allclose((draw**4).mean(), 3, atol=0.1)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"share": 1.0}, r"share must be in \[0, 1\), got 1.0"),
    ({"embedding_width": 71}, r"must be >= task_.*8 \+ 64, got 71"),
    ({"input_shape": (8, 8)}, r"expected \(H, W, C\)"),
    ({"task_factors": 0}, "task_factors must be > 0"),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _build(**options)
