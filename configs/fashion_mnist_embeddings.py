# SPDX-License-Identifier: Apache-2.0
"""ImageNet embeddings teach a small CNN long-tailed Fashion-MNIST.

Command: python -m tgt_jax.main --config=configs/fashion_mnist_embeddings.py
  --config.data.data_dir=DIR --config.encoder_weights=lite0.safetensors
  --workdir=runs/fashion_embeddings
Hardware: 2 CPU cores.
Time: two minutes an arm beside other work.
Result: docs/embeddings.md, balanced accuracy: no_teacher 82.3 ± 0.1, kd
  83.8 ± 0.2, east_dcor 83.0 ± 0.3, ec_dcor 83.7 ± 0.2.

DIR holds the four IDX files, and the 2 478 labels are those of
fashion_mnist_lt.py; the encoder is that of cifar10_embeddings.py, which takes a
grey image as three equal channels. The teacher, a linear probe of the
embedding, has the students' labels.

Arguments: `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, embedding_presets, presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, ("smoke",))
  smoke = "smoke" in chosen
  config = config_lib.default()
  config.title = "Fashion-MNIST, long-tailed, by embeddings"
  presets.fashion_mnist_lt(config)
  config.seeds = 3
  config.embedding_shape = (1, 1, 320 if smoke else 1280)
  with config.unlocked():
    config.student = {"name": "cnn", "widths": (4, 8) if smoke else (16, 32)}
    small = {"name": "efficientnet", "width": 0.25, "depth": 0.25}
    encoder = small if smoke else {"name": "efficientnet_lite0"}
    config.encoder = {
      **encoder,
      "input_size": 32 if smoke else 96,
      "input_channels": 3,
    }
  embedding_presets.fill(
    config, width=8 if smoke else 64, labels="balanced_softmax", weight=0.95
  )
  with config.unlocked():
    config.distance.priors = True
  config.labeler_training.update(source="train")
  config.optimizer.update(learning_rate=2e-3, warmup_steps=50)
  config.training.update(steps=2000, batch_size=64)
  config.evaluation_batch_size = 100
  config.columns = ("balanced", "many", "medium", "few", "dcor")
  if smoke:
    embedding_presets.smoke(config)
  return config.lock()
