# SPDX-License-Identifier: Apache-2.0
"""Losses: arrays in, one value per example out.

A function takes the student first, then the teacher or the labels, then
keyword-only hyper-parameters by the papers' names. It reduces over classes and
never over examples; a method does that, in one place.

Two tables name the losses for configs. Every factory of a table takes the same
injected arguments, so that the code that builds needs no special case:

* `DISTANCES[name](*, class_counts=None, priors=False, teacher_priors=None,
  standardise=False, **hyper)` returns
  `distance(student_logits, teacher_logits) -> [B]`. With `priors` the log
  class frequencies are added to both sides before the distance;
  `teacher_priors` sets the teacher's side apart. `standardise` takes Z-scores
  first. A config says `{"name": "kl_divergence", "temperature": 2.0,
  "priors": True}` and the builder adds `class_counts`.
* `LABEL_LOSSES[name](*, class_counts=None, **hyper)` returns
  `loss(logits, labels) -> [B]`. Losses that need the counts say so.

A factory checks its hyper-parameters when it is called. For a loss of your
own, decorate it with `distance_factory` or `label_loss_factory` and name it
"package.module:function" in the config.

Distances leave the teacher's gradient alone, because gradient exploration
needs it; see `tgt_jax.losses.distances`.
"""

from __future__ import annotations

from tgt_jax.losses.distances import (
  decoupled_kd,
  jensen_shannon,
  kl_divergence,
  logit_mse,
  reverse_kl,
  soft_cross_entropy,
)
from tgt_jax.losses.labels import (
  balanced_softmax,
  class_weighted,
  cross_entropy,
  graded_cross_entropy,
  ldam,
  logit_adjustment,
)
from tgt_jax.losses.relations import dist
from tgt_jax.losses.tables import (
  DISTANCES,
  LABEL_LOSSES,
  distance_factory,
  label_loss_factory,
)
from tgt_jax.losses.transforms import (
  logit_standardisation,
  standardised,
  with_priors,
)

__all__ = [
  "DISTANCES",
  "LABEL_LOSSES",
  "balanced_softmax",
  "class_weighted",
  "cross_entropy",
  "graded_cross_entropy",
  "decoupled_kd",
  "dist",
  "distance_factory",
  "jensen_shannon",
  "kl_divergence",
  "label_loss_factory",
  "ldam",
  "logit_adjustment",
  "logit_mse",
  "logit_standardisation",
  "reverse_kl",
  "soft_cross_entropy",
  "standardised",
  "with_priors",
]
