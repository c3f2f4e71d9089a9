# SPDX-License-Identifier: Apache-2.0
"""Reuters newswires by topic: 52 classes with 2 840 to 1 training examples.

Command: python -m tgt_jax.data.fetch r52 --out=DIR
  python -m tgt_jax.main --config=configs/r52.py --config.data.data_dir=DIR
  --config.data.tokenizer=words.json
  --config.labeler_weights=labeler.safetensors --workdir=runs/r52
Hardware: 2 CPU cores.
Time: 90 minutes of a core for labels, kd, kd_erase, kd_replace, tgt_random.
Result: macro-F1 on the test split (3 seeds, last step): labels 7.9 ± 1.3,
  distillation 6.4 ± 0.9, random erasing 7.9 ± 0.2, word replacement 9.6 ± 1.5,
  TGT-random 9.5 ± 1.0; labeler 61.2, TF-IDF 65.0. docs/text.md has the table,
  and what has not run.

Words and labeler are made as sst2_low.py says, with the data
'{"name": "topics", "corpus": "r52", "data_dir": "DIR"}', which use 15 644 of
the tokens. Labeler and students have the same labels; what the labeler has
more is its pretraining. A text is its first 32 tokens; the length of the moves
is what held-out texts of SST-2 chose.

Arguments, joined by commas: names of arms, instead of all; `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets

_LENGTH = 32


def get_config(arg=""):
  """The experiment."""
  config = config_lib.default()
  config.title = "R52"
  config.seeds = 3
  text_presets.topics(config, "r52", length=_LENGTH)
  text_presets.small(config, length=_LENGTH)
  presets.balance(config)
  names = tuple(config.arms)
  chosen = presets.options(arg, (*names, "smoke"))
  presets.keep(config, chosen & set(names) or names)
  config.columns = ("macro_f1", "accuracy", "many", "medium", "few")
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
