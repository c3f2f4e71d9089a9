# SPDX-License-Identifier: Apache-2.0
"""ImageNet embeddings of spectrograms teach instruments to a small CNN.

Command: python launch/soundfont_instruments.py --out=DIR
  --soundfont=TimGM6mb.sf2 --other=FluidR3Mono_GM.sf3
  python -m tgt_jax.main --config=configs/soundfont_instruments.py
  --config.data.data_dir=DIR --config.encoder_weights=lite0.safetensors
  --workdir=runs/soundfont_instruments
Hardware: 2 CPU cores.
Time: 85 minutes beside other work.
Result: docs/embeddings.md, mAP: no_teacher 51.9 ± 4.0, kd 50.6 ± 3.2, east_dcor
  57.4 ± 2.0, ec_dcor 56.6 ± 2.6, pca 57.2 ± 2.6, probe 68.8 ± 0.1.

Clips of one to three of twenty instruments, as tags. The test pieces played by
another soundfont are a further test split. The encoder, EfficientNet-Lite0 as
cifar10_embeddings.py converts it, sees a log-mel as a grey picture: none of the
paper's own teachers can be had without a network.

Arguments: `smoke`, which takes other data.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("smoke",))
  config = config_lib.default()
  config.title = "Instruments of a soundfont, by embeddings"
  config.seeds = 3
  config.num_classes = 20
  config.tags = True
  config.input_shape = (64, 150, 1)
  config.embedding_shape = (1, 1, 1280)
  with config.unlocked():
    config.data = {"name": "soundfont", "data_dir": ""}
    config.encoder = {
      "name": "efficientnet_lite0",
      "input_size": 96,
      "input_channels": 3,
      # Log-mels are about as wide as what the network makes of pixels.
      "input_range": (-1.0, 1.0),
    }
    config.student = {
      "name": "cnn",
      "widths": (8, 16, 32),
      "spatial": "mean",
    }
  embedding_presets.fill(
    config,
    width=8 if "smoke" in chosen else 64,
    weight=0.3,  # On held-out clips better than 0.15, 0.5 and 0.8.
    logits="bernoulli_kl",
    labels="binary_cross_entropy",
  )
  config.training.update(steps=1500, batch_size=32)
  config.optimizer.update(learning_rate=1e-3, warmup_steps=50)
  config.evaluation_batch_size = 100
  config.columns = (
    "map",
    "roc_auc",
    "macro_f1",
    "other_soundfont/map",
    "compressor_map",
    "dcor",
  )
  if "smoke" in chosen:
    embedding_presets.smoke_tags(config)
  return config.lock()
