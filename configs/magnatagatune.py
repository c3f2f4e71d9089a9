# SPDX-License-Identifier: Apache-2.0
"""MagnaTagATune: a teacher's embeddings teach fifty tags to MobileFCN.

Command: python -m tgt_jax.data.prepare_audio magnatagatune --data_dir=DIR
  python -m tgt_jax.main --config=configs/magnatagatune.py
  --config.data.data_dir=DIR --workdir=runs/magnatagatune
Hardware: one GPU; not tried.
Time: not yet run.
Result: not yet run.

EAsT's student and data (arXiv 2306.17424), the clean split. Embeddings are
VGGish's, thirty frames of 128, computed elsewhere and put below embeddings/
(docs/embedding_data.md). Each of the student's fifteen frames stands for two of
the teacher's, as EAsT has it; its share of the embedding in the loss is 0.6.
Its decay of weights is part of Adam's gradient, ours (AdamW's) beside it.

Arguments: `smoke`, which takes other data and a small network.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("smoke",))
  config = config_lib.default()
  config.title = "MagnaTagATune by embeddings"
  config.seeds = 3
  config.num_classes = 50
  config.tags = True
  config.input_shape = (96, 1455, 1)
  config.embedding_shape = (30, 1, 128)
  with config.unlocked():
    config.data = {
      "name": "magnatagatune",
      "data_dir": "",
      "embedding": "vggish",
      "embedding_frames": 30,
    }
    config.student = {"name": "mobile_fcn"}
  smoke = "smoke" in chosen
  embedding_presets.fill(
    config,
    width=8 if smoke else 32,
    logits="bernoulli_kl",
    labels="binary_cross_entropy",
    weight=0.6,
    frames={
      "feature": -1,
      **({"teacher_repeat": 3} if smoke else {"student_repeat": 2}),
    },
  )
  config.training.update(steps=50_000, batch_size=16)
  config.optimizer.update(
    learning_rate=1e-4, weight_decay=1e-4, clip_norm=1.0, warmup_steps=500
  )
  config.cadence.update(log=100, evaluate=1000, checkpoint=1000)
  config.columns = ("map", "roc_auc", "macro_f1", "compressor_map", "dcor")
  if smoke:
    embedding_presets.smoke_tags(config)
  return config.lock()
