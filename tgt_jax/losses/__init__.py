# SPDX-License-Identifier: Apache-2.0
"""Losses: arrays in, one value per example out.

A function takes the student first, then the teacher or the labels, then
keyword-only hyper-parameters by the papers' names. It reduces over classes and
never over examples; a method does that, in one place.

Three tables name the losses for configs. Every factory of a table takes the
same injected arguments, so that the code that builds needs no special case:

* `DISTANCES[name](*, class_counts=None, priors=False, teacher_priors=None,
  standardise=False, **hyper)` returns
  `distance(student_logits, teacher_logits) -> [B]`. With `priors` the log
  class frequencies are added to both sides before the distance;
  `teacher_priors` sets the teacher's side apart. `standardise` takes Z-scores
  first. A config says `{"name": "kl_divergence", "temperature": 2.0,
  "priors": True}` and the builder adds `class_counts`.
* `LABEL_LOSSES[name](*, class_counts=None, **hyper)` returns
  `loss(logits, labels) -> [B]`. Losses that need the counts say so. Labels are
  integers [B]; of `binary_cross_entropy` they are floats [B, K], tags.
* `EMBEDDING_DISTANCES[name](**hyper)` returns `distance(student, teacher, *,
  where=None) -> [B]` between embeddings [B, D].

A factory checks its hyper-parameters when it is called. For a loss of your
own, decorate it with `distance_factory`, `label_loss_factory` or
`embedding_distance_factory` and name it "package.module:function" in the
config.

Distances leave the teacher's gradient alone, because gradient exploration
needs it; see `tgt_jax.losses.distances`.
"""

from __future__ import annotations

from tgt_jax.losses.contrastive import (
  Bank,
  bank_contrast,
  in_batch_contrastive,
  init_bank,
  noise_contrastive,
  update_bank,
)
from tgt_jax.losses.distances import (
  decoupled_kd,
  jensen_shannon,
  kl_divergence,
  logit_mse,
  reverse_kl,
  soft_cross_entropy,
)
from tgt_jax.losses.embedding import (
  cka,
  cosine,
  cosine_difference,
  distance_correlation,
  embedding_mse,
  unbiased_distance_correlation,
)
from tgt_jax.losses.frames import align, over_frames
from tgt_jax.losses.geometry import (
  correlation_congruence,
  probabilistic_transfer,
  relational,
  similarity_preserving,
)
from tgt_jax.losses.labels import (
  balanced_softmax,
  class_weighted,
  cross_entropy,
  graded_cross_entropy,
  ldam,
  logit_adjustment,
)
from tgt_jax.losses.maps import (
  attention_transfer,
  factor_transfer,
  neuron_selectivity,
  variational_information,
)
from tgt_jax.losses.relations import dist
from tgt_jax.losses.tables import (
  DISTANCES,
  EMBEDDING_DISTANCES,
  LABEL_LOSSES,
  distance_factory,
  embedding_distance_factory,
  label_loss_factory,
)
from tgt_jax.losses.tags import (
  bernoulli_kl,
  binary_cross_entropy,
  where_known,
)
from tgt_jax.losses.transforms import (
  logit_standardisation,
  standardised,
  with_priors,
)

__all__ = [
  "Bank",
  "DISTANCES",
  "EMBEDDING_DISTANCES",
  "LABEL_LOSSES",
  "align",
  "attention_transfer",
  "balanced_softmax",
  "bank_contrast",
  "bernoulli_kl",
  "binary_cross_entropy",
  "cka",
  "class_weighted",
  "correlation_congruence",
  "cosine",
  "cosine_difference",
  "cross_entropy",
  "decoupled_kd",
  "dist",
  "distance_correlation",
  "distance_factory",
  "embedding_distance_factory",
  "embedding_mse",
  "factor_transfer",
  "graded_cross_entropy",
  "in_batch_contrastive",
  "init_bank",
  "jensen_shannon",
  "kl_divergence",
  "label_loss_factory",
  "ldam",
  "logit_adjustment",
  "logit_mse",
  "logit_standardisation",
  "neuron_selectivity",
  "noise_contrastive",
  "over_frames",
  "probabilistic_transfer",
  "relational",
  "reverse_kl",
  "similarity_preserving",
  "soft_cross_entropy",
  "standardised",
  "unbiased_distance_correlation",
  "update_bank",
  "variational_information",
  "where_known",
  "with_priors",
]
