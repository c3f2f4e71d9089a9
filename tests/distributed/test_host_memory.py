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


@pytest.mark.parametrize(
  "environment",
  [{"MALLOC_ARENA_MAX": "4"}, {"JAX_PLATFORMS": "cuda,cpu"}],
  ids=["settings of one's own", "an accelerator"],
)
def test_freed_memory_is_given_back(environment: dict[str, str]) -> None:
  kept, faults = run(**environment)
  assert kept == "False"
  assert faults > 30  # 128 MiB, in pages of 4 kB or of 2 MB.
