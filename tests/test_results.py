# SPDX-License-Identifier: Apache-2.0
"""results.json: round trip, and a table whose numbers were worked by hand."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
import statistics

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tests import run_folders
from tgt_jax import measures, results


def _run(**changes):
  changes = {"columns": ["balanced", "few"], **changes}
  return run_folders.run(
    run_folders.arm("kd", [0.79, 0.80, 0.81]),
    run_folders.arm("big", [0.95, 0.95], reference=True),
    run_folders.arm("tgt", [0.80, 0.84, 0.85], ms_per_step=None),
    teacher=results.TeacherResult("a CNN", None, {"balanced": 0.9}, [0.9]),
    **changes,
  )


def test_round_trip(tmp_path: pathlib.Path):
  results.write_results(tmp_path, _run())
  found = results.read_results(tmp_path)
  # JSON knows no tuples.
  assert found == dataclasses.replace(
    _run(),
    class_names=list(run_folders.NAMES),
    class_counts=[40, 15, 5],
    groups=["many", "medium", "few"],
    beside=[],
  )
  assert results.read_results(tmp_path / "results.json") == found


def test_what_stands_beside_and_the_columns_of_the_run(tmp_path: pathlib.Path):
  words = results.TeacherResult("TF-IDF", None, {"macro_f1": 0.5}, [0.5])
  run = _run(beside=[words], columns=["macro_f1", "balanced"])
  results.write_results(tmp_path, run)
  found = results.read_results(tmp_path)
  assert list(found.beside) == [words]
  table = results.results_table(found)
  assert table.header[1:3] == ["macro_f1 %", "balanced %"]
  assert [row[0] for row in table.rows][-2:] == ["teacher", "TF-IDF"]
  assert table.rows[-1][1:3] == ["50.0", "–"]


def test_arrays_and_what_is_not_finite(tmp_path: pathlib.Path):
  seed = results.SeedResult(
    np.int64(3),
    {"balanced": jnp.float32(0.5), "few": float("nan")},
    jnp.array([0.5, jnp.nan]),
  )
  arm = run_folders.arm("a", [], seeds=[seed])
  results.write_results(tmp_path, run_folders.run(arm))
  text = (tmp_path / "results.json").read_text()
  json.loads(text, parse_constant=lambda name: pytest.fail(name))
  (found,) = results.read_results(tmp_path).arms[0].seeds
  assert found == results.SeedResult(
    3, {"balanced": 0.5, "few": None}, [0.5, None]
  )


def test_the_table_by_hand():
  """Sample deviations: 1.0 of 79, 80, 81; sqrt(7) = 2.6 of 80, 84, 85."""
  table = results.results_table(_run(), columns=("balanced", "few", "nll"))
  size = "1,234"
  assert table.rows == [
    ["kd", "80.0 ± 1.0", "40.0 ± 0.5", "0.200 ± 0.010", size, "2.50"],
    ["tgt", "83.0 ± 2.6", "41.5 ± 1.3", "0.170 ± 0.026", size, "–"],
    ["big (reference)", "95.0 ± 0.0", "47.5 ± 0.0", "0.050 ± 0.000", size]
    + ["2.50"],
    ["teacher", "90.0", "–", "–", "–", "–"],
  ]
  assert table.header[:4] == ["arm", "balanced %", "few %", "nll"]
  assert table.rules == [2, 3]
  assert table.best == {(1, 1), (1, 2), (1, 3)}
  text = results.format_table(_run())
  assert text.endswith(
    "Mean ± sd over 2 to 3 seeds, last step of 100; evaluated on the test"
    " images.\n* Best mean in its column, reference arms left out."
  )


@hypothesis.given(
  st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=6)
)
def test_spread_is_that_of_numpy(values):
  found = measures.spread(values)
  np.testing.assert_allclose(found.mean, np.mean(values), atol=1e-12)
  np.testing.assert_allclose(found.sd, np.std(values, ddof=1), atol=1e-12)
  assert found.sd == statistics.stdev(values)


def test_one_seed_has_no_deviation():
  assert measures.format_spread("balanced", [0.5]) == "50.0"
  assert math.isnan(measures.spread([0.5]).sd)
  text = results.format_table(run_folders.run(run_folders.arm("a", [0.5])))
  assert "±" not in text
  assert "From 1 seed, last step of 100" in text


def test_a_failed_seed_is_said_and_not_averaged_away():
  assert measures.format_spread("balanced", [0.5, None, 0.7]) == (
    "60.0 ± 14.1 (1 failed)"
  )
  assert measures.format_spread("balanced", [None, math.nan]) == "–"


def test_equal_arms_have_no_best():
  found = run_folders.run(
    run_folders.arm("a", [0.5]), run_folders.arm("b", [0.5])
  )
  assert results.results_table(found).best == frozenset()


def test_lower_is_better_for_nll():
  table = results.results_table(_run(), columns=("nll",))
  assert table.best == {(1, 1)}
  assert table.rows[1][0] == "tgt"


def test_an_unknown_arm_lists_the_arms():
  assert _run().arm("tgt").name == "tgt"
  with pytest.raises(ValueError, match="no arm 'x'; the run has kd, big, tgt"):
    _run().arm("x")


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"schema": 2}, "expected schema 1, got 2"),
    ({"extra": 1}, "extra"),
    ({"arms": [{"name": "a"}]}, "seeds"),
    ({"arms": None}, "schema 1"),
    ({"teacher": {"x": 1}}, "x"),
  ],
)
def test_a_file_of_another_form(tmp_path, changes, match):
  path = results.write_results(tmp_path, _run())
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(ValueError, match=match) as caught:
    results.read_results(tmp_path)
  assert str(path) in str(caught.value)


def test_a_missing_or_truncated_file(tmp_path: pathlib.Path):
  with pytest.raises(FileNotFoundError, match="finished run"):
    results.read_results(tmp_path)
  path = results.write_results(tmp_path, _run())
  path.write_text(path.read_text()[:200])
  with pytest.raises(ValueError, match="is not JSON"):
    results.read_results(tmp_path)
  path.write_text("[1]")
  with pytest.raises(ValueError, match="not a results file"):
    results.read_results(tmp_path)


def test_a_console_without_unicode_gets_ascii(monkeypatch):
  console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr("sys.stdout", console)
  assert "80.0 +/- 1.0" in results.format_table(_run())
  assert "±" in results.format_table(_run(), ascii_only=False)


def test_versions():
  versions = results.package_versions()
  assert {"python", "jax", "numpy"} <= set(versions)
