# SPDX-License-Identifier: Apache-2.0
"""What Dec(Enc(x)) keeps of the test split, counted by hand."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from configs import sst2_low
from tests import tiny
from tgt_jax import (
  fit,
  networks,
  reconstruction,
  settings as settings_lib,
  splits,
)
from tgt_jax.teachers import Frozen


def _experiment(config):
  """The part of a run that is asked, its generator as it was drawn."""
  config = settings_lib.checked(config)
  sets = splits.load_sets(config)
  generator = networks.generator(config)
  x = sets.test.fetch(np.arange(8))["input"]
  params, state = generator.init(jax.random.key(0), x)
  frozen = {"generator": Frozen(params, state)}
  runtime = fit.Runtime(None, (), None, None, False)
  return types.SimpleNamespace(
    config=config,
    sets=sets,
    prepared=types.SimpleNamespace(frozen=frozen),
    runtime=runtime,
  ), lambda x: generator.decode(
    params, state, generator.encode(params, state, x), x
  )


def test_words_that_come_back(monkeypatch):
  pytest.importorskip("tokenizers")
  monkeypatch.setattr(reconstruction, "_EXAMPLES", 21)
  run, back = _experiment(sst2_low.get_config("smoke"))
  x = run.sets.test.fetch(np.arange(21))["input"]
  made = np.asarray(back(x)).argmax(-1)
  words = ~np.isin(x, run.sets.test.text.tokenizer.frame_ids)
  found = reconstruction.measure(run)
  assert found == {
    "words_recovered": pytest.approx(np.mean((made == x)[words]))
  }


def test_pixels_that_come_back(monkeypatch):
  monkeypatch.setattr(reconstruction, "_EXAMPLES", 37)
  run, back = _experiment(tiny.get_config())
  x = np.asarray(run.sets.test.fetch(np.arange(37))["input"])
  error = np.sqrt(np.mean(np.square(np.asarray(back(x)) - x)))
  found = reconstruction.measure(run)
  assert found == {"reconstruction_rms": pytest.approx(error, rel=1e-5)}


def test_nothing_comes_back_without_a_generator():
  config = settings_lib.plain(tiny.get_config())
  config["generator"] = {"name": ""}
  run = types.SimpleNamespace(config=config, sets=types.SimpleNamespace(test=0))
  assert reconstruction.measure(run) == {}
