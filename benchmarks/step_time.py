# SPDX-License-Identifier: Apache-2.0
"""What one update costs, against its parts, a floor and PyTorch.

  python benchmarks/step_time.py --json=step_time.json

Every step of `setting.py` (supervised, kd, random, gradient) is timed as the
package compiles it, once with the teacher's answers about real examples
computed in the step and once with them read from a cache, and compared with
(a) the sum of its parts, each compiled and timed alone: label, encode, decode,
    the gradient of the disagreement, and the student's update on examples that
    are at hand; the cost of calling a compiled function is counted once;
(b) the floor: its matrix products and convolutions at the rate measured here;
(c) the same step in PyTorch, eager and compiled, in two memory layouts, with
    the same number of threads. PyTorch is optional.
All take turns in one process. With a GPU, JAX's default device is it; give
`--dtype=bfloat16` and `--peak_tflops` for the share of the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import common

_NAMES = ("supervised", "kd", "random", "gradient")
_CALL = "a call"


def _arguments() -> Any:
  options = common.parser(__doc__)
  options.add_argument("--batch_size", type=int, default=64)
  options.add_argument("--dtype", default="float32", help="of the teacher")
  options.add_argument("--steps", nargs="+", choices=_NAMES, default=_NAMES)
  options.add_argument(
    "--peak_tflops", type=float, help="of the device, for the share of peak"
  )
  options.add_argument(
    "--no_torch", action="store_true", help="leave PyTorch out"
  )
  options.add_argument(
    "--no_compile", action="store_true", help="leave torch.compile out"
  )
  return options.parse_args()


def _updates(setting: Any) -> dict[str, Callable[[], Any]]:
  """The student's update alone, on examples and answers that are at hand."""
  import jax
  import jax.numpy as jnp
  from setting import Step, waiting

  from tgt_jax import methods, training
  from tgt_jax.methods.base import from_loss

  parts, cache = setting.parts, setting.cache
  made = {
    f"update, {name}": Step(setting, name, cached=True)
    for name in ("supervised", "kd")
  }

  # x' and its targets come with the batch instead of from an exploration.
  def at_hand(context, starts):
    del context
    targets, size = starts.latent, len(starts.x)
    ones = jnp.ones(size)
    return methods.Shown(starts.x, targets, ones, ones)

  weights = methods.Weights()
  loss = methods.guided(parts, weights, methods.Neighbours(at_hand))

  def init(rng, batch):
    params, state = parts.student.init(rng, batch["input"])
    return {"student": params}, {"student": state}

  tx = training.make_optimizer("adam", learning_rate=1e-3, steps=10**6)
  method = from_loss(loss, init, tx)
  batch = {
    **setting.batch,
    "teacher_logits": cache["teacher_logits"],
    "latent": cache["teacher_logits"],
  }
  state = method.init(jax.random.key(0), setting.batch)
  made["update, tgt"] = waiting(
    lambda state, batch: method.update(
      state, setting.frozen, batch, jax.random.key(1)
    ),
    state,
    batch,
  )
  return made


def parts_alone(setting: Any) -> dict[str, Callable[[], Any]]:
  """Every part of the steps as a compiled function of its own."""
  import jax
  import jax.numpy as jnp
  from setting import waiting

  from tgt_jax import methods
  from tgt_jax.exploration import geometry

  parts, frozen = setting.parts, setting.frozen
  teacher, x = parts.teacher, setting.batch["input"]
  z = setting.cache["latent"]
  params, state = parts.student.init(jax.random.key(0), x)
  context = methods.Context(params, state, frozen, jnp.zeros((), jnp.int32))

  def slope(context, z):
    field = methods.disagreement_field(parts, context, x)
    return jax.grad(lambda z: jnp.sum(field(z)))(z)

  def noise(key, z):
    return geometry.gaussian(jax.random.split(key, len(z)), z)

  return {
    _CALL: waiting(lambda x: x, jnp.zeros(())),
    "label": waiting(lambda f, x: teacher.label(f, x).logits, frozen, x),
    "encode": waiting(teacher.encode, frozen, x),
    "decode": waiting(teacher.decode, frozen, z, x),
    "noise": waiting(noise, jax.random.key(0), z),
    "ascend": waiting(slope, context, z),
    **_updates(setting),
  }


def _sum_of(name: str, cached: bool) -> list[str]:
  """The parts that make up a step."""
  known = [] if cached else ["label"]
  start = [] if cached else ["encode"]
  shown = ["decode", "label"]
  return {
    "supervised": ["update, supervised"],
    "kd": ["update, kd", *known],
    "random": ["update, tgt", *known, *start, "noise", *shown],
    "gradient": ["update, tgt", *known, *start, "ascend", *shown],
  }[name]


def _parts_ms(times: common.Timings, names: list[str]) -> list[float]:
  """The sum of the parts in each round, calls counted once."""
  rounds = zip(*(times.rounds[n] for n in names), strict=True)
  spare = len(names) - 1
  return [
    sum(values) - spare * call
    for values, call in zip(rounds, times.rounds[_CALL], strict=True)
  ]


def measure(
  name: str, cached: bool, setting: Any, shared: Mapping[str, Any], args: Any
) -> dict[str, Any]:
  """Times one step with everything that it is compared with."""
  import flops
  from setting import Step

  step = Step(setting, name, cached=cached)
  batch = {**setting.batch, **(setting.cache if cached else {})}
  rivals = shared["rivals"](name, batch)
  members = list(dict.fromkeys(_sum_of(name, cached)))
  contenders = {
    "step": step,
    **{key: shared["parts"][key] for key in (*members, _CALL)},
    **rivals,
  }
  times = common.take_turns(
    contenders, rounds=args.rounds, seconds=args.seconds, clock=args.clock
  )
  summed = _parts_ms(times, _sum_of(name, cached))
  times = common.Timings({**times.rounds, "sum of parts": summed})
  work = flops.count(step.traced)
  row: dict[str, Any] = {
    "step": name,
    "cached": cached,
    "times": times.report(),
    "parts": _sum_of(name, cached),
    "ratio_to_parts": times.ratio("step", "sum of parts"),
    "flop": work,
    "floor_ms": flops.floor_ms(work, shared["rates"]),
  }
  if rivals:
    best = times.fastest(list(rivals))
    row |= {"best_torch": best, "torch_over_step": times.ratio(best, "step")}
  if args.peak_tflops:
    seconds = times.ms("step") * 1e-3
    row["share_of_peak"] = (
      sum(work.values()) / seconds / args.peak_tflops * 1e-12
    )
  return row


def _table(rows: list[dict[str, Any]]) -> str:
  header = ["step", "ms", "sum of parts", "ratio", "floor", "best PyTorch"]
  header += ["form", "PyTorch / ours"]
  cells = []
  for row in rows:
    ms = lambda key, row=row: f"{row['times'][key]['median_ms']:.2f}"
    best = row.get("best_torch")
    rival = [ms(best), best, f"{row['torch_over_step']:.2f}"] if best else []
    label = row["step"] + (", cached" if row["cached"] else "")
    cells.append(
      [label, ms("step"), ms("sum of parts"), f"{row['ratio_to_parts']:.2f}"]
      + [f"{row['floor_ms']:.2f}", *(rival or ["-", "-", "-"])]
    )
  return common.table(header, cells)


def _rivals(args: Any, cores: int) -> Callable[..., dict[str, Callable]]:
  if not args.no_torch:
    try:
      import torch_steps
    except ImportError:
      print("torch is not installed: its columns are left out")
    else:
      return lambda name, batch: torch_steps.contenders(
        name,
        batch,
        compiled=not args.no_compile,
        dtype=args.dtype,
        threads=cores,
      )
  return lambda name, batch: {}


def main() -> None:
  args = _arguments()
  cores = common.prepare(args.threads)
  import flops
  import setting as setting_lib

  setting = setting_lib.build(args.batch_size, args.dtype)
  where = common.environment(cores)
  print(common.describe(where))
  rates = flops.measured_rates(
    args.batch_size,
    args.dtype,
    rounds=args.rounds,
    seconds=args.seconds,
    clock=args.clock,
  )
  for kind, rate in rates.items():
    print(f"{kind}: {rate * 1e-9:.0f} GFLOP/s")
  shared = {
    "parts": parts_alone(setting),
    "rates": rates,
    "rivals": _rivals(args, cores),
  }
  rows = []
  for name in args.steps:
    for cached in (False,) if name == "supervised" else (False, True):
      rows.append(measure(name, cached, setting, shared, args))
      print(f"\n{_table(rows[-1:])}", flush=True)
  print(f"\nbatch {args.batch_size}, {args.clock} clock, medians in ms")
  print(_table(rows))
  report = {"environment": where, "arguments": vars(args), "rates": rates}
  common.finish(args.json, {**report, "rows": rows})


if __name__ == "__main__":
  main()
