# SPDX-License-Identifier: Apache-2.0
"""What the text experiments share: arms, networks, and their small forms.

BART explores, a fine-tuned encoder labels, a smaller one learns
(arXiv:2208.06825, section 4.3). The paper's optimiser, learning rates and
exploration strengths are not published where we could read them: those here
are ours.
"""

from __future__ import annotations

from typing import Any

from tgt_jax import config as config_lib, presets

# Of the tokenizers of BART and RoBERTa, of BERT, and of one trained here.
ROBERTA_WORDS = {
  "vocab_size": 50265,
  "pad_id": 1,
  "cls_id": 0,
  "sep_id": 2,
  "mask_id": 50264,
}
BERT_WORDS = {
  "vocab_size": 30522,
  "pad_id": 0,
  "cls_id": 101,
  "sep_id": 102,
  "mask_id": 103,
}
SENTENCE_WORDS = {
  "vocab_size": 99,
  "pad_id": 0,
  "cls_id": 2,
  "sep_id": 3,
  "mask_id": 4,
}
OPTIONS = ("distilbert", "scratch", "large", "smoke")
_SIGMA = 0.5  # Of TGT-random, in units of the states' spread; ours.


def arms(
  *, sigma: float = _SIGMA, step_size: float = 0.3, gradient: bool = True
) -> dict[str, Any]:
  """Labels, distillation, what competes with exploring, and exploring.

  Args:
    sigma: of TGT-random; the length of every TGT-gradient move.
    step_size: of TGT-gradient.
    gradient: without it TGT-gradient and what else shows soft tokens is left
      out, as it must be where student or labeler have words of their own.
  """
  view = lambda name, probability, **more: {
    "strong": ({"name": name, "probability": probability, **more},)
  }
  found: dict[str, Any] = {
    "labels": {"method": {"name": "supervised"}},
    "kd": {"method": {"name": "kd"}},
    "kd_erase": {
      "method": {"name": "augmented_kd"},
      "starts": view("erase_tokens", 0.15),
    },
    "kd_replace": {
      "method": {"name": "augmented_kd"},
      # Texts without labels are at hand: the generator has read them.
      "starts": view("replace_words", 0.3, corpus="full"),
    },
    "uda": {
      "method": {"name": "uda"},
      "starts": {"source": "full", **view("replace_words", 0.3)},
    },
    "tgt_random": {
      "method": {"name": "tgt"},
      "exploration": {"name": "random", "sigma": sigma},
    },
  }
  if gradient:
    found["mate_kd"] = {
      "method": {"name": "mate_kd", "adversary": {"name": "bert_tiny"}}
    }
    found["mixup_kd"] = {"method": {"name": "mixup_kd"}}
    found["tgt_gradient"] = {
      "method": {"name": "tgt"},
      "exploration": {
        "name": "gradient_ascent",
        "step_size": step_size,
        "start_sigma": sigma,
        "radius": sigma,
        "sphere": True,
      },
    }
  return found


def paper_text(
  config: Any,
  *,
  data: dict[str, Any],
  num_classes: int,
  length: int,
  steps: int,
  chosen: set[str],
  rendering: str = "greedy",
) -> None:
  """Fills a config with the paper's pairing.

  BART-base, RoBERTa (base, or "large"), and DistilRoBERTa, which share their
  words; or "distilbert", which has its own and so explores at random only.

  Args:
    config: from `config.default()`.
    data: spec of the data set.
    num_classes: number of classes K.
    length: token ids of a text at most.
    steps: updates of a student.
    chosen: of `OPTIONS`; "scratch" begins with random weights.
    rendering: how the generator writes; see `generators.bart`.
  """
  shares_words = "distilbert" not in chosen
  config.input_shape = (length,)
  config.num_classes = num_classes
  config.vocabulary.update(ROBERTA_WORDS)
  encoder = {"dtype": "bfloat16", "remat": False}
  with config.unlocked():
    config.data = {**data, "tokenizer": "", "max_length": length}
    config.generator = {
      "name": "bart",
      "dtype": "bfloat16",
      "whitened": True,
      "rendering": rendering,
    }
    size = "large" if "large" in chosen else "base"
    config.labeler = {"name": f"roberta_{size}", **encoder}
    config.student = {"name": "distilroberta_base", **encoder}
    if not shares_words:
      config.student = {
        "name": "distilbert_base",
        # Folder with DistilBERT's vocab.txt or tokenizer.json.
        "tokenizer": "distilbert-base-uncased",
        "length": length,
        **encoder,
      }
    config.arms = config_lib.arms(arms(gradient=shares_words))
  config.main_arm = "tgt_gradient" if shares_words else "tgt_random"
  # BART is used as it is; RoBERTa is fine-tuned on the labels.
  config.generator_training.steps = 0
  config.labeler_training.update(
    source="train", steps=steps // 4, batch_size=32, reconstruction=0.0
  )
  config.labeler_training.optimizer.update(
    learning_rate=2e-5, schedule="linear", warmup_steps=steps // 40
  )
  config.training.update(steps=steps, batch_size=32)
  config.optimizer.update(
    learning_rate=1e-4 if "scratch" in chosen else 5e-5,
    schedule="linear",
    warmup_steps=steps // 20,
    clip_norm=1.0,
  )
  config.cadence.update(log=100, evaluate=1000, checkpoint=1000)


def small(config: Any, *, length: int) -> None:
  """A pairing for a few cores: everything but MiniLM's layers is trained here.

  The first three layers of MiniLM label, a BART of two layers explores, and a
  student of BERT-Tiny's size learns. Held-out phrases of SST-2 chose the length
  of the moves: 2 and 3 are alike there, 1 is too short.

  Args:
    config: from `config.default()`.
    length: token ids of a text at most.
  """
  with config.unlocked():
    config.generator = {
      "name": "bart",
      "num_layers": 2,
      "num_decoder_layers": 2,
      "width": 128,
      "num_heads": 4,
      "mlp_width": 512,
      "max_positions": length,
      "whitened": True,
      "rendering": "forced",
    }
    config.labeler = {"name": "minilm_l6", "num_layers": 3}
    config.student = {"name": "bert_tiny"}
    config.arms = config_lib.arms(arms(sigma=3.0, step_size=0.7))
  config.main_arm = "tgt_gradient"
  config.generator_training.update(steps=3000, batch_size=32)
  config.generator_training.optimizer.update(warmup_steps=300, clip_norm=1.0)
  config.labeler_training.update(
    source="train", steps=1500, batch_size=32, reconstruction=0.0
  )
  config.training.update(steps=1000, batch_size=32)
  config.optimizer.update(learning_rate=5e-4)
  config.labeler_training.optimizer.update(learning_rate=1e-4)
  for section in (config.optimizer, config.labeler_training.optimizer):
    section.update(schedule="linear", warmup_steps=100, clip_norm=1.0)
  config.cadence.update(log=100, evaluate=500, checkpoint=500)


# Classes of a corpus, and those of MiniLM's tokens that it uses.
_TOPICS = {"r52": (52, 15_644), "20news": (20, 23_835)}


def topics(config: Any, corpus: str, *, length: int) -> None:
  """Texts by topic, in those of MiniLM's words that they use.

  Args:
    config: from `config.default()`.
    corpus: "r52", Reuters' newswires, or "20news", 20 Newsgroups.
    length: tokens of a text.
  """
  config.input_shape = (length,)
  config.num_classes, words = _TOPICS[corpus]
  config.buckets = (length // 2, length)
  config.vocabulary.update(
    vocab_size=words, pad_id=0, cls_id=2, sep_id=3, mask_id=4
  )
  config.bag_of_words = True
  with config.unlocked():
    config.data = {
      "name": "topics",
      "corpus": corpus,
      "data_dir": "",
      "tokenizer": "",
      "max_length": length,
    }


# Forms of `data.sentences` with the classes and inputs of GLUE's tasks.
_LIKE_GLUE = {
  "mnli": ("entailment", 3),
  "stsb": ("similarity", 6),
  **dict.fromkeys(("mrpc", "qnli", "qqp", "rte"), ("paraphrase", 2)),
}


def _kinds(spec: Any) -> dict[str, Any]:
  """What changes a network's program, not its size."""
  kept = {"dtype", "remat", "zero_head", "pooling", "pooler"}
  kept |= {"whitened", "rendering"}
  return {key: spec[key] for key in kept if key in spec}


def smoke(config: Any) -> None:
  """Shrinks a text experiment to a few real steps on a CPU.

  Networks keep their kinds and lose width and depth; weights are random, and
  the sentences are those of a grammar, in pairs where the task's are.

  Args:
    config: filled in.
  """
  config.title += " (smoke)"
  config.seeds = 1
  task = config.data.get("task", "")
  form, config.num_classes = _LIKE_GLUE.get(task, ("review", 2))
  config.input_shape = config.buckets = (48,)
  config.vocabulary.update(SENTENCE_WORDS)
  small = {"width": 16, "num_heads": 2, "mlp_width": 32, "max_positions": 48}
  explores = bool(config.generator.name)
  if explores:
    cheap = {"tgt_random", "tgt_gradient"} & set(config.arms)
    presets.keep(config, cheap or config.arms)
  with config.unlocked():
    config.data = {
      "name": "sentences",
      "form": form,
      "train_size": 200,
      "test_size": 40,
    }
    if explores:
      config.generator = {
        "name": "bart",
        "num_layers": 1,
        "num_decoder_layers": 1,
        **small,
        **_kinds(config.generator),
      }
    for part in ("encoder", "labeler", "student"):
      family = config[part].name.split("_")[0].replace("distilro", "ro")
      family = "bert" if family == "minilm" else family
      if family in ("bert", "roberta", "distilbert"):
        config[part] = {
          "name": family,
          "num_layers": 1,
          **small,
          **_kinds(config[part]),
        }
  config.student_weights = config.labeler_weights = ""
  config.generator_weights = config.encoder_weights = ""
  config.reference_arms = ()
  config.long_tail.profile = ""
  config.validation_per_class = 0
  config.generator_training.update(steps=2, batch_size=8)
  config.labeler_training.update(steps=2, batch_size=8)
  config.training.update(steps=2, batch_size=8)
  for section in (
    config.optimizer,
    config.generator_training.optimizer,
    config.labeler_training.optimizer,
  ):
    section.warmup_steps = 0
  config.quick_compilation = True
  config.cadence.update(log=1, evaluate=2, checkpoint=2)
  config.evaluation_batch_size = 32
  config.gallery_examples = 2
