# SPDX-License-Identifier: Apache-2.0
"""MNLI: does the first sentence imply the second, 393 000 pairs.

Command: python -m tgt_jax.main --config=configs/mnli.py
  --config.data.data_dir=DIR --config.data.tokenizer=BART
  --config.generator_weights=bart.safetensors
  --config.labeler_weights=roberta.safetensors
  --config.student_weights=distilroberta.safetensors --workdir=runs/mnli
Hardware: one accelerator with 40 GB (an estimate), or more of any.
Time: not yet run.
Result: not yet run at full size; `:smoke` runs on a CPU.

DIR holds GLUE's folder MNLI; without it TFDS's glue/mnli is read. The matched
development split is the test split; accuracy on the mismatched one stands
beside it. For the other files and for the arguments see amazon5.py.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, text_presets.OPTIONS)
  config = config_lib.default()
  config.title = "MNLI"
  text_presets.paper_text(
    config,
    data={"name": "glue", "task": "mnli", "data_dir": ""},
    num_classes=3,
    length=128,
    steps=40_000,
    rendering="forced",  # A pair keeps its separators where they were.
    chosen=chosen,
  )
  config.columns = ("accuracy", "mismatched/accuracy", "agreement")
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
