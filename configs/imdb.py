# SPDX-License-Identifier: Apache-2.0
"""IMDB film reviews, positive or negative, with all or few labels.

Command: python -m tgt_jax.main --config=configs/imdb.py
  --config.data.data_dir=DIR --config.data.tokenizer=BART
  --config.generator_weights=bart.safetensors
  --config.labeler_weights=roberta.safetensors
  --config.student_weights=distilroberta.safetensors --workdir=runs/imdb
Hardware: one accelerator with 80 GB (an estimate: soft tokens are 3 GB each).
Time: not yet run.
Result: not yet run at full size; `:smoke` runs on a CPU.

DIR is the folder aclImdb; without it TFDS's imdb_reviews is read. For the other
files and for the arguments see amazon5.py. Fewer labels:
`--config.long_tail.profile=fraction --config.long_tail.fraction=0.1`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, text_presets.OPTIONS)
  config = config_lib.default()
  config.title = "IMDB"
  text_presets.paper_text(
    config,
    data={"name": "imdb", "data_dir": ""},
    num_classes=2,
    length=512,
    steps=20_000,
    chosen=chosen,
  )
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
