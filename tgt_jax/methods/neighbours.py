# SPDX-License-Identifier: Apache-2.0
"""Where a student's extra examples come from.

Every method that shows the student more than the real batch differs in one
function only: from start points (real examples) to new inputs with targets.
Teacher-guided exploration is one such function, input mixup another. They all
treat examples independently and so run on any split of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks, rng as rng_lib
from tgt_jax.exploration import geometry
from tgt_jax.methods.parts import Parts
from tgt_jax.types import Array


class Context(NamedTuple):
  """What is the same for all examples.

  Attributes:
    params: the student's parameters.
    state: the student's batch statistics.
    frozen: the teacher's arrays.
    step: updates done so far.
  """

  params: Any
  state: Any
  frozen: Any
  step: Array


class Starts(NamedTuple):
  """Start points, one per new example.

  Attributes:
    x: [M, ...].
    rng: keys, [M].
    latent: cached Enc(x), [M, ...], or `None`.
    teacher_logits: cached h(x), [M, K], or `None`.
    partner_x: images of other examples, or `None`.
    partner_latent: their latents, or `None`.
    strong: a second view of `x`, strongly augmented, or `None`.
  """

  x: Array
  rng: Array
  latent: Array | None = None
  teacher_logits: Array | None = None
  partner_x: Array | None = None
  partner_latent: Array | None = None
  strong: Array | None = None


class Shown(NamedTuple):
  """New examples for the student.

  Attributes:
    x: [M, ...].
    targets: logits to imitate there, [M, K].
    weight: weight of each example, [M].
    moved: how far each start point was moved, [M]: RMS in the space it was
      moved in, or the share of its tokens that are others.
  """

  x: Array
  targets: Array
  weight: Array
  moved: Array


class Neighbours(NamedTuple):
  """A way to make examples.

  Attributes:
    make: `(Context, Starts) -> Shown`.
    needs_partner: whether `Starts.partner_*` are read.
  """

  make: Callable[[Context, Starts], Shown]
  needs_partner: bool = False


def disagreement_field(parts: Parts, context: Context, x: Array) -> Callable:
  """The field z -> distance(student(Dec z), h(Dec z)), [M, ...] to [M].

  The student is in evaluation mode: with batch statistics in training mode
  the examples of a batch would not be independent.

  Args:
    parts: see `Parts`.
    context: see `Context`.
    x: what the latents were encoded from, [M, ...].
  """
  teacher = parts.teacher

  def disagreement(z: Array) -> Array:
    decoded = teacher.decode(context.frozen, z, x)
    outputs, _ = parts.student.apply(
      context.params, context.state, decoded, train=False
    )
    targets = teacher.label(context.frozen, decoded).logits
    return parts.disagreement(outputs.logits, targets)

  return disagreement


class Trace(NamedTuple):
  """One exploration seen from both ends; leaves are [M, ...].

  Attributes:
    z: latents before and after.
    x: what is shown of z before and after.
    student: the student's logits there.
    teacher: the teacher's.
    disagreement: between the two, [M].
  """

  z: tuple[Array, Array]
  x: tuple[Array, Array]
  student: tuple[Array, Array]
  teacher: tuple[Array, Array]
  disagreement: tuple[Array, Array]


def _move(
  parts: Parts, context: Context, starts: Starts
) -> tuple[Array, Array]:
  """Latents before and after `parts.exploration`."""

  def latent(x, cached):
    if cached is not None:
      return cached
    return parts.teacher.encode(context.frozen, x)

  z = latent(starts.x, starts.latent)
  partner = None
  if parts.exploration.needs_partner:
    partner = latent(starts.partner_x, starts.partner_latent)
    if starts.partner_x is not None:
      there = parts.teacher.where(starts.partner_x)
      if there is not None:  # Nobody walks towards padding.
        partner = jnp.where(there, partner, z)
  moved = parts.exploration.explore(
    z,
    starts.rng,
    disagreement_field(parts, context, starts.x),
    step=context.step,
    partner=partner,
    where=parts.teacher.where(starts.x),
  )
  return z, moved


def _render(parts: Parts, context: Context, starts: Starts, z: Array) -> Array:
  """What the student is shown of latents."""
  keys = jax.vmap(lambda key: rng_lib.stream(key, "render"))(starts.rng)
  return parts.teacher.render(context.frozen, z, starts.x, keys)


def _moved(parts: Parts, starts: Starts, x: Array) -> Array:
  """How far inputs are from their start points, [M]."""
  before, where = starts.x, parts.teacher.where(starts.x)
  if before.ndim < x.ndim:  # Token ids, and soft tokens made of them.
    before, where = jax.nn.one_hot(before, x.shape[-1]), None
  return geometry.distance(before, x, where)


def trace(parts: Parts, context: Context, starts: Starts) -> Trace:
  """Explores and looks at both ends, for diagnostics and pictures.

  It costs two forward passes more than exploring alone, so training does not
  call it.
  """

  def look(z):
    x = _render(parts, context, starts, z)
    student, _ = parts.student.apply(
      context.params, context.state, x, train=False
    )
    teacher = parts.teacher.label(context.frozen, x).logits
    return x, student.logits, teacher

  ends = _move(parts, context, starts)
  (x, student, teacher), (moved_x, moved_student, moved_teacher) = map(
    look, ends
  )
  return Trace(
    z=ends,
    x=(x, moved_x),
    student=(student, moved_student),
    teacher=(teacher, moved_teacher),
    disagreement=(
      parts.disagreement(student, teacher),
      parts.disagreement(moved_student, moved_teacher),
    ),
  )


def explored(parts: Parts) -> Neighbours:
  """Moves latents, decodes them and asks the labeler (TGT)."""
  teacher = parts.teacher

  def make(context: Context, starts: Starts) -> Shown:
    z, moved = _move(parts, context, starts)
    x = _render(parts, context, starts, moved)
    targets = teacher.label(context.frozen, x).logits
    length = geometry.rms(moved - z, teacher.where(starts.x))
    return Shown(x, targets, jnp.ones(x.shape[0]), length)

  return Neighbours(make, parts.exploration.needs_partner)


def unchanged(parts: Parts) -> Neighbours:
  """Shows the start points as they are (distillation on unlabelled data)."""

  def make(context: Context, starts: Starts) -> Shown:
    x, targets = starts.x, starts.teacher_logits
    if targets is None:
      targets = parts.teacher.label(context.frozen, x).logits
    ones = jnp.ones(x.shape[0])
    return Shown(x, targets, ones, jnp.zeros_like(ones))

  return Neighbours(make)


def augmented(parts: Parts) -> Neighbours:
  """Shows `Starts.strong`, labelled by the teacher."""

  def view(starts: Starts) -> Array:
    if starts.strong is None:
      raise ValueError(
        "augmented_kd shows a second view, and the batch has none; name"
        " augmentations in config.starts.strong"
      )
    return starts.strong

  return _labelled_inputs(parts, view)


def input_mixup(parts: Parts, alpha: float, vocab_size: int = 0) -> Neighbours:
  """Convex combinations of two inputs, labelled by the teacher.

  Args:
    parts: see `Parts`.
    alpha: the share is drawn from Beta(alpha, alpha), alpha > 0.
    vocab_size: V; token ids [M, L] are mixed as soft tokens [M, L, V].
  """
  checks.positive(alpha=alpha)

  def numbers(x: Any) -> Array:
    if not jnp.issubdtype(x.dtype, jnp.integer):
      return x
    checks.positive(vocab_size=vocab_size)
    return jax.nn.one_hot(x, vocab_size)

  def mix(starts: Starts) -> Array:
    draw = lambda key: jax.random.beta(key, alpha, alpha)
    x, partner = numbers(starts.x), numbers(starts.partner_x)
    share = geometry.expand(jax.vmap(draw)(starts.rng), x)
    return x + share * (partner - x)

  return _labelled_inputs(parts, mix, needs_partner=True)


def input_noise(parts: Parts, sigma: float) -> Neighbours:
  """Gaussian noise on the pixels, labelled by the teacher."""
  checks.non_negative(sigma=sigma)

  def noisy(starts: Starts) -> Array:
    checks.floating(x=starts.x)
    noise = geometry.gaussian(starts.rng, starts.x)
    return jnp.clip(starts.x + sigma * noise, 0.0, 1.0)

  return _labelled_inputs(parts, noisy)


def consistency(
  parts: Parts,
  *,
  shift: int,
  sigma: float,
  sharpen: float,
  confidence: float,
) -> Neighbours:
  """A second view with the student's own prediction as the target (UDA).

  The view is `Starts.strong`; where the batch has none, it is the image
  shifted and with noise.

  Args:
    parts: see `Parts`; the teacher is not used.
    shift: largest translation in pixels, >= 0.
    sigma: standard deviation of pixel noise, >= 0.
    sharpen: temperature that divides the target's logits, > 0.
    confidence: examples whose target's largest probability is below this are
      given weight zero, in [0, 1].

  References:
    Xie et al., Unsupervised Data Augmentation, 2019, arXiv 1904.12848.
    [deviation] without `Starts.strong`: jitter, which runs inside the step,
    instead of RandAugment.
  """
  checks.positive(sharpen=sharpen)
  checks.non_negative(shift=shift, sigma=sigma)
  checks.in_range(0.0, 1.0, confidence=confidence)

  def make(context: Context, starts: Starts) -> Shown:
    outputs, _ = parts.student.apply(
      context.params, context.state, starts.x, train=False
    )
    probs = jax.nn.softmax(outputs.logits)
    x = starts.strong
    if x is None:
      checks.floating(x=starts.x)
      jitter = lambda key, image: _jitter(key, image, shift, sigma)
      x = jax.vmap(jitter)(starts.rng, starts.x)
    return Shown(
      x=x,
      targets=outputs.logits / sharpen,
      weight=(jnp.max(probs, -1) >= confidence).astype(jnp.float32),
      moved=_moved(parts, starts, x),
    )

  return Neighbours(make)


def _jitter(key: Array, image: Array, shift: int, sigma: float) -> Array:
  """Shifts one image [H, W, C] by up to `shift` pixels and adds noise."""
  where, how_much = jax.random.split(key)
  padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
  row, column = jax.random.randint(where, (2,), 0, 2 * shift + 1)
  moved = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
  noise = jax.random.normal(how_much, image.shape, image.dtype)
  return jnp.clip(moved + sigma * noise, 0.0, 1.0)


def _labelled_inputs(
  parts: Parts,
  transform: Callable[[Starts], Array],
  needs_partner: bool = False,
) -> Neighbours:
  """Inputs made without a generator, labelled by the teacher."""

  def make(context: Context, starts: Starts) -> Shown:
    x = transform(starts)
    targets = parts.teacher.label(context.frozen, x).logits
    moved = _moved(parts, starts, x)
    return Shown(x, targets, jnp.ones(x.shape[0]), moved)

  return Neighbours(make, needs_partner)
