# SPDX-License-Identifier: Apache-2.0
"""SUN-LT with the networks of the paper.

Weights, once:
  python -m tgt_jax.weights convert BigBiGAN_x1.pth --to=bigbigan \
    --out=weights/bigbigan.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Run: python -m tgt_jax.main --config=configs/sun_lt.py --workdir=runs/sun_lt \
    --config.data.data_dir=DIR \
    --config.generator_weights=weights/bigbigan.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: see docs/images.md for memory and time of a step.
Result: not yet run.

DIR holds the images of the SUN attribute data base and the DRAGON split as
SUN_LT_{train,val,test}.txt, lines "path class": 717 scenes of 12 to 2 images,
about 4,100 in all. Many, medium and few are of no use at such counts; the
table's balanced accuracy is what the paper reports.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets


def get_config(arg=""):
  """Options, joined by commas: "resnet50" (the larger student), "smoke"."""
  chosen = presets.options(arg, ("resnet50", "smoke"))
  config = config_lib.default()
  config.title = "SUN-LT"
  presets.paper_images(
    config,
    data={"name": "sun_lt", "data_dir": "", "source": "folder"},
    num_classes=717,
    train_size=4_100,
    epochs=200,
    student="resnet50" if "resnet50" in chosen else "mobilenet_v3",
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
