# SPDX-License-Identifier: Apache-2.0
"""From a name in a config to a function, with errors that help.

Every family of choices is one plain dict next to its functions. A name of the
form ``package.module:function`` leaves the dict and imports, so that a user
extends the library from a file or a notebook module without touching it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def nearest(name: str, choices: Iterable[str]) -> str:
  """The question after an error: which choice was meant; or nothing."""
  near = difflib.get_close_matches(name, list(choices), n=1)
  return f" Did you mean {near[0]!r}?" if near else ""


def no_key(where: str, key: str, known: Iterable[str]) -> str:
  """What to say of a key that a section does not have.

  Args:
    where: the section's path in the config, "" for the config itself.
    key: what was looked for.
    known: the section's keys.
  """
  known = sorted(known)
  return (
    f"{where or 'the config'} has no key {key!r}; it has"
    f" {', '.join(known) or 'none'}.{nearest(key, known)}"
  )


def resolve(table: Mapping[str, Any], name: str, *, family: str) -> Callable:
  """Returns the function that `name` stands for.

  Args:
    table: names to functions.
    name: a key of `table`, or `"package.module:function"`.
    family: what the table holds, for the error message.

  Raises:
    ValueError: unknown name; lists the choices and the nearest one.
  """
  if name in table:
    return table[name]
  module_name, colon, attribute = name.partition(":")
  if colon:
    try:
      return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
      raise ValueError(
        f"{family} {name!r} cannot be imported: {error}. Expected"
        " 'package.module:function' on the Python path."
      ) from error
  raise ValueError(
    f"unknown {family} {name!r}; choose from {', '.join(sorted(table))} or"
    f" 'package.module:function'.{nearest(name, list(table))}"
  )


def _accepted(function: Callable) -> list[str] | None:
  """The keywords that a function takes, `None` where it takes any."""
  parameters = inspect.signature(function).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  return [p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY]


def takes(function: Callable, key: str) -> bool:
  """Whether a function takes an argument of that name."""
  accepted = _accepted(function)
  return accepted is None or key in accepted


def default(function: Callable, key: str) -> Any:
  """The default of an argument, `None` where it has none or is not named."""
  parameter = inspect.signature(function).parameters.get(key)
  if parameter is None or parameter.default is parameter.empty:
    return None
  return parameter.default


def hands_on(
  inner: Callable, *, fixed: Collection[str] = ()
) -> Callable[[Function], Function]:
  """Decorates a function that hands its `**` arguments on to another one.

  The signature then names them too, so that a spec is checked against all that
  may be said in it, and their defaults are known.

  Args:
    inner: what they are handed on to.
    fixed: those of its arguments that the decorated function decides.
  """

  def decorate(function: Function) -> Function:
    own = inspect.signature(function)
    named = {
      name: parameter
      for name, parameter in own.parameters.items()
      if parameter.kind is not parameter.VAR_KEYWORD
    }
    more = {
      name: parameter.replace(kind=parameter.KEYWORD_ONLY)
      for name, parameter in inspect.signature(inner).parameters.items()
      if name not in (*named, *fixed)
    }
    joined = own.replace(parameters=[*named.values(), *more.values()])
    function.__signature__ = joined  # type: ignore[attr-defined]
    return function

  return decorate


def check_arguments(
  function: Callable, kwargs: Mapping[str, Any], *, what: str
) -> None:
  """Raises `ValueError` unless `function` takes every key of `kwargs`."""
  accepted = _accepted(function)
  if accepted is None:
    return
  for key in kwargs:
    if key not in accepted:
      raise ValueError(
        f"{what} takes no {key!r}; it takes {', '.join(sorted(accepted))}."
        f"{nearest(key, accepted)}"
      )


def read_spec(
  table: Mapping[str, Any], spec: Mapping[str, Any], *, family: str
) -> tuple[Callable, dict[str, Any]]:
  """Returns the factory that `spec["name"]` names, and the spec's other keys.

  Args:
    table: names to factories.
    spec: `{"name": ..., **keyword_arguments}`.
    family: what the table holds, for error messages.

  Raises:
    ValueError: no or unknown name, or a key that the factory does not take.
  """
  kwargs = dict(spec)
  if "name" not in kwargs:
    raise ValueError(f"a {family} needs a 'name'; got {kwargs}")
  name = kwargs.pop("name")
  factory = resolve(table, name, family=family)
  check_arguments(factory, kwargs, what=f"{family} {name!r}")
  return factory, kwargs


def build(
  table: Mapping[str, Any],
  spec: Mapping[str, Any],
  *,
  family: str,
  offered: Mapping[str, Any] | None = None,
  **arguments: Any,
) -> Any:
  """Calls the factory that `spec["name"]` names with the spec's other keys.

  Args:
    table: names to factories.
    spec: `{"name": ..., **keyword_arguments}`.
    family: what the table holds, for error messages.
    offered: further arguments that do not come from a config, for a factory
      that takes them.
    **arguments: the same, for every factory.

  Raises:
    ValueError: see `read_spec`; or a spec gives what is offered.
  """
  factory, kwargs = read_spec(table, spec, family=family)
  for key, value in (offered or {}).items():
    if not takes(factory, key):
      continue
    if key in kwargs:
      raise ValueError(
        f"{family} {spec['name']!r}: {key} is what the run has, {value!r}, and"
        " cannot be given"
      )
    kwargs[key] = value
  return factory(**arguments, **kwargs)
