# SPDX-License-Identifier: Apache-2.0
"""SUN-LT with the networks of the paper.

Weights, once (TAESD is complete; see below for BigBiGAN):
  python -m tgt_jax.weights convert taesd.safetensors --to=taesd \
    --out=weights/taesd.safetensors
  python -m tgt_jax.weights convert tf_efficientnet_b3.safetensors \
    --to=timm_tf_efficientnet_b3 --out=weights/b3.safetensors
Command:
  python -m tgt_jax.main --config=configs/sun_lt.py:taesd \
    --workdir=runs/sun_lt --config.data.data_dir=DIR \
    --config.generator_weights=weights/taesd.safetensors \
    --config.labeler_weights=weights/b3.safetensors
Hardware: one accelerator or more; what an update needs is in docs/images.md.
Time: estimated from counted operations in docs/images.md.
Result: not yet run.

DIR holds the images of the SUN attribute data base and the DRAGON split as
SUN_LT_{train,val,test}.txt, lines "path class": 717 scenes of 12 to 2 images,
about 4,100 in all. Many, medium and few are of no use at such counts; the
table's balanced accuracy is what the paper reports.

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
  config.title = "SUN-LT"
  presets.paper_images(
    config,
    data={"name": "sun_lt", "data_dir": "", "source": "folder"},
    num_classes=717,
    train_size=4_100,
    epochs=200,
    chosen=chosen,
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()
