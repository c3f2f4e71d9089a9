# SPDX-License-Identifier: Apache-2.0
r"""What distilling each example does to the student's held-out loss.

The student learns by theta' = U(theta, g), g the gradient of its loss L on a
batch, U an optimiser's update. Let v be the gradient of the held-out loss at
theta', and u = (dU / dg)^T v. To first order, a change dg of the gradient
changes the held-out loss by <u, dg>; for SGD of rate eta, u = -eta v. Two
things follow, each one forward-mode derivative of the student along u.

* The share of example i in that loss is D_u l_i / B, l_i its own loss. The
  **distillation influence** I_i = <grad l_i, v> is the same along v: positive
  where a step on example i lowers the held-out loss.
* L depends on the teacher's outputs t(phi), and with it the held-out loss:
  its gradient in phi is the teacher's VJP of  d/dt D_u L(s, t),  s the
  student's outputs. It is exact, whatever U and L are, and no second-order
  graph is built.

Nothing here knows networks: parameters and outputs are pytrees. Derivatives of
losses are taken in float32 or wider whatever the networks compute in.

References:
  Ren et al., Tailoring Instructions to Student's Learning Levels Boosts
  Knowledge Distillation, ACL 2023, arXiv 2305.09651, section 3: the influence
  and its finite difference. The forward-mode form is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tgt_jax import checks
from tgt_jax.types import Array, Params

Outputs = Any  # A pytree of what losses read: logits, features.
Pair = Callable[[Outputs, Outputs], Array]  # Student's, teacher's -> loss.
# As good as zero beside an eps of 1e-8; clipped to a ten-thousandth, its
# square times 1 - b2 is a number in float32 still.
_LEAST = 1e-12


def wide(tree: Any) -> Any:
  """Floating leaves in float32 or wider, as losses want them."""

  def widen(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))

  return jax.tree.map(widen, tree)


def unseen(grads: Params) -> Params:
  """Which elements of a gradient are nothing: zeros, and what rounding leaves.

  Args:
    grads: a tree.

  Returns:
    Booleans, shaped like `grads`; a NaN is no nothing.
  """
  return jax.tree.map(lambda g: jnp.abs(g) < _LEAST, grads)


def _like(direction: Any, params: Any) -> Any:
  """A direction with the dtypes of the parameters, as `jax.jvp` wants it."""
  return jax.tree.map(lambda d, p: d.astype(p.dtype), direction, params)


class LookAhead(NamedTuple):
  """A student after one update that is not kept.

  Attributes:
    params: theta'.
    pull: v -> u, the transposed derivative of the update by its gradient.
  """

  params: Params
  pull: Callable[[Params], Params]


def look_ahead(
  tx: optax.GradientTransformation,
  grads: Params,
  opt_state: Any,
  params: Params,
) -> LookAhead:
  """One update of any optimiser, and its derivative.

  Args:
    tx: the student's optimiser; what it keeps is not changed.
    grads: g, shaped like `params`.
    opt_state: its state before the update.
    params: theta.

  Returns:
    See `LookAhead`. u is the derivative at g, where what is `unseen` is held at
    the size of `_LEAST`: Adam divides by the root of its second moment, so
    where it never saw a gradient (rows of words that no text had) or one whose
    square is no number (rounding of a true zero, as of attention's key biases),
    and clipping where all of g is zero, automatic differentiation finds no
    number, though the update has a derivative. In a chain with clipping one
    such element would be in all of u.
  """

  def moved(gradient: Params) -> Params:
    updates, _ = tx.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates)

  away = lambda g, none: jnp.where(none, jnp.copysign(_LEAST, g), g)
  held = jax.tree.map(away, grads, unseen(grads))
  _, transposed = jax.vjp(moved, held)
  pull = lambda direction: transposed(_like(direction, params))[0]
  return LookAhead(moved(grads), pull)


def matching(params: Params, pattern: str) -> Params:
  """Which parameters a part is made of: a last layer, an adapter.

  Args:
    params: a tree.
    pattern: regular expression, searched for in paths such as "head/kernel".

  Returns:
    Booleans, shaped like `params`.

  Raises:
    ValueError: it matches none; names some paths.
  """
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  names = [name(path) for path, _ in jax.tree.leaves_with_path(params)]
  if not any(re.search(pattern, found) for found in names):
    raise ValueError(
      f"no parameter matches {pattern!r}; the last of {len(names)} are"
      f" {', '.join(names[-5:])}"
    )
  return jax.tree.map_with_path(
    lambda path, _: re.search(pattern, name(path)) is not None, params
  )


def only(direction: Params, chosen: Params) -> Params:
  """A direction that is zero outside a part, see `matching`."""
  keep = lambda d, inside: d if inside else jnp.zeros_like(d)
  return jax.tree.map(keep, direction, chosen)


def tangents(
  outputs_of: Callable[[Params], Outputs],
  params: Params,
  direction: Params,
  chosen: Params | None = None,
) -> tuple[Outputs, Outputs]:
  """A network's outputs, and how they change along a direction.

  One forward-mode pass: about two forward passes, and no activations kept.

  Args:
    outputs_of: `params -> outputs`.
    params: where.
    direction: shaped like `params`.
    chosen: the part that moves, see `matching`; None: everything. Layers below
      the first that moves have no tangents and are not computed twice.

  Returns:
    Outputs and their tangents, floating leaves in float32 or wider.
  """
  leaves, structure = jax.tree.flatten(params)
  inside = [True] * len(leaves) if chosen is None else jax.tree.leaves(chosen)
  moving = lambda all_: [a for a, i in zip(all_, inside, strict=True) if i]

  def along(part: list[Array]) -> Outputs:
    parts = iter(part)
    whole = [
      next(parts) if i else a for a, i in zip(leaves, inside, strict=True)
    ]
    return outputs_of(jax.tree.unflatten(structure, whole))

  like = jax.tree.leaves(_like(direction, params))
  found, moved = jax.jvp(along, (moving(leaves),), (moving(like),))
  return wide(found), wide(moved)


def per_example(
  losses: Pair,
  student: Outputs,
  student_tangents: Outputs,
  teacher: Outputs,
) -> Array:
  """D l_i along the direction of the tangents, for a whole batch at once.

  Along v this is the distillation influence of the paper, positive where
  distilling the example helps.

  Args:
    losses: of student's and teacher's outputs, [B].
    student: outputs.
    student_tangents: see `tangents`.
    teacher: outputs, constants here.

  Returns:
    [B].
  """
  along = lambda outputs: losses(outputs, wide(teacher))
  return jax.jvp(along, (student,), (student_tangents,))[1]


def teacher_cotangent(
  loss: Pair,
  student: Outputs,
  student_tangents: Outputs,
  teacher: Outputs,
) -> Outputs:
  """What the teacher's VJP takes for the gradient of the held-out loss.

  With tangents along u (see the module), the VJP of the result is the gradient
  of the look-ahead student's held-out loss by the teacher's parameters.

  Args:
    loss: of student's and teacher's outputs, a scalar: what the student
      descends.
    student: outputs.
    student_tangents: see `tangents`.
    teacher: outputs.

  Returns:
    Shaped like `teacher`, in its dtypes.
  """

  def slope(outputs: Outputs) -> Array:
    along = lambda s: loss(s, wide(outputs))
    return jax.jvp(along, (student,), (student_tangents,))[1]

  return jax.grad(slope)(teacher)


def difference_step(direction: Params, *, scale: float = 0.01) -> Array:
  """How far the paper's finite difference goes: `scale` / norm of v.

  As in its code (and in DARTS); zero where v is zero.
  """
  norm = optax.tree.norm(wide(direction))
  return jnp.where(norm > 0, scale / jnp.maximum(norm, 1e-30), 0.0)


def finite_difference(
  function: Callable[[Params], Any],
  params: Params,
  direction: Params,
  eps: float | Array,
) -> Any:
  """[f(params + eps d) - f(params - eps d)] / (2 eps), for comparison.

  Its error is of second order in eps, and rounding of the order of the
  dtype's precision / eps: with bfloat16 parameters it says nothing.

  Args:
    function: `params -> tree`.
    params: where.
    direction: d.
    eps: step, > 0; at zero the result is zero.
  """

  def at(sign: float) -> Any:
    move = lambda p, d: p + (sign * eps * d).astype(p.dtype)
    return wide(function(jax.tree.map(move, params, direction)))

  scale = jnp.where(eps > 0, 0.5 / jnp.where(eps > 0, eps, 1.0), 0.0)
  return jax.tree.map(lambda a, b: scale * (a - b), at(1.0), at(-1.0))


def identity(influence: Array) -> Array:
  """The influence itself."""
  return influence


def sign(influence: Array) -> Array:
  """1 where an example helps, -1 where it harms, 0 where neither."""
  return jnp.sign(influence)


def clip(influence: Array, *, limit: float = 1.0) -> Array:
  """Within `limit` root mean squares of the batch, in those units.

  Args:
    influence: [B].
    limit: > 0.
  """
  checks.positive(limit=limit)
  return jnp.clip(influence / _spread(influence), -limit, limit)


def softmax(influence: Array, *, temperature: float = 1.0) -> Array:
  """Positive weights of mean one: softmax of the z-scores, times B.

  Args:
    influence: [B].
    temperature: > 0; the larger, the more even.
  """
  checks.positive(temperature=temperature)
  scores = z_score(influence) / temperature
  return influence.shape[0] * jax.nn.softmax(scores)


def z_score(influence: Array) -> Array:
  """Mean zero and unit spread within the batch."""
  centred = influence - jnp.mean(influence)
  return centred / _spread(centred)


def _spread(values: Array) -> Array:
  """Root mean square, one where all are zero."""
  peak = jnp.max(jnp.abs(values))  # Squares neither over- nor underflow.
  safe = jnp.where(peak > 0, peak, 1.0)
  mean = jnp.mean(jnp.square(values / safe))
  return jnp.where(peak > 0, safe * jnp.sqrt(jnp.maximum(mean, 1e-30)), 1.0)


# Influences of a batch, [B], to weights, [B].
WEIGHTINGS: dict[str, Callable[..., Array]] = {
  "identity": identity,
  "sign": sign,
  "clip": clip,
  "softmax": softmax,
  "z_score": z_score,
}
