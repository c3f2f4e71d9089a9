# SPDX-License-Identifier: Apache-2.0
"""Every key of an experiment, with its default and what it means.

An experiment file starts from `default()` and states what it changes. A key
that is not here is a mistake: a locked ConfigDict says so, and so does
`settings.checked`.

A section with a `name` is a spec: the name selects a function from the table
that is named beside it (or "package.module:function"), the other keys are that
function's arguments, which the command line may add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections


def arms(
  overrides: Mapping[str, Mapping[str, Any]],
) -> ml_collections.ConfigDict:
  """Arms in the order given, which is that of every table and picture.

  Args:
    overrides: `{arm: {section: overrides}}`.
  """
  return ml_collections.ConfigDict(dict(overrides), sort_keys=False)


def optimizer(**changes: Any) -> dict[str, Any]:
  """An optimiser section; see `training.make_optimizer`."""
  section = {
    "name": "adam",  # OPTIMIZERS
    "learning_rate": 1e-3,  # The highest of the schedule.
    "schedule": "cosine",  # constant, cosine or linear to zero.
    "warmup_steps": 0,  # Linear from zero.
    "clip_norm": 0.0,  # Largest global gradient norm; 0: no clipping.
    "weight_decay": 0.0,
  }
  return {**section, **changes}


def default() -> ml_collections.ConfigDict:
  """The defaults: digits-sized images, labels only."""
  config = ml_collections.ConfigDict()
  config.title = "Teacher-guided training"
  config.seed = 0  # Of the teacher and of the first student.
  config.seeds = 1  # Students per arm, with seeds seed, seed + 1, ...

  # Data ---------------------------------------------------------------------
  config.data = {"name": "digits"}  # DATASETS
  config.input_shape = (8, 8, 1)  # Height, width, channels; a text's length.
  # Of texts, as their tokenizer has it; checked. Networks take it from here.
  config.vocabulary = {
    "vocab_size": 0,  # Rows of the embeddings: one more than the largest id.
    "pad_id": 0,  # Fills a text up.
    "cls_id": 0,  # Begins a text.
    "sep_id": 0,  # Ends it, and parts a pair.
    "mask_id": 0,  # Stands for hidden words.
  }
  config.buckets = ()  # Up to four lengths to pad texts to; (): L/8, L/4, L/2, L.
  config.num_classes = 10  # Checked.
  config.tags = False  # Whether classes do not exclude each other. Checked.
  config.long_tail = {
    "profile": "",  # "exponential", "pareto", "fraction"; "" keeps all.
    "imbalance_ratio": 1.0,  # Largest class over smallest.
    "head": 0,  # Examples of the largest class; 0: as many as all can give.
    "fraction": 1.0,  # Share of every class that "fraction" keeps.
    "selection": "nested",  # Which examples: "nested", "ldam" (CIFAR-LT).
  }
  config.groups = {
    "many_above": 100,  # "many": classes with more training examples,
    "few_below": 20,  # "few": with fewer; "medium": the rest.
  }
  config.validation_per_class = 0  # Held out from what the tail left over.
  config.augment = ()  # Specs (AUGMENTATIONS) on training images, on the host.

  # Teacher ------------------------------------------------------------------
  config.teacher_dir = ""  # Re-use this folder; "": workdir/teacher.
  # GENERATORS, or "" for none where nothing explores; "chunk" decodes so many
  # examples at a time, "whitened" gives the latent the unit of its spread.
  config.generator = {"name": "vae"}
  # Weights to begin with are files of `python -m tgt_jax.weights convert`; with
  # `steps` 0 below, the part is used as they are.
  config.generator_weights = ""  # "": random.
  config.generator_training = {
    "source": "full",  # "full": all training images, without labels; "train".
    "steps": 1000,
    "batch_size": 128,
    "optimizer": optimizer(),
  }
  config.labeler = {"name": "cnn"}  # MODELS; "input_size" resizes its input.
  config.labeler_weights = ""  # "": random.
  config.num_labelers = 1  # More: an ensemble in probability space.
  config.labeler_training = {
    "source": "train",  # "train": the students' labels; "full": all labels.
    "steps": 1000,
    "batch_size": 128,
    "label_loss": {"name": "cross_entropy"},  # LABEL_LOSSES
    "reconstruction": 1.0,  # Weight of the same loss on Dec(Enc(x)).
    "reconstruction_sigma": 0.0,  # Noise on Enc(x) there.
    "optimizer": optimizer(),
  }
  config.labeler_reads = "input"  # Or "embedding": a probe of the encoder.
  config.assistants = ()  # MODELS, each distilled from the one before (takd).
  config.assistant_weights = ()  # A file for each; (): random.
  config.anchors = 0  # Checkpoints of the labeler's training to keep (rco).
  # MODELS, used as it is: its embedding teaches. "": none, or the data's own.
  config.encoder = {"name": ""}
  config.encoder_weights = ""  # "": random.
  config.embedding_shape = ()  # (frames, 1, numbers); (): none. Checked.
  # Else an augmented image teaches by the (cached) embedding of the image.
  config.embed_augmented = False  # Embed it anew, in the step.
  config.pixel_space = False  # Ablation: explore pixels, without a generator.

  # Student ------------------------------------------------------------------
  config.student = {"name": "mlp"}  # MODELS; "input_size" as above.
  config.student_weights = ""  # "": random.
  config.student_reads = "input"  # Or "embedding": a probe.
  # MODELS, reading embeddings: its own embedding is the compact one (compress).
  config.compressor = {"name": ""}
  # A fixed one may have principal components; an arm's name: its first student.
  config.compressor_start = "random"  # Or "pca", or an earlier probe's arm.
  config.method = {"name": "supervised"}  # METHODS
  config.exploration = {"name": "stay"}  # EXPLORATIONS
  config.label_loss = {"name": "cross_entropy"}  # LABEL_LOSSES
  config.distance = {"name": "kl_divergence"}  # DISTANCES, on real examples.
  # EMBEDDING_DISTANCES, from the student to the compact embedding.
  config.embedding_distance = {"name": "distance_correlation"}
  config.generated_distance = {"name": "kl_divergence"}  # On generated ones.
  config.disagreement = {"name": "kl_divergence"}  # What ascent climbs.
  config.starts = {
    "source": "batch",  # Start points: the "batch", "train" or "full" set,
    "ratio": 1,  # Of them to examples of a batch; 1 where they are the batch.
    "sampler": "natural",  # "natural", "class_balanced" or "square_root".
    "augment": True,  # As training images are. Else Enc(x) is cached.
    "strong": (),  # Specs (AUGMENTATIONS) of the second view that UDA compares.
  }
  config.optimizer = optimizer()
  config.teacher_optimizer = optimizer()  # Of a teacher that learns meanwhile.
  config.teacher_start = "trained"  # As the labeler, or "untrained".
  config.feedback = {
    "source": "train",  # Held-out examples: of "train", or (as published) "test".
    "share": 0.0,  # Of the training set that is held out, for all arms.
  }
  config.training = {
    "steps": 1000,
    "batch_size": 64,
    "accumulate": 1,  # Microbatches per update; divides batch_size.
    "ema_decay": 0.0,  # Of the parameters' running mean, which is then used.
    "sampler": "natural",  # Of the real batch.
    "together": "auto",  # Seeds as one program: "auto", "always", "never".
  }
  config.arms = arms({"student": {}})  # name: {section: overrides}.
  config.columns = ("balanced", "many", "medium", "few", "agreement")  # Shown.
  config.bag_of_words = False  # Of texts: TF-IDF and a linear model beside.
  config.main_arm = "student"  # Whose first student is delivered.
  config.reference_arms = ()  # Arms that use what the others do not have.

  # Run ----------------------------------------------------------------------
  config.cadence = {
    "log": 100,  # Updates between two log lines,
    "evaluate": 0,  # two evaluations on the validation split (0: at the end),
    "checkpoint": 1000,  # two checkpoints (0: at the end).
  }
  config.evaluation_batch_size = 256
  config.mesh = {"data": -1, "fsdp": 1}  # Devices per axis; -1: the others.
  config.sharding_rules = ()  # (regex, "fsdp" or (None, "fsdp")) pairs.
  config.gallery_examples = 8  # In the report; 0: no gallery, no probe.
  config.quick_compilation = False  # For a few updates on a CPU; they are slow.
  config.tensorboard = False  # Needs the extra "tensorboard".
  config.wandb_project = ""  # Needs the extra "wandb".
  return config.lock()
