# SPDX-License-Identifier: Apache-2.0
"""What exploration costs: random, and gradient ascent of 1, 2 and 4 steps.

  python benchmarks/exploration_cost.py --json=exploration_cost.json

Whole updates of `setting.py`, against distillation without exploration and
against what the parts predict: k ascents more than TGT-random, each the
gradient of the disagreement through decoder, student and labeler.
"""

from __future__ import annotations

import common


def main() -> None:
  options = common.parser(__doc__)
  options.add_argument("--batch_size", type=int, default=64)
  options.add_argument("--dtype", default="float32", help="of the teacher")
  options.add_argument("--ascents", type=int, nargs="+", default=[1, 2, 4])
  options.add_argument(
    "--cached", action="store_true", help="read h(x) and Enc(x) from a cache"
  )
  args = options.parse_args()
  cores = common.prepare(args.threads)
  import setting as setting_lib
  import step_time

  setting = setting_lib.build(args.batch_size, args.dtype)
  where = common.environment(cores)
  print(common.describe(where))
  step = lambda name, **more: setting_lib.Step(
    setting, name, cached=args.cached, **more
  )
  contenders = {
    "kd": step("kd"),
    "random": step("random"),
    **{
      f"gradient, {k} step{'s' * (k > 1)}": step("gradient", num_steps=k)
      for k in args.ascents
    },
    "one ascent alone": step_time.parts_alone(setting)["ascend"],
  }
  times = common.take_turns(
    contenders, rounds=args.rounds, seconds=args.seconds, clock=args.clock
  )
  ascent = times.ms("one ascent alone")
  rows, report = [], []
  for name in contenders:
    row = {"name": name, "ms": times.ms(name), "best_ms": times.best(name)}
    row["ratio_to_kd"] = times.ratio(name, "kd")
    if name.startswith("gradient"):
      steps = int(name.split()[1])
      row["predicted_ms"] = times.ms("random") + steps * ascent
    report.append(row)
    predicted = row.get("predicted_ms")
    rows.append(
      [
        name,
        f"{row['ms']:.2f}",
        f"{row['ratio_to_kd']:.2f}",
        "-" if predicted is None else f"{predicted:.2f}",
      ]
    )
  print(f"\nbatch {args.batch_size}, {args.clock} clock, medians in ms")
  print(common.table(["update", "ms", "times kd", "predicted"], rows))
  common.finish(
    args.json,
    {"environment": where, "arguments": vars(args), "rows": report},
  )


if __name__ == "__main__":
  main()
