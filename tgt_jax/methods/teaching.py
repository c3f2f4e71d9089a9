# SPDX-License-Identifier: Apache-2.0
"""Training the teacher's own parts, as methods on the same loop."""

from __future__ import annotations

from collections.abc import Callable

from tgt_jax import metrics as metrics_lib, rng as rng_lib
from tgt_jax.exploration import geometry
from tgt_jax.methods.base import (
  Aux,
  LossFn,
  deinterleave,
  interleave,
  weighted_mean,
)
from tgt_jax.teachers import Teacher
from tgt_jax.types import Array, Generator, Network


def generator_loss(generator: Generator) -> LossFn:
  """A generator's own objective, on images alone.

  `params` and `model_state` are keyed by "generator".
  """

  def loss(params, model_state, frozen, batch, rng, step):
    del frozen, step
    values, terms, state = generator.loss(
      params["generator"],
      model_state["generator"],
      batch["input"],
      rng=rng_lib.stream(rng, "generator"),
    )
    metrics = {f"loss/{name}": metrics_lib.mean(v) for name, v in terms.items()}
    return weighted_mean(values), Aux(metrics, {"generator": state})

  return loss


def labeler_loss(
  network: Network,
  label_loss: Callable[[Array, Array], Array],
  teacher: Teacher | None = None,
  *,
  reconstruction: float = 0.0,
  sigma: float = 0.0,
) -> LossFn:
  """Labels on real images and, by option, on what the generator makes of them.

  A labeler that never saw Dec(Enc(x)) mislabels its blur: in Fashion-MNIST
  blurred sandals become sneakers. Training on reconstructions closes that
  gap; with `sigma` also their near neighbours keep the label.

  Args:
    network: the labeler; `params` and `model_state` are keyed by "student",
      because here it is the one that learns.
    label_loss: `(logits, labels) -> [B]`.
    teacher: encode and decode for reconstructions; its arrays are `frozen`.
    reconstruction: weight of the loss on Dec(Enc(x) + sigma n), >= 0; at zero
      the term is not built and `teacher` not needed.
    sigma: standard deviation of the noise n.
  """
  if reconstruction < 0 or sigma < 0:
    raise ValueError(
      f"reconstruction and sigma must be >= 0, got {reconstruction} and {sigma}"
    )

  if reconstruction and teacher is None:
    raise ValueError("reconstruction needs a teacher that encodes and decodes")

  def loss(params, model_state, frozen, batch, rng, step):
    del step
    x, y = batch["input"], batch["label"]
    size, inputs = x.shape[0], x
    if reconstruction and teacher is not None:
      z = teacher.encode(frozen, x)
      keys = rng_lib.split_examples(rng_lib.stream(rng, "explore"), size)
      if sigma:
        z = z + sigma * geometry.gaussian(keys, z, teacher.where(x))
      inputs = interleave(x, teacher.render(frozen, z, x, keys))
    outputs, state = network.apply(
      params["student"],
      model_state["student"],
      inputs,
      train=True,
      rng=rng_lib.stream(rng, "dropout"),
    )
    logits, seen_logits = deinterleave(outputs.logits, size)
    values = label_loss(logits, y)
    total = weighted_mean(values)
    metrics = {"loss/label": metrics_lib.mean(values)}
    if reconstruction:
      values = label_loss(seen_logits, y)
      total += reconstruction * weighted_mean(values)
      metrics["loss/reconstruction"] = metrics_lib.mean(values)
    metrics["train/accuracy"] = metrics_lib.right(logits, y)
    return total, Aux(metrics, {"student": state})

  return loss
