# SPDX-License-Identifier: Apache-2.0
"""Long-tailed Fashion-MNIST: what exploration buys, against its controls.

Command: python -m tgt_jax.main --config=configs/fashion_mnist_lt.py
  --config.data.data_dir=DIR --workdir=runs/fashion
Second table (labeler trained on the tail's labels alone):
  --config=configs/fashion_mnist_lt.py:tail_labeler
Hardware: 1 CPU core, shared.
Time: half an hour of processor time for the teacher, a minute to 30 per arm.
Result: balanced accuracy (5 seeds, last step, test split) 83.5 ± 0.2
  pixel-noise-KD, 83.9 ± 0.2 with 13 000 updates, 85.7 ± 0.2 TGT-random,
  86.0 ± 0.1 TGT-gradient, 86.2 ± 0.1 with three steps; the table is in
  README.md. `:tail_labeler`: 79.5 ± 0.2, 79.7 ± 0.2 and 79.6 ± 0.2.

DIR holds the four IDX files of Fashion-MNIST (the Debian package
`dataset-fashion-mnist` installs them); left empty, TFDS is asked. 2 478
labelled images, 1 000 of the first class and 10 of the last (imbalance ratio
100); the balanced test split of 10 000. The generator sees all 60 000 training
images without labels. The labeler has all their labels, or the tail's alone.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets

SIGMA = 2.5  # Of TGT-random; the length of every TGT-gradient move.


def get_config(arg=""):
  """The study; `arg` is "", "tail_labeler" or "smoke"."""
  config = config_lib.default()
  config.title = "Fashion-MNIST, long-tailed"
  presets.fashion_mnist_lt(config)
  with config.unlocked():
    config.arms = config_lib.arms(arms())
  config.main_arm = "tgt_gradient"
  config.reference_arms = ("kd_60000",)
  if arg == "tail_labeler":
    config.title += ", labeler from 2 478 labels"
    config.labeler_training.source = "train"
    config.labeler_training.label_loss.name = "balanced_softmax"
    with config.unlocked():  # Half of the time of all.
      del config.arms.noise_kd_long, config.arms.tgt_gradient_3
  elif arg == "smoke":
    config.seeds = 2
    presets.few_updates(config)
    config.arms.noise_kd_long.training.steps = 8
  elif arg:
    raise ValueError(
      f"unknown argument {arg!r}; expected '', 'tail_labeler' or 'smoke'"
    )
  return config.lock()


def arms():
  """Overrides by arm; all share teacher, data order and number of steps."""
  balanced = {"starts": {"source": "train", "sampler": "class_balanced"}}
  random = {"name": "random", "sigma": SIGMA}
  # From a random neighbour a small step uphill; every move then has the length
  # of a random one, so that the two differ in direction alone.
  gradient = {
    "name": "gradient_ascent",
    "step_size": 0.3,
    "start_sigma": SIGMA,
    "radius": SIGMA,
    "sphere": True,
  }
  return {
    "labels": {
      "method": {"name": "supervised"},
      "label_loss": {"name": "cross_entropy"},
    },
    "balanced_softmax": {"method": {"name": "supervised"}},
    "kd": {
      "method": {"name": "kd"},
      "label_loss": {"name": "cross_entropy"},
      "distance": {"name": "kl_divergence"},
    },
    "kd_priors": {"method": {"name": "kd"}},
    "mixup_kd": {"method": {"name": "mixup_kd"}, **balanced},
    "noise_kd": {"method": {"name": "noise_kd", "sigma": 0.2}, **balanced},
    # More steps of the best control: the wall time of tgt_gradient.
    "noise_kd_long": {
      "method": {"name": "noise_kd", "sigma": 0.2},
      "training": {"steps": 13000},
      **balanced,
    },
    "latent_mixup": {
      "method": {"name": "tgt"},
      "exploration": {"name": "interpolate", "low": 0.0, "high": 1.0},
      **balanced,
    },
    "tgt_random": {
      "method": {"name": "tgt"},
      "exploration": random,
      **balanced,
    },
    "tgt_gradient": {
      "method": {"name": "tgt"},
      "exploration": gradient,
      **balanced,
    },
    "tgt_gradient_3": {
      "method": {"name": "tgt"},
      "exploration": {**gradient, "num_steps": 3},
      **balanced,
    },
    "kd_60000": {
      "method": {"name": "unlabelled_kd"},
      "starts": {"source": "full", "sampler": "natural"},
    },
  }
