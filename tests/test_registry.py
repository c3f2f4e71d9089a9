# SPDX-License-Identifier: Apache-2.0
"""Names to functions, and errors that help."""

from __future__ import annotations

import functools
import math

import pytest

from tgt_jax import registry


def circle(*, radius: float, unit: str = "m"):
  return ("circle", radius, unit)


def anything(**kwargs):
  return kwargs


SHAPES = {"circle": circle, "anything": anything}
resolve = functools.partial(registry.resolve, SHAPES, family="shape")
build = functools.partial(registry.build, SHAPES, family="shape")


def test_a_name_of_the_table():
  assert resolve("circle") is circle


def test_a_function_from_elsewhere():
  assert resolve("math:hypot") is math.hypot
  assert resolve("os.path:join").__name__ == "join"


@pytest.mark.parametrize(
  "name, match",
  [
    ("cirle", "unknown shape 'cirle'; choose from anything, circle"),
    ("cirle", r"Did you mean 'circle'\?"),
    ("", "unknown shape ''"),
    ("math.hypot", "unknown shape"),
    ("math:hypotenuse", "'math:hypotenuse' cannot be imported"),
    ("no.such.module:f", "No module named 'no'"),
    ("math:", "cannot be imported"),
  ],
)
def test_an_unknown_name(name, match):
  with pytest.raises(ValueError, match=match):
    resolve(name)


def test_build_calls_the_factory_with_the_rest():
  assert build({"name": "circle", "radius": 2.0}) == ("circle", 2.0, "m")
  assert build({"name": "circle", "radius": 2.0}, unit="mm")[2] == "mm"


def test_build_leaves_the_spec_as_it_was():
  spec = {"name": "circle", "radius": 2.0}
  build(spec)
  assert spec == {"name": "circle", "radius": 2.0}


def test_a_factory_of_ones_own():
  spec = {"name": "fractions:Fraction", "numerator": 3, "denominator": 6}
  assert str(build(spec)) == "1/2"


def test_a_factory_with_open_arguments_takes_everything():
  assert build({"name": "anything", "a": 1}, b=2) == {"a": 1, "b": 2}


def test_what_is_offered_goes_to_those_who_take_it():
  spec = {"name": "circle", "radius": 2.0}
  offered = {"unit": "km", "colour": "red"}
  assert build(spec, offered=offered) == ("circle", 2.0, "km")
  assert build(spec, offered={}) == build(spec)
  given = {**spec, "unit": "m"}
  with pytest.raises(ValueError, match="unit is what the run has, 'km'"):
    build(given, offered=offered)
  factory, arguments = registry.read_spec(SHAPES, spec, family="shape")
  assert factory is circle and arguments == {"radius": 2.0}


@pytest.mark.parametrize(
  "spec, match",
  [
    ({}, "a shape needs a 'name'"),
    ({"radius": 1.0}, "a shape needs a 'name'; got {'radius': 1.0}"),
    (
      {"name": "circle", "raduis": 1.0},
      "takes no 'raduis'; it takes radius, unit. Did you mean 'radius'",
    ),
  ],
)
def test_a_spec_that_cannot_be_built(spec, match):
  with pytest.raises(ValueError, match=match):
    build(spec)


def test_a_name_of_the_table_wins_over_an_import():
  assert registry.resolve({"math:pi": circle}, "math:pi", family="f") is circle


def test_an_error_inside_a_module_of_ones_own_is_shown(tmp_path, monkeypatch):
  """A missing import of the user's module is named, and chained."""
  (tmp_path / "half_done.py").write_text("import no_such_dependency\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match="no_such_dependency") as caught:
    resolve("half_done:loss")
  assert isinstance(caught.value.__cause__, ImportError)


def test_a_fault_of_the_factory_is_not_hidden():
  """A missing or a wrong value is the factory's own to report."""
  with pytest.raises(TypeError, match="radius"):
    build({"name": "circle"})
  with pytest.raises(ZeroDivisionError):
    build({"name": "fractions:Fraction", "numerator": 1, "denominator": 0})


def positional(first, /, second, *, third=0):
  return (first, second, third)


@pytest.mark.parametrize(
  "kwargs, match",
  [
    ({"first": 1}, "part 'p' takes no 'first'; it takes second, third"),
    ({"thrid": 1}, "Did you mean 'third'"),
    ({"second": 1, "fourth": 2}, "takes no 'fourth'"),
  ],
)
def test_arguments_that_a_function_does_not_take(kwargs, match):
  with pytest.raises(ValueError, match=match):
    registry.check_arguments(positional, kwargs, what="part 'p'")


def test_arguments_that_a_function_takes():
  registry.check_arguments(positional, {"second": 1, "third": 2}, what="part")
  registry.check_arguments(positional, {}, what="part")
  registry.check_arguments(anything, {"whatever": 1}, what="part")
  bound = functools.partial(circle, unit="mm")
  registry.check_arguments(bound, {"radius": 1.0}, what="part")


def test_no_hint_where_nothing_is_near():
  with pytest.raises(ValueError) as caught:
    resolve("tetrahedron")
  assert "Did you mean" not in str(caught.value)


def test_arguments_that_are_handed_on_are_known():
  @registry.hands_on(circle, fixed=("unit",))
  def disc(*, filled=True, **more):
    return filled, circle(unit="px", **more)

  shapes = {"disc": disc}
  build = functools.partial(registry.build, shapes, family="shape")
  assert build({"name": "disc", "radius": 1.0})[1] == ("circle", 1.0, "px")
  assert registry.takes(disc, "radius")
  assert registry.default(disc, "filled") is True
  for key in ("unit", "raduis"):
    with pytest.raises(ValueError, match=f"takes no '{key}'; it takes filled,"):
      build({"name": "disc", key: 1.0})


def test_defaults():
  assert registry.default(circle, "unit") == "m"
  assert registry.default(circle, "radius") is None
  assert registry.takes(anything, "unit")
  assert registry.default(anything, "unit") is None
