# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/architecture.md, read off the source by `ast`."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tgt_jax"

# From the ground up. A module imports from lower rows and, inside a
# sub-package, from its neighbours there; modules of one row do not know each
# other. A floor of docs/architecture.md may take more than one row.
ROWS = (
  ("types",),
  ("checks", "registry", "rng"),  # floor 0
  ("longtail", "influence", "spectrograms"),
  ("losses", "exploration", "metrics"),  # floor 1
  ("models",),
  ("generators",),  # floor 2
  ("teachers",),
  ("methods",),  # floor 3
  ("training",),  # floor 4
  ("files", "measures", "progress", "tables", "distributed"),
  ("checkpoint", "data", "pictures", "results", "trees", "writers"),
  ("export", "pairing"),
  ("weights",),  # floor 5
  ("config", "overrides"),
  ("presets",),
  ("text_presets",),
  ("glue_presets", "embedding_presets", "reading"),
  ("settings",),
  ("learners", "networks"),
  ("build", "fit"),
  ("plan",),
  ("answers", "beginnings", "scoring"),
  ("teach", "splits"),
  ("experiment",),
  ("across", "alignment", "curves", "reconstruction", "streams"),
  (
    "gallery",
    "ranking",
    "report",
    "compare",
    "evaluate",
    "transfer",
  ),
  ("train",),  # floor 6
  ("main",),  # floor 7
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}
FIRST_ROW_WITH_CONFIG = ROW["config"]

# Slow to import, or not a dependency: imported inside the function that needs
# them, so that `import tgt_jax` and a run without them stay cheap.
LAZY = {
  "matplotlib",
  "soundfile",
  "tensorboardX",
  "tensorflow",
  "tensorflow_datasets",
  "tokenizers",
  "torch",
  "wandb",
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_CONFIG_LINES = 150
MAX_MAIN_LINES = 60


class Source(NamedTuple):
  """A Python file, read once."""

  path: pathlib.Path
  text: str
  tree: ast.Module

  @property
  def name(self) -> str:
    return self.path.relative_to(ROOT).as_posix()


def _sources(*folders: str) -> list[Source]:
  found = []
  for folder in folders:
    for path in sorted((ROOT / folder).rglob("*.py")):
      text = path.read_text(encoding="utf-8")
      found.append(Source(path, text, ast.parse(text, str(path))))
  return found


PACKAGE_SOURCES = _sources("tgt_jax")
ALL_SOURCES = _sources(
  "tgt_jax", "configs", "tests", "benchmarks", "launch", "docs"
)


def _component(source: Source) -> str:
  """The module or sub-package under tgt_jax that a file belongs to."""
  return source.path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(node: ast.AST, source: Source) -> list[str]:
  """Dotted names of the modules that an import statement may load."""
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if not isinstance(node, ast.ImportFrom):
    return []
  module = node.module or ""
  if node.level:
    parents = source.path.relative_to(ROOT).parts[: -node.level]
    module = ".".join([*parents, *([node.module] if node.module else [])])
  if module == "tgt_jax":  # `from tgt_jax import losses` imports a module.
    return [f"tgt_jax.{alias.name}" for alias in node.names]
  return [module]


def _imports(source: Source) -> Iterator[tuple[str, int]]:
  """Every import of a file, also inside functions and `if TYPE_CHECKING`."""
  for node in ast.walk(source.tree):
    for module in _imported(node, source):
      yield module, node.lineno


def _imports_on_load(source: Source) -> Iterator[str]:
  """The imports that run when the module is imported."""
  todo: list[ast.AST] = [source.tree]
  while todo:
    node = todo.pop()
    yield from _imported(node, source)
    for child in ast.iter_child_nodes(node):
      if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
        todo.append(child)


def _violations(source: Source) -> list[str]:
  """Imports of a file that point upwards or sideways."""
  here = _component(source)
  if here not in ROW:
    return [f"{source.name}: {here} has no row in ROWS"]
  found = []
  for module, line in _imports(source):
    if not module.startswith("tgt_jax."):
      continue
    there = module.split(".")[1]
    if there == here:
      continue
    if there not in ROW:
      found.append(f"{source.name}:{line}: {there} has no row in ROWS")
    elif ROW[there] >= ROW[here]:
      way = "sideways" if ROW[there] == ROW[here] else "upwards"
      found.append(f"{source.name}:{line}: {here} imports {there} ({way})")
  return found


def test_every_module_has_a_floor() -> None:
  names = {_component(source) for source in PACKAGE_SOURCES} - {"__init__"}
  assert names == ROW.keys(), "mend ROWS and docs/architecture.md"


def test_the_map_names_every_module() -> None:
  text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
  table = text.split("```")[1]
  named = set(re.findall(r"(\w+)(?:\.py|/)", table))
  assert named == ROW.keys()


def test_imports_point_down() -> None:
  found = [
    violation
    for source in PACKAGE_SOURCES
    if _component(source) != "__init__"
    for violation in _violations(source)
  ]
  assert not found, "\n".join(found)


@pytest.mark.parametrize(
  "text, expected",
  [
    ("from tgt_jax import build", "losses imports build (upwards)"),
    ("from tgt_jax.exploration import x", "losses imports exploration (side"),
    ("def f():\n  import tgt_jax.train", "losses imports train (upwards)"),
    ("from .. import methods", "losses imports methods (upwards)"),
    ("from ..data import source", "losses imports data (upwards)"),
    ("from tgt_jax import nowhere", "nowhere has no row"),
    ("from tgt_jax import checks, types", None),
    ("from tgt_jax.losses import distances", None),
    ("from . import distances", None),
  ],
)
def test_the_import_rule_can_fail(text: str, expected: str | None) -> None:
  source = Source(PACKAGE / "losses" / "made_up.py", text, ast.parse(text))
  found = _violations(source)
  if expected is None:
    assert not found
  else:
    assert len(found) == 1
    assert expected in found[0]


def test_only_checks_imports_chex() -> None:
  users = {
    source.name
    for source in PACKAGE_SOURCES
    for module, _ in _imports(source)
    if module.split(".")[0] == "chex"
  }
  assert users == {"tgt_jax/checks.py"}


def test_heavy_libraries_are_imported_lazily() -> None:
  found = [
    f"{source.name} imports {module}"
    for source in PACKAGE_SOURCES
    for module in _imports_on_load(source)
    if module.split(".")[0] in LAZY
  ]
  assert not found, "\n".join(found)


def test_config_stops_at_build() -> None:
  users = {
    source.name
    for source in PACKAGE_SOURCES
    for module, _ in _imports(source)
    if module.split(".")[0] == "ml_collections"
    and ROW.get(_component(source), 0) < FIRST_ROW_WITH_CONFIG
  }
  assert not users


@pytest.mark.parametrize("source", ALL_SOURCES, ids=lambda s: s.name)
def test_file(source: Source) -> None:
  lines = source.text.splitlines()
  limit = MAX_FILE_LINES
  if source.name == "tgt_jax/main.py":
    limit = MAX_MAIN_LINES
  elif source.name.startswith("configs/"):
    limit = MAX_CONFIG_LINES
  assert lines, "an empty file"
  assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
  assert ast.get_docstring(source.tree), "no module docstring"
  assert len(lines) <= limit, "split it"


def _function_length(
  function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> int:
  """Lines of a function from `def` to its end, without its docstring."""
  length = (function.end_lineno or function.lineno) - function.lineno + 1
  if ast.get_docstring(function) is not None:
    docstring = function.body[0]
    length -= (docstring.end_lineno or 0) - docstring.lineno + 1
  return length


def test_functions_are_short() -> None:
  found = [
    f"{source.name}:{node.lineno}: {node.name} has {length} lines"
    for source in ALL_SOURCES
    for node in ast.walk(source.tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    and (length := _function_length(node)) > MAX_FUNCTION_LINES
    # Lists of settings; the limit of their files bounds them.
    and not source.name.startswith(("configs/", "tgt_jax/config.py"))
  ]
  assert not found, "\n".join(found)


@pytest.mark.parametrize(
  "source",
  [
    source
    for source in PACKAGE_SOURCES
    if source.path.name == "__init__.py" and source.path.parent != PACKAGE
  ],
  ids=lambda s: s.name,
)
def test_sub_packages_say_what_is_public(source: Source) -> None:
  lists = [
    node.value
    for node in source.tree.body
    if isinstance(node, ast.Assign)
    and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
  ]
  assert len(lists) == 1, "one literal __all__"
  names = ast.literal_eval(lists[0])
  bound = {
    alias.asname or alias.name
    for node in source.tree.body
    if isinstance(node, ast.Import | ast.ImportFrom)
    for alias in node.names
  } | {
    target.id
    for node in source.tree.body
    if isinstance(node, ast.Assign | ast.AnnAssign)
    for target in getattr(node, "targets", [getattr(node, "target", None)])
    if isinstance(target, ast.Name)
  }
  assert len(set(names)) == len(names)
  assert set(names) <= bound


def test_tests_have_unique_names() -> None:
  names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
  assert len(names) == len(set(names)), "pytest reports by base name"


def _run(program: str) -> None:
  result = subprocess.run(
    [sys.executable, "-W", "error", "-c", program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert result.returncode == 0, result.stderr


def test_import_is_light() -> None:
  """Every module loads without a device, TensorFlow or a plotting library."""
  _run(f"""
import importlib, pathlib, sys
for path in sorted(pathlib.Path("tgt_jax").rglob("*.py")):
  name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
  if not name.endswith("__main__"):
    importlib.import_module(name)
heavy = {LAZY!r} & set(sys.modules)
assert not heavy, heavy
# Once a backend exists, the number of CPU devices can no longer be changed.
import jax
jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3, jax.devices()
""")


def test_the_package_alone_imports_nothing() -> None:
  _run("""
import sys
import tgt_jax
assert "jax" not in sys.modules
assert tgt_jax.losses.__name__ == "tgt_jax.losses"
assert "jax" in sys.modules
""")
