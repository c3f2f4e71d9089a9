# SPDX-License-Identifier: Apache-2.0
"""Embeddings of which a known share is of no use, as teachers of an MLP.

Command: launch/nuisance.sh --workdir=runs/nuisance, which runs
  python -m tgt_jax.main --config=configs/nuisance.py:SHARE for every share and
  draws two pictures
Hardware: 2 CPU cores.
Time: 35 minutes beside other work.
Result: at 90 (docs/embeddings.md): no teacher 57.3 ± 0.7, kd 60.6 ± 0.7,
  east_dcor 54.9 ± 1.2, ec_dcor_16 59.5 ± 1.0, pca_16 54.2 ± 0.7.

SHARE is the percentage of the embedding's variance that has nothing to do with
the labels. 500 labelled examples of ten classes; compact embeddings have 4, 8,
16 or 64 numbers, the task has 8 factors and the nuisance 64.

Arguments: a percentage (0, 50, 80, 90, 95 or 99); after a comma, `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets

_PERCENT = ("0", "50", "80", "90", "95", "99")
_WIDTHS = (4, 16, 64)


def get_config(arg=""):
  """One percentage, 90 without one."""
  chosen = presets.options(arg, (*_PERCENT, "smoke"))
  percent = presets.single(chosen, _PERCENT, "90")
  config = config_lib.default()
  config.title = f"Embeddings, {percent} % nuisance"
  config.seeds = 5
  config.input_shape = (16, 16, 1)
  config.embedding_shape = (1, 1, 128)
  with config.unlocked():
    config.data = {"name": "nuisance", "share": int(percent) / 100}
    config.student = {"name": "mlp", "widths": (128, 64)}
  embedding_presets.fill(config, width=8)
  arms = {name: arm.to_dict() for name, arm in config.arms.items()}
  for width in _WIDTHS:
    for name in ("ec_dcor", "pca"):
      arm = arms[name]
      compressor = {**arm["compressor"], "width": width}
      arms[f"{name}_{width}"] = {**arm, "compressor": compressor}
  config.arms = config_lib.arms(arms)
  config.training.update(steps=800, batch_size=64)
  config.columns = ("accuracy",)
  config.cadence.update(log=200, checkpoint=0)
  if "smoke" in chosen:
    embedding_presets.smoke(config)
  return config.lock()
