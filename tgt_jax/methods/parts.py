# SPDX-License-Identifier: Apache-2.0
"""What every method is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tgt_jax.exploration import Exploration, stay
from tgt_jax.teachers import Teacher
from tgt_jax.types import Array, Network

Distance = Callable[[Array, Array], Array]


def _everywhere(function: Callable) -> Callable:
  return function


class Parts(NamedTuple):
  """The pieces a method puts together; all are pure functions.

  Attributes:
    student: the network that learns.
    teacher: the teacher triple; its arrays come as `frozen` in each call.
    label_loss: `(logits [B, K], labels [B]) -> [B]`.
    distance: student logits, teacher logits -> [B], on real examples.
    generated_distance: the same on generated ones, where no class prior of
      the training set applies.
    disagreement: the distance that gradient exploration ascends.
    exploration: how latents move.
    labeler: the teacher's labeler as a network, for methods that train it;
      None for an ensemble.
    assistants: networks between the labeler and the student, for `takd`.
    compressor: reads the teacher's embedding, for `compress`; None: it stays
      as it is.
    embedding_distance: the student's embeddings, the teacher's and which of
      them count -> [B].
    embedding_shape: of one embedding, (T, 1, D); (): there is none.
    pull: `distance` with its sides exchanged, priors included: teacher logits,
      student logits -> [B], for a teacher that learns; None: `distance`.
    per_example: turns `fn(replicated, split) -> split` into the same function
      run on each device's share of the examples.
  """

  student: Network
  teacher: Teacher
  label_loss: Distance
  distance: Distance
  generated_distance: Distance
  disagreement: Distance
  exploration: Exploration = stay()
  labeler: Network | None = None
  assistants: tuple[Network, ...] = ()
  compressor: Network | None = None
  embedding_distance: Callable[..., Array] | None = None
  embedding_shape: tuple[int, ...] = ()
  pull: Distance | None = None
  per_example: Callable[[Callable], Callable] = _everywhere
