# SPDX-License-Identifier: Apache-2.0
"""Places-LT with the networks of the paper.

Weights, once:
  python -m tgt_jax.weights convert BigBiGAN_x1.pth --to=bigbigan \
    --out=weights/bigbigan.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Run: python -m tgt_jax.main --config=configs/places_lt.py --workdir=runs/places_lt \
    --config.data.data_dir=DIR \
    --config.generator_weights=weights/bigbigan.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: see docs/images.md for memory and time of a step.
Result: not yet run.

DIR holds data_256/ of Places365-Standard and the split files
Places_LT_{train,val,test}.txt of Open Long-Tail Recognition: 62,500 labelled
images, 365 scenes of 4,980 to 5; the balanced test split of 36,500. The
generator knows ImageNet's objects: scenes lie outside what it was trained on.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets


def get_config(arg=""):
  """Options, joined by commas: "resnet50" (the larger student), "smoke"."""
  chosen = presets.options(arg, ("resnet50", "smoke"))
  config = config_lib.default()
  config.title = "Places-LT"
  presets.paper_images(
    config,
    data={"name": "places_lt", "data_dir": "", "source": "folder"},
    num_classes=365,
    train_size=62_500,
    epochs=90,
    student="resnet50" if "resnet50" in chosen else "mobilenet_v3",
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
