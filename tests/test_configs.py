# SPDX-License-Identifier: Apache-2.0
"""Every experiment builds, as it is and as its smoke test, without data."""

from __future__ import annotations

import importlib.util
import inspect
import pathlib
import re
import types
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import pytest

from tgt_jax import build, config as config_lib, train

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
ARGUMENTS = ("", "smoke")

files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
arguments = pytest.mark.parametrize(
  "argument", ARGUMENTS, ids=lambda argument: argument or "full"
)


def _module(path: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _leaves(
  config: ml_collections.ConfigDict, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def test_there_are_configs() -> None:
  assert ROOT / "configs" / "digits_lt.py" in FILES


@files
@arguments
def test_config_is_locked(path: pathlib.Path, argument: str) -> None:
  config = _module(path).get_config(argument)
  assert isinstance(config, ml_collections.ConfigDict)
  assert config.is_locked
  with pytest.raises(AttributeError):
    config.no_such_key = 1


@files
def test_argument_is_optional(path: pathlib.Path) -> None:
  module = _module(path)
  assert module.get_config().to_json() == module.get_config("").to_json()


@files
def test_unknown_argument_is_an_error(path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match="no_such_variant"):
    _module(path).get_config("no_such_variant")


@files
def test_two_calls_share_nothing(path: pathlib.Path) -> None:
  module = _module(path)
  first, second = module.get_config(), module.get_config()
  assert first is not second
  before = second.to_json()
  with first.unlocked():
    for key in list(first):
      del first[key]
  assert second.to_json() == before
  assert module.get_config().to_json() == before


@files
@arguments
def test_values_survive_json(path: pathlib.Path, argument: str) -> None:
  """The run's config.json says everything: numbers, strings, no objects."""
  config = _module(path).get_config(argument)
  for key, value in _leaves(config):
    items = value if isinstance(value, tuple | list) else [value]
    for item in items:
      plain = bool | int | float | str | dict | None
      assert isinstance(item, plain | ml_collections.ConfigDict), key


# Tracing published networks for every arm takes a minute per file, and their
# smoke tests differ in nothing but the data they replace.
PUBLISHED_SIZE = {
  "glue_lgtm",
  "glue_small",
  "cifar100_lt",
  "amazon5",
  "imagenet_fraction",
  "imagenet_lt",
  "imdb",
  "mnli",
  "places_lt",
  "r52",
  "sst2_low",
  "sun_lt",
  "yelp5",
}
CHEAP = {"smoke-amazon5", "smoke-sst2_low"}
builds = [
  pytest.param(
    path,
    argument,
    id=f"{argument or 'full'}-{path.stem}",
    marks=[pytest.mark.thorough]
    if path.stem in PUBLISHED_SIZE
    and f"{argument or 'full'}-{path.stem}" not in CHEAP
    else [],
  )
  for path in FILES
  for argument in ARGUMENTS
]


@pytest.mark.parametrize(("path", "argument"), builds)
def test_config_builds(path: pathlib.Path, argument: str) -> None:
  """Shapes of everything that would be trained, without data or a device."""
  tree = build.abstract(_module(path).get_config(argument))
  leaves = jax.tree.leaves(tree)
  assert leaves
  for leaf in leaves:
    assert isinstance(leaf, jax.ShapeDtypeStruct)


@pytest.mark.thorough
@pytest.mark.parametrize(
  ("name", "argument"),
  [
    ("imagenet_lt", "smoke"),
    ("imagenet_lt", "resnet50,taesd,smoke"),
    # A further test split, and grades.
    ("mnli", "smoke"),
    ("glue_lgtm", "stsb,smoke"),
  ],
)
def test_experiment_runs_to_its_end(
  name: str, argument: str, tmp_path: pathlib.Path
) -> None:
  config = _module(ROOT / "configs" / f"{name}.py").get_config(argument)
  found = train.run(config, tmp_path)
  assert found.arms[0].steps == 2
  (seed,) = found.arms[-1].seeds
  assert set(config.columns) - {"teacher_accuracy"} <= set(seed.metrics)
  for name in ("report.html", "results.json", "student.safetensors"):
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("argument", ["mrpc,lgtm,kd", "rte,smoke,lgtm,kd"])
@pytest.mark.parametrize("name", ["glue_lgtm", "glue_small"])
def test_methods_by_argument(name: str, argument: str) -> None:
  config = _module(ROOT / "configs" / f"{name}.py").get_config(argument)
  assert list(config.arms) == ["kd", "lgtm"]
  assert config.main_arm == "lgtm"


@files
def test_docstring_is_the_record(path: pathlib.Path) -> None:
  """Command, hardware, time and measured result, or `not yet run`."""
  docstring = _module(path).__doc__ or ""
  command = f"python -m tgt_jax.main --config=configs/{path.name}"
  assert command in docstring
  for field in ("Hardware:", "Time:", "Result:"):
    assert re.search(rf"^{field} *\S", docstring, re.MULTILINE), field


@files
@arguments
def test_only_declared_keys(path: pathlib.Path, argument: str) -> None:
  """A key that the defaults do not declare is one that nothing reads."""
  default = config_lib.default()
  config = _module(path).get_config(argument)
  assert set(config) == set(default)
  for section, declared in default.items():
    if section == "arms" or not isinstance(declared, ml_collections.ConfigDict):
      continue
    if "name" not in declared:  # A spec's keys are a function's arguments.
      assert set(config[section]) == set(declared), section


def test_every_default_is_explained() -> None:
  """The unit, the choices or the reason stand beside each key."""
  clear = {
    "batch_size",
    "evaluation_batch_size",
    "imbalance_ratio",
    "steps",
    "title",
    "weight_decay",
  }
  explained = {
    name
    for line in inspect.getsource(config_lib).splitlines()
    if "#" in line
    for name in re.findall(r'config\.(\w+) =|"(\w+)":', line)
    for name in name
  }
  for key, _ in _leaves(config_lib.default()):
    *_, section, leaf = ["", *key.split(".")]
    names = {leaf, section} if leaf == "name" else {leaf}
    assert names & (explained | clear), key
