# SPDX-License-Identifier: Apache-2.0
"""Reuters newswires by topic: 52 classes with 2 840 to 1 training examples.

Command: python -m tgt_jax.data.fetch r52 --out=DIR
  python -m tgt_jax.main --config=configs/r52.py --config.data.data_dir=DIR
  --config.data.tokenizer=words.json
  --config.labeler_weights=labeler.safetensors --workdir=runs/r52
Hardware: 2 CPU cores.
Time: not yet run.
Result: not yet run.

Words and labeler are made as sst2_low.py says, with the data
'{"name": "topics", "corpus": "r52", "data_dir": "DIR"}', which use 15 644 of
the tokens. Labeler and students have the same labels; what the labeler has
more is its pretraining. A text is its first 32 tokens; the length of the moves
is what held-out texts of SST-2 chose.

Arguments: `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets

_LENGTH = 32


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("smoke",))
  config = config_lib.default()
  config.title = "R52"
  config.seeds = 3
  text_presets.topics(config, "r52", length=_LENGTH)
  with config.unlocked():
    config.generator = {
      "name": "bart",
      "num_layers": 2,
      "num_decoder_layers": 2,
      "width": 128,
      "num_heads": 4,
      "mlp_width": 512,
      "max_positions": _LENGTH,
      "whitened": True,
      "rendering": "forced",
    }
    config.labeler = {"name": "minilm_l6", "num_layers": 3}
    config.student = {"name": "bert_tiny"}
    config.arms = config_lib.arms(text_presets.arms(sigma=3.0, step_size=0.7))
  config.generator_training.update(steps=3000, batch_size=32)
  config.generator_training.optimizer.update(warmup_steps=300, clip_norm=1.0)
  config.labeler_training.update(
    source="train", steps=1500, batch_size=32, reconstruction=0.0
  )
  config.labeler_training.optimizer.update(
    learning_rate=1e-4, schedule="linear", warmup_steps=100, clip_norm=1.0
  )
  presets.balance(config)
  config.training.update(steps=1000, batch_size=32)
  config.optimizer.update(
    learning_rate=5e-4, schedule="linear", warmup_steps=100, clip_norm=1.0
  )
  config.columns = ("macro_f1", "accuracy", "many", "medium", "few")
  config.main_arm = "tgt_gradient"
  config.cadence.update(log=100, evaluate=500, checkpoint=500)
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
