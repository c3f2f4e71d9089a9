# SPDX-License-Identifier: Apache-2.0
"""Ways to move a latent: at random or towards disagreement.

A teacher that only answers for the examples of a fixed data set is a passive
one. Teacher-guided training (Zaheer et al., arXiv 2208.06825) starts from the
latent z = Enc(x) of a real example and moves it, z to z', before decoding. The
functions here know latents and a scalar field on them; what the field is made
of (decoder, labeler, student) is none of their business.

All take latents [B, ...], one PRNG key per example [B] and return latents of
the same shape. They treat examples independently, so they may run on any split
of a batch. Strengths may be schedules, see `schedules.as_schedule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgt_jax import checks, registry
from tgt_jax.exploration import geometry
from tgt_jax.exploration.schedules import Strength, as_schedule
from tgt_jax.types import Array


class Exploration(NamedTuple):
  """One way to move latents.

  Attributes:
    explore: `(z, rng, disagreement, *, step=0, partner=None, where=None) ->
      z'` with z [B, ...], rng [B] keys, `disagreement` a field z -> [B], `step`
      the update count that schedules read, `partner` latents [B, ...] of other
      examples, needed where `needs_partner`, and `where` bool, broadcasting to
      z: the coordinates that move and that lengths count.
    needs_partner: whether `partner` is read.
  """

  explore: Callable[..., Array]
  needs_partner: bool = False


def stay() -> Exploration:
  """Leaves z where it is: the student is shown reconstructions."""

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    del rng, disagreement, step, partner, where
    return z

  return Exploration(explore)


def random(sigma: Strength) -> Exploration:
  """Isotropic Gaussian noise, z' = z + sigma * n (TGT-random).

  Args:
    sigma: standard deviation per coordinate, >= 0, in units of z.
  """
  sigma_at = as_schedule(sigma, name="sigma")

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    del disagreement, partner
    checks.floating(z=z)
    checks.same_leading(z=z, rng=rng)

    return z + sigma_at(step) * geometry.gaussian(rng, z, where)

  return Exploration(explore)


def gradient_ascent(
  step_size: Strength,
  num_steps: int = 1,
  *,
  normalize: bool = True,
  start_sigma: Strength = 0.0,
  noise: Strength = 0.0,
  radius: float | None = None,
  sphere: bool = False,
) -> Exploration:
  """Climbs the student-teacher disagreement (TGT-gradient).

  From z_0 = z + start_sigma * n, repeats num_steps times
  z <- P(z + step_size * u + noise * n') with u the gradient of the field, and
  P the projection to the ball (or sphere) of `radius` around z.

  Args:
    step_size: length of a step. With `normalize` in RMS units of z, so that a
      step of s moves as far as noise of standard deviation s; without it, the
      factor on the raw gradient.
    num_steps: number of ascents, >= 1.
    normalize: scale each example's gradient to RMS length one.
    start_sigma: Gaussian warm start. At z itself student and teacher often
      agree and the gradient says little; a random neighbour is a better place
      to ask where they differ.
    noise: Gaussian noise added at every step (Langevin-like).
    radius: largest RMS distance to z, or `None` for no bound.
    sphere: with `radius`, end exactly at that distance: the move has then the
      same length as a random one, only its direction differs.

  References:
    Zaheer et al., Teacher Guided Training, 2022, arXiv 2208.06825.
    [deviation] normalisation, warm start, noise and projection are ours.
  """
  if num_steps < 1:
    raise ValueError(f"num_steps must be >= 1, got {num_steps}")
  if radius is not None:
    checks.positive(radius=radius)
  if sphere and radius is None:
    raise ValueError("sphere=True needs a radius")
  step_size_at = as_schedule(step_size, name="step_size")
  start_at = as_schedule(start_sigma, name="start_sigma")
  noise_at = as_schedule(noise, name="noise")
  noisy_start, noisy_steps = start_sigma != 0.0, noise != 0.0

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    del partner
    checks.floating(z=z)
    checks.same_leading(z=z, rng=rng)

    # One gradient for the whole batch: the field treats examples separately.
    slope = jax.grad(lambda latent: jnp.sum(disagreement(latent)))

    def ascend(latent, i):
      direction = geometry.inside(slope(latent), where)
      if normalize:
        direction = geometry.unit(direction, where)
      latent = latent + step_size_at(step) * direction
      if noisy_steps:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, i + 1))(rng)
        noise_now = geometry.gaussian(keys, latent, where)
        latent = latent + noise_at(step) * noise_now
      if radius is not None:
        latent = geometry.project(z, latent, radius, sphere=sphere, where=where)
      return latent

    latent = z
    if noisy_start:
      latent = z + start_at(step) * geometry.gaussian(rng, z, where)
    # Unrolled: inside a loop XLA on CPU compiles the input gradient of a
    # convolution to its slowest form (measured: twenty times the time).
    for i in range(num_steps):
      latent = ascend(latent, i)
    return latent

  return Exploration(explore)


def interpolate(low: float = 0.0, high: float = 0.5) -> Exploration:
  """Moves towards another example, z' = z + a (z_partner - z), a ~ U[low, high].

  Args:
    low: smallest share of the way, in [0, 1].
    high: largest share of the way, in [low, 1].
  """
  checks.in_range(0.0, 1.0, low=low, high=high)
  if low > high:
    raise ValueError(f"low must not exceed high, got {low} > {high}")

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    del disagreement, step
    if partner is None:
      raise ValueError("interpolate needs the latents of other examples")
    checks.same_shape(z=z, partner=partner)

    draw = lambda key: jax.random.uniform(key, (), z.dtype, low, high)
    share = geometry.expand(jax.vmap(draw)(rng), z)
    return z + share * geometry.inside(partner - z, where)

  return Exploration(explore, needs_partner=True)


Spec = Exploration | Mapping[str, Any]


def chain(*explorations: Spec, parts: Sequence[Spec] = ()) -> Exploration:
  """Applies explorations one after the other.

  Args:
    *explorations: the parts in order.
    parts: the same as one sequence (the form that a config has); each is an
      `Exploration` or a mapping `{"name": ..., **arguments}`.
  """
  members = _members((*explorations, *parts))

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    for number, member in enumerate(members):
      keys = _fold(rng, number)
      z = member.explore(
        z, keys, disagreement, step=step, partner=partner, where=where
      )
    return z

  return Exploration(explore, any(m.needs_partner for m in members))


def mixture(
  *explorations: Spec,
  parts: Sequence[Spec] = (),
  weights: Sequence[float] | None = None,
) -> Exploration:
  """Draws one of several explorations for each example.

  Every part is computed for every example, so the cost is the sum of the
  parts; the draw does not depend on how the batch is split.

  Args:
    *explorations: the parts.
    parts: the same as one sequence, see `chain`.
    weights: probability of each part, >= 0; equal where not given.
  """
  members = _members((*explorations, *parts))
  if weights is None:
    weights = (1.0 / len(members),) * len(members)
  if len(weights) != len(members) or abs(sum(weights) - 1.0) > 1e-6:
    raise ValueError(
      f"mixture needs {len(members)} weights that sum to 1, got"
      f" {tuple(weights)}"
    )
  checks.non_negative(**{f"weights[{i}]": w for i, w in enumerate(weights)})

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    log_weights = jnp.log(jnp.asarray(weights, jnp.float32))
    draw = lambda key: jax.random.categorical(key, log_weights)
    chosen = jax.vmap(draw)(_fold(rng, len(members)))
    moved = z
    for number, member in enumerate(members):
      keys = _fold(rng, number)
      here = member.explore(
        z, keys, disagreement, step=step, partner=partner, where=where
      )
      mine = geometry.expand(chosen == number, z)
      moved = jnp.where(mine, here, moved)
    return moved

  return Exploration(explore, any(m.needs_partner for m in members))


def some_places(inner: Spec, share: float) -> Exploration:
  """Moves a drawn part of a sequence's places and leaves the others.

  A place is an index of the axes between the first and the last, so that a
  latent [B, D] is one place.

  Args:
    inner: how they move; lengths and projections count these places alone.
    share: probability of each place, in (0, 1].
  """
  (member,) = _members((inner,))
  checks.in_range(0.0, 1.0, share=share)
  checks.positive(share=share)

  def explore(z, rng, disagreement, *, step=0, partner=None, where=None):
    places = (*z.shape[1:-1], 1)
    draw = lambda key: jax.random.bernoulli(key, share, places)
    chosen = jax.vmap(draw)(_fold(rng, 1))
    if where is not None:
      chosen &= where
    keys = _fold(rng, 0)
    return member.explore(
      z, keys, disagreement, step=step, partner=partner, where=chosen
    )

  return Exploration(explore, member.needs_partner)


def _fold(rng: Array, number: int) -> Array:
  return jax.vmap(lambda key: jax.random.fold_in(key, number))(rng)


def _members(specs: Sequence[Spec]) -> tuple[Exploration, ...]:
  if not specs:
    raise ValueError("expected at least one exploration, got none")
  return tuple(s if isinstance(s, Exploration) else from_spec(s) for s in specs)


def from_spec(spec: Mapping[str, Any]) -> Exploration:
  """Builds the exploration that `{"name": ..., **arguments}` describes."""
  return registry.build(EXPLORATIONS, spec, family="exploration")


EXPLORATIONS: dict[str, Callable[..., Exploration]] = {
  "stay": stay,
  "random": random,
  "gradient_ascent": gradient_ascent,
  "interpolate": interpolate,
  "chain": chain,
  "mixture": mixture,
  "some_places": some_places,
}
