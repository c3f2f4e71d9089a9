# SPDX-License-Identifier: Apache-2.0
"""What the experiments with learning teachers share: LGTM and ten baselines.

Hyper-parameters of LGTM and ProKT are those of LGTM's published code (arXiv
2305.09651): alpha 0.4, temperature 1, no hard labels for the student. How its
authors set the other baselines is not published; ours are those of the
baselines' own papers or code where they fit, and said in `arms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from tgt_jax import config as config_lib, presets, text_presets

# Those of LGTM's experiments, and STS-B.
TASKS = ("mnli", "qnli", "qqp", "sst2", "mrpc", "rte", "stsb")
# What tasks are reported by, where it is not accuracy alone.
_SCORES = {
  "mrpc": ("f1", "accuracy"),
  "qqp": ("f1", "accuracy"),
  "mnli": ("accuracy", "mismatched/accuracy"),
  "stsb": ("pearson", "spearman"),
}
_CLASSES = {"mnli": 3, "stsb": 6}
_SOFT = {"name": "kl_divergence", "temperature": 4.0}


def arms(*, look_ahead_rate: float) -> dict[str, Any]:
  """The undistilled student, ten baselines, LGTM in three scalings.

  A teacher that learns along begins as the published experiments have it:
  pretrained only in DML, ProKT and LGTM, fine-tuned in Meta Distill and for
  everybody who learns from a fixed one.

  Args:
    look_ahead_rate: of Meta Distill's plain SGD.
  """
  half = {"label": 0.5, "distill": 0.5}
  # Logits that are all zero have no direction and no correlation, and two that
  # begin there stay opposite. [deviation] Where heads begin at zero, these do
  # not.
  drawn = {"student": {"zero_head": False}}
  begun = {"teacher_start": "untrained"}
  lgtm = lambda **options: {"method": {"name": "lgtm", **options}, **begun}
  return {
    "undistilled": {"method": {"name": "supervised"}},
    "kd": {"method": {"name": "kd", "weights": half}, "distance": _SOFT},
    "pkd": {"method": {"name": "pkd"}, "distance": _SOFT},
    "skd": {"method": {"name": "skd"}, "distance": _SOFT, **drawn},
    "dist": {
      "method": {"name": "kd", "weights": {"label": 1.0, "distill": 2.0}},
      "distance": {"name": "dist"},
      **drawn,
    },
    "takd": {"method": {"name": "takd", "weights": half}, "distance": _SOFT},
    "rco": {"method": {"name": "rco", "weights": half}, "distance": _SOFT},
    "dml": {"method": {"name": "dml"}, **begun},
    "prokt": {"method": {"name": "prokt"}, **begun},
    "pesf_kd": {"method": {"name": "pesf_kd"}, "distance": _SOFT},
    "meta_distill": {
      "method": {"name": "meta_distill", "look_ahead_rate": look_ahead_rate}
    },
    "lgtm": lgtm(),
    "lgtm_official": lgtm(
      influence="finite_difference", influence_weight="official"
    ),
    "lgtm_normalised": lgtm(influence_weight="normalised"),
  }


ARMS = tuple(arms(look_ahead_rate=1.0))
_OF_EACH_KIND = ("pkd", "takd", "rco", "prokt", "lgtm")


def keep(config: Any, chosen: Set[str], usual: Sequence[str] = ARMS) -> None:
  """Leaves out all arms that are not among the options of a config.

  Args:
    config: with all of them.
    chosen: options; where no arm is among them, the usual ones stay, of which
      "smoke" takes one of each kind.
    usual: names of arms.
  """
  if "smoke" in chosen:
    usual = _OF_EACH_KIND
  presets.keep(config, chosen & set(ARMS) or usual)


def fill(
  config: Any,
  *,
  task: str,
  length: int,
  steps: int,
  batch_size: int,
  rates: tuple[float, float],
  optimizer: Mapping[str, Any],
) -> None:
  """Data, protocol and optimisers.

  A tenth of the training set is held out as feedback, for all arms: those
  that do not use it train on the same nine tenths. GLUE's development split
  is the test split and chooses nothing.

  Args:
    config: from `config.default()`.
    task: of GLUE.
    length: token ids of a text at most.
    steps: updates of student and labeler each.
    batch_size: of the training and of the held-out batch.
    rates: learning rates of student and teacher.
    optimizer: what both have beside.
  """
  config.input_shape = (length,)
  config.num_classes = _CLASSES.get(task, 2)
  config.feedback.share = 0.1
  with config.unlocked():
    config.data = {
      "name": "glue",
      "task": task,
      "data_dir": "",
      "tokenizer": "",
      "max_length": length,
    }
    config.arms = config_lib.arms(arms(look_ahead_rate=rates[0]))
  score = _SCORES.get(task, ("accuracy",))
  config.columns = (*score, "teacher_accuracy", "agreement")
  config.main_arm = "lgtm"
  if task == "stsb":
    config.columns = score  # Nobody's grades are right or wrong.
    config.label_loss.name = "graded_cross_entropy"
    config.labeler_training.label_loss.name = "graded_cross_entropy"
  with config.unlocked():
    config.generator = {"name": ""}
  config.anchors = 4
  config.labeler_training.update(
    source="train", steps=steps, batch_size=batch_size, reconstruction=0.0
  )
  config.training.update(steps=steps, batch_size=batch_size)
  teachers = config.labeler_training.optimizer, config.teacher_optimizer
  for section, rate in zip(
    (config.optimizer, *teachers), (rates[0], rates[1], rates[1]), strict=True
  ):
    with section.unlocked():
      section.update(learning_rate=rate, schedule="linear", **optimizer)
  config.cadence.update(log=50, evaluate=0, checkpoint=1000)


def smoke(config: Any) -> None:
  """A few updates on sentences of a grammar."""
  kept = {name: config.arms[name].to_dict() for name in config.arms}
  assistants = len(config.assistants)
  text_presets.smoke(config)
  config.anchors = 2
  encoder = {"name": "bert", "num_layers": 1, "width": 16, "num_heads": 2}
  encoder |= {"mlp_width": 32, "max_positions": 48}
  config.assistants = (encoder,) * assistants
  with config.unlocked():
    config.generator = {"name": ""}
    config.labeler.num_layers = 2
    config.arms = config_lib.arms(kept)
