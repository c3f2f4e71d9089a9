# SPDX-License-Identifier: Apache-2.0
"""The report stands alone, escapes what it is told and says what is known."""

from __future__ import annotations

import base64
import html.parser
import pathlib
import re

import numpy as np
import pytest

from tests import run_folders
from tgt_jax import pictures, report, results

EVIL = "<script>alert(\"x\")</script> & 'y' $x_{1$"


class Page(html.parser.HTMLParser):
  """Collects tags, attributes and text; complains about open tags."""

  VOID = frozenset({"meta", "img", "br"})

  def __init__(self, text: str):
    super().__init__()
    self.open: list[str] = []
    self.tags: list[str] = []
    self.attributes: list[tuple[str, str | None]] = []
    self.words = ""
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words += data


def _results(**changes) -> results.Results:
  return run_folders.run(
    run_folders.arm("kd", [0.79, 0.80, 0.81]),
    run_folders.arm("tgt", [0.80, 0.84, 0.85]),
    **changes,
  )


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory) -> pathlib.Path:
  """A run in which every string that a user may set is hostile."""
  arm = run_folders.arm(EVIL, [0.5, 0.6], method=EVIL)
  found = run_folders.run(
    arm,
    run_folders.arm("tgt", [0.80, 0.84]),
    title=EVIL,
    splits={"train": EVIL, "eval": EVIL},
    class_names=(EVIL, "漢字", "$"),
    fingerprints={"config": EVIL},
    versions={EVIL: EVIL},
    hardware=EVIL,
    command=EVIL,
    teacher=results.TeacherResult(EVIL, 5, {"balanced": 0.9}),
  )
  folder = run_folders.write_run(tmp_path_factory.mktemp("run"), found)
  (folder / "config.json").write_text('{"a": "</pre><script>"}')
  report.write_report(folder)
  return folder


@pytest.fixture(name="text", scope="module")
def _text(folder: pathlib.Path) -> str:
  return (folder / "report.html").read_text(encoding="utf-8")


def test_hostile_strings_are_text(text: str):
  page = Page(text)
  assert "script" not in page.tags
  assert page.words.count(EVIL) >= 10
  assert "</pre><script>" in page.words
  assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_nothing_outside_is_needed(text: str):
  page = Page(text)
  assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
  links = [v for n, v in page.attributes if n in ("src", "href", "srcset")]
  assert links
  assert all(link.startswith("data:image/png;base64,") for link in links)
  assert "://" not in text
  assert "url(" not in text
  assert "@import" not in text
  assert "default-src 'none'" in text


def test_pictures_are_inside_with_their_size(text: str):
  found = re.findall(
    r'width="(\d+)" height="(\d+)"\s+src="data:image/png;base64,([^"]+)"', text
  )
  # Curves, the teacher's curves, gallery, disagreement, classes, histogram.
  assert len(found) == 6
  for width, height, data in found:
    pixels = pictures.png_size(base64.b64decode(data, validate=True))
    ratio = pixels[0] / int(width), pixels[1] / int(height)
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=0.02)


def test_every_section_is_there(text: str):
  found = re.findall("<h2>(.*?)</h2>", text)
  assert found == [
    "Results",
    "Training curves",
    "Exploration",
    "Accuracy per class",
    "The long tail",
    "Use the student",
    "How it was made",
  ]
  assert "60 training examples in 3 classes" in text


def test_a_run_with_results_alone_has_a_report(tmp_path: pathlib.Path):
  """Nothing is drawn, so this one costs no matplotlib."""
  found = _results(class_names=(), class_counts=(), groups=())
  results.write_results(tmp_path, found)
  text = report.render_report(tmp_path)
  assert re.findall("<h2>(.*?)</h2>", text) == ["Results", "How it was made"]
  page = Page(text)
  assert "img" not in page.tags
  assert "80.0 ± 1.0" in page.words
  assert "83.0 ± 2.6" in page.words
  assert "0.200 ± 0.010" in page.words  # nll, among the other metrics.
  assert "method of tgt" in page.words
  assert "the test images" in page.words
  assert "jax 1.2.3" in page.words


def test_curves_of_lines():
  lines = [
    {"step": 10, "arm": "a", "seed": 0, "time": 1.0, "loss/x": 1.0},
    {"step": 20, "arm": "a", "seed": 0, "time": 1.0, "loss/x": None},
    {"step": 10, "arm": "a", "seed": 1, "time": 1.0, "loss/x": 3.0},
    {"step": 10, "arm": "a", "seed": 1, "time": 1.0, "loss/x": 4.0},
    {"step": 10, "arm": "b", "seeds": [0, 5], "loss/x": [5, 6], "lr/y": 7},
    {"step": 10, "arm": "teacher", "loss/elbo": 8.0},
  ]
  found = report.curves_of(lines)
  assert set(found) == {"loss/x", "lr/y", "loss/elbo"}
  np.testing.assert_array_equal(found["loss/x"]["a"].steps, [10, 20])
  np.testing.assert_array_equal(
    found["loss/x"]["a"].values, [[1, np.nan], [4, np.nan]]
  )
  np.testing.assert_array_equal(found["loss/x"]["b"].values, [[5], [6]])
  np.testing.assert_array_equal(found["lr/y"]["b"].values, [[7], [7]])
  np.testing.assert_array_equal(found["loss/elbo"]["teacher"].values, [[8]])


def test_panels_lead_with_what_matters():
  curve = pictures.Curve(np.arange(1), np.zeros((1, 1)))
  names = ["a/z", "explore/b", "eval/accuracy", "loss/c", "eval/balanced"]
  found = report._choose_panels({n: {"x": curve} for n in names}, ["x"])
  assert list(found) == ["eval/balanced", "loss/c", "explore/b", "a/z"]
  assert report._choose_panels({"loss/c": {"y": curve}}, ["x"]) == {}


def test_the_command_rebuilds_it(tmp_path, capsys):
  found = _results(class_names=(), class_counts=(), groups=())
  results.write_results(tmp_path, found)
  report.main([f"--workdir={tmp_path}"])
  assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
  output = tmp_path / "again.html"
  report.main([f"--workdir={tmp_path}", f"--output={output}"])
  assert output.read_text() == (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
  ("name", "content", "words"),
  [
    ("results.json", "{", "results.json is not JSON"),
    ("results.json", None, "finished run"),
    ("metrics.jsonl", "x\n", "line 1 is not a line of metrics"),
    ("gallery.npz", "x", "gallery.npz is not a gallery"),
    ("config.json", "{", "config.json is not JSON"),
  ],
)
def test_damaged_files_are_one_line_and_exit_2(
  tmp_path, capsys, name, content, words
):
  found = _results(class_names=(), class_counts=(), groups=())
  results.write_results(tmp_path, found)
  path = tmp_path / name
  path.unlink(missing_ok=True)
  if content is not None:
    path.write_text(content)
  with pytest.raises(SystemExit) as caught:
    report.main([f"--workdir={tmp_path}"])
  assert caught.value.code == 2
  captured = capsys.readouterr()
  assert len(captured.err.splitlines()) == 1
  assert words in captured.err
  assert not (tmp_path / "report.html").exists()
