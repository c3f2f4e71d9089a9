# SPDX-License-Identifier: Apache-2.0
"""Methods by tasks, worked by hand."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import run_folders
from tgt_jax import across, compare, results
from tgt_jax.pairing import Run


def runs():
  """Two tasks, the second reported by another metric and without one arm."""
  teacher = results.TeacherResult("BERT", 99, {"balanced": 0.9, "few": 0.6})
  first = run_folders.run(
    run_folders.arm("undistilled", [0.70, 0.72]),
    run_folders.arm("lgtm", [0.80, 0.84]),
    run_folders.arm("kd", [0.79, 0.81]),
    teacher=teacher,
    columns=("balanced",),
  )
  second = run_folders.run(
    run_folders.arm("undistilled", [0.60, 0.60], ms_per_step=3.5),
    run_folders.arm("lgtm", [0.70, 0.70], ms_per_step=None),
    teacher=teacher,
    columns=("few", "balanced"),
  )
  return [
    Run("mrpc", pathlib.Path("mrpc"), first),
    Run("rte", pathlib.Path("rte"), second),
  ]


def test_the_table_by_hand():
  """`few` is half of `balanced` in these runs."""
  table = across.table(runs())
  assert table.header == [
    *("arm", "mrpc, balanced %", "rte, few %", "mean"),
    *("parameters", "ms/step"),
  ]
  assert table.rows == [
    ["undistilled", "71.0 ± 1.4", "30.0 ± 0.0", "50.5", "1,234", "3.00"],
    ["lgtm", "82.0 ± 2.8", "35.0 ± 0.0", "58.5", "1,234", "–"],
    ["kd", "80.0 ± 1.4", "–", "–", "1,234", "–"],
    ["teacher", "90.0", "60.0", "75.0", "99", "–"],
  ]


def test_metrics_may_be_given():
  table = across.table(runs(), metrics=["few", "few"])
  assert table.rows[0][1:4] == ["35.5 ± 0.7", "30.0 ± 0.0", "32.8"]


def test_a_run_may_have_several_metrics():
  table = across.table(runs(), metrics=["balanced+few", "few"])
  assert table.header[1:4] == ["mrpc, balanced %", "mrpc, few %", "rte, few %"]
  # (71 + 35.5) / 2 of the first run, 30 of the second.
  assert table.rows[0][1:5] == [
    "71.0 ± 1.4",
    "35.5 ± 0.7",
    "30.0 ± 0.0",
    "41.6",
  ]
  assert table.rows[-1][1:5] == ["90.0", "60.0", "60.0", "67.5"]


def test_a_leak_is_said():
  first, second = runs()
  leaking = dataclasses.replace(second.results, leaks=True)
  table = across.table([first, second._replace(results=leaking)])
  assert any(results.LEAK in note for note in table.notes)
  assert table.header[1:3] == ["mrpc, balanced %", "rte (leaks), few %"]
  # Also where runs are listed one below the other.
  _, notes = compare.compare(
    [first, second._replace(results=leaking)], metric="balanced"
  )
  assert f"Warning: rte: {results.LEAK}." in notes


@pytest.mark.parametrize(
  ("metrics", "message"),
  [
    (["few"], "1 metrics for 2 runs"),
    (["nll", "few"], "no fraction"),
    (["top5", "few"], "mrpc: no arm has 'top5'"),
  ],
)
def test_what_does_not_fit(metrics, message):
  with pytest.raises(ValueError, match=message):
    across.table(runs(), metrics=metrics)


def test_from_the_command_line(tmp_path: pathlib.Path, capsys):
  for run in runs():
    folder = tmp_path / run.name
    folder.mkdir()
    results.write_results(folder, run.results)
  folders = [str(tmp_path / name) for name in ("mrpc", "rte")]
  compare.main([*folders, "--across", "--format=markdown"])
  printed = capsys.readouterr().out
  assert "| lgtm | 82.0 ± 2.8 | 35.0 ± 0.0 | 58.5 |" in printed
  with pytest.raises(SystemExit) as stop:
    compare.main([*folders, "--across", "--format=json"])
  assert stop.value.code == 2
