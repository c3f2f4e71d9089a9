# SPDX-License-Identifier: Apache-2.0
"""ImageNet-LT with the networks of the paper.

Weights, once (TAESD is complete; see below for BigBiGAN):
  python -m tgt_jax.weights convert taesd.safetensors --to=taesd \
    --out=weights/taesd.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Command:
  python -m tgt_jax.main --config=configs/imagenet_lt.py:taesd \
    --workdir=runs/imagenet_lt --config.data.data_dir=DIR \
    --config.generator_weights=weights/taesd.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: one accelerator or more; what an update needs is in docs/images.md.
Time: estimated from counted operations in docs/images.md.
Result: not yet run.

DIR holds train/ and val/ of ImageNet (ILSVRC 2012) and the split files
ImageNet_LT_{train,val,test}.txt of Open Long-Tail Recognition: 115,846 labelled
images, 1,000 classes of 1,280 to 5; the balanced test split of 50,000. With
`--config.data.source=tfds` DIR is the data directory of TFDS.

Without an option the generator is the paper's, BigBiGAN. The variables of its
published encoder are not documented: `python -m tgt_jax.weights inspect` on
the unpacked TF-Hub module lists them, and tables/bigbigan.py takes their names.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets


def get_config(arg=""):
  """Options, joined by commas: see `presets.OPTIONS`."""
  chosen = presets.options(arg, presets.OPTIONS)
  config = config_lib.default()
  config.title = "ImageNet-LT"
  presets.paper_images(
    config,
    data={
      "name": "imagenet_lt",
      "data_dir": "",
      "source": "folder",
      "in_memory": False,
    },
    num_classes=1000,
    train_size=115_846,
    epochs=90,
    chosen=chosen,
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
