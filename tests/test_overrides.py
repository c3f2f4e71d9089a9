# SPDX-License-Identifier: Apache-2.0
"""Arguments of the command line that change an experiment."""

from __future__ import annotations

import pathlib
import sys

import pytest
from absl import flags

from tests import helpers
from tgt_jax import main, settings

TINY = pathlib.Path(__file__).parent / "tiny.py"


@pytest.fixture
def parsed(monkeypatch):
  """Reads arguments; returns the experiment that they make."""

  def parse(*options, file=TINY):
    argv = ["tgt_jax", f"--config={file}", "--workdir=x", *options]
    monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks there.
    main.parse(argv)
    return flags.FLAGS.config

  helpers.forget_flags()
  yield parse
  helpers.forget_flags()


# ml_collections loads config files by a deprecated call.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_what_a_file_leaves_out_may_be_set(parsed):
  before = parsed()
  assert "mean" not in before.student
  assert "optimizer" not in before.arms.gradient
  helpers.forget_flags()
  config = parsed(
    "--config.student.mean=(0.5,)",
    "--config.arms.gradient.method.num_generated=2",
    "--config.arms.gradient.optimizer={'learning_rate': 0.25}",
    "--config.arms.more={'method': {'name': 'kd'}}",
    "--config.seed=7",
  )
  made = settings.checked(config)
  assert made["seed"] == 7 and made["student"]["mean"] == (0.5,)
  assert made["arms"]["gradient"]["method"]["num_generated"] == 2
  mine = settings.arm_config(made, "gradient")["optimizer"]
  assert mine == {**made["optimizer"], "learning_rate": 0.25}
  assert list(made["arms"]) == [*before.arms, "more"]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_file_that_is_not_there_has_neighbours(parsed):
  with pytest.raises(SystemExit, match="no .*tinny.py. Did you mean .*tiny.py"):
    parsed(file=TINY.with_name("tinny.py"))
