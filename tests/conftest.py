# SPDX-License-Identifier: Apache-2.0
"""Settings every test runs under, and what several of them share.

JAX reads its environment when it is imported, so this comes first. Processes
that a test starts inherit it.

The platform is the CPU even where there is an accelerator: tolerances are
those of float32 there, and several workers would fight for one device. Tests
marked `device` run with, for example, `JAX_PLATFORMS=cuda pytest -m device`.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Most of a test's time is tracing and compilation; the machine code need not
# be fast. See `training.quick_options`. Programs are small: to split them among
# threads, or to note where each operation comes from, costs more than it gives.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
  " --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# No window, and no question to a display server, from anything that plots.
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import jax
import pytest

# A first draw compiles; its time says nothing. Draws are the same in every
# run, so that a red test is red for everybody.
hypothesis.settings.register_profile(
  "tgt_jax", deadline=None, derandomize=True, max_examples=25, database=None
)
hypothesis.settings.load_profile("tgt_jax")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Skips tests of an accelerator where there is none."""
  marked = [item for item in items if item.get_closest_marker("device")]
  if marked and jax.default_backend() == "cpu":
    skip = pytest.mark.skip(reason="needs an accelerator; see conftest.py")
    for item in marked:
      item.add_marker(skip)
