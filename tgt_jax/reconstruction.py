# SPDX-License-Identifier: Apache-2.0
"""How much of an example is left after Dec(Enc(x))."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import answers, data, distributed, networks
from tgt_jax.experiment import Experiment
from tgt_jax.models.layers import most_probable
from tgt_jax.teachers import Teacher

_EXAMPLES = 1024  # Of the test split, at most.


def _asker(
  teacher: Teacher, frame: tuple[int, ...] | None, mesh: Any
) -> Callable:
  """Per example what is right, or the squared error, and of how much.

  Args:
    teacher: encodes and decodes.
    frame: ids of a text that are no words; None for images.
    mesh: of the devices.
  """

  def ask(frozen: Any, x: jax.Array) -> dict[str, jax.Array]:
    made = teacher.decode(frozen, teacher.encode(frozen, x), x)
    if frame is None:
      error = jnp.square(made.astype(jnp.float32) - x).reshape(len(x), -1)
      return {"sum": error.sum(-1), "of": jnp.full(len(x), error.shape[-1])}
    words = ~jnp.isin(x, jnp.asarray(frame))
    right = (most_probable(made) == x) & words
    return {"sum": right.sum(-1), "of": words.sum(-1)}

  return distributed.per_example(mesh)(ask)


def measure(experiment: Experiment) -> dict[str, float]:
  """What the generator gives back of the test split's first 1,024 examples.

  Args:
    experiment: the run.

  Returns:
    Of texts "words_recovered", the share of words that are the most probable
    ones of their places, [0, 1]; of images "reconstruction_rms", the root of
    the mean squared difference, in pixel values of [0, 1]. Without a generator
    nothing.
  """
  config, test = experiment.config, experiment.sets.test
  if not networks.has_generator(config):
    return {}
  frame = test.text.tokenizer.frame_ids if test.text is not None else None
  source = data.subset(test, np.arange(min(len(test), _EXAMPLES)))
  found = answers.compute(
    _asker(
      networks.teacher({**config, "pixel_space": False}),
      frame,
      experiment.runtime.mesh,
    ),
    experiment.prepared.frozen,
    source,
    experiment.runtime,
    config["training"]["batch_size"],  # For as much memory as training takes.
  )
  share = float(found["sum"].sum(dtype=np.float64) / max(1, found["of"].sum()))
  if frame is None:
    return {"reconstruction_rms": math.sqrt(share)}
  return {"words_recovered": share}
