# SPDX-License-Identifier: Apache-2.0
"""Memory that one step frees is there for the next."""

from __future__ import annotations

import platform

import pytest

from tests import helpers

pytestmark = pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's"
)

# Faults of a second block as large as the first, which is free again.
PROGRAM = """
  import resource
  import numpy as np
  from tgt_jax import distributed

  kept = distributed.keep_freed_memory()
  fault = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = np.ones(1 << 24)
  del block
  before = fault()
  block = np.ones(1 << 24)
  print(kept, fault() - before)
"""


def run(**environment: str) -> tuple[str, int]:
  out = helpers.finish(helpers.start(PROGRAM, **environment))
  kept, faults = out.split()
  return kept, int(faults)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
  for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX"):
    monkeypatch.delenv(name, raising=False)


def test_freed_memory_is_kept() -> None:
  kept, faults = run()
  assert kept == "True"
  assert faults < 30


@pytest.mark.parametrize("kept", [True, False])
def test_programs_run_one_at_a_time_where_memory_is_kept(kept: bool) -> None:
  """A long one has ended when its call returns, and else has only begun."""
  program = f"""
    import jax
    import jax.numpy as jnp
    from tgt_jax import distributed

    {kept} and distributed.keep_freed_memory()
    turn = lambda _, x: jnp.tanh(x @ x)
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 20, turn, x))
    x = jax.block_until_ready(program(jnp.ones((1024, 1024))))
    print(program(x).is_ready())
  """
  assert helpers.finish(helpers.start(program)).strip() == str(kept)


def test_what_is_kept_can_be_given_back() -> None:
  """Below something that stays, where no threshold reaches."""
  program = """
    import re
    import numpy as np
    from tgt_jax import distributed

    def resident():
      status = open("/proc/self/status").read()
      return int(re.search(r"VmRSS:\\s+(\\d+)", status)[1]) // 1024

    distributed.give_back_memory()  # Nothing to do.
    assert distributed.keep_freed_memory()
    block, stays = np.ones(1 << 25), np.ones(1 << 17)
    full = resident()
    del block
    kept = resident()
    distributed.give_back_memory()
    print(full - kept, kept - resident())
  """
  freed, returned = map(int, helpers.finish(helpers.start(program)).split())
  assert freed < 64
  assert returned > 192  # MiB, of 256.


@pytest.mark.parametrize(
  "environment",
  [{"MALLOC_ARENA_MAX": "4"}, {"JAX_PLATFORMS": "cuda,cpu"}],
  ids=["settings of one's own", "an accelerator"],
)
def test_freed_memory_is_given_back(environment: dict[str, str]) -> None:
  kept, faults = run(**environment)
  assert kept == "False"
  assert faults > 30  # 128 MiB, in pages of 4 kB or of 2 MB.
