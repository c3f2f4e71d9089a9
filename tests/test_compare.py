# SPDX-License-Identifier: Apache-2.0
"""Runs side by side: pairs, intervals, and what cannot be compared."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
import pytest

from tests import run_folders
from tgt_jax import compare, curves, pairing, pictures, results

BASE = [0.79, 0.80, 0.81]
BETTER = [0.80, 0.84, 0.85]  # Differences 0.01, 0.04, 0.04.


def _write(folder: pathlib.Path, name: str, found: results.Results) -> str:
  results.write_results(folder / name, found)
  return str(folder / name)


@pytest.fixture(name="one")
def _one(tmp_path: pathlib.Path) -> str:
  found = run_folders.run(
    run_folders.arm("kd", BASE), run_folders.arm("tgt", BETTER)
  )
  return _write(tmp_path, "one", found)


def _print(capsys, *argv: str) -> str:
  compare.main(argv)
  return capsys.readouterr().out


def test_the_interval_by_hand():
  """d = .01, .04, .04: mean .03, sd sqrt(.0003); t(.975, 2) = 4.3027."""
  found = pairing.paired_difference(
    dict(enumerate(BETTER)), dict(enumerate(BASE))
  )
  half = 4.302652729911275 * math.sqrt(0.0003) / math.sqrt(3)
  np.testing.assert_allclose(found.mean, 0.03, rtol=1e-12)
  np.testing.assert_allclose(found.low, 0.03 - half, rtol=1e-9)
  np.testing.assert_allclose(found.high, 0.03 + half, rtol=1e-9)
  assert found.seeds == (0, 1, 2)


@pytest.mark.parametrize(
  ("pairs", "confidence", "quantile"),
  [(2, 0.95, 12.7062), (5, 0.95, 2.77645), (10, 0.95, 2.26216)]
  + [(7, 0.9, 1.94318), (7, 0.99, 3.70743)],
)
def test_the_quantiles_are_those_of_a_printed_table(
  pairs, confidence, quantile
):
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, pairs))
  found = pairing.paired_difference(
    dict(enumerate(a)), dict(enumerate(b)), confidence=confidence
  )
  half = quantile * np.std(a - b, ddof=1) / np.sqrt(pairs)
  np.testing.assert_allclose(found.high - found.mean, half, rtol=1e-5)
  np.testing.assert_allclose(found.mean - found.low, half, rtol=1e-5)


def test_only_shared_seeds_are_pairs():
  values = {0: 0.5, 1: 0.6, 2: None, 3: 0.9}
  found = pairing.paired_difference(values, {1: 0.5, 2: 0.1, 3: None, 4: 0.2})
  assert found.seeds == (1,)
  np.testing.assert_allclose(found.mean, 0.1)
  assert math.isnan(found.low)
  assert pairing.paired_difference({0: 1.0}, {1: 1.0}) is None


def test_swapping_the_sides_turns_the_sign():
  a, b = dict(enumerate(BASE)), dict(enumerate(BETTER))
  one, two = pairing.paired_difference(a, b), pairing.paired_difference(b, a)
  np.testing.assert_allclose(one.mean, -two.mean)
  np.testing.assert_allclose((one.low, one.high), (-two.high, -two.low))


def test_the_table(one: str, capsys):
  lines = _print(capsys, one, "--baseline=kd").splitlines()
  assert lines[0].split() == (
    ["run", "arm", "seeds", "balanced", "%", "Δ", "balanced", "%"]
    + ["steps", "ms/step"]
  )
  assert "80.0 ± 1.0" in lines[2]
  assert "83.0 ± 2.6" in lines[3]
  assert "+3.0 [−1.3, +7.3]" in lines[3]
  assert lines[-1] == (
    "Mean ± sd over seeds; Δ is the paired difference to kd with its 95 %"
    " t-interval."
  )


def test_seeds_and_several_metrics(one: str, capsys):
  text = _print(capsys, one, "--metric=few,nll", "--per-seed")
  lines = text.splitlines()
  assert "39.5" in lines[3]
  assert lines[3].split() == ["seed", "0", "39.5", "0.210"]
  assert "Δ" not in text


def test_the_metric_is_what_the_first_run_puts_first(tmp_path, capsys):
  found = run_folders.run(
    run_folders.arm("kd", [0.5, 0.6]), columns=("few", "balanced")
  )
  folder = _write(tmp_path, "few", found)
  assert _print(capsys, folder) == _print(capsys, folder, "--metric=few")


@pytest.mark.parametrize("style", ["markdown", "html"])
def test_other_styles(one: str, capsys, style):
  text = _print(capsys, one, "--baseline=kd", f"--format={style}")
  assert "+3.0" in text
  assert text.startswith({"markdown": "| run", "html": "<div"}[style])


def test_json_is_strict_and_unrounded(one: str, capsys):
  text = _print(capsys, one, "--baseline=kd", "--format=json")
  found = json.loads(text, parse_constant=pytest.fail)
  kd, tgt = found["rows"]
  assert kd["difference"] is None
  np.testing.assert_allclose(tgt["difference"]["mean"], 0.03)
  assert tgt["difference"]["seeds"] == [0, 1, 2]
  assert tgt["metrics"]["balanced"]["values"] == {
    "0": 0.8,
    "1": 0.84,
    "2": 0.85,
  }
  assert tgt["baseline"] == "kd"


def test_a_baseline_in_another_run(one: str, tmp_path, capsys):
  other = run_folders.run(run_folders.arm("tgt", BETTER, steps=200))
  two = _write(tmp_path, "two", other)
  text = _print(capsys, one, two, "--baseline=kd")
  assert text.count("+3.0 [−1.3, +7.3]") == 2
  assert "to one:kd with" in text
  assert "Steps differ: 100, 200." in text
  assert "not comparable" not in text


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"fingerprints": {"data": "d1", "teacher": "t0"}}, "data (d1 against d0)"),
    (
      {"fingerprints": {"data": "d0", "teacher": "t1"}},
      "teacher (t1 against t0)",
    ),
    ({"splits": {"eval": "others"}}, "evaluation split ('others' against"),
  ],
)
def test_runs_that_differ_are_not_compared(
  one: str, tmp_path, capsys, changes, words
):
  other = run_folders.run(run_folders.arm("tgt", BETTER), **changes)
  two = _write(tmp_path, "two", other)
  text = _print(capsys, one, two, "--baseline=kd")
  assert f"two is not comparable with one: it differs in {words}" in text
  assert text.count("+3.0") == 1
  with pytest.raises(SystemExit):
    _print(capsys, one, two, "--pool")
  assert "cannot be pooled" in capsys.readouterr().err


def test_unpaired_seeds_are_said(one: str, tmp_path, capsys):
  other = run_folders.run(
    run_folders.arm("later", BETTER, first_seed=7),
    run_folders.arm("half", BETTER, first_seed=2),
  )
  two = _write(tmp_path, "two", other)
  text = _print(capsys, one, two, "--baseline=one:kd")
  assert "Not every seed has a partner in the baseline: two:half." in text
  assert "No seed in common with the baseline: two:later." in text


def test_pooling_joins_the_seeds(tmp_path, capsys):
  folders = [
    _write(
      tmp_path,
      f"seed{seed}",
      run_folders.run(
        run_folders.arm("kd", [BASE[seed]], first_seed=seed),
        run_folders.arm("tgt", [BETTER[seed]], first_seed=seed),
      ),
    )
    for seed in range(3)
  ]
  text = _print(capsys, *folders, "--pool", "--baseline=kd")
  assert "80.0 ± 1.0" in text
  assert "+3.0 [−1.3, +7.3]" in text


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({}, "another run has seed 0 too"),
    ({"first_seed": 9, "steps": 7}, "its steps is 7 and not 100"),
  ],
)
def test_what_cannot_be_pooled(changes, match):
  first = run_folders.run(run_folders.arm("kd", BASE))
  second = run_folders.run(run_folders.arm("kd", BASE, **changes))
  runs = [
    pairing.Run(name, pathlib.Path(name), found)
    for name, found in (("a", first), ("b", second))
  ]
  with pytest.raises(ValueError, match=match):
    pairing.pool(runs)


def test_names_are_as_short_as_they_can_be(tmp_path):
  found = run_folders.run(run_folders.arm("kd", BASE))
  folders = [
    _write(tmp_path, name, found) for name in ("a/run", "b/run", "b/other")
  ]
  runs = pairing.load_runs(folders)
  assert [run.name for run in runs] == ["a/run", "b/run", "other"]


@pytest.mark.parametrize(
  ("argv", "words"),
  [
    (["--baseline=kdd"], "Did you mean 'kd'?"),
    (["--metric=balance"], "Did you mean 'balanced'?"),
    (["--metric=balanced,feww"], "Did you mean 'few'?"),
    (["--metric="], "needs the name of a metric"),
    (["--format=pdf"], "invalid choice: 'pdf'"),
  ],
)
def test_bad_flags_are_one_line_and_exit_2(one: str, capsys, argv, words):
  with pytest.raises(SystemExit) as caught:
    compare.main([one, *argv])
  assert caught.value.code == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert "error: " in error
  assert words in error


def test_bad_folders_are_one_line_and_exit_2(one: str, tmp_path, capsys):
  (tmp_path / "cut").mkdir()
  (tmp_path / "cut" / "results.json").write_text('{"schema": 1')
  for folders, words in (
    ([str(tmp_path / "none")], "no file"),
    ([str(tmp_path)], f"Did you mean {tmp_path / 'cut'}, {one}?"),
    ([str(tmp_path / "cut")], "is not JSON"),
    ([one, one], "is given twice"),
  ):
    with pytest.raises(SystemExit) as caught:
      compare.main(folders)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err
    assert captured.out == ""


def test_a_curve_over_sample_sizes(tmp_path: pathlib.Path, capsys):
  """Means at the sizes of the runs, in their order, whatever is missing."""
  kd = run_folders.arm("kd", BASE)
  sizes = {"b": (30, 30, 30), "a": (3, 3, 3)}
  folders = [
    _write(
      tmp_path,
      name,
      run_folders.run(
        kd, *arms, class_counts=counts, fingerprints={"data": name}
      ),
    )
    for (name, counts), arms in zip(
      sizes.items(), ([run_folders.arm("tgt", BETTER)], []), strict=True
    )
  ]
  file = tmp_path / "curve.png"
  _print(capsys, *folders, f"--curve={file}")
  assert pictures.png_size(file.read_bytes()) > (100, 100)

  drawn = {}
  draw = lambda panels, **_: drawn.update(panels) or b""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pictures, "curves", draw)
    curves.draw(pairing.load_runs(folders), metrics=["balanced"])
  (panel,) = drawn.values()
  np.testing.assert_array_equal(panel["kd"].steps, [9, 90])
  expected = 100 * np.tile(BASE, (2, 1)).T
  np.testing.assert_allclose(panel["kd"].values, expected)
  np.testing.assert_array_equal(panel["tgt"].steps, [90])


def test_a_curve_over_a_number_of_the_config(one: str, tmp_path, capsys):
  shares = {one: 0.9, _write(tmp_path, "two", results.read_results(one)): 0.5}
  for folder, share in shares.items():
    found = {"config": {"data": {"share": share, "name": "nuisance"}}}
    path = pathlib.Path(folder) / "config.json"
    path.write_text(json.dumps(found), encoding="utf-8")
  drawn = {}

  def draw(panels, **options):
    drawn.update(panels, options=options)
    return b""

  runs = pairing.load_runs(list(shares))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pictures, "curves", draw)
    curves.draw(runs, metrics=["balanced"], over="data.share")
  options = drawn.pop("options")
  assert options["over"] == "data.share" and not options["log"]
  (panel,) = drawn.values()
  np.testing.assert_array_equal(panel["kd"].steps, [0.5, 0.9])
  with pytest.raises(SystemExit):
    compare.main([*shares, "--curve=x.png", "--over=data.name"])
  assert "is no number there, but 'nuisance'" in capsys.readouterr().err


def test_some_arms_alone(one: str, capsys):
  arms = lambda *flags: [
    line.split()[1]
    for line in _print(capsys, one, *flags).splitlines()
    if line.startswith("one ")
  ]
  assert arms() == arms("--arms=tgt, kd") == ["kd", "tgt"]
  assert arms("--arms=tgt") == ["tgt"]
  with pytest.raises(SystemExit):
    compare.main([one, "--arms=kd,tgd"])
  assert "arms: unknown 'tgd'" in capsys.readouterr().err


def test_no_curve_without_sizes(one: str, tmp_path: pathlib.Path, capsys):
  other = _write(tmp_path, "other", results.read_results(one))
  with pytest.raises(SystemExit):
    compare.main([one, other, f"--curve={tmp_path / 'curve.png'}"])
  assert "one: 60, other: 60" in capsys.readouterr().err
  assert not (tmp_path / "curve.png").exists()
