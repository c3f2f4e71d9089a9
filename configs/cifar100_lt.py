# SPDX-License-Identifier: Apache-2.0
"""CIFAR-100-LT, the published index files of LDAM-DRW.

Command: python -m tgt_jax.main --config=configs/cifar100_lt.py:100 \
  --config.data.data_dir=DIR --workdir=runs/cifar100_lt_100
Hardware: one accelerator.
Time: not measured.
Result: not yet run.

The argument is the imbalance ratio, 10, 50 or 100 (19,573, 12,608 and 10,847
labelled images). DIR holds cifar-100-binary or cifar-100-python; left empty,
TFDS is asked. Everything is trained here: a convolutional VAE on the 50,000
images without labels, a ResNet-32 labeler on their labels, ResNet-20 students.
With "paper" the teacher and the student are those of configs/imagenet_lt.py.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets

RATIOS = ("10", "50", "100")
SIGMA = 1.0


def get_config(arg=""):
  """Options, joined by commas: an imbalance ratio, "paper", "smoke"."""
  chosen = presets.options(arg, (*RATIOS, "paper", "smoke"))
  ratios = [float(word) for word in RATIOS if word in chosen]
  ratio = ratios[0] if ratios else 100.0
  config = config_lib.default()
  data = {"name": "cifar100", "data_dir": None}
  if "paper" in chosen:
    presets.paper_images(
      config, data=data, num_classes=100, train_size=10_847, epochs=200
    )
    with config.unlocked():
      config.data = data
  else:
    own_networks(config, data)
  config.title = f"CIFAR-100-LT, imbalance ratio {ratio:g}"
  config.input_shape = (32, 32, 3)
  config.augment = ({"name": "crop"}, {"name": "horizontal_flip"})
  config.long_tail.update(
    profile="exponential", imbalance_ratio=ratio, head=500, selection="ldam"
  )
  if "smoke" in chosen:
    presets.smoke(config)
  return config.lock()


def own_networks(config, data):
  """Networks of CIFAR's size, trained here."""
  config.num_classes = 100
  with config.unlocked():
    config.data = data
    config.generator = {
      "name": "conv_vae",
      "latent_dim": 128,
      "widths": (64, 128, 256),
      "whitened": True,
    }
    config.labeler = {"name": "resnet32"}
    config.student = {"name": "resnet20"}
    arms = presets.paper_arms()
    for name, strength in (
      ("tgt_random", {"sigma": SIGMA}),
      ("tgt_gradient", {"start_sigma": SIGMA, "sphere": True}),
    ):
      arms[name]["exploration"].update(strength)
    # A step uphill from a random neighbour, then random's length.
    arms["tgt_gradient"]["exploration"].update(step_size=0.3, radius=SIGMA)
    config.arms = config_lib.arms(arms)
  config.generator_training.update(steps=40_000)
  config.labeler_training.update(source="full", steps=40_000)
  config.label_loss.name = "balanced_softmax"
  config.training.update(steps=20_000, batch_size=128)
  config.optimizer.update(
    name="sgd", learning_rate=0.1, warmup_steps=500, weight_decay=5e-4
  )
  config.cadence.update(log=100, evaluate=2000, checkpoint=2000)
  config.main_arm = "tgt_gradient"
