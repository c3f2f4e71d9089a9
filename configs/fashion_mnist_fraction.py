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
  presets.fashion_mnist(config)
  with config.unlocked():
    config.arms = config_lib.arms(arms())
  config.long_tail.update(profile="fraction", fraction=share / 100)
  config.main_arm = "tgt_gradient"
  if "smoke" in chosen:
    presets.few_updates(config)
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
