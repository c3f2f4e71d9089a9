# SPDX-License-Identifier: Apache-2.0
"""Charts of a run: curves, classes, disagreement."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax.pictures.canvas import (
  GREY,
  GROUP_COLORS,
  PALETTE,
  arm_style,
  drawing,
  new_figure,
  plain_log_axis,
  png,
  shorten,
)

_WIDTH = 9.2  # Inches.
_FEW = 8  # Points of a curve from which on they are not marked.


class Curve(NamedTuple):
  """One quantity of one arm over time, or over another number.

  Attributes:
    steps: shape [N], increasing.
    values: shape [seeds, N]; NaN where a seed has no value.
  """

  steps: np.ndarray
  values: np.ndarray


def thin(curve: Curve, points: int = 200) -> Curve:
  """Returns a curve of at most `points` points, each the mean of its bin."""
  steps, values = np.asarray(curve.steps), np.asarray(curve.values, float)
  if len(steps) <= points:
    return Curve(steps, values)
  bins = np.array_split(np.arange(len(steps)), points)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Mean of empty slice")
    columns = [np.nanmean(values[:, b], axis=1) for b in bins]
  return Curve(np.array([steps[b[-1]] for b in bins]), np.stack(columns, 1))


def _mean_and_band(
  values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns mean and mean ± sd over seeds, [N] each, NaN where no seed is."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Mean of empty slice")
    warnings.filterwarnings("ignore", message="Degrees of freedom")
    mean = np.nanmean(values, axis=0)
    sd = np.nan_to_num(
      np.nanstd(values, axis=0, ddof=1) if len(values) > 1 else mean * 0
    )
  return mean, mean - sd, mean + sd


def curves(
  panels: Mapping[str, Mapping[str, Curve]],
  *,
  columns: int = 3,
  height: float = 2.2,
  over: str = "step",
  log: bool = False,
) -> bytes:
  """Draws one panel per quantity and one line per arm.

  Args:
    panels: `{quantity: {arm: curve}}`; arms keep their colour over panels.
    columns: panels in a row, at most.
    height: of a panel, inches.
    over: what `Curve.steps` are.
    log: whether their axis is logarithmic.

  Returns:
    PNG bytes; lines are means over seeds and bands are ± one sd.
  """
  arms = list(dict.fromkeys(arm for panel in panels.values() for arm in panel))
  found = [curve.steps for panel in panels.values() for curve in panel.values()]
  places = np.unique(np.concatenate(found)) if found else np.zeros(0)
  rows = -(-len(panels) // columns)
  columns = -(-len(panels) // rows)
  with drawing():
    figure = new_figure(
      max(_WIDTH, 3.0 * columns),
      height * rows + 0.25 + 0.2 * -(-len(arms) // 4),
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax, (quantity, panel) in zip(grid.flat, panels.items(), strict=False):
      _panel(ax, panel, arms)
      ax.set_title(quantity)
    for ax in grid.flat[len(panels) :]:
      ax.set_axis_off()
    for ax in grid.flat[: len(panels)]:
      if log:
        ax.set_xscale("log")
        plain_log_axis(ax.xaxis)
      elif len(places) < _FEW:
        ax.set_xticks(places)
      else:
        ax.locator_params(axis="x", nbins=4)
    for ax in grid.flat[: len(panels)][-columns:]:
      ax.set_xlabel(over)
    _legend(figure, grid[0, 0], arms)
    return png(figure)


def _panel(ax: Any, panel: Mapping[str, Curve], arms: Sequence[str]) -> None:
  for arm, curve in panel.items():
    steps, values = thin(curve)
    mean, low, high = _mean_and_band(values)
    look = arm_style(arms.index(arm))
    ax.plot(
      steps, mean, marker="o" if len(steps) < _FEW else None, ms=3, **look
    )
    if len(values) > 1:
      ax.fill_between(
        steps, low, high, color=look["color"], alpha=0.18, linewidth=0
      )
  ax.grid(True, axis="y")
  ax.margins(x=0.01)


def _legend(
  figure: Any,
  ax: Any,
  arms: Sequence[str],
  *,
  marker: str | None = None,
  line: str | None = None,
) -> None:
  """Puts one legend for all arms below a figure."""
  handles = []
  for index in range(len(arms)):
    look = arm_style(index)
    if line == "":
      face = look["color"] if index < len(PALETTE) else "none"
      look |= {"linestyle": "", "markerfacecolor": face}
    handles += ax.plot([], [], marker=marker, ms=4, **look)
  figure.legend(
    handles,
    [shorten(arm, 28) for arm in arms],
    loc="outside lower center",
    ncols=min(len(arms), 4),
  )


def class_order(counts: np.ndarray) -> np.ndarray:
  """Returns class indices from the most to the least frequent, stable."""
  return np.argsort(-np.asarray(counts), kind="stable")


def class_histogram(
  counts: np.ndarray,
  groups: Sequence[str] = (),
  class_names: Sequence[str] = (),
) -> bytes:
  """Draws how many training examples each class has, most frequent first.

  Args:
    counts: shape [K].
    groups: K times "many", "medium" or "few"; colours the bars.
    class_names: K names, shown where there are at most 30.
  """
  counts = np.asarray(counts)
  order = class_order(counts)
  names = [groups[k] if len(groups) else "" for k in order]
  ratio = counts.max() / max(1, counts.min())
  with drawing():
    figure = new_figure(_WIDTH, 2.7)
    ax = figure.subplots()
    for group in dict.fromkeys(names):
      inside = np.array([name == group for name in names])
      edges = np.arange(len(order) + 1) - 0.5
      color = GROUP_COLORS.get(group, GREY)
      plural = "" if inside.sum() == 1 else "es"
      text = f"{group} ({inside.sum()} class{plural})" if group else None
      if len(order) > 60:  # A patch per bar would take seconds.
        heights = np.where(inside, counts[order], 0)
        ax.stairs(heights, edges, fill=True, color=color, label=text)
      else:
        x = np.flatnonzero(inside)
        ax.bar(x, counts[order][x], width=0.85, color=color, label=text)
    if len(groups):
      ax.legend()
    if ratio > 20:
      ax.set_yscale("log")
      ax.set_ylim(bottom=max(0.5, 0.6 * counts.min()))
      plain_log_axis(ax.yaxis)
    ax.set_ylabel("training examples")
    _class_axis(ax, order, class_names)
    ax.grid(True, axis="y")
    return png(figure)


def _class_axis(ax: Any, order: np.ndarray, class_names: Sequence[str]) -> None:
  """Labels classes by name where that is legible, else by rank."""
  ax.set_xlim(-0.6, len(order) - 0.4)
  if len(order) > 30 or not len(class_names):
    ax.set_xlabel("class, by number of training examples")
    return
  names = [shorten(class_names[k], 12) for k in order]
  turned = max(map(len, names)) * len(names) > 80
  ax.set_xticks(range(len(order)), names)
  if turned:
    ax.tick_params(axis="x", labelrotation=45)
    for text in ax.get_xticklabels():
      text.set(ha="right", rotation_mode="anchor")


def per_class(
  counts: np.ndarray,
  accuracy: Mapping[str, np.ndarray],
  class_names: Sequence[str] = (),
  *,
  bins: int = 30,
  value: str = "accuracy",
) -> bytes:
  """Draws accuracy per class, the most frequent class first.

  Args:
    counts: training examples per class, shape [K].
    accuracy: arm to shape [seeds, K], fractions; NaN where a class has no
      test example. With more than `bins` classes neighbours are averaged.
    class_names: K names.
    bins: points per line.
    value: what `accuracy` is, where it is something else.
  """
  order = class_order(counts)
  ordered = {
    arm: 100 * np.atleast_2d(np.asarray(values, float))[:, order]
    for arm, values in accuracy.items()
  }
  with drawing():
    figure = new_figure(_WIDTH, 3.3 + 0.2 * -(-len(accuracy) // 4))
    ax = figure.subplots()
    if len(order) <= bins:
      _class_dots(ax, ordered)
    else:
      _class_lines(ax, ordered, bins)
    ax.set_ylabel(f"{value}, %")
    ax.grid(True, axis="y")
    _class_axis(ax, order, class_names)
    line = "-" if len(order) > bins else ""
    _legend(figure, ax, list(accuracy), marker="o", line=line)
    return png(figure)


def _class_dots(ax: Any, ordered: Mapping[str, np.ndarray]) -> None:
  """Draws a dot per class and arm, side by side, with ± one sd."""
  for index, values in enumerate(ordered.values()):
    mean, low, _ = _mean_and_band(values)
    shift = 0.76 * ((index + 0.5) / len(ordered) - 0.5)
    x = np.arange(len(mean)) + shift
    color = arm_style(index)["color"]
    face = color if index < len(PALETTE) else "none"
    ax.errorbar(
      x,
      mean,
      yerr=mean - low,
      fmt="o",
      ms=4,
      lw=1,
      color=color,
      markerfacecolor=face,
    )
  count = len(next(iter(ordered.values()), [[]])[0])
  for k in range(0, count, 2):
    ax.axvspan(k - 0.5, k + 0.5, color=GREY, alpha=0.08, linewidth=0)


def _class_lines(ax: Any, ordered: Mapping[str, np.ndarray], bins: int) -> None:
  """Draws a line per arm through the means of neighbouring classes."""
  for index, values in enumerate(ordered.values()):
    ranks = np.arange(values.shape[1])
    x = np.array([part.mean() for part in np.array_split(ranks, bins)])
    binned = thin(Curve(ranks, values), bins).values
    mean, low, high = _mean_and_band(binned)
    look = arm_style(index)
    ax.plot(x, mean, marker="o", ms=3, lw=1.2, **look)
    if len(values) > 1:
      color = look["color"]
      ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def disagreement(
  before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> bytes:
  """Draws disagreement after exploration against the one before.

  Args:
    before: exploration to shape [N], >= 0, where it started.
    after: the same where it ended. A point above the diagonal is an example
      on which student and teacher disagree more than they did.
  """
  with drawing():
    figure = new_figure(3.45 * len(before), 3.7)
    axes = figure.subplots(1, len(before), squeeze=False)[0]
    both = np.concatenate(
      [*map(np.ravel, before.values()), *map(np.ravel, after.values())]
    )
    positive = both[np.isfinite(both) & (both > 0)]
    high = positive.max(initial=1e-3) * 1.5
    low = max(positive.min(initial=high), high * 1e-6) / 1.5
    for index, (ax, name) in enumerate(zip(axes, before, strict=True)):
      x, y = np.ravel(before[name]), np.ravel(after[name])
      ax.plot([low, high], [low, high], color=GREY, lw=0.8)
      ax.scatter(
        np.maximum(x, low),
        np.maximum(y, low),
        s=10,
        alpha=0.65,
        linewidths=0,
        color=PALETTE[index % len(PALETTE)],
      )
      ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
      plain_log_axis(ax.xaxis)
      plain_log_axis(ax.yaxis)
      share = 100 * np.mean(y > x)
      ax.set_title(
        f"{shorten(name, 30)}\n{share:.0f} % rise, median {_median_ratio(x, y)}"
      )
      ax.set_xlabel("disagreement before")
      ax.set_aspect("equal")
      ax.grid(True)
    axes[0].set_ylabel("after")
    return png(figure)


def _median_ratio(before: np.ndarray, after: np.ndarray) -> str:
  ratio = np.median(after) / max(np.median(before), 1e-30)
  return f"×{ratio:.2g}" if ratio < 1000 else "×1000+"
