# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST with a share of its labels: accuracy by sample size.

Command: launch/sample_sizes.sh --config=configs/fashion_mnist_fraction.py
  --config.data.data_dir=DIR --workdir=runs/fraction
One size: python -m tgt_jax.main --config=configs/fashion_mnist_fraction.py:10
  --config.data.data_dir=DIR --workdir=runs/fraction/10
Hardware: 1 CPU core, shared.
Time: half an hour of processor time for the teacher, a quarter per size.
Result: docs/sample_sizes.md. With 600 images (3 seeds, last update, test split)
  81.3 ± 0.1 KD, 85.3 ± 0.2 TGT-random, 85.8 ± 0.3 TGT-gradient.

The argument is the percentage of labelled images, the same share of every
class; a larger set contains a smaller one. DIR holds the four IDX files (see
fashion_mnist_lt.py). The labeler has the labels of all 60 000 training images,
the generator the images without labels: the teacher knows what was known
before, as public models do, and the student has the share. Every student takes
the same number of updates, at every size. The test split has 10 000.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets

PERCENT = ("1", "3", "10", "30", "100")
SIGMA = 2.5  # Of TGT-random; the length of every TGT-gradient move.


def get_config(arg=""):
  """One percentage, 10 without one; `smoke` after a comma."""
  chosen = presets.options(arg, (*PERCENT, "smoke"))
  shares = [int(word) for word in PERCENT if word in chosen]
  share = shares[0] if shares else 10
  config = config_lib.default()
  config.title = f"Fashion-MNIST, {share} % of the labels"
  config.seeds = 3
  config.input_shape = (28, 28, 1)
  with config.unlocked():
    config.data = {"name": "fashion_mnist", "data_dir": ""}
    config.generator = {"name": "vae", "latent_dim": 16, "widths": (512, 256)}
    config.labeler = {"name": "cnn", "widths": (32, 64)}
    config.student = {"name": "mlp", "widths": (64, 64)}
    config.arms = config_lib.arms(arms())
  config.long_tail.update(profile="fraction", fraction=share / 100)
  config.generator_training.update(steps=9000)
  config.labeler_training.update(source="full", steps=2500)
  config.optimizer.learning_rate = 3e-3
  config.training.update(steps=3000, batch_size=64)
  config.main_arm = "tgt_gradient"
  config.cadence.update(log=250, evaluate=1000, checkpoint=1000)
  if "smoke" in chosen:
    config.generator_training.update(steps=10)
    config.labeler_training.update(steps=4)
    config.training.update(steps=4)
    config.cadence.update(log=2, evaluate=4, checkpoint=4)
    config.gallery_examples = 3
    config.quick_compilation = True
  return config.lock()


def arms():
  """Overrides by arm; all share teacher, data order and number of steps."""
  # As in fashion_mnist_lt.py: every move has the length of a random one.
  gradient = {
    "name": "gradient_ascent",
    "step_size": 0.3,
    "start_sigma": SIGMA,
    "radius": SIGMA,
    "sphere": True,
  }
  return {
    "labels": {"method": {"name": "supervised"}},
    "kd": {"method": {"name": "kd"}},
    "noise_kd": {"method": {"name": "noise_kd", "sigma": 0.2}},
    "tgt_random": {
      "method": {"name": "tgt"},
      "exploration": {"name": "random", "sigma": SIGMA},
    },
    "tgt_gradient": {"method": {"name": "tgt"}, "exploration": gradient},
  }
