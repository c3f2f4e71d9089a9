# SPDX-License-Identifier: Apache-2.0
"""What is known about each loss from elsewhere; `test_loss_battery` uses it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy import special
from scipy.spatial import distance as scipy_distance

from tgt_jax import losses

B, K = 4, 5
COUNTS = np.array([8, 4, 2, 1, 1])
LOG_COUNTS = np.log(COUNTS)
log_softmax = functools.partial(special.log_softmax, axis=-1)
softmax = functools.partial(special.softmax, axis=-1)


@dataclasses.dataclass(frozen=True)
class Row:
  """One loss and what is known about it from elsewhere.

  Attributes:
    loss: `(student, target, **per_call) -> [B]`.
    reference: the same in float64 numpy and scipy.
    hand: student, target and value that a person can check.
    gradient: closed form for the student, if there is one.
    labels: the target is labels, not a teacher.
    shift: adding a constant to the logits of a side changes nothing.
    coupled: it takes [B, K] only, and a value depends on the whole batch.
    excluded: value where the teacher puts a class at -inf: "finite", "inf",
      or "nan" for losses that ask for finite logits.
    counts: it holds a value for each of K classes.
    minimum: logits that are best for labels with frequencies `COUNTS`.
  """

  loss: Callable
  reference: Callable
  hand: tuple = ()
  gradient: Callable | None = None
  labels: bool = False
  shift: bool = True
  coupled: bool = False
  excluded: str = "finite"
  counts: bool = False
  minimum: np.ndarray | None = None


def _kl(log_p, log_q):
  return special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1)


def kl_reference(s, t, temperature=1.0):
  log_q, log_p = log_softmax(s / temperature), log_softmax(t / temperature)
  return temperature**2 * _kl(log_p, log_q)


def z_score(x):
  return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def soft_ce_reference(s, t, temperature=2.0):
  entropy = special.entr(softmax(t / temperature)).sum(-1)
  return kl_reference(s, t, temperature) + temperature**2 * entropy


def js_reference(s, t):
  p, q = softmax(t), softmax(s)
  return np.array(
    [scipy_distance.jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)]
  )


def dkd_reference(s, t, *, alpha, beta):
  values = []
  for row_s, row_t, label in zip(s, t, t.argmax(-1), strict=True):
    p, q = softmax(row_t), softmax(row_s)
    tckd = special.rel_entr(
      [p[label], 1 - p[label]], [q[label], 1 - q[label]]
    ).sum()
    rest = np.arange(len(p)) != label
    nckd = special.rel_entr(
      p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
    ).sum()
    values.append(alpha * tckd + beta * nckd)
  return np.array(values)


def dist_reference(s, t, *, beta, gamma):
  p, q = softmax(t), softmax(s)
  inter = [1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(len(p))]
  z = [(x - x.mean(0)) / x.std(0) for x in (q, p)]
  intra = 1 - (z[0] * z[1]).mean(-1)
  return beta * np.array(inter) + gamma * intra


def bernoulli_reference(s, t, temperature):
  q, p = special.expit(s / temperature), special.expit(t / temperature)
  yes, no = special.rel_entr(p, q), special.rel_entr(1 - p, 1 - q)
  return temperature**2 * (yes + no).mean(-1)


def bernoulli_gradient(s, t):
  return 2 / s.shape[-1] * (special.expit(s / 2) - special.expit(t / 2))


def ce_reference(s, labels, smoothing=0.0):
  classes = s.shape[-1]
  target = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
  return -(target * log_softmax(s)).sum(-1)


def ce_gradient(s, labels):
  return softmax(s) - np.eye(K)[labels]


def ldam_logits(s, labels, margin=0.5, scale=4.0):
  margins = margin * (COUNTS.min() / COUNTS) ** 0.25
  return scale * (s - np.eye(K)[labels] * margins)


def weights_reference(beta=0.9):
  weights = (1 - beta) / (1 - beta**COUNTS)
  return weights * K / weights.sum()


def of(name, **hyper):
  return losses.DISTANCES[name](class_counts=COUNTS, **hyper)


def label_row(name, reference, **fields):
  hyper = fields.pop("hyper", {})
  counts = {} if name == "cross_entropy" else {"class_counts": COUNTS}
  loss = functools.partial(getattr(losses, name), **counts, **hyper)
  return Row(loss, reference, labels=True, counts=bool(counts), **fields)


EVEN, SKEWED = np.zeros(K), np.log([0.6, 0.1, 0.1, 0.1, 0.1])
KL_HAND = 0.6 * np.log(3) + 0.4 * np.log(0.5)
NONE = -1e4  # As good as probability zero.

ROWS = {
  "soft_cross_entropy": Row(
    of("soft_cross_entropy", temperature=2.0),
    soft_ce_reference,
    hand=(2 * EVEN, 2 * SKEWED, 4 * np.log(5)),
    gradient=lambda s, t: 2 * (softmax(s / 2) - softmax(t / 2)),
  ),
  "kl_divergence": Row(
    of("kl_divergence", temperature=3.0),
    functools.partial(kl_reference, temperature=3.0),
    hand=(3 * EVEN, 3 * SKEWED, 9 * KL_HAND),
    gradient=lambda s, t: 3 * (softmax(s / 3) - softmax(t / 3)),
  ),
  "reverse_kl": Row(
    of("reverse_kl"),
    lambda s, t: kl_reference(t, s),
    hand=(EVEN, SKEWED, 0.2 * np.log(1 / 3) + 0.8 * np.log(2)),
    gradient=lambda s, t: (
      softmax(s)
      * (log_softmax(s) - log_softmax(t) - kl_reference(t, s)[:, None])
    ),
    excluded="inf",
  ),
  "jensen_shannon": Row(
    of("jensen_shannon"),
    js_reference,
    hand=([0, NONE, NONE, NONE, NONE], [NONE, 0, 0, 0, 0], np.log(2)),
  ),
  "logit_mse": Row(
    of("logit_mse"),
    lambda s, t: ((s - t) ** 2).mean(-1),
    hand=([1, 2, 0, 0, 0], [3, -2, 0, 0, 0], 4.0),
    gradient=lambda s, t: 2 / K * (s - t),
    shift=False,
    excluded="inf",
  ),
  "logit_mse centred": Row(
    of("logit_mse", centred=True),
    lambda s, t: (s - t).var(-1),
    hand=([1, 2, 0, 0, 0], [3, -2, 0, 0, 0], 4.0 - 0.4**2),
    excluded="nan",
  ),
  "decoupled_kd": Row(
    of("decoupled_kd", alpha=1.5, beta=2.0, temperature=1.0),
    functools.partial(dkd_reference, alpha=1.5, beta=2.0),
    hand=(
      EVEN,
      np.log([0.5, 0.2, 0.1, 0.1, 0.1]),
      1.5 * (0.5 * np.log(5 / 2) + 0.5 * np.log(5 / 8))
      + 2.0 * (0.4 * np.log(1.6) + 0.6 * np.log(0.8)),
    ),
  ),
  "dist": Row(
    of("dist", beta=2.0, gamma=0.5),
    functools.partial(dist_reference, beta=2.0, gamma=0.5),
    # Opposite over classes; constant, so without correlation, over the batch.
    hand=(-SKEWED, SKEWED, 2.0 * 2.0 + 0.5),
    coupled=True,
  ),
  "bernoulli_kl": Row(
    of("bernoulli_kl", temperature=2.0),
    functools.partial(bernoulli_reference, temperature=2.0),
    hand=(EVEN, 2 * np.log(3) * np.ones(K), 4 * np.log(3**0.75 / 2)),
    gradient=bernoulli_gradient,
    shift=False,
  ),
  "standardised": Row(
    of("kl_divergence", standardise=True),
    lambda s, t: kl_reference(z_score(s), z_score(t)),
    hand=([1, 2, 3, 4, 5], [-50, -40, -30, -20, -10], 0.0),
    excluded="nan",
  ),
  "with priors": Row(
    of("kl_divergence", priors=True, temperature=2.0),
    lambda s, t: kl_reference(s + LOG_COUNTS, t + LOG_COUNTS, 2.0),
    hand=(-LOG_COUNTS, 2 * SKEWED - LOG_COUNTS, 4 * KL_HAND),
    counts=True,
  ),
  "cross_entropy": label_row(
    "cross_entropy",
    ce_reference,
    hand=(SKEWED, 1, np.log(10)),
    gradient=ce_gradient,
    minimum=LOG_COUNTS,
  ),
  "cross_entropy smoothed": label_row(
    "cross_entropy",
    functools.partial(ce_reference, smoothing=0.2),
    hand=(SKEWED, 1, 0.96 * np.log(10) + 0.04 * np.log(5 / 3)),
    hyper={"label_smoothing": 0.2},
    minimum=np.log(0.8 * COUNTS / 16 + 0.2 / K),
  ),
  "balanced_softmax": label_row(
    "balanced_softmax",
    lambda s, y: ce_reference(s + LOG_COUNTS, y),
    hand=(EVEN, 0, np.log(2)),
    gradient=lambda s, y: ce_gradient(s + LOG_COUNTS, y),
    minimum=np.zeros(K),
  ),
  "logit_adjustment": label_row(
    "logit_adjustment",
    lambda s, y: ce_reference(s + 0.5 * LOG_COUNTS, y),
    hand=(-0.5 * LOG_COUNTS, 2, np.log(5)),
    gradient=lambda s, y: ce_gradient(s + 0.5 * LOG_COUNTS, y),
    hyper={"tau": 0.5},
    minimum=0.5 * LOG_COUNTS,
  ),
  "ldam": label_row(
    "ldam",
    lambda s, y: ce_reference(ldam_logits(s, y), y),
    hand=([0, 0, 0, 0.5, 0], 3, np.log(5)),
    gradient=lambda s, y: 4.0 * ce_gradient(ldam_logits(s, y), y),
    hyper={"scale": 4.0},
  ),
  "class_weighted": label_row(
    "class_weighted",
    lambda s, y: weights_reference()[y] * ce_reference(s, y),
    hand=(SKEWED, 3, np.log(10) * weights_reference()[3]),
    gradient=lambda s, y: weights_reference()[y][:, None] * ce_gradient(s, y),
    hyper={"effective_beta": 0.9},
    minimum=np.log(COUNTS * weights_reference()),
  ),
}
