# SPDX-License-Identifier: Apache-2.0
"""What is known about each loss between embeddings; see the battery.

References are the published formulas in float64, written out over examples,
pairs and triples. Golden values were computed elsewhere, with ten decimals.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from tgt_jax import losses

VARIANCE = np.array([0.5, 2.0, 5.0])
SAME, WIDER = ((6, 5), (6, 5)), ((6, 5), (6, 7))
MAPS = ((4, 8, 8, 3), (4, 4, 4, 5))

_i, _j = np.arange(6.0)[:, None], np.arange(7.0)[None, :]
STUDENT = np.sin(0.7 * _i + 1.3 * _j[:, :5] + 0.5) + 0.05 * _i
TEACHER = np.cos(0.9 * _i - 0.4 * _j) + 0.03 * _i * _j
FIVE = TEACHER[:, :5]


def wave(shape, pace):
  """Golden maps, [N, H, W, C]."""
  n, c, h, w = np.ogrid[tuple(map(slice, shape))]
  angle = 0.3 * n + 0.7 * c + 0.11 * pace * h + 0.05 * w + 0.2 * pace
  return np.moveaxis(np.sin(angle), 1, -1)


STUDENT_MAPS, TEACHER_MAPS = wave((4, 3, 8, 8), 1.0), wave((4, 5, 4, 4), 1.7)
SAME_MAPS = wave((4, 3, 8, 8), 1.7)


def _pair_with_zeros(student, teacher):
  """A teacher that is the student with coordinates of zeros behind it."""
  extra = [(0, 0)] * (student.ndim - 1)
  width = teacher.shape[-1] - student.shape[-1]
  return student, np.pad(student, [*extra, (0, width)])


def _one_channel(student, teacher):
  """Both sides respond to one pattern, with all of their channels."""
  pattern = teacher[..., :1]
  factor = student.shape[1] // teacher.shape[1]
  large = np.repeat(np.repeat(pattern, factor, axis=1), factor, axis=2)
  return (
    np.repeat(large, student.shape[-1], axis=-1),
    np.repeat(pattern, teacher.shape[-1], axis=-1),
  )


@dataclasses.dataclass(frozen=True)
class Row:
  """One loss and what is known about it from elsewhere.

  Attributes:
    loss: `(student, teacher, *, where=None) -> [B]`.
    reference: the published scalar in float64.
    shapes: of student and teacher in random draws.
    golden: student, teacher and the value to ten decimals.
    invariant: what may happen to one side alone: "turn", "shift", "scale".
    optimum: from a draw, two sides at which the loss is 0; None: not so.
  """

  loss: Callable
  reference: Callable
  shapes: tuple = WIDER
  golden: tuple = ()
  invariant: tuple[str, ...] = ()
  optimum: Callable | None = _pair_with_zeros


def unit(x):
  length = np.linalg.norm(x)
  return x / length if length else x


def cosines(x, y=None):
  return np.array(
    [[unit(a) @ unit(b) for b in (x if y is None else y)] for a in x]
  )


def lengths(x, epsilon=0.0):
  return np.array(
    [[np.sqrt(((a - b) ** 2).sum() + epsilon) for b in x] for a in x]
  )


def dcor_reference(s, t):
  a, b = (lengths(x, 1e-12) for x in (s, t))
  a, b = (x - x.mean(0) - x.mean(1)[:, None] + x.mean() for x in (a, b))
  return 1 - (a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean() + 1e-9)


def unbiased_reference(s, t):
  n, sides = len(s), []
  for a in (lengths(s), lengths(t)):
    u = np.zeros((n, n))
    for i in range(n):
      for j in range(n):
        if i != j:
          u[i, j] = (
            a[i, j]
            - a[i].sum() / (n - 2)
            - a[:, j].sum() / (n - 2)
            + a.sum() / ((n - 1) * (n - 2))
          )
    sides.append(u)
  a, b = sides
  return 1 - (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def cka_reference(s, t, centred=True):
  if centred:
    s, t = s - s.mean(0), t - t.mean(0)
  cross, first, second = (
    np.linalg.norm(m) for m in (t.T @ s, s.T @ s, t.T @ t)
  )
  return 1 - cross**2 / (first * second)


def huber(x):
  return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def rkd_distances(s, t):
  a, b = (d / d[d > 0].mean() for d in (lengths(s), lengths(t)))
  return np.mean([huber(x) for x in (a - b).ravel()])


def rkd_angles(s, t):
  n, total = len(s), 0.0
  for i in range(n):
    for j in range(n):
      for k in range(n):
        ours, theirs = (unit(x[j] - x[i]) @ unit(x[k] - x[i]) for x in (s, t))
        total += huber(ours - theirs)
  return total / n**3


def sp_reference(s, t):
  sides = []
  for x in (s, t):
    flat = x.reshape(len(x), -1)
    sides.append([unit(row) for row in flat @ flat.T])
  return ((np.array(sides[0]) - np.array(sides[1])) ** 2).mean()


def pkt_reference(s, t):
  sides = []
  for x in (s, t):
    x = np.array([row / (np.linalg.norm(row) + 1e-7) for row in x])
    near = (x @ x.T + 1) / 2
    sides.append(near / near.sum(1)[:, None])
  q, p = sides
  return (p * np.log((p + 1e-7) / (q + 1e-7))).mean()


def cc_reference(s, t, gamma=0.4, order=2):
  kernels = [
    np.exp(-2 * gamma)
    * sum(
      (2 * gamma * cosines(x)) ** p / math.factorial(p)
      for p in range(order + 1)
    )
    for x in (s, t)
  ]
  return ((kernels[0] - kernels[1]) ** 2).mean()


def nce_reference(s, t, temperature=0.07, symmetric=False):
  scores = cosines(s, t) / temperature
  total, sides = 0.0, (scores, scores.T) if symmetric else (scores,)
  for side in sides:
    rows = [np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(side)]
    total += np.mean(rows) / len(sides)
  return total


def pooled(maps, size):
  """Means over square blocks, which must fit."""
  block = maps.shape[1] // size
  blocks = [
    maps[:, i::block, j::block] for i in range(block) for j in range(block)
  ]
  return np.mean(blocks, axis=0)


def at_reference(s, t, p=2):
  size = min(s.shape[1], t.shape[1])
  total = []
  for ours, theirs in zip(pooled(s, size), pooled(t, size), strict=True):
    q = [unit((np.abs(x) ** p).mean(-1).ravel()) for x in (ours, theirs)]
    total.append(((q[0] - q[1]) ** 2).mean())
  return np.mean(total)


def nst_reference(s, t):
  size = min(s.shape[1], t.shape[1])
  total = []
  for pair in zip(pooled(s, size), pooled(t, size), strict=True):
    ours, theirs = (
      [unit(x[..., c].ravel()) for c in range(x.shape[-1])] for x in pair
    )
    kernel = lambda xs, ys: np.mean([(x @ y) ** 2 for x in xs for y in ys])
    total.append(
      kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
    )
  return np.mean(total)


def ft_reference(s, t):
  pairs = zip(s, t, strict=True)
  return np.mean([np.abs(unit(a.ravel()) - unit(b.ravel())) for a, b in pairs])


def vid_reference(s, t, variance=VARIANCE):
  return np.mean(0.5 * ((s - t) ** 2 / variance + np.log(variance)))


def vid(student, teacher, *, where=None, variance=VARIANCE):
  return losses.variational_information(
    student, teacher, np.asarray(variance, student.dtype), where=where
  )


def both(s, t):
  return 25 * rkd_distances(s, t) + 50 * rkd_angles(s, t)


ALL = ("turn", "shift", "scale")
partial = functools.partial

ROWS = {
  "embedding_mse": Row(
    losses.embedding_mse,
    lambda s, t: ((s - t) ** 2).mean(),
    SAME,
    (STUDENT, FIVE, 0.9288660914),
  ),
  "cosine": Row(
    losses.cosine,
    lambda s, t: np.mean(1 - np.diag(cosines(s, t))),
    SAME,
    (STUDENT, FIVE, 0.9317001281),
    ("scale",),
  ),
  "cosine_difference": Row(
    losses.cosine_difference,
    lambda s, t: np.abs(cosines(s) - cosines(t)).mean(),
    golden=(STUDENT, TEACHER, 0.0629902870),
    invariant=("turn", "scale"),
  ),
  "distance_correlation": Row(
    losses.distance_correlation,
    dcor_reference,
    golden=(STUDENT, TEACHER, 0.0346801206),
    invariant=ALL,
  ),
  "unbiased_distance_correlation": Row(
    losses.unbiased_distance_correlation,
    unbiased_reference,
    golden=(STUDENT, TEACHER, 1 - 0.9430589531),
    invariant=ALL,
  ),
  "cka": Row(
    losses.cka,
    cka_reference,
    golden=(STUDENT, TEACHER, 1 - 0.9066027627),
    invariant=ALL,
  ),
  "cka uncentred": Row(
    partial(losses.cka, centred=False),
    partial(cka_reference, centred=False),
    golden=(STUDENT, TEACHER, 1 - 0.9187456765),
    invariant=("turn", "scale"),
  ),
  "relational": Row(
    losses.relational,
    both,
    golden=(STUDENT, TEACHER, 1.5878846577),
    invariant=ALL,
  ),
  "relational distances": Row(
    partial(losses.relational, distance_weight=1.0, angle_weight=0.0),
    rkd_distances,
    golden=(STUDENT, TEACHER, 0.0143823544),
    invariant=ALL,
  ),
  "relational angles": Row(
    partial(losses.relational, distance_weight=0.0, angle_weight=1.0),
    rkd_angles,
    golden=(STUDENT, TEACHER, 0.0245665160),
    invariant=ALL,
  ),
  "similarity_preserving": Row(
    losses.similarity_preserving,
    sp_reference,
    golden=(STUDENT, TEACHER, 0.0124733046),
    invariant=("turn", "scale"),
  ),
  "similarity_preserving of maps": Row(
    losses.similarity_preserving,
    sp_reference,
    MAPS,
    (STUDENT_MAPS, TEACHER_MAPS, 0.0024707762),
    ("scale",),
    None,
  ),
  "probabilistic_transfer": Row(
    losses.probabilistic_transfer,
    pkt_reference,
    golden=(STUDENT, TEACHER, 0.0017208510),
    invariant=("turn", "scale"),
  ),
  "correlation_congruence": Row(
    losses.correlation_congruence,
    cc_reference,
    golden=(STUDENT, TEACHER, 0.0014726007),
    invariant=("turn", "scale"),
  ),
  "in_batch_contrastive": Row(
    losses.in_batch_contrastive,
    nce_reference,
    SAME,
    invariant=("scale",),
    optimum=None,
  ),
  "in_batch_contrastive symmetric": Row(
    partial(losses.in_batch_contrastive, symmetric=True, temperature=0.5),
    partial(nce_reference, symmetric=True, temperature=0.5),
    SAME,
    invariant=("scale",),
    optimum=None,
  ),
  "attention_transfer": Row(
    losses.attention_transfer,
    at_reference,
    MAPS,
    (STUDENT_MAPS, TEACHER_MAPS, 0.0015518522),
    ("scale",),
    _one_channel,
  ),
  "attention_transfer p 3": Row(
    partial(losses.attention_transfer, p=3.0),
    partial(at_reference, p=3),
    MAPS,
    invariant=("scale",),
    optimum=_one_channel,
  ),
  "neuron_selectivity": Row(
    losses.neuron_selectivity,
    nst_reference,
    MAPS,
    (STUDENT_MAPS, TEACHER_MAPS, 0.0708944798),
    ("scale",),
    _one_channel,
  ),
  "neuron_selectivity of many channels": Row(
    losses.neuron_selectivity,
    nst_reference,
    ((4, 4, 4, 6), (4, 2, 2, 3)),
    invariant=("scale",),
    optimum=_one_channel,
  ),
  "factor_transfer": Row(
    losses.factor_transfer,
    ft_reference,
    SAME,
    (STUDENT, FIVE, 0.4856611786),
    ("scale",),
  ),
  "variational_information": Row(
    vid,
    vid_reference,
    ((4, 2, 2, 3), (4, 2, 2, 3)),
    optimum=None,
  ),
}
