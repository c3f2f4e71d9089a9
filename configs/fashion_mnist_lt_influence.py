# SPDX-License-Identifier: Apache-2.0
"""Long-tailed Fashion-MNIST: learning teachers, examples by their influence.

Command: python -m tgt_jax.main --config=configs/fashion_mnist_lt_influence.py
  --config.data.data_dir=DIR --workdir=runs/fashion_influence
Hardware: 2 CPU cores.
Time: 75 minutes beside other work.
Result: docs/lgtm.md, balanced accuracy: kd_priors 80.7 ± 0.5, tgt_random
  85.2 ± 0.2, tgt_softmax 83.9 ± 0.2, tgt_sign 84.7 ± 0.3, prokt 78.9 ± 0.3, lgtm
  78.9 ± 0.2.

Data, networks and labeler are those of fashion_mnist_lt.py; a tenth of every
class of the labelled images is held out as feedback, for all arms alike, so
that these numbers are compared among themselves. The arms: distillation and
random exploration, which do not hear of it; random exploration whose examples
count by their influence on the held-out loss, a softmax of it or its sign;
ProKT, which is LGTM without influence, and LGTM in two scalings. The last three
teachers begin as the labeler and go on learning from the tail's labels; their
students learn from labels too, as in distillation.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets


def get_config(arg=""):
  """The study; `arg` is "" or "smoke"."""
  chosen = presets.options(arg, ("smoke",))
  config = config_lib.default()
  config.title = "Fashion-MNIST, long-tailed, by influence"
  presets.fashion_mnist_lt(config)
  config.feedback.share = 0.1
  config.teacher_optimizer.learning_rate = 3e-4
  config.main_arm = "lgtm"
  config.columns = ("balanced", "many", "medium", "few", "teacher_accuracy")
  with config.unlocked():
    config.arms = config_lib.arms(arms())
  if "smoke" in chosen:
    config.seeds = 1
    presets.few_updates(config)
  return config.lock()


def arms():
  """Arms that hear of held-out examples, and their counterparts without."""
  explores = {
    "exploration": {"name": "random", "sigma": 2.5},
    "starts": {"source": "train", "sampler": "class_balanced"},
  }
  weighed = lambda how: {
    "method": {"name": "influenced_tgt", "weighting": how},
    **explores,
  }
  lgtm = lambda **options: {
    "method": {"name": "lgtm", "student_label": 0.5, **options}
  }
  return {
    "kd_priors": {"method": {"name": "kd"}},
    "tgt_random": {"method": {"name": "tgt"}, **explores},
    "tgt_softmax": weighed("softmax"),
    "tgt_sign": weighed("sign"),
    "prokt": lgtm(influence="off"),
    "lgtm": lgtm(),
    "lgtm_normalised": lgtm(influence_weight="normalised"),
  }
