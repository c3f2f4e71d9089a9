# SPDX-License-Identifier: Apache-2.0
"""ImageNet with a share of its labels: accuracy by sample size.

Weights, once (TAESD is complete; see below for BigBiGAN):
  python -m tgt_jax.weights convert taesd.safetensors --to=taesd \
    --out=weights/taesd.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Command:
  python -m tgt_jax.main --config=configs/imagenet_fraction.py:10,taesd \
    --workdir=runs/imagenet_fraction --config.data.data_dir=DIR \
    --config.generator_weights=weights/taesd.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: one accelerator or more; what an update needs is in docs/images.md.
Time: estimated from counted operations in docs/images.md.
Result: not yet run.

The argument is the percentage of labelled images, the same share of every
class; a larger set contains a smaller one. DIR is the data directory of TFDS
with `imagenet2012` prepared as array_record. The test split is ImageNet's
validation split of 50,000.

Without an option the generator is the paper's, BigBiGAN. The variables of its
published encoder are not documented: `python -m tgt_jax.weights inspect` on
the unpacked TF-Hub module lists them, and tables/bigbigan.py takes their names.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets

PERCENT = ("1", "3", "10", "30", "100")


def get_config(arg=""):
  """Options, joined by commas: see `presets.OPTIONS`; and a percentage."""
  chosen = presets.options(arg, (*presets.OPTIONS, *PERCENT))
  shares = [int(word) for word in PERCENT if word in chosen]
  share = shares[0] if shares else 10
  config = config_lib.default()
  config.title = "ImageNet"
  presets.paper_images(
    config,
    data={
      "name": "tfds",
      "dataset": "imagenet2012",
      "data_dir": "",
      "test_split": "validation",
    },
    num_classes=1000,
    train_size=1_281_167 * share // 100,
    epochs=90,
    chosen=chosen,
  )
  config.title = f"ImageNet, {share} % of the labels"
  config.long_tail.update(profile="fraction", fraction=share / 100)
  config.label_loss.name = "cross_entropy"  # Classes are balanced.
  config.labeler_training.label_loss.name = "cross_entropy"
  with config.unlocked():
    del config.arms.balanced_softmax
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
