# SPDX-License-Identifier: Apache-2.0
"""Training examples in the order of their influence, as a table of HTML."""

from __future__ import annotations

import base64
import html
import io
import pathlib
from typing import NamedTuple

import numpy as np

from tgt_jax import checks
from tgt_jax.pictures import stored
from tgt_jax.pictures.canvas import enlarge
from tgt_jax.pictures.texts import opinion

_SIDE = 64  # Pixels of an image, about.


class Ranked(NamedTuple):
  """The first and the last training examples by influence.

  Attributes:
    inputs: N images [N, H, W, C] in [0, 1], or strings [N], from the one that
      helps the student most to the one that harms it most.
    labels: true classes, [N].
    student: the student's probabilities, [N, K].
    teacher: the teacher's, [N, K].
    influence: [N], in units of the root mean square over all.
    class_names: K names.
    asked: of how many examples these are the first and the last.
    positive: share of those that help.
  """

  inputs: np.ndarray
  labels: np.ndarray
  student: np.ndarray
  teacher: np.ndarray
  influence: np.ndarray
  class_names: tuple[str, ...]
  asked: int
  positive: float


def save_ranked(path: str | pathlib.Path, ranked: Ranked) -> None:
  """Writes them to an `.npz` file, whole or not at all."""
  stored.save(path, ranked._asdict())


def load_ranked(path: str | pathlib.Path) -> Ranked:
  """Returns what `save_ranked` wrote, images to eight bits.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another file, one cut short, or arrays that do not fit.
  """
  found = stored.load(path, Ranked._fields, what="a list of influences")
  arrays = ("inputs", "labels", "student", "teacher", "influence")
  checks.same_leading(**{name: found[name] for name in arrays})
  return Ranked(
    **{name: found[name] for name in arrays},
    class_names=tuple(map(str, found["class_names"])),
    asked=int(found["asked"]),
    positive=float(found["positive"]),
  )


def _image(pixels: np.ndarray) -> str:
  """An image as HTML."""
  from matplotlib import image

  buffer = io.BytesIO()
  image.imsave(buffer, enlarge(pixels, _SIDE), format="png")
  encoded = base64.b64encode(buffer.getvalue()).decode()
  return f'<img alt="training example" src="data:image/png;base64,{encoded}">'


def ranked_table(ranked: Ranked, name: str) -> str:
  """Returns one table: what helps above, what harms below.

  Args:
    ranked: the examples; a rule divides those with a positive influence from
      the others.
    name: whose they are, an arm's.
  """
  texts = ranked.inputs.dtype.kind == "U"
  head = "".join(
    f'<th class="l">{title}</th>'
    for title in (
      "influence",
      "training example",
      "label",
      "student",
      "teacher",
    )
  )
  names, rows, above = ranked.class_names, [], True
  for i, value in enumerate(ranked.influence):
    given = ranked.inputs[i]
    shown = html.escape(str(given)) if texts else _image(given)
    begin = '<tr class="rule">' if above and value <= 0 else "<tr>"
    above = value > 0
    cells = (
      f"{value:+.2f}",
      shown,
      html.escape(names[int(ranked.labels[i])]),
      opinion(ranked.student[i], names),
      opinion(ranked.teacher[i], names),
    )
    kinds = ("l", "l text" if texts else "l", "l", "l", "l")
    row = "".join(
      f'<td class="{kind}">{cell}</td>'
      for kind, cell in zip(kinds, cells, strict=True)
    )
    rows.append(f"{begin}{row}</tr>")
  summary = (
    f"{html.escape(name)}: {100 * ranked.positive:.0f} % of {ranked.asked:,}"
    " training examples help. Those that do so most and those that harm most,"
    " in units of the root mean square over all"
  )
  return (
    f"<details open><summary>{summary}</summary>"
    f'<div class="table"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div></details>"
  )
