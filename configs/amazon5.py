# SPDX-License-Identifier: Apache-2.0
"""Amazon reviews with one to five stars, 2 500 of them labelled.

Command: python -m tgt_jax.main --config=configs/amazon5.py
  --config.data.data_dir=DIR --config.data.tokenizer=BART
  --config.generator_weights=bart.safetensors
  --config.labeler_weights=roberta.safetensors
  --config.student_weights=distilroberta.safetensors --workdir=runs/amazon5
Hardware: one accelerator with 40 GB (an estimate), or more of any.
Time: not yet run.
Result: not yet run at full size; `:smoke` runs on a CPU.

DIR holds amazon_review_full_csv (docs/text_data.md), BART the tokenizer of
facebook/bart-base, and the three files are public weights that
`python -m tgt_jax.weights convert` made (docs/weights.md). The labeler is
fine-tuned on the same 2 500 labels; the other reviews have none.

Arguments, joined by commas: `distilbert` is another student, with words of its
own (--config.student.tokenizer names the folder of its vocab.txt), so that
TGT-gradient is left out; `large` another labeler; `scratch`
begins the student at random (leave out its weights); `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets


def get_config(arg=""):
  """The experiment."""
  chosen = presets.options(arg, text_presets.OPTIONS)
  config = config_lib.default()
  config.title = "Amazon-5, 2 500 labels"
  text_presets.paper_text(
    config,
    data={
      "name": "reviews_csv",
      "corpus": "amazon5",
      "data_dir": "",
      "num_labelled": 2500,
    },
    num_classes=5,
    length=256,
    steps=10_000,
    chosen=chosen,
  )
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
