# SPDX-License-Identifier: Apache-2.0
"""One device, eight devices, two processes: the same training."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests import helpers, tiny
from tgt_jax import experiment, export, train

# The whole tiny experiment; two processes find each other by the environment.
TRAIN = """
import sys
from tests import tiny
from tgt_jax import distributed, train
distributed.initialize("auto")
train.run(tiny.get_config("6"), sys.argv[1])
"""

# What exploring and a whole step of the real method compile to.
PROGRAMS = """
import functools, jax, jax.numpy as jnp, numpy as np
from tests import tiny
from tgt_jax import (
  build,
  distributed,
  methods,
  networks,
  settings,
  training,
)
config = settings.plain(tiny.get_config("6"))
counts = build.class_counts(config)
def step_of(mesh):
  arm = build.arm(config, "gradient", counts,
                  per_example=distributed.per_example(mesh))
  batch = build.example_batch(arm.config)
  noise = jax.random.uniform(jax.random.key(1), batch["input"].shape)
  batch = {**batch, "input": noise, "starts": {**batch["starts"],
                                               "input": noise}}
  @jax.jit
  def init(batch):
    frozen = networks.init_frozen(config, jax.random.key(0), batch["input"])
    return arm.method.init(jax.random.key(2), batch), frozen
  return arm, *init(batch), batch
def explore(arm, state, frozen, batch):
  return methods.make_neighbours(
      arm.parts, methods.explored(arm.parts), state.params["student"],
      state.model_state["student"], frozen, batch, jax.random.key(3),
      state.step)
arm, state, frozen, batch = step_of(None)
alone = jax.jit(functools.partial(explore, arm))(state, frozen, batch)
plain, _ = jax.jit(arm.method.update)(state, frozen, batch, jax.random.key(3))
mesh = distributed.make_mesh()
arm, *_ = step_of(mesh)
state, frozen = (distributed.replicate(t, mesh) for t in (state, frozen))
batch = distributed.put_batch(batch, distributed.batch_sharding(mesh))
program = jax.jit(functools.partial(explore, arm)).lower(
    state, frozen, batch).compile()
found = distributed.collectives(program.as_text())
assert not any(found.values()), found
shown = program(state, frozen, batch)
for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(shown), strict=True):
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
step = jax.jit(arm.method.update).lower(
    state, frozen, batch, jax.random.key(3)).compile()
found = distributed.collectives(step.as_text())
assert found["all-reduce"] > 0, found
assert sum(found.values()) == found["all-reduce"], found
state, _ = step(state, frozen, batch, jax.random.key(3))
for a, b in zip(jax.tree.leaves(plain.opt_state),
                jax.tree.leaves(state.opt_state), strict=True):
  np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
"""


def test_exploring_needs_no_collective_and_a_step_only_reductions():
  helpers.run_with_devices(PROGRAMS, 8, timeout=300)


def students(workdir):
  return [
    export.load_student(experiment.student_folder(workdir, "gradient", seed))
    for seed in (0, 1)
  ]


def same(first, second):
  for a, b in zip(students(first), students(second), strict=True):
    for layer, arrays in a.params.items():
      for name, array in arrays.items():
        np.testing.assert_allclose(
          array, b.params[layer][name], rtol=1e-3, atol=2e-5
        )


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one")
  assert jax.device_count() == 1
  train.run(tiny.get_config("6"), workdir)
  return workdir


@pytest.mark.thorough
def test_eight_devices_train_the_same_students(tmp_path, one_device):
  helpers.run_with_devices(TRAIN, 8, tmp_path, timeout=400)
  same(one_device, tmp_path)


@pytest.mark.thorough
def test_two_processes_train_the_same_students(tmp_path, one_device):
  helpers.run_processes(TRAIN, 2, tmp_path, timeout=400)
  same(one_device, tmp_path)
  assert (tmp_path / "report.html").exists()
