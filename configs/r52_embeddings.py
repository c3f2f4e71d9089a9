# SPDX-License-Identifier: Apache-2.0
"""MiniLM's sentence embeddings teach a two-layer transformer Reuters' topics.

Command: python -m tgt_jax.data.fetch r52 --out=DIR
  python -m tgt_jax.main --config=configs/r52_embeddings.py
  --config.data.data_dir=DIR --config.data.tokenizer=words.json
  --config.encoder_weights=encoder.safetensors --workdir=runs/r52_embeddings
Hardware: 2 CPU cores.
Time: 50 minutes beside other work.
Result: docs/embeddings.md, macro-F1: no_teacher 7.2 ± 1.6, kd 12.1 ± 2.6,
  east_dcor 10.5 ± 0.9, east_kd 15.2 ± 1.2, ec_dcor 11.0 ± 0.5, TF-IDF 66.6.

Words and encoder (all-MiniLM-L6-v2, six layers, the mean over tokens) are made
as r52.py says. The student begins with random weights. Classes have 2 840 to 1
training examples, and a TF-IDF row stands beside.

Arguments, joined by commas: `20news`, 20 Newsgroups instead, whose classes are
of one size (fetch 20news; 23 835 tokens; 75 minutes; accuracy: no_teacher
67.9 ± 2.3, east_kd 70.3 ± 1.2, ec_dcor 30.7 ± 1.4 at a weight not tuned);
`smoke`.
"""

from __future__ import annotations

from tgt_jax import (
  config as config_lib,
  embedding_presets,
  presets,
  text_presets,
)


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("20news", "smoke"))
  balanced = "20news" in chosen
  config = config_lib.default()
  config.title = f"{'20 Newsgroups' if balanced else 'R52'} by embeddings"
  config.seeds = 3
  corpus = "20news" if balanced else "r52"
  text_presets.topics(config, corpus, length=64)
  config.embedding_shape = (1, 1, 384)
  with config.unlocked():
    config.encoder = {
      "name": "minilm_l6",
      "pooling": "mean",
      "pooler": "none",
    }
    config.student = {"name": "bert_tiny"}
  embedding_presets.fill(config, width=8 if "smoke" in chosen else 64)
  if not balanced:
    presets.balance(config)
  config.training.update(steps=1000, batch_size=32)
  config.optimizer.update(
    learning_rate=5e-4, schedule="linear", warmup_steps=100, clip_norm=1.0
  )
  groups = () if balanced else ("many", "medium", "few")
  config.columns = ("macro_f1", "accuracy", *groups, "dcor")
  if "smoke" in chosen:
    text_presets.smoke(config)
    config.embedding_shape = (1, 1, config.encoder.width)
    embedding_presets.smoke(config)
  return config.lock()
