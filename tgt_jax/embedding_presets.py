# SPDX-License-Identifier: Apache-2.0
"""What the experiments with embeddings as teachers share: the table's arms."""

from __future__ import annotations

from typing import Any

from tgt_jax import config as config_lib, presets

# The share of the embedding in the student's loss; EAsT's own are 0.6 to 0.9.
_WEIGHT = 0.8


def _compress(distance: str, **options: Any) -> dict[str, Any]:
  return {
    "method": {"name": "compress", "weight": _WEIGHT, **options},
    "embedding_distance": {"name": distance},
  }


def arms(width: int) -> dict[str, Any]:
  """The rows of the table.

  Args:
    width: of the compact embedding.
  """
  probe = {"student_reads": "embedding", "method": {"name": "supervised"}}
  compact = {"name": "bottleneck", "width": width}
  fixed = {**compact, "fixed": True}
  raw: dict[str, Any] = {"objective": "none"}
  dcor = "distance_correlation"
  return {
    "no_teacher": {"method": {"name": "supervised"}},
    # What embeddings alone know of the task; readers, not students.
    "probe": {**probe, "student": {"name": "mlp", "widths": ()}},
    "probe_compact": {**probe, "student": compact},
    "kd": {"method": {"name": "kd"}},
    "east_cos_diff": _compress("cosine_difference", **raw),
    "east_dcor": _compress(dcor, **raw),
    "east_kd": _compress(dcor, **raw, distill=0.3),
    "ec_cos_diff": {**_compress("cosine_difference"), "compressor": compact},
    "ec_dcor": {**_compress(dcor), "compressor": compact},
    "ec_open": {
      **_compress(dcor, stop_gradient=False),
      "compressor": compact,
    },
    "pca": {
      **_compress(dcor, **raw),
      "compressor": fixed,
      "compressor_start": "pca",
    },
    "random": {**_compress(dcor, **raw), "compressor": fixed},
    "autoencoder": {
      **_compress(dcor, objective="reconstruction"),
      "compressor": compact,
    },
  }


def fill(config: Any, *, width: int, logits: str = "kl_divergence") -> None:
  """A linear probe of the embedding as labeler, and the table's arms.

  Args:
    config: from `config.default()`.
    width: see `arms`.
    logits: DISTANCES, by which `kd` and `east_kd` compare.
  """
  with config.unlocked():
    config.generator = {"name": ""}
    config.labeler = {"name": "mlp", "widths": ()}
    config.distance = {"name": logits, "temperature": 2.0}
    config.arms = config_lib.arms(arms(width))
  config.labeler_reads = "embedding"
  config.labeler_training.update(steps=1000, reconstruction=0.0)
  config.main_arm = "ec_dcor"
  config.reference_arms = ("probe", "probe_compact")
  config.gallery_examples = 0


def smoke(config: Any) -> None:
  """A run of seconds, to see that it runs."""
  presets.few_updates(config)
  config.seeds = 1
  config.training.update(batch_size=8)
  config.labeler_training.update(batch_size=8)
  config.optimizer.warmup_steps = 0
  config.evaluation_batch_size = 16
  config.gallery_examples = 0
  config.groups.update(many_above=8, few_below=3)
