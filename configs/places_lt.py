# SPDX-License-Identifier: Apache-2.0
"""Places-LT with the networks of the paper.

Weights, once (TAESD is complete; see below for BigBiGAN):
  python -m tgt_jax.weights convert taesd.safetensors --to=taesd \
    --out=weights/taesd.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Command:
  python -m tgt_jax.main --config=configs/places_lt.py:taesd \
    --workdir=runs/places_lt --config.data.data_dir=DIR \
    --config.generator_weights=weights/taesd.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: one accelerator or more; what an update needs is in docs/images.md.
Time: estimated from counted operations in docs/images.md.
Result: not yet run.

DIR holds data_256/ of Places365-Standard and the split files
Places_LT_{train,val,test}.txt of Open Long-Tail Recognition: 62,500 labelled
images, 365 scenes of 4,980 to 5; the balanced test split of 36,500. The
generator knows ImageNet's objects: scenes lie outside what it was trained on.

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
  config.title = "Places-LT"
  presets.paper_images(
    config,
    data={
      "name": "places_lt",
      "data_dir": "",
      "source": "folder",
      "in_memory": False,
    },
    num_classes=365,
    train_size=62_500,
    epochs=90,
    chosen=chosen,
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
