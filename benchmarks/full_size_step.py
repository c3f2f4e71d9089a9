# SPDX-License-Identifier: Apache-2.0
"""One update of an image experiment, compiled and run with random weights.

  python benchmarks/full_size_step.py --config=configs/imagenet_lt.py \
    --batch=256 --peak_tflops=989 --json=full_size_step.json

The networks, the method and the step are those that the config builds; only
their weights and the images are random, and nothing comes from a cache: the
step encodes its start points itself. Printed are

  the operations of matrix products and convolutions, counted in the traced
  program (above `generator.chunk` examples the gradient decodes twice, and
  that counts too);
  XLA's memory analysis of the compiled program;
  the median time of a step, and what follows from it.

On a CPU try `--batch=2 --dtype=float32`; compiling takes minutes, and
`--quick` compiles without optimisation.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import common

_NETWORKS = ("generator", "labeler", "student")
_MEMORY = ("argument", "output", "alias", "temp", "generated_code")
_HEARTBEAT = 30.0  # Seconds between two signs of life.


class Program(NamedTuple):
  """A compiled step and what it is called with.

  Attributes:
    step: `(state, totals, frozen, batch, root) -> (state, totals)`.
    arguments: the first ones.
    work: its operations, see `flops.count`.
    memory: bytes by what they hold, as XLA plans them.
  """

  step: Any
  arguments: tuple[Any, ...]
  work: Mapping[str, int]
  memory: Mapping[str, int]


def _resident_gb() -> float:
  """The largest resident memory of this process so far, GB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * (1 if sys.platform == "darwin" else 1024) * 1e-9


@contextlib.contextmanager
def _stage(name: str, spent: dict[str, Any]) -> Iterator[None]:
  """Says that something long goes on, and keeps what it took."""
  wall, cpu, over = time.perf_counter(), time.process_time(), threading.Event()

  def took() -> dict[str, float]:
    return {
      "wall_s": time.perf_counter() - wall,
      "processor_s": time.process_time() - cpu,
      "peak_resident_gb": _resident_gb(),
    }

  def say() -> None:
    now = took()
    print(
      f"{name}: {now['wall_s']:.0f} s, of processors"
      f" {now['processor_s']:.0f} s, at most"
      f" {now['peak_resident_gb']:.1f} GB",
      flush=True,
    )

  def beat() -> None:
    while not over.wait(_HEARTBEAT):
      say()

  thread = threading.Thread(target=beat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()
  spent[name] = took()
  say()


def _arguments() -> Any:
  options = common.parser(__doc__)
  options.add_argument(
    "--config", required=True, help="experiment file[:argument]"
  )
  options.add_argument("--arm", default="", help="default: the main arm")
  options.add_argument("--batch", type=int, default=256)
  options.add_argument("--steps", type=int, default=10, help="that are timed")
  options.add_argument(
    "--dtype", default="", help="of all networks; default: the config's"
  )
  options.add_argument(
    "--quick", action="store_true", help="compile without optimisation"
  )
  options.add_argument(
    "--peak_tflops", type=float, help="of the device, for the share of peak"
  )
  return options.parse_args()


def _config(args: Any) -> dict[str, Any]:
  """The experiment's config with what the command line changes."""
  from tgt_jax import build

  path, _, arg = args.config.partition(":")
  config = build.plain(common.load_config(path, arg))
  config["training"]["batch_size"] = args.batch
  for name in _NETWORKS if args.dtype else ():
    config[name]["dtype"] = args.dtype
  return build.data_free_checks(config)


def _random_batch(batch: Any, num_classes: int) -> Any:
  """Noise and any labels in the place of zeros."""
  import jax
  import numpy as np

  draws = np.random.default_rng(0)

  def draw(leaf: Any) -> Any:
    if leaf.dtype == np.int32:
      return draws.integers(0, num_classes, leaf.shape, np.int32)
    return draws.random(leaf.shape, np.float32)

  return jax.device_put(jax.tree.map(draw, batch))


def build_program(args: Any, spent: dict[str, Any]) -> Program:
  """Builds what the config says, and compiles its step."""
  import flops
  import jax

  from tgt_jax import build, networks, training

  config = _config(args)
  name = args.arm or config["main_arm"]
  arm = build.arm(config, name, build.class_counts(config))
  zeros = build.example_batch(arm.config)
  batch = _random_batch(zeros, config["num_classes"])
  batch = jax.tree.map(lambda a: a[None], batch)
  root = training.roots((config["seed"],))
  with _stage("weights of the teacher", spent):
    first = batch["input"][0, :1]
    init = lambda key: networks.init_frozen(config, key, first)
    frozen = jax.block_until_ready(training.jit_once(init)(root[0]))
  with _stage("weights of the student", spent):
    start = lambda root: training.init_state(arm.method, root, batch)
    state = jax.block_until_ready(training.jit_once(start)(root))
  options = training.quick_options() if args.quick else {}
  step = training.make_step(arm.method, **options)
  with _stage("tracing", spent):
    totals = training.empty_totals(arm.method, state, frozen, batch, root)
    arguments = (state, totals, frozen, batch, root)
    traced = step.trace(*arguments)  # type: ignore[attr-defined]
  with _stage("lowering", spent):
    lowered = traced.lower()
  with _stage("compiling", spent):
    compiled = lowered.compile()
  found = compiled.memory_analysis()
  memory = {kind: getattr(found, f"{kind}_size_in_bytes") for kind in _MEMORY}
  return Program(compiled, arguments, flops.count(traced.jaxpr), memory)


def measure(program: Program, steps: int, spent: dict[str, Any]) -> list[float]:
  """Seconds of each of `steps` updates; one before them is not timed.

  Raises:
    FloatingPointError: a loss is not a number.
  """
  import jax
  import numpy as np

  state, totals, *others = program.arguments
  seconds = []
  with _stage(f"{1 + steps} updates", spent):
    for _ in range(1 + steps):
      start = time.perf_counter()
      state, totals = jax.block_until_ready(
        program.step(state, totals, *others)
      )
      seconds.append(time.perf_counter() - start)
  loss = jax.device_get(totals["loss/total"])
  if not np.all(np.isfinite(loss.total)):
    raise FloatingPointError(f"the summed loss is {loss.total}")
  return seconds[1:]


def _device_peak_gb() -> float | None:
  """The most that the device held, where its allocator counts."""
  import jax

  found = jax.devices()[0].memory_stats() or {}
  peak = found.get("peak_bytes_in_use")
  return None if peak is None else peak * 1e-9


def _summary(
  args: Any, program: Program, seconds: list[float]
) -> dict[str, Any]:
  work, median = sum(program.work.values()), statistics.median(seconds)
  rate = work / median * 1e-12
  return {
    "config": args.config,
    "arm": args.arm,
    "batch": args.batch,
    "dtype": args.dtype,
    "quick": args.quick,
    "operations": dict(program.work),
    "gflop_per_image": work / args.batch * 1e-9,
    "ms_per_step": [1e3 * s for s in seconds],
    "median_ms": 1e3 * median,
    "images_per_second": args.batch / median,
    "tflop_per_second": rate,
    "share_of_peak": rate / args.peak_tflops if args.peak_tflops else None,
    "xla_memory_bytes": dict(program.memory),
    "peak_device_gb": _device_peak_gb(),
    "peak_resident_gb": _resident_gb(),
  }


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
  rows = [
    ("GFLOP / image", f"{found['gflop_per_image']:.1f}"),
    ("ms / step", f"{found['median_ms']:.1f}"),
    ("images / s", f"{found['images_per_second']:.2f}"),
    ("TFLOP / s", f"{found['tflop_per_second']:.3f}"),
  ]
  if found["share_of_peak"] is not None:
    rows.append(("share of peak", f"{found['share_of_peak']:.1%}"))
  for kind, size in found["xla_memory_bytes"].items():
    rows.append((f"XLA {kind.replace('_', ' ')}, GB", f"{size * 1e-9:.3f}"))
  if found["peak_device_gb"] is not None:
    rows.append(("peak of device, GB", f"{found['peak_device_gb']:.2f}"))
  rows.append(("peak of process, GB", f"{found['peak_resident_gb']:.2f}"))
  return rows


def main() -> None:
  args = _arguments()
  cores = common.prepare(args.threads)
  where = common.environment(cores)  # Before anything can be changed.
  spent: dict[str, Any] = {}
  program = build_program(args, spent)
  seconds = measure(program, args.steps, spent)
  found = _summary(args, program, seconds)
  print(f"\n{args.config}, batch {args.batch}\n{common.describe(where)}")
  print(common.table(("", "value"), _rows(found)))
  common.finish(
    args.json, {"environment": where, "stages": spent, "step": found}
  )


if __name__ == "__main__":
  main()
