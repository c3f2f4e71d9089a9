# SPDX-License-Identifier: Apache-2.0
"""How one batch changes what is trained."""

from __future__ import annotations

from collections.abc import Callable

from tgt_jax.methods.adversary import mate_kd
from tgt_jax.methods.base import (
  Aux,
  Course,
  Learner,
  LossFn,
  Recipe,
  from_course,
  from_loss,
  partitioned,
)
from tgt_jax.methods.chain import anchor, rco, takd
from tgt_jax.methods.compression import compress
from tgt_jax.methods.coteaching import dml, lgtm, meta_distill, prokt
from tgt_jax.methods.guided import (
  Weights,
  augmented_kd,
  guided,
  kd,
  make_neighbours,
  mixup_kd,
  noise_kd,
  start_points,
  supervised,
  tgt,
  uda,
  unlabelled_kd,
)
from tgt_jax.methods.influenced import generated_influence, influenced_tgt
from tgt_jax.methods.neighbours import (
  Context,
  Neighbours,
  Shown,
  Starts,
  Trace,
  disagreement_field,
  explored,
  trace,
)
from tgt_jax.methods.offline import matched_layers, pesf_kd, pkd, skd
from tgt_jax.methods.parts import Parts
from tgt_jax.methods.teaching import generator_loss, labeler_loss

METHODS: dict[str, Callable[..., LossFn | Recipe | Course]] = {
  "supervised": supervised,
  "kd": kd,
  "tgt": tgt,
  "mixup_kd": mixup_kd,
  "noise_kd": noise_kd,
  "augmented_kd": augmented_kd,
  "unlabelled_kd": unlabelled_kd,
  "uda": uda,
  "mate_kd": mate_kd,
  "influenced_tgt": influenced_tgt,
  "takd": takd,
  "rco": rco,
  "skd": skd,
  "pkd": pkd,
  "pesf_kd": pesf_kd,
  "lgtm": lgtm,
  "prokt": prokt,
  "dml": dml,
  "meta_distill": meta_distill,
  "compress": compress,
}

__all__ = [
  "METHODS",
  "Aux",
  "Context",
  "Course",
  "Learner",
  "LossFn",
  "Neighbours",
  "Parts",
  "Recipe",
  "Shown",
  "Starts",
  "Trace",
  "Weights",
  "anchor",
  "augmented_kd",
  "compress",
  "disagreement_field",
  "dml",
  "explored",
  "from_course",
  "from_loss",
  "generated_influence",
  "generator_loss",
  "guided",
  "influenced_tgt",
  "kd",
  "labeler_loss",
  "lgtm",
  "make_neighbours",
  "matched_layers",
  "mate_kd",
  "meta_distill",
  "mixup_kd",
  "noise_kd",
  "partitioned",
  "pesf_kd",
  "pkd",
  "prokt",
  "rco",
  "skd",
  "start_points",
  "supervised",
  "takd",
  "tgt",
  "trace",
  "uda",
  "unlabelled_kd",
]
