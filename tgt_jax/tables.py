# SPDX-License-Identifier: Apache-2.0
"""One table as aligned text, Markdown or HTML."""

from __future__ import annotations

import html
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from tgt_jax import checks

FORMATS = ("text", "markdown", "html")


class Table(NamedTuple):
  """Cells and where the rules and the notes go.

  Attributes:
    header: one string per column.
    rows: strings, each row as long as the header.
    left: indices of the columns that are flush left; the others are right.
    rules: indices of rows that a rule stands before.
    best: `(row, column)` of the cells to stress.
    notes: sentences below the table.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  left: Sequence[int] = (0,)
  rules: Sequence[int] = ()
  best: frozenset[tuple[int, int]] = frozenset()
  notes: Sequence[str] = ()


def width(text: str) -> int:
  """Returns how many terminal columns `text` takes."""
  wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
  marks = sum(bool(unicodedata.combining(c)) for c in text)
  return len(text) + wide - marks


def render(
  table: Table, *, style: str = "text", ascii_only: bool = False
) -> str:
  """Returns the table as `text`, `markdown` or `html`.

  Args:
    table: what to show.
    style: one of `FORMATS`.
    ascii_only: replace what a console without Unicode cannot show.

  Raises:
    ValueError: unknown style, or a row of another length than the header.
  """
  checks.one_of(FORMATS, style=style)
  for number, row in enumerate(table.rows):
    if len(row) != len(table.header):
      raise ValueError(
        f"row {number} has {len(row)} cells; the header has {len(table.header)}"
      )
  if ascii_only:  # Before the layout: the replacements are wider.
    table = table._replace(
      header=[to_ascii(cell) for cell in table.header],
      rows=[[to_ascii(cell) for cell in row] for row in table.rows],
      notes=[to_ascii(note) for note in table.notes],
    )
  return _STYLES[style](table, "-" if ascii_only else "─")


def console_lacks(text: str) -> bool:
  """Returns whether standard output cannot encode a sign of `text`."""
  try:
    text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
  except UnicodeEncodeError:
    return True
  return False


def to_ascii(text: str) -> str:
  """Replaces the signs of our tables, and what else ASCII lacks by `?`."""
  for sign, plain in (
    ("±", "+/-"),
    ("–", "-"),
    ("−", "-"),
    ("─", "-"),
    ("Δ", "diff"),
    ("·", "|"),
    ("…", "..."),
    ("×", "x"),
  ):
    text = text.replace(sign, plain)
  return text.encode("ascii", "replace").decode()


def _text(table: Table, rule_sign: str) -> str:
  widths = [
    max(width(row[column]) for row in [table.header, *table.rows])
    for column in range(len(table.header))
  ]

  def line(cells: Sequence[str], row: int | None) -> str:
    parts = []
    for column, cell in enumerate(cells):
      blank = " " * (widths[column] - width(cell))
      star = "*" if (row, column) in table.best else " "
      text = cell + blank if column in table.left else blank + cell
      parts.append(text + (star if table.best else ""))
    return "  ".join(parts).rstrip()

  rule = rule_sign * (sum(widths) + (2 + bool(table.best)) * (len(widths) - 1))
  lines = [line(table.header, None), rule]
  for number, row in enumerate(table.rows):
    if number in table.rules and number:
      lines.append(rule)
    lines.append(line(row, number))
  return "\n".join([*lines, *([""] if table.notes else []), *table.notes])


def _markdown(table: Table, rule_sign: str) -> str:
  del rule_sign

  def escape(cell: str) -> str:
    for sign in "\\`*<>[]|":
      cell = cell.replace(sign, "\\" + sign)
    return cell.replace("\n", " ")

  def line(cells: Sequence[str], row: int | None = None) -> str:
    shown = []
    for column, cell in enumerate(cells):
      cell = escape(cell)
      shown.append(f"**{cell}**" if (row, column) in table.best else cell)
    return "| " + " | ".join(shown) + " |"

  columns = range(len(table.header))
  marks = [":---" if column in table.left else "---:" for column in columns]
  lines = [line(table.header), "| " + " | ".join(marks) + " |"]
  lines += [line(row, number) for number, row in enumerate(table.rows)]
  if table.notes:
    lines += ["", " ".join(escape(note) for note in table.notes)]
  return "\n".join(lines)


def _html(table: Table, rule_sign: str) -> str:
  del rule_sign

  def cells(row: Sequence[str], tag: str, number: int | None = None) -> str:
    parts = []
    for column, cell in enumerate(row):
      names = ["l"] if column in table.left else []
      names += ["best"] if (number, column) in table.best else []
      mark = f' class="{" ".join(names)}"' if names else ""
      scope = ' scope="col"' if tag == "th" else ""
      parts.append(f"<{tag}{scope}{mark}>{html.escape(cell)}</{tag}>")
    return "".join(parts)

  lines = ['<div class="table"><table>']
  lines += [f"<thead><tr>{cells(table.header, 'th')}</tr></thead>", "<tbody>"]
  for number, row in enumerate(table.rows):
    mark = ' class="rule"' if number and number in table.rules else ""
    lines.append(f"<tr{mark}>{cells(row, 'td', number)}</tr>")
  lines += ["</tbody></table></div>"]
  lines += [f'<p class="note">{html.escape(note)}</p>' for note in table.notes]
  return "\n".join(lines)


_STYLES = {"text": _text, "markdown": _markdown, "html": _html}
