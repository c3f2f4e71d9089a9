# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint and a resume cost.

  python benchmarks/resume_cost.py --json=resume_cost.json

A student of `--parameters` numbers under Adam (three times as many are saved)
is saved and read back as training does it: `save` is the time training stands
still, `until on disk` ends when the checkpoint has its name and its checksums,
`verify and read` is what a restarted process waits for, and `compile` is the
step's compilation that follows, which a resume has in common with a start.
Times vary with the disk; the median of the rounds is shown with the worst.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import common


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
  start = time.perf_counter()
  result = function()
  return (time.perf_counter() - start) * 1e3, result


def _state(parameters: int) -> Any:
  """A state with that many parameters, in square matrices of 1M at most."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax

  from tgt_jax.types import TrainState

  draws, left, params = np.random.default_rng(0), parameters, {}
  while left > 0:
    size = min(left, 1024 * 1024)
    values = draws.standard_normal(size, np.float32)
    params[f"layer_{len(params)}"] = {"kernel": jnp.asarray(values)}
    left -= size
  params = {"student": params}
  opt_state = optax.adam(1e-3).init(params)
  # Moments as after training: zeros would compress to nothing.
  opt_state = jax.tree.map(
    lambda a: (
      a
      if a.ndim == 0
      else jnp.asarray(draws.standard_normal(a.shape, np.float32))
    ),
    opt_state,
  )
  step = jnp.zeros((), jnp.int32)
  return jax.block_until_ready(TrainState(step, params, {}, opt_state))


def _size(directory: pathlib.Path) -> int:
  return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())


def _round(state: Any, place: pathlib.Path) -> dict[str, float]:
  """Saves twice (the first save of a process sets up) and reads back."""
  import jax

  from tgt_jax.checkpoint import Checkpoints

  iterator = {"position": 1}
  with Checkpoints(place) as checkpoints:
    first, _ = _timed(
      lambda: checkpoints.save(1, state, iterator_state=iterator)
    )
    checkpoints.wait()
    blocked, _ = _timed(
      lambda: checkpoints.save(2, state, iterator_state=iterator)
    )
    waited, _ = _timed(checkpoints.wait)

  def resume() -> Any:
    with Checkpoints(place) as again:
      restored = again.restore(state)
    return jax.block_until_ready(restored.state)

  read, restored = _timed(resume)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), state, restored)
  if not all(jax.tree.leaves(same)):
    raise AssertionError("what was read is not what was saved")
  return {
    "first save": first,
    "save": blocked,
    "until on disk": blocked + waited,
    "verify and read": read,
    "megabytes": _size(place / "2") * 1e-6,
  }


def _compilation() -> float:
  import setting as setting_lib

  setting = setting_lib.build(64)
  step, _ = _timed(lambda: setting_lib.Step(setting, "gradient", cached=True)())
  return step


def main() -> None:
  options = common.parser(__doc__)
  options.add_argument(
    "--parameters",
    type=int,
    nargs="+",
    default=[100_000, 1_000_000, 10_000_000],
  )
  options.add_argument("--directory", help="where to write; a temporary one")
  options.set_defaults(rounds=5)
  args = options.parse_args()
  cores = common.prepare(args.threads)
  where = common.environment(cores)
  print(common.describe(where))
  rows, report = [], []
  for parameters in args.parameters:
    state, rounds = _state(parameters), []
    for _ in range(args.rounds):
      with tempfile.TemporaryDirectory(dir=args.directory) as place:
        rounds.append(_round(state, pathlib.Path(place) / "checkpoints"))
    median = {
      key: statistics.median(r[key] for r in rounds) for key in rounds[0]
    }
    worst = {key: max(r[key] for r in rounds) for key in rounds[0]}
    report.append(
      {"parameters": parameters, "median_ms": median, "worst_ms": worst}
    )
    cells = [f"{median[key]:.0f} ({worst[key]:.0f})" for key in median]
    rows.append([f"{parameters:,}", *cells[:-1], f"{median['megabytes']:.1f}"])
    names = [*median]
  compiled = _compilation()
  print(f"\nms, median (worst) of {args.rounds}")
  print(common.table(["parameters", *names[:-1], "MB on disk"], rows))
  print(f"compile and run a first TGT-gradient step: {compiled:.0f} ms")
  common.finish(
    args.json,
    {
      "environment": where,
      "arguments": vars(args),
      "rows": report,
      "compile_ms": compiled,
    },
  )


if __name__ == "__main__":
  main()
