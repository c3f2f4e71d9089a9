# SPDX-License-Identifier: Apache-2.0
"""What an update of an image experiment costs, counted without running it.

  python benchmarks/image_cost.py --config=configs/imagenet_lt.py --arg=taesd

Every arm's update is traced for the config's batch size; its matrix products
and convolutions are counted in the program (two operations for a product with
its sum), and its arrays by their sizes. Milliseconds are

  operations / (chips * peak * share),

peak in bfloat16 as the makers state it, share what a large step usually
reaches: an estimate, not a measurement. "arrays" are the parameters of
teacher and student, the optimiser and one batch, without activations.
"""

from __future__ import annotations

import math
import pathlib
from typing import Any

import common

# Chips and dense bfloat16 TFLOP/s of one chip.
DEVICES = {"v4-8": (4, 275.0), "v5e-8": (8, 197.0), "H200": (1, 989.0)}


def _bytes(tree: Any) -> int:
  import jax

  sizes = [
    math.prod(leaf.shape) * getattr(leaf.dtype, "itemsize", 8)
    for leaf in jax.tree.leaves(tree)
  ]
  return sum(sizes)


def measure(config: dict[str, Any], name: str) -> dict[str, Any]:
  """Counts one arm's update."""
  import flops
  import jax

  from tgt_jax import build, networks

  arm = build.arm(config, name, build.class_counts(config))
  batch = build.example_batch(arm.config)
  rng = jax.eval_shape(lambda: jax.random.key(0))
  frozen = jax.eval_shape(
    lambda key: networks.init_frozen(config, key, batch["input"]), rng
  )
  state = jax.eval_shape(lambda key: arm.method.init(key, batch), rng)
  traced = jax.jit(arm.method.update).trace(state, frozen, batch, rng)
  size = arm.config["training"]["batch_size"]
  total = sum(flops.count(traced.jaxpr).values())
  return {
    "arm": name,
    "batch_size": size,
    "gflop_per_image": total / size * 1e-9,
    "tflop_per_update": total * 1e-12,
    "array_gb": (_bytes(frozen) + _bytes(state) + _bytes(batch)) * 1e-9,
  }


def main() -> None:
  options = common.parser(__doc__)
  options.add_argument("--config", required=True, help="experiment file")
  options.add_argument("--arg", default="", help="argument of the experiment")
  options.add_argument(
    "--share", type=float, default=0.4, help="of the peak that is reached"
  )
  args = options.parse_args()
  cores = common.prepare(args.threads)
  from tgt_jax import settings

  config = settings.plain(common.load_config(args.config, args.arg))
  rows = [measure(config, name) for name in config["arms"]]
  cells = []
  for row in rows:
    times = [
      row["tflop_per_update"] / (chips * peak * args.share) * 1e3
      for chips, peak in DEVICES.values()
    ]
    cells.append(
      [row["arm"], f"{row['gflop_per_image']:.1f}"]
      + [f"{row['tflop_per_update']:.2f}", f"{row['array_gb']:.2f}"]
      + [f"{ms:.0f}" for ms in times]
    )
  header = ["arm", "GFLOP / image", "TFLOP / update", "arrays GB"]
  header += [f"ms {name}" for name in DEVICES]
  where = pathlib.Path(args.config).stem
  print(f"{where}:{args.arg}, batch {rows[0]['batch_size']}, no cache")
  print(common.table(header, cells))
  common.finish(
    args.json, {"environment": common.environment(cores), "rows": rows}
  )


if __name__ == "__main__":
  main()
