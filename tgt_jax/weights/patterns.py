# SPDX-License-Identifier: Apache-2.0
"""Names with fields, which match a name and write one.

A pattern is a name with fields in braces, and reads the same in both
directions:

  {i}        a whole number without leading zeros
  {i+1}      a name that counts from one where `i` counts from zero
  {3-i}      a name that counts down
  {i:02}     a number padded with zeros to two digits
  {p:a|b}    one of these words
  {p:*}      any text that is not empty

The other pattern of a rule may write `{p}` alone for a field of words or text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

_FIELD = re.compile(
  r"(?:(?P<minuend>\d+)-)?(?P<name>[a-zA-Z_]\w*)"
  r"(?:(?P<sign>[+-])(?P<offset>\d+))?(?::(?P<spec>.+))?"
)


class Field(NamedTuple):
  """One field: `value = scale * written + shift` for numbers, or text."""

  name: str
  scale: int = 1
  shift: int = 0
  digits: int = 0
  text: str = ""  # The expression for words; empty for a number.

  def read(self, written: str) -> int | str | None:
    """Returns the value, None where no number is written that we would."""
    if self.text:
      return written
    value = self.scale * int(written) + self.shift
    return value if value >= 0 and self.write(value) == written else None

  def write(self, value: int | str) -> str | None:
    """Returns how the value is written, None if it has no such form."""
    if self.text:
      fits = re.fullmatch(self.text, str(value))
      return str(value) if fits else None
    if not isinstance(value, int):
      return None
    number = self.scale * (value - self.shift)  # The scale is 1 or -1.
    return f"{number:0{self.digits}d}" if number >= 0 else None


def _parse_field(source: str, pattern: str, words: Mapping[str, str]) -> Field:
  match = _FIELD.fullmatch(source)
  if not match:
    raise ValueError(
      f"pattern {pattern!r}: cannot read the field {{{source}}}; expected"
      " {i}, {i+1}, {3-i}, {i:02}, {p:a|b} or {p:*}"
    )
  name, spec = match["name"], match["spec"] or words.get(match["name"], "")
  if re.fullmatch(r"0?\d", spec) or not spec:
    offset = int(f"{match['sign'] or '+'}{match['offset'] or 0}")
    if match["minuend"] is None:
      return Field(name, 1, -offset, int(spec or 0))
    return Field(name, -1, int(match["minuend"]) + offset, int(spec or 0))
  if match["minuend"] or match["offset"]:
    raise ValueError(f"pattern {pattern!r}: {{{source}}} counts with words")
  if spec == "*":
    return Field(name, text=".+")
  return Field(name, text="|".join(re.escape(word) for word in spec.split("|")))


class Pattern:
  """A name with fields; see the module's docstring."""

  def __init__(self, text: str, words: tuple[tuple[str, str], ...] = ()):
    self.text = text
    pieces = re.split(r"\{([^{}]*)\}", text)
    self._literals = pieces[::2]
    self._fields = [_parse_field(f, text, dict(words)) for f in pieces[1::2]]
    self.fields = frozenset(field.name for field in self._fields)
    expression = re.escape(self._literals[0])
    for field, literal in zip(self._fields, self._literals[1:], strict=True):
      expression += f"({field.text or '[0-9]+'}){re.escape(literal)}"
    self._expression = re.compile(expression)

  def match(self, name: str) -> dict[str, int | str] | None:
    """Returns the values of the fields in `name`, None if it is another."""
    found = self._expression.fullmatch(name)
    if not found:
      return None
    values: dict[str, int | str] = {}
    for field, written in zip(self._fields, found.groups(), strict=True):
      value = field.read(written)
      if value is None or values.setdefault(field.name, value) != value:
        return None
    return values

  def write(self, values: Mapping[str, int | str]) -> str | None:
    """Returns the name with these values, None if it cannot be written."""
    text = self._literals[0]
    for field, literal in zip(self._fields, self._literals[1:], strict=True):
      written = field.write(values[field.name])
      if written is None:
        return None
      text += written + literal
    return text


def words_of(text: str) -> tuple[tuple[str, str], ...]:
  """Returns the fields of words or text that a pattern declares."""
  matches = (_FIELD.fullmatch(f) for f in re.findall(r"\{([^{}]*)\}", text))
  return tuple(
    (match["name"], match["spec"])
    for match in matches
    if match and match["spec"] and not match["spec"].isdigit()
  )


@functools.lru_cache(maxsize=4096)
def pattern(text: str, *others: str) -> Pattern:
  """Returns the pattern of `text`, whose words the `others` may declare."""
  words = tuple(pair for other in others for pair in words_of(other))
  return Pattern(text, words)
