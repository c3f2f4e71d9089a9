# SPDX-License-Identifier: Apache-2.0
"""Notebooks run from top to bottom and are stored without outputs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def _code_cells(path: pathlib.Path) -> list[dict]:
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks() -> None:
  assert ROOT / "notebooks" / "extend_a_loss.ipynb" in NOTEBOOKS


@notebooks
def test_no_outputs(path: pathlib.Path) -> None:
  for cell in _code_cells(path):
    assert cell["outputs"] == []
    assert cell["execution_count"] is None


@pytest.mark.thorough
@notebooks
def test_runs(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """As a program: the cells refer to themselves as `__main__`."""
  program = "\n\n".join("".join(cell["source"]) for cell in _code_cells(path))
  script = tmp_path / f"{path.stem}.py"
  script.write_text(program, encoding="utf-8")
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
  result = subprocess.run(
    [sys.executable, "-W", "error", str(script)],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "predicted" in result.stdout
