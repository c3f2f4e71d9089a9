# SPDX-License-Identifier: Apache-2.0
"""One table, three ways."""

from __future__ import annotations

import html.parser

import pytest

from tgt_jax import tables

TABLE = tables.Table(
  ["arm", "acc ±", "n"],
  [["kd", "79.6 ± 0.5", "5"], ["漢字", "8.1 ± 0.2", "12"], ["ref", "–", "1"]],
  rules=(2,),
  best=frozenset({(0, 1)}),
  notes=("A note.",),
)


def test_text_is_aligned():
  lines = tables.render(TABLE).splitlines()
  assert lines == [
    "arm         acc ±    n",
    "─" * 22,
    "kd     79.6 ± 0.5*   5",
    "漢字    8.1 ± 0.2   12",
    "─" * 22,
    "ref             –    1",
    "",
    "A note.",
  ]
  ends = [tables.width(line) for line in lines[:6] if "─" not in line]
  assert len(set(ends)) == 1


def test_no_marks_leave_no_room_for_them():
  lines = tables.render(TABLE._replace(best=frozenset())).splitlines()
  assert lines[2] == "kd    79.6 ± 0.5   5"


def test_ascii_is_aligned_too():
  text = tables.render(TABLE, ascii_only=True)
  assert text.isascii()
  lines = text.splitlines()
  assert "79.6 +/- 0.5" in lines[2]
  assert len(lines[0]) == len(lines[2]) == len(lines[5])


def test_markdown():
  table = TABLE._replace(rows=[["a|b *c* <i>", "1", "2"]], rules=())
  lines = tables.render(table, style="markdown").splitlines()
  assert lines[:3] == [
    "| arm | acc ± | n |",
    "| :--- | ---: | ---: |",
    r"| a\|b \*c\* \<i\> | **1** | 2 |",
  ]
  assert lines[-1] == "A note."


class Cells(html.parser.HTMLParser):
  """Collects the tags and the text of a page."""

  def __init__(self):
    super().__init__()
    self.tags, self.words = [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)

  def handle_data(self, data):
    self.words.append(data)


def test_html_is_escaped():
  evil = "<script>alert('&')</script>"
  parser = Cells()
  parser.feed(
    tables.render(
      tables.Table([evil, "b"], [[evil, "1"]], notes=[evil]), style="html"
    )
  )
  assert "script" not in parser.tags
  assert parser.words.count(evil) == 3
  assert parser.tags.count("tr") == 2


def test_html_marks_rules_and_best():
  text = tables.render(TABLE, style="html")
  assert text.count('<tr class="rule">') == 1
  assert '<td class="best">79.6 ± 0.5</td>' in text


def test_errors():
  with pytest.raises(ValueError, match="Did you mean 'markdown'"):
    tables.render(TABLE, style="markdwn")
  with pytest.raises(ValueError, match="row 0 has 1 cells; the header has 3"):
    tables.render(TABLE._replace(rows=[["x"]]))
