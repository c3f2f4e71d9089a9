# SPDX-License-Identifier: Apache-2.0
"""The package as a thing to install, cite and build on."""

from __future__ import annotations

import ast
import configparser
import pathlib
import re
import sys

import pytest
import yaml

import tgt_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _read(name: str) -> str:
  return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(name="setup_cfg", scope="module")
def _setup_cfg() -> configparser.ConfigParser:
  parser = configparser.ConfigParser()
  parser.read_string(_read("setup.cfg"))
  return parser


def _requirements(lines: str) -> dict[str, str]:
  """Names to version ranges: {"jax": ">=0.10"}."""
  found = {}
  for line in lines.strip().splitlines():
    match = re.fullmatch(r"([\w-]+)(\[[\w,]+\])?(\S*)", line)
    assert match, line
    found[match[1].lower().replace("_", "-")] = match[3]
  return found


def test_every_submodule_is_reachable() -> None:
  for name in tgt_jax.__all__:
    assert getattr(tgt_jax, name).__name__ == f"tgt_jax.{name}"


def test_submodules_are_listed() -> None:
  folder = ROOT / "tgt_jax"
  modules = {path.stem for path in folder.glob("*.py")}
  modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
  # Commands are for the command line.
  assert modules - {"__init__", "main"} == set(tgt_jax.__all__)
  assert set(tgt_jax.__all__) <= set(dir(tgt_jax))


def test_an_unknown_submodule_is_an_attribute_error() -> None:
  with pytest.raises(AttributeError, match="no attribute 'teacher'"):
    _ = tgt_jax.teacher


def test_one_version_everywhere() -> None:
  version = tgt_jax.__version__
  assert yaml.safe_load(_read("CITATION.cff"))["version"] == version
  assert f"## [{version}]" in _read("CHANGELOG.md")


def test_citation_names_the_paper() -> None:
  citation = yaml.safe_load(_read("CITATION.cff"))
  assert citation["license"] == "Apache-2.0"
  identifiers = [
    identifier["value"]
    for reference in citation["references"]
    for identifier in reference["identifiers"]
  ]
  assert "arXiv:2208.06825" in identifiers


def test_typed_marker_is_packaged(setup_cfg) -> None:
  assert (ROOT / "tgt_jax" / "py.typed").exists()
  assert setup_cfg["options.package_data"]["tgt_jax"] == "py.typed"


def test_lower_bounds_are_the_tested_versions(setup_cfg) -> None:
  """.ci/minimum.txt pins what `>=` in setup.cfg promises."""
  pins = {}
  for line in _read(".ci/minimum.txt").splitlines():
    if line and not line.startswith("#"):
      name, version = line.split("==")
      pins[name] = version
  bounds = _requirements(setup_cfg["options"]["install_requires"])
  for name, bound in bounds.items():
    assert bound.startswith(">="), name
    floor = tuple(int(part) for part in bound[2:].split("."))
    pinned = tuple(int(part) for part in pins[name].split("."))
    assert pinned[: len(floor)] == floor, name
    assert not any(pinned[len(floor) :]), f"{name}: a bound below the pin"


def test_every_import_is_declared(setup_cfg) -> None:
  """Nothing works by the accident of what a dependency depends on."""
  names = {
    "PIL": "pillow",
    "absl": "absl-py",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
  }
  declared = set(_requirements(setup_cfg["options"]["install_requires"]))
  for extra in ("oracle", "tensorboard", "wandb", "text", "prepare"):
    lines = setup_cfg["options.extras_require"][extra]
    declared |= set(_requirements(lines))
  for path in sorted((ROOT / "tgt_jax").rglob("*.py")):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      modules = []
      if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        modules = [node.module or ""]
      for top in {module.split(".")[0] for module in modules}:
        if top not in sys.stdlib_module_names | {"tgt_jax"}:
          name = names.get(top, top).lower().replace("_", "-")
          assert name in declared, f"{path.name} imports {top}"


def test_extras(setup_cfg) -> None:
  extras = setup_cfg["options.extras_require"]
  assert {"dev", "oracle", "tensorboard", "wandb", "text", "prepare"} <= set(
    extras
  )
  # An open range for torch installs gigabytes of CUDA.
  assert _requirements(extras["oracle"])["torch"].startswith("==")
  # A test run on a machine without the oracles must not pull them in.
  assert "torch" not in _requirements(extras["dev"])


def test_one_version_of_the_linter(setup_cfg) -> None:
  pinned = _requirements(setup_cfg["options.extras_require"]["dev"])["ruff"]
  repositories = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
  revisions = [r["rev"] for r in repositories if "ruff" in r["repo"]]
  assert revisions == [pinned.replace("==", "v")]


def test_ci_script_is_what_the_workflow_calls() -> None:
  workflow = yaml.safe_load(_read(".github/workflows/ci.yml"))
  steps = workflow["jobs"]["ci"]["steps"]
  assert ".ci/run" in [step.get("run") for step in steps]
  script = ROOT / ".ci" / "run"
  assert script.stat().st_mode & 0o111, "not executable"
  assert script.read_text().startswith("#!/usr/bin/env bash\n")
