# SPDX-License-Identifier: Apache-2.0
"""An experiment of seconds: the digits, tiny networks, few updates."""

from __future__ import annotations

import dataclasses

import numpy as np

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


def graded_twice():
  """The digits as grades near them, with the test split as a further one."""

  def graded(source):
    near = source.labels + 0.4 * np.sin(source.ids)
    grades = np.clip(near, 0, 9).astype(np.float32)
    return dataclasses.replace(source, targets=grades)

  found = data.DATASETS["digits"]()
  train, test = graded(found.train), graded(found.test)
  return data.Dataset(train, test, train, {"again": test})


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


def tagged():
  """The digits with four tags, a tenth of them unknown, and embeddings."""

  def tags_of(source):
    digit = source.labels[:, None]
    tags = np.hstack([digit % 2 == 0, digit > 4, digit % 3 == 0, digit == 1])
    tags = tags.astype(np.float32)
    tags[np.random.default_rng(len(source)).uniform(size=tags.shape) < 0.1] = -1
    images = source.read(np.arange(len(source)))
    return data.from_arrays(
      images,
      tags,
      name=f"tagged {source.name}",
      embeddings=images.reshape(len(images), 4, 1, 16),
    )

  found = data.DATASETS["digits"]()
  train, test = tags_of(found.train), tags_of(found.test)
  return data.Dataset(train, test, train)
