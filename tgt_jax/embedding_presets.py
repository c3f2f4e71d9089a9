# SPDX-License-Identifier: Apache-2.0
"""What the experiments with embeddings as teachers share: the table's arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgt_jax import config as config_lib, presets


def arms(width: int, **common: Any) -> dict[str, Any]:
  """The rows of the table.

  Args:
    width: of the compact embedding.
    **common: arguments of `methods.compress` for all arms that use it.
  """

  def compress(distance: str, **options: Any) -> dict[str, Any]:
    return {
      "method": {"name": "compress", **common, **options},
      "embedding_distance": {"name": distance},
    }

  probe = {"student_reads": "embedding", "method": {"name": "supervised"}}
  compact = {"name": "bottleneck", "width": width}
  fixed = {**compact, "fixed": True}  # Its classifier alone learns.
  raw: dict[str, Any] = {"objective": "none"}
  dcor = "distance_correlation"
  return {
    "no_teacher": {"method": {"name": "supervised"}},
    # What embeddings alone know of the task; readers, not students.
    "probe": {**probe, "student": {"name": "mlp", "widths": ()}},
    "probe_compact": {**probe, "student": compact},
    "kd": {"method": {"name": "kd"}},
    "east_cos_diff": compress("cosine_difference", **raw),
    "east_dcor": compress(dcor, **raw),
    "east_kd": compress(dcor, **raw, distill=0.3),
    "ec_cos_diff": {**compress("cosine_difference"), "compressor": compact},
    "ec_dcor": {**compress(dcor), "compressor": compact},
    # In two stages: the compressor is the first probe_compact, and stays.
    "ec_staged": {
      **compress(dcor, **raw),
      "compressor": compact,
      "compressor_start": "probe_compact",
    },
    "ec_open": {
      **compress(dcor, stop_gradient=False),
      "compressor": compact,
    },
    "pca": {
      **compress(dcor),
      "compressor": fixed,
      "compressor_start": "pca",
    },
    "random": {**compress(dcor), "compressor": fixed},
    "autoencoder": {
      **compress(dcor, objective="reconstruction"),
      "compressor": compact,
    },
    # The distance alone, on both sides: what a stop-gradient is for.
    "alone_dcor": {
      **compress(dcor, **raw, stop_gradient=False),
      "compressor": compact,
    },
    "alone_cos_diff": {
      **compress("cosine_difference", **raw, stop_gradient=False),
      "compressor": compact,
    },
  }


def fill(
  config: Any,
  *,
  width: int,
  logits: str = "kl_divergence",
  labels: str = "cross_entropy",
  weight: float = 0.8,
  frames: Mapping[str, int] | None = None,
) -> None:
  """A linear probe of the embedding as labeler, and the table's arms.

  Args:
    config: from `config.default()`.
    width: see `arms`.
    logits: DISTANCES, by which `kd` and `east_kd` compare.
    labels: LABEL_LOSSES of students and labeler.
    weight: of the embedding in the student's loss; EAsT's own are 0.6 to 0.9.
    frames: which feature is compared frame by frame, see `methods.compress`.
  """
  common = {"weight": weight, **(frames or {})}
  config.label_loss.name = labels
  config.labeler_training.label_loss.name = labels
  with config.unlocked():
    config.generator = {"name": ""}
    config.labeler = {"name": "mlp", "widths": ()}
    config.distance = {"name": logits, "temperature": 2.0}
    config.arms = config_lib.arms(arms(width, **common))
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


def smoke_tags(config: Any) -> None:
  """`smoke` of an experiment with tags, on made-up spectrograms."""
  config.title += " (smoke)"
  config.num_classes = 4
  config.input_shape = (32, 48, 1)
  frames = 0 if config.encoder.name else 4
  config.embedding_shape = (max(1, frames), 1, 16)
  small = {"widths": (4, 8), "dense_widths": (), "spatial": "mean"}
  with config.unlocked():
    config.data = {
      "name": "tones",
      "frames": frames,
      "train_size": 48,
      "test_size": 24,
    }
    if config.encoder.name:
      config.encoder = {"name": "mlp", "widths": (16,)}
    config.student = {"name": "cnn", **small}
  config.columns = ("map", "roc_auc", "macro_f1", "compressor_map", "dcor")
  smoke(config)
