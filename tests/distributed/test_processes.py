# SPDX-License-Identifier: Apache-2.0
"""Processes find each other, or say why not, and are then one run."""

from __future__ import annotations

import signal

import jax
import pytest

from tests import helpers
from tgt_jax import distributed

_CLUSTER_VARIABLES = (
  "JAX_COORDINATOR_ADDRESS",
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
  "SLURM_STEP_NODELIST",
  "SLURM_NTASKS",
  "OMPI_COMM_WORLD_SIZE",
  "PMI_SIZE",
  "KUBERNETES_SERVICE_HOST",
  "JOB_COMPLETION_INDEX",
  "MEGASCALE_NUM_SLICES",
  "TPU_PROCESS_ADDRESSES",
  "TPU_WORKER_HOSTNAMES",
)


@pytest.fixture
def plain_host(monkeypatch):
  """An environment in which nothing hints at a cluster."""
  for name in _CLUSTER_VARIABLES:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
  return monkeypatch


@pytest.mark.parametrize(
  "variables, expected",
  [
    ({}, None),
    ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_COORDINATOR_ADDRESS"),
    ({"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS"),
    ({"SLURM_STEP_NODELIST": "a,b", "SLURM_NTASKS": "2"}, "Slurm"),
    ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, None),
    ({"SLURM_NTASKS": "2"}, None),  # A shell in an allocation, no task.
    ({"OMPI_COMM_WORLD_SIZE": "4"}, "MPI"),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ({"PMI_SIZE": "4"}, "MPI"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # A notebook's pod.
    (
      {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
      "Kubernetes",
    ),
    ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, "TPU pod"),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ({"MEGASCALE_NUM_SLICES": "2"}, "TPU pod"),
  ],
)
def test_detect_cluster(plain_host, variables, expected):
  for name, value in variables.items():
    plain_host.setenv(name, value)
  found = distributed.detect_cluster()
  assert found is None if expected is None else found.startswith(expected)


@pytest.mark.parametrize("multihost", ["auto", "off"])
def test_a_plain_host_stays_alone(plain_host, multihost):
  assert not distributed.initialize(multihost)
  assert not jax.distributed.is_initialized()
  assert distributed.is_main_process()
  distributed.barrier("alone")  # Nobody to wait for.


def test_off_beats_a_cluster(plain_host):
  plain_host.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
  assert not distributed.initialize("off")


def test_initialize_refuses_other_words(plain_host):
  with pytest.raises(ValueError, match="'auto', 'on' or 'off', got 'yes'"):
    distributed.initialize("yes")


_JOIN = """
  import sys
  from tgt_jax import distributed
  distributed.initialize(sys.argv[1], timeout_seconds=2)
"""


@pytest.mark.parametrize(
  "multihost, variables, message",
  [
    ("on", {}, "Not set: JAX_COORDINATOR_ADDRESS"),
    ("auto", {"JAX_NUM_PROCESSES": "two"}, "whole number, got 'two'"),
    ("auto", {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, "Not set: JAX_NUM"),
    (
      "auto",
      {
        "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1",  # Nobody listens there.
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
      },
      "the other processes have not come",
    ),
  ],
)
def test_failing_to_join_is_fatal(plain_host, multihost, variables, message):
  process = helpers.start(_JOIN, multihost, **variables)
  _, err = process.communicate(timeout=60)
  assert process.returncode not in (0, -signal.SIGKILL)
  assert message in err
  assert "--multihost=off" in err


_TWO = """
  import jax, jax.numpy as jnp, numpy as np
  from tgt_jax import distributed

  assert distributed.initialize()
  assert distributed.initialize()  # Once more does no harm.
  assert jax.process_count() == 2 and jax.device_count() == 4
  mesh = distributed.make_mesh()
  me = jax.process_index()
  x_BxD = np.arange(24.0, dtype=np.float32).reshape(8, 3)
  local = distributed.process_batch_size(8, mesh)
  assert local == 4
  sharding = distributed.batch_sharding(mesh)
  batch = distributed.put_batch(
      {"x": x_BxD[4 * me : 4 * me + 4], "y": np.arange(4) + 4 * me}, sharding)
  assert batch["x"].shape == (8, 3) and batch["y"].shape == (8,)

  w = distributed.replicate({"w": np.ones(3, np.float32)}, mesh)
  loss = lambda w, batch: ((batch["x"] @ w["w"]) ** 2).mean()
  grad = jax.jit(jax.grad(loss))(w, batch)["w"]
  exact = 2 * x_BxD.T @ x_BxD.sum(1) / 8
  np.testing.assert_allclose(grad, exact, rtol=1e-6)

  double = jax.jit(distributed.per_example(mesh)(lambda w, x: x * w["w"][None] * 2))
  text = double.lower(w, batch["x"]).compile().as_text()
  assert not any(distributed.collectives(text).values())
  for shard in double(w, batch["x"]).addressable_shards:
    np.testing.assert_array_equal(shard.data, 2 * x_BxD[shard.index])

  split = distributed.place(
      {"k": np.arange(8.0, dtype=np.float32)},
      distributed.state_shardings(
          {"k": np.zeros(8)}, mesh, [("k", jax.sharding.PartitionSpec("data"))]))
  assert split["k"].addressable_shards[0].data.shape == (2,)
  assert float(jax.jit(jnp.sum)(split["k"])) == 28
  # Keys travel like other arrays: one for all, and one for each example.
  data_Bx2 = np.arange(16, dtype=np.uint32).reshape(8, 2)
  raw = jax.jit(jax.random.key_data)
  key = jax.random.wrap_key_data(data_Bx2[0])
  everywhere = distributed.replicate({"k": key}, mesh)["k"]
  np.testing.assert_array_equal(
      raw(everywhere).addressable_data(0), data_Bx2[0])
  mine = jax.random.wrap_key_data(data_Bx2[4 * me : 4 * me + 4])
  for shard in raw(distributed.put_batch(mine, sharding)).addressable_shards:
    np.testing.assert_array_equal(shard.data, data_Bx2[shard.index])
  distributed.barrier("end")
  print("main" if distributed.is_main_process() else "other", "process")
"""


def test_two_processes_are_one_run():
  outs = helpers.run_processes(_TWO, 2, devices=2, timeout=240)
  for out, role in zip(outs, ("main", "other"), strict=True):
    assert f"{role} process" in out


def test_the_helper_reports_a_failing_program():
  with pytest.raises(AssertionError, match=r"exit 3(.|\n)*a word"):
    helpers.run_with_devices("import sys; print('a word'); sys.exit(3)", 1)
