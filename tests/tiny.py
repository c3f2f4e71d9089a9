# SPDX-License-Identifier: Apache-2.0
"""An experiment of seconds: the digits, tiny networks, few updates."""

from __future__ import annotations

from tgt_jax import config as config_lib, data, models

GRADIENT = {
  "name": "gradient_ascent",
  "step_size": 0.5,
  "start_sigma": 0.5,
  "radius": 0.5,
  "sphere": True,
}


def own_student(num_classes):
  """A factory that knows neither of data types nor of means."""
  return models.mlp(num_classes=num_classes, widths=(8,))


def tested_twice():
  """The digits, with the test split as a further one."""
  found = data.DATASETS["digits"]()
  return found._replace(others={"again": found.test})


def get_config(arg="12"):
  """`arg` is the number of the student's updates."""
  steps = int(arg or 12)
  config = config_lib.default()
  config.title = "Tiny"
  config.seeds = 2
  with config.unlocked():
    config.generator = {"name": "vae", "latent_dim": 3, "widths": (16,)}
    config.labeler = {"name": "mlp", "widths": (16,)}
    config.student = {"name": "mlp", "widths": (8,)}
    config.arms = {
      "gradient": {
        "method": {"name": "tgt"},
        "exploration": GRADIENT,
        "starts": {"source": "train", "sampler": "class_balanced"},
      }
    }
  config.long_tail.update(profile="exponential", imbalance_ratio=8.0, head=40)
  config.groups.update(many_above=20, few_below=10)
  config.validation_per_class = 5
  config.generator_training.update(steps=6, batch_size=16)
  config.labeler_training.update(steps=6, batch_size=16)
  config.training.update(steps=steps, batch_size=16)
  config.main_arm = "gradient"
  config.cadence.update(log=2, evaluate=6, checkpoint=4)
  config.gallery_examples = 2
  return config.lock()
