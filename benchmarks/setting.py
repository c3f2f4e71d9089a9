# SPDX-License-Identifier: Apache-2.0
"""What the step benchmarks train: the sizes of Fashion-MNIST.

Images 28x28x1 with 10 classes; generator a dense VAE 784-512-16; labeler a CNN
(3x3 convolutions with 32 and 64 channels, each with 2x2 max pooling and ReLU,
then dense 128); student an MLP 2x64 under Adam. Parameters are random: the
cost of a step does not depend on their values. `torch_steps.py` has the same
networks. The batch is split over all devices that JAX shows: with
`JAX_NUM_CPU_DEVICES=2`, two that share the cores of one processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tgt_jax import (
  distributed,
  exploration,
  losses,
  methods,
  teachers,
  training,
)
from tgt_jax.generators import vae
from tgt_jax.models import cnn, mlp

IMAGE_SHAPE = (28, 28, 1)
NUM_CLASSES = 10
LATENT_DIM = 16
SIGMA = 0.5
STEP_SIZE = 0.5


class Setting(NamedTuple):
  """Networks and a batch.

  Attributes:
    parts: for the methods; exploration is set by each step.
    frozen: the teacher's arrays.
    batch: "input" and "label", [B, ...].
    cache: "teacher_logits" and "latent" of the batch, what a run reads from
      its cache where nothing augments.
  """

  parts: methods.Parts
  frozen: Any
  batch: Mapping[str, jax.Array]
  cache: Mapping[str, jax.Array]


def build(batch_size: int, dtype: str = "float32") -> Setting:
  """Builds networks, random parameters and a random batch.

  Args:
    batch_size: examples B.
    dtype: compute dtype of generator and labeler.
  """
  generator = vae(
    input_shape=IMAGE_SHAPE,
    latent_dim=LATENT_DIM,
    widths=(512,),
    dtype=dtype,
  )
  labeler = cnn(num_classes=NUM_CLASSES, dtype=dtype)
  teacher = teachers.triple(generator, teachers.labeler([labeler]))
  draws = np.random.default_rng(0)
  image = draws.random((batch_size, *IMAGE_SHAPE), np.float32)
  label = draws.integers(0, NUM_CLASSES, batch_size)
  mesh = distributed.make_mesh()
  batch = distributed.put_batch(
    {"input": image, "label": label.astype(np.int32)},
    distributed.batch_sharding(mesh),
  )
  keys = jax.random.split(jax.random.key(0))
  frozen = {
    "generator": teachers.Frozen(*generator.init(keys[0], batch["input"])),
    "labeler": (teachers.Frozen(*labeler.init(keys[1], batch["input"])),),
  }
  frozen = distributed.replicate(frozen, mesh)
  parts = methods.Parts(
    student=mlp(num_classes=NUM_CLASSES),
    teacher=teacher,
    label_loss=losses.cross_entropy,
    distance=losses.kl_divergence,
    generated_distance=losses.kl_divergence,
    disagreement=losses.kl_divergence,
    per_example=distributed.per_example(mesh),
  )
  look = jax.jit(
    lambda frozen, x: {
      "teacher_logits": teacher.label(frozen, x).logits,
      "latent": teacher.encode(frozen, x),
    }
  )
  return Setting(parts, frozen, batch, look(frozen, batch["input"]))


def method_of(name: str, parts: methods.Parts, num_steps: int = 1) -> Any:
  """Builds the method "supervised", "kd", "random" or "gradient".

  Args:
    name: one of the four.
    parts: see `Setting`.
    num_steps: ascents of the gradient exploration.
  """
  if name == "random":
    parts = parts._replace(exploration=exploration.random(SIGMA))
  elif name == "gradient":
    climb = exploration.gradient_ascent(STEP_SIZE, num_steps)
    parts = parts._replace(exploration=climb)
  losses_of = {"supervised": methods.supervised, "kd": methods.kd}
  loss = losses_of.get(name, methods.tgt)(parts)

  def init(rng, batch):
    params, state = parts.student.init(rng, batch["input"])
    return {"student": params}, {"student": state}

  tx = training.make_optimizer("adam", learning_rate=1e-3, steps=10**6)
  return methods.from_loss(loss, init, tx)


class Step:
  """A method's compiled step on one batch; calling it waits for the result.

  Attributes:
    traced: the step's jaxpr, for counting.
  """

  def __init__(
    self, setting: Setting, name: str, *, cached: bool, num_steps: int = 1
  ):
    method = method_of(name, setting.parts, num_steps)
    batch = dict(setting.batch)
    if cached:
      batch |= setting.cache
    self._batch = jax.tree.map(lambda a: a[None], batch)
    self._frozen = setting.frozen
    self._root = training.roots((0,))
    self._state = training.init_state(method, self._root, self._batch)
    self._totals = training.empty_totals(
      method, self._state, self._frozen, self._batch, self._root
    )
    step = training.make_step(method)
    self.traced = step.trace(*self._arguments()).jaxpr
    self._step = step

  def _arguments(self) -> tuple[Any, ...]:
    return self._state, self._totals, self._frozen, self._batch, self._root

  def __call__(self) -> None:
    """One update."""
    self._state, self._totals = self._step(*self._arguments())
    jax.block_until_ready(self._state)


def waiting(function: Callable, *arguments: Any) -> Callable[[], Any]:
  """Compiles a function for its arguments; the result waits for itself."""
  compiled = jax.jit(function).lower(*arguments).compile()
  return lambda: jax.block_until_ready(compiled(*arguments))
