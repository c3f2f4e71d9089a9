# SPDX-License-Identifier: Apache-2.0
"""From the names of a public file to our tree and back, by one table of rules.

A rule pairs a name of the file with a name of ours, both written with the
fields of `patterns`, and says how the array changes:

  Rule("blocks.{i}.{j}.conv_pw.weight",
       "params/block_{i}_{j}/expand/kernel", "conv")
  Rule("head.{rest:*}", None)  # Expected in the file, not wanted here.

The first rule that fits a name has it, in either direction, so exceptions
stand before the general case. A rule that fits nothing is no error: one table
serves a whole family. A name or a leaf that is left over is one.

Names of ours are paths of the tree `{"params": ..., "model_state": ...}`, for
example `model_state/batch_stats/norm/mean`. Everything here is pure: arrays
in, arrays out.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tgt_jax import trees
from tgt_jax.weights.patterns import Pattern, pattern
from tgt_jax.weights.transforms import TRANSFORMS, Transform

_LISTED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
  """One row of a table.

  Attributes:
    source: name in the public file, with fields.
    target: name of ours with the same fields, or None to drop the array.
    transform: a key of `TRANSFORMS` or a `Transform`.
    also: names that stand in the file beside `source` and say nothing, with
      their values for the export: PyTorch's `num_batches_tracked`.
    tied: other names of the same array. A file may have any of them, equal
      where it has several; the export writes them all.
    default: value of the leaf where the file lacks it; `None`: it must not.
    optional: whether either side may lack the array, as a file its classifier:
      what the file lacks is left out of the tree, what the model lacks is
      dropped.

  Raises:
    ValueError: unknown transform, unreadable pattern, or fields that only one
      of the two names has.
  """

  source: str
  target: str | None
  transform: str | Transform = "identity"
  also: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  tied: tuple[str, ...] = ()
  default: float | None = None
  optional: bool = False

  def __post_init__(self) -> None:
    if isinstance(self.transform, str) and self.transform not in TRANSFORMS:
      raise ValueError(
        f"unknown transform {self.transform!r} of {self.source!r}; choose from"
        f" {', '.join(TRANSFORMS)} or pass a Transform"
      )
    for other in (self.tree_name, *self.beside, *self.twins):
      if other is not None and other.fields != self.file_name.fields:
        raise ValueError(
          f"{self.source!r} and {other.text!r} must have the same fields, got"
          f" {sorted(self.file_name.fields)} and {sorted(other.fields)}"
        )

  @functools.cached_property
  def file_name(self) -> Pattern:
    """The pattern of the name in the file."""
    return pattern(self.source, self.target or "")

  @functools.cached_property
  def tree_name(self) -> Pattern | None:
    """The pattern of our name, None where the array is dropped."""
    return None if self.target is None else pattern(self.target, self.source)

  @functools.cached_property
  def beside(self) -> dict[Pattern, Any]:
    """The patterns of `also` and their values."""
    return {pattern(t, self.source): value for t, value in self.also.items()}

  @functools.cached_property
  def twins(self) -> tuple[Pattern, ...]:
    """The patterns of `tied`."""
    return tuple(pattern(text, self.source) for text in self.tied)

  @property
  def change(self) -> Transform:
    """The transform itself."""
    if isinstance(self.transform, str):
      return TRANSFORMS[self.transform]
    return self.transform


def target_of(rules: Sequence[Rule], name: str) -> tuple[Rule, str | None]:
  """Returns the rule that takes a file's name, and our name (None: dropped).

  Raises:
    KeyError: no rule takes it.
  """
  for rule in rules:
    matches = (known.match(name) for known in (rule.file_name, *rule.twins))
    values = next((match for match in matches if match is not None), None)
    if values is not None:
      if rule.tree_name is None:
        return rule, None
      target = rule.tree_name.write(values)
      if target is not None:
        return rule, target
    if any(other.match(name) is not None for other in rule.beside):
      return rule, None
  raise KeyError(name)


def source_of(rules: Sequence[Rule], name: str) -> tuple[Rule, str]:
  """Returns the rule that fills our leaf `name`, and the file's name for it.

  Raises:
    KeyError: no rule fills it from a name that the table reads back as it.
  """
  for rule in rules:
    values = rule.tree_name.match(name) if rule.tree_name else None
    source = None if values is None else rule.file_name.write(values)
    if source is not None and target_of(rules, source)[1] == name:
      return rule, source
  raise KeyError(name)


class _Misfits:
  """What does not fit, by kind; becomes one error."""

  def __init__(self) -> None:
    self.kinds: dict[str, list[str]] = {}

  def add(self, kind: str, line: str) -> None:
    self.kinds.setdefault(kind, []).append(line)

  def check(self, what: str, remedy: str) -> None:
    if not self.kinds:
      return
    lines = [f"{what} does not fit:"]
    for kind, found in self.kinds.items():
      lines.append(f"  {kind} ({len(found)}):")
      lines += [f"    {line}" for line in found[:_LISTED]]
      if len(found) > _LISTED:
        lines.append(f"    and {len(found) - _LISTED} more")
    raise ValueError("\n".join([*lines, f"  {remedy}"]))


def convert(
  arrays: Mapping[str, np.ndarray],
  rules: Sequence[Rule],
  template: Any,
  *,
  what: str = "the file",
) -> Any:
  """Returns the tree of `template`, filled from a public file's arrays.

  Args:
    arrays: name in the file to array, as `readers.read_arrays` gives them.
    rules: the table of the model's family.
    template: `{"params": ..., "model_state": ...}` of arrays or
      `jax.ShapeDtypeStruct`; its shapes and dtypes are those of the result.
    what: where the arrays come from, for the error message.

  Returns:
    A tree of numpy arrays of their own memory. It lacks the leaves of optional
    rules that the file lacks.

  Raises:
    ValueError: names that no rule takes, leaves that nothing fills or two
      names fill, shapes or dtypes that differ; all of them in one message.
  """
  wanted = trees.flatten_names(template)
  misfits = _Misfits()
  filled: dict[str, str] = {}
  flat: dict[str, np.ndarray] = {}
  strangers = []
  for name, array in arrays.items():
    try:
      rule, target = target_of(rules, name)
    except KeyError:
      strangers.append(name)
      continue
    if target is None:
      continue
    if target not in wanted:
      if not rule.optional:
        strangers.append(name)
    elif target in filled:
      if not rule.tied or not np.array_equal(array, arrays[filled[target]]):
        misfits.add(
          "two names of the file for one array of the model",
          f"{filled[target]} and {name} for {target}",
        )
    else:
      filled[target] = name
      try:
        flat[target] = _fitted(rule.change, np.asarray(array), wanted[target])
      except ValueError as error:
        misfits.add(
          "arrays of another shape or kind", f"{name} for {target}: {error}"
        )
  absent = _absent(rules, wanted, filled)
  for name, value in absent.items():
    if value is not None:
      flat[name] = np.full(wanted[name].shape, value, wanted[name].dtype)
  filled.update(dict.fromkeys(absent, ""))
  _add_left_over(misfits, rules, wanted, filled, arrays, strangers)
  misfits.check(
    what,
    f"The model has {len(wanted)} arrays, the file {len(arrays)}. Check the"
    " model's name and its arguments (depth, width, num_classes), and that the"
    " file is of this model.",
  )
  if flat.keys() < wanted.keys():
    present = {name: leaf for name, leaf in wanted.items() if name in flat}
    template = {key: {} for key in template} | trees.unflatten_names(present)
  return trees.check_tree(trees.unflatten_names(flat), template, what=what)


def _absent(
  rules: Sequence[Rule], wanted: Mapping[str, Any], filled: Mapping[str, str]
) -> dict[str, float | None]:
  """Leaves that the file may lack: name to value, None where it is left out."""
  absent = {}
  for name in wanted:
    if name not in filled:
      try:
        rule = source_of(rules, name)[0]
      except KeyError:
        continue
      if rule.optional or rule.default is not None:
        absent[name] = rule.default
  return absent


def _add_left_over(
  misfits: _Misfits,
  rules: Sequence[Rule],
  wanted: Mapping[str, Any],
  filled: Mapping[str, str],
  arrays: Mapping[str, np.ndarray],
  strangers: Sequence[str],
) -> None:
  """Names on either side without a partner, with the nearest one."""
  for name in strangers:
    misfits.add(
      "names in the file that the model has no place for",
      f"{name} {tuple(np.shape(arrays[name]))}",
    )
  empty = [name for name in wanted if name not in filled]
  for number, name in enumerate(empty):
    line = f"{name} {tuple(wanted[name].shape)}"
    try:
      source = source_of(rules, name)[1]
    except KeyError:
      line += ", which no rule fills"
    else:
      line += f", expected as {source}"
      # Comparing all with all would take long, and the rest is not shown.
      others = strangers if number < _LISTED else []
      near = difflib.get_close_matches(source, others, n=1, cutoff=0.7)
      line += f"; the file has {near[0]}" if near else ""
    misfits.add("arrays of the model that the file does not fill", line)


def _fitted(change: Transform, array: np.ndarray, leaf: Any) -> np.ndarray:
  """Returns the array in the layout and the dtype of the leaf."""
  changed = change.forward(array)
  if changed.shape != tuple(leaf.shape):
    raise ValueError(
      f"expected {tuple(leaf.shape)}, got {changed.shape} (in the file"
      f" {array.shape}, transform {change.name})"
    )
  floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in (array, leaf)]
  same_kind = np.can_cast(array.dtype, leaf.dtype) or all(floating)
  if not same_kind or floating[0] != floating[1]:
    raise ValueError(f"expected dtype {leaf.dtype}, got {array.dtype}")
  return np.array(changed, leaf.dtype, order="C")


def export(
  tree: Any, rules: Sequence[Rule], *, constants: bool = True
) -> dict[str, np.ndarray]:
  """Returns the arrays of a public file: the inverse of `convert`.

  Args:
    tree: `{"params": ..., "model_state": ...}`, arrays.
    rules: the table of the model's family.
    constants: whether to add the names of `Rule.also`, which PyTorch's
      `load_state_dict(strict=True)` asks for.

  Raises:
    ValueError: a leaf that no rule fills, or two leaves for one name.
  """
  misfits = _Misfits()
  arrays: dict[str, np.ndarray] = {}
  for name, leaf in trees.flatten_names(tree).items():
    try:
      rule, source = source_of(rules, name)
    except KeyError:
      misfits.add(
        "arrays that no rule takes to the file", f"{name} {np.shape(leaf)}"
      )
      continue
    if source in arrays:
      misfits.add("two arrays for one name of the file", f"{name}: {source}")
    # Contiguous: writers of other formats store memory as it lies there.
    inverse = rule.change.inverse(np.asarray(leaf))
    arrays[source] = np.array(inverse, order="C")
    values = rule.file_name.match(source) or {}
    for twin in rule.twins:
      arrays[str(twin.write(values))] = arrays[source]
    for other, value in rule.beside.items() if constants else ():
      beside = other.write(values)
      if beside is not None:
        arrays[beside] = np.asarray(value)
  misfits.check("the tree", "Is the table of rules that of this model?")
  return arrays
