# SPDX-License-Identifier: Apache-2.0
"""OpenMIC-2018: a teacher's embeddings teach instruments to CP-ResNet.

Command: python -m tgt_jax.data.prepare_audio openmic --data_dir=DIR
  python -m tgt_jax.main --config=configs/openmic.py
  --config.data.data_dir=DIR --workdir=runs/openmic
Hardware: one GPU; not tried.
Time: not yet run.
Result: not yet run.

EAsT's student and data (arXiv 2306.17424): CP-ResNet at rho 7, twenty tags of
which two are known per clip. Embeddings are the VGGish ones that come with the
data, unless data.embedding names others (docs/embedding_data.md). EAsT compares
frames: ten of the teacher, repeated six times, with the student's 62. Rates,
batches and masks are EAsT's; its mixup and its jitter of the mel bands are left
out, it stops early by a validation split, we do not, and its decay of weights
is part of Adam's gradient, ours (AdamW's) beside it, where 1e-4 does little.

Arguments: `smoke`, which takes other data and a small network.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("smoke",))
  config = config_lib.default()
  config.title = "OpenMIC-2018 by embeddings"
  config.seeds = 3
  config.num_classes = 20
  config.tags = True
  config.input_shape = (128, 1000, 1)
  config.embedding_shape = (10, 1, 128)
  with config.unlocked():
    config.data = {"name": "openmic", "data_dir": "", "embedding": "npz"}
    config.student = {"name": "cp_resnet", "rho": 7}
  smoke = "smoke" in chosen
  embedding_presets.fill(
    config,
    width=8 if smoke else 32,
    logits="bernoulli_kl",
    labels="binary_cross_entropy",
    frames={"feature": -1, "teacher_repeat": 3 if smoke else 6},
  )
  config.augment = ({"name": "spec_augment"},)
  config.training.update(steps=40_000, batch_size=16)
  config.optimizer.update(
    learning_rate=1e-4, weight_decay=1e-4, clip_norm=1.0, warmup_steps=500
  )
  config.cadence.update(log=100, evaluate=1000, checkpoint=1000)
  config.columns = ("map", "roc_auc", "macro_f1", "compressor_map", "dcor")
  if smoke:
    embedding_presets.smoke_tags(config)
  return config.lock()
