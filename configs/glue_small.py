# SPDX-License-Identifier: Apache-2.0
"""LGTM and its ten baselines on GLUE with small public networks, on a CPU.

Command: launch/glue_study.sh --workdir=runs/glue --data_dir=DIR
  --teacher=BERT_TINY --tokenizer=tokenizer.json, which makes words and weights
  and runs python -m tgt_jax.main --config=configs/glue_small.py:TASK
Hardware: 2 CPU cores.
Time: beside other work sst2 2.7 hours; on a faster machine rte 40 minutes, mrpc
  70; of minilm 6 minutes an arm, 25 to 50 where the teacher learns.
Result: docs/lgtm.md. sst2: undistilled 78.2 ± 0.9, kd 79.3 ± 0.4, rco
  79.7 ± 0.6, prokt 78.0 ± 0.6, lgtm 77.8 ± 0.7; rte: undistilled 56.1 ± 1.1,
  kd 57.6 ± 1.5, prokt 53.4 ± 2.1, lgtm 53.6 ± 2.2; mrpc (accuracy): undistilled
  69.4 ± 0.8, kd 71.7 ± 1.0, prokt 70.2 ± 0.4, lgtm 70.2 ± 0.3; mrpc,minilm:
  undistilled 70.3 ± 0.7, kd 70.0 ± 0.4, pkd 69.9 ± 0.4, prokt 69.9 ± 0.4,
  meta_distill 69.9 ± 0.4, lgtm 69.4 ± 0.8, two arms not yet run.

The teacher is BERT-Tiny, two layers of 128, the student its first layer. With
`minilm` (SIZE=minilm) the teacher is MiniLM-L6 and the student its layers 1, 3
and 5, for eight of the fourteen arms, which have one epoch instead of three.
All read those of their words that the task uses. SST-2 is cut to a tenth of its
sentences.

Arguments, joined by commas: mrpc, rte, sst2 or stsb; methods, such as
`kd,lgtm`; `minilm`; `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, glue_presets, presets

# Training examples, for epochs, and the tokens of the restricted vocabulary.
_SIZES = {
  "mrpc": (3_668, 13_452),
  "rte": (2_490, 15_470),
  "sst2": (6_735, 13_486),
  "stsb": (5_749, 12_683),
}

# With MiniLM an update takes seconds: the arms that tell what the influence
# adds, and what it is compared with.
_DEAR = (
  *("undistilled", "kd", "pkd", "prokt", "meta_distill"),
  *("lgtm", "lgtm_official", "lgtm_normalised"),
)


def get_config(arg=""):
  """The experiment."""
  names = (*_SIZES, "minilm", "smoke", *glue_presets.ARMS)
  chosen = presets.options(arg, names)
  task = presets.single(chosen, tuple(_SIZES), "mrpc")
  minilm = "minilm" in chosen
  config = config_lib.default()
  config.title = f"LGTM, {task}, small"
  examples, words = _SIZES[task]
  config.seeds = 3 if minilm else 5
  glue_presets.fill(
    config,
    task=task,
    length=64,
    # Three epochs of all, a tenth of which is held out; in quarters for the
    # anchors.
    steps=3 * examples // 32 // 4 * 4,
    batch_size=32,
    rates=(1e-4, 3e-5) if minilm else (3e-4, 1e-4),
    optimizer={"clip_norm": 1.0},
  )
  glue_presets.keep(config, chosen, _DEAR if minilm else glue_presets.ARMS)
  config.buckets = (16, 32, 64) if task == "sst2" else (32, 64)
  config.vocabulary.update(
    vocab_size=words, pad_id=0, cls_id=2, sep_id=3, mask_id=4
  )
  if minilm:  # Students have one epoch.
    config.training.steps = examples // 32 // 4 * 4
  if task == "sst2":
    config.long_tail.update(profile="fraction", fraction=0.1)
  name = "minilm_l6" if minilm else "bert_tiny"
  with config.unlocked():
    config.labeler = {"name": name}
    config.student = {"name": name, "num_layers": 3 if minilm else 1}
  # Between them: as deep as the teacher, from random weights.
  config.assistants = ({"name": name, "num_layers": 4 if minilm else 2},)
  if "smoke" in chosen:
    glue_presets.smoke(config)
  return config.lock()
