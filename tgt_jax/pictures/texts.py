# SPDX-License-Identifier: Apache-2.0
"""The exploration gallery of texts, as a table of HTML."""

from __future__ import annotations

import difflib
import html

import numpy as np

from tgt_jax.pictures.gallery import Gallery, crossed

_SHOWN = 8  # Examples at most.


def marked(before: str, after: str) -> str:
  """Returns `after` as HTML, with the words that `before` has not marked.

  Words that are gone leave a mark of their own, a raised dot.
  """
  old, new = before.split(), after.split()
  parts = []
  for change, _, _, start, stop in difflib.SequenceMatcher(
    a=old, b=new, autojunk=False
  ).get_opcodes():
    words = html.escape(" ".join(new[start:stop]))
    if change == "equal":
      parts.append(words)
    else:
      parts.append(f"<mark>{words or '·'}</mark>")
  return " ".join(parts)


def opinion(probabilities: np.ndarray, names: tuple[str, ...]) -> str:
  """The most probable class and how probable it is, as HTML."""
  best = int(np.argmax(probabilities))
  return f"{html.escape(names[best])} {100 * probabilities[best]:.0f} %"


def texts_table(gallery: Gallery) -> str:
  """Returns one table: each example, and below it its other views.

  Words that differ from the example are marked, and so is the teacher's class
  where it is another one than for the example.

  Args:
    gallery: of strings.
  """
  crosses = crossed(gallery)
  head = "".join(
    f'<th class="l">{title}</th>'
    for title in ("", "text", "student", "teacher")
  )
  rows = []
  for row in range(min(_SHOWN, len(gallery.labels))):
    truth = html.escape(gallery.class_names[int(gallery.labels[row])])
    first = str(gallery.inputs[0, row])
    for view, name in enumerate(gallery.views):
      text = str(gallery.inputs[view, row])
      shown = marked(first, text) if view else html.escape(text)
      label = f"<br><small>{truth}</small>" if not view else ""
      teacher = opinion(gallery.teacher[view, row], gallery.class_names)
      if crosses[view, row]:
        teacher = f"<mark>{teacher}</mark>"
      begin = "<tr>" if view else '<tr class="rule">'
      rows.append(
        f"{begin}"
        f'<td class="l">{html.escape(name)}{label}</td>'
        f'<td class="l text">{shown}</td>'
        f'<td class="l">'
        f"{opinion(gallery.student[view, row], gallery.class_names)}</td>"
        f'<td class="l">{teacher}</td></tr>'
      )
  return (
    f'<div class="table"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )
