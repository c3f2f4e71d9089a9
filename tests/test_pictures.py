# SPDX-License-Identifier: Apache-2.0
"""Figures are PNGs that show what they were given; checked on pixels."""

from __future__ import annotations

import base64
import io
import pathlib
import re

import numpy as np
import pytest

from tests import run_folders
from tgt_jax import pictures
from tgt_jax.pictures import canvas, charts, gallery as gallery_lib

pytest.importorskip("matplotlib")


def _pixels(data: bytes) -> np.ndarray:
  """Returns [H, W, 4] in [0, 1]."""
  import matplotlib.image

  return matplotlib.image.imread(io.BytesIO(data), format="png")


def _share(data: bytes, color: str) -> float:
  """Share of pixels of about that colour."""
  pixels = _pixels(data)
  rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  near = np.abs(pixels[..., :3] - rgb).max(-1) < 0.02
  return float((near & (pixels[..., 3] > 0.9)).mean())


def _curve(seeds: int = 2, points: int = 5, level: float = 0.0):
  rng = np.random.default_rng(0)
  values = level + 0.1 * rng.normal(size=(seeds, points))
  return pictures.Curve(np.arange(points), values)


def test_curves_have_a_colour_per_arm():
  panels = {
    "loss": {"a": _curve(), "b": _curve(level=5)},
    "eval": {"b": _curve(), "one point": _curve(1, 1)},
  }
  data = pictures.curves(panels)
  for color in canvas.PALETTE[:3]:
    assert _share(data, color) > 1e-4
  assert _share(data, canvas.PALETTE[3]) == 0
  width, height = pictures.png_size(data)
  assert _pixels(data).shape[:2] == (height, width)
  assert width == round(9.2 * pictures.DPI)


def test_figures_are_transparent_and_leave_matplotlib_alone():
  import matplotlib as mpl

  before = dict(mpl.rcParams)
  data = pictures.class_histogram(np.array([5, 3]))
  assert _pixels(data)[0, 0, 3] == 0
  assert dict(mpl.rcParams) == before


def test_the_same_input_gives_the_same_bytes():
  counts = np.array([9, 4, 1])
  assert pictures.class_histogram(counts) == pictures.class_histogram(counts)


def test_names_that_look_like_formulas_or_lack_a_glyph():
  """No warning (they are errors here) and no mathematical type."""
  names = ["$x_{1$", "漢字", "<b>"]
  pictures.class_histogram(np.array([9, 4, 1]), class_names=names)
  pictures.curves({"$": {"$\\frac$": _curve()}})


def test_a_thinned_curve_keeps_means():
  values = np.arange(1000.0)[None]
  found = pictures.Curve(*charts.thin(pictures.Curve(np.arange(1000), values)))
  assert len(found.steps) == 200
  np.testing.assert_allclose(found.values[0], 2 + 5 * np.arange(200))
  assert found.steps[-1] == 999
  short = _curve()
  np.testing.assert_array_equal(charts.thin(short).values, short.values)


def test_mean_and_band_skip_what_is_missing():
  values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])
  mean, low, high = charts._mean_and_band(values)
  np.testing.assert_allclose(mean, [2, 4, np.nan])
  np.testing.assert_allclose(low, [2 - np.sqrt(2), 4, np.nan])
  np.testing.assert_allclose(high, [2 + np.sqrt(2), 4, np.nan])


def test_classes_are_ordered_by_count():
  np.testing.assert_array_equal(
    charts.class_order(np.array([5, 9, 5, 1])), [1, 0, 2, 3]
  )


@pytest.mark.parametrize("classes", [3, 200])
def test_histogram_colours_its_groups(classes):
  counts = np.geomspace(1000, 1, classes).astype(int)
  groups = np.where(
    counts > 100, "many", np.where(counts >= 20, "medium", "few")
  )
  data = pictures.class_histogram(counts, list(groups))
  for color in canvas.GROUP_COLORS.values():
    assert _share(data, color) > 0.005


@pytest.mark.parametrize("classes", [3, 200])
def test_per_class_draws_every_arm(classes):
  rng = np.random.default_rng(0)
  accuracy = {
    "a": rng.uniform(size=(3, classes)),
    "b": rng.uniform(size=(1, classes)),
    "never measured": np.full((2, classes), np.nan),
  }
  data = pictures.per_class(np.arange(classes), accuracy)
  for color in canvas.PALETTE[:2]:
    assert _share(data, color) > 1e-4


def test_disagreement_takes_zeros():
  before = {"random": np.array([0.0, 0.1, 1.0])}
  data = pictures.disagreement(before, {"random": np.array([0.2, 0.0, 2.0])})
  assert pictures.png_size(data)[0] > 100
  zeros = {"random": np.zeros(3)}
  pictures.disagreement(zeros, zeros)


def test_png_size_wants_a_png():
  with pytest.raises(ValueError, match="not a PNG"):
    pictures.png_size(b"GIF89a" * 10)


def test_crossed_compares_with_the_first_view():
  expected = np.zeros((4, 3), bool)
  expected[3, 0] = True
  np.testing.assert_array_equal(
    pictures.crossed(run_folders.gallery()), expected
  )


def test_the_gallery_marks_a_crossed_label():
  gallery = run_folders.gallery(1)
  kept = gallery._replace(teacher=np.tile([0.7, 0.2, 0.1], (4, 1, 1)))
  marked, plain = map(pictures.draw_gallery, (gallery, kept))
  # A border of 6 pixels around one image of 200; the legend has the colour
  # in both.
  area = np.prod(pictures.png_size(marked))
  border = (_share(marked, "#D55E00") - _share(plain, "#D55E00")) * area
  assert abs(border - (212**2 - 200**2)) < 500


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (28, 2)])
def test_the_gallery_shows_the_pixels(size, channels):
  """Every pixel of an image is a square of whole pixels, unsmoothed."""
  gallery = run_folders.gallery(1, size, channels)
  pixels = _pixels(pictures.draw_gallery(gallery))
  factor = round(gallery_lib._CELL / size)
  top, left = 2 * gallery_lib._TITLE, gallery_lib._NAMES
  shown = pixels[top:, left:][: size * factor, : size * factor, :3]
  image = gallery.inputs[0, 0]
  image = image.mean(-1, keepdims=True) if channels == 2 else image
  expected = np.broadcast_to(image, (size, size, 3))
  blocks = shown.reshape(size, factor, size, factor, 3)
  np.testing.assert_allclose(
    blocks[:, factor // 2, :, factor // 2], expected, atol=1 / 255
  )
  assert np.ptp(blocks, axis=(1, 3)).max() == 0


def test_the_gallery_takes_the_first_rows():
  few, many = (
    pictures.png_size(pictures.draw_gallery(run_folders.gallery(2), rows=rows))
    for rows in (1, 2)
  )
  assert few[0] == many[0]
  assert few[1] < many[1]


def test_difference_colours():
  difference = np.array([[[0.0], [1.0], [-1.0], [9.0]]])
  found = gallery_lib.difference_image(difference, 1.0)
  grey, more, less, beyond = found[0]
  np.testing.assert_allclose(grey, 0.5)
  assert more[0] > more[2]
  assert less[2] > less[0]
  np.testing.assert_allclose(more, beyond)


def test_a_gallery_is_kept_to_eight_bits(tmp_path: pathlib.Path):
  gallery = run_folders.gallery()
  pictures.save_gallery(tmp_path / "g.npz", gallery)
  found = pictures.load_gallery(tmp_path / "g.npz")
  assert found.views == gallery.views
  assert found.class_names == gallery.class_names
  np.testing.assert_allclose(found.inputs, gallery.inputs, atol=0.5 / 255)
  for name in ("student", "teacher", "labels", "disagreement"):
    np.testing.assert_array_equal(getattr(found, name), getattr(gallery, name))


def test_damaged_galleries_are_named(tmp_path: pathlib.Path):
  path = tmp_path / "g.npz"
  with pytest.raises(FileNotFoundError, match="no file"):
    pictures.load_gallery(path)
  pictures.save_gallery(path, run_folders.gallery())
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(ValueError, match=r"g\.npz is not a gallery"):
    pictures.load_gallery(path)
  np.savez(path, views=np.array(["x"]))
  with pytest.raises(ValueError, match="inputs"):
    pictures.load_gallery(path)


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"inputs": np.zeros((4, 3, 8, 8))}, r"inputs: expected .*\(4, 3, 8, 8\)"),
    ({"views": ("x",)}, "views: expected 4 names"),
    ({"student": np.zeros((4, 3, 2))}, r"student: expected shape \(4, 3, 3\)"),
    ({"labels": np.zeros(2)}, r"labels: expected shape \(3,\)"),
  ],
)
def test_wrong_shapes_are_named(changes, match):
  with pytest.raises(ValueError, match=match):
    pictures.draw_gallery(run_folders.gallery()._replace(**changes))


class TestTexts:
  """The gallery of texts is a table of words."""

  def setup_method(self):
    rng = np.random.default_rng(0)
    teacher = np.tile([0.7, 0.2, 0.1], (3, 2, 1))
    teacher[2, 1] = [0.1, 0.8, 0.1]
    self.gallery = pictures.Gallery(
      ("x", "reconstruction", "random"),
      np.array(
        [
          ["a fine <b>film</b>", "dull and long"],
          ["a fine <b>film</b>", "dull and long"],
          ["a fine & short film", "long"],
        ]
      ),
      rng.dirichlet(np.ones(3), (3, 2)),
      teacher,
      np.array([0, 1]),
      ("good", "bad", "odd"),
      rng.uniform(size=(3, 2)),
    )

  def test_what_differs_is_marked(self):
    table = pictures.texts_table(self.gallery)
    assert "a fine &lt;b&gt;film&lt;/b&gt;" in table  # Escaped, unmarked.
    assert "a fine <mark>&amp; short film</mark>" in table
    assert "<mark>·</mark> long" in table  # Words that are gone.
    assert table.count("<mark>bad 80 %</mark>") == 1  # The label it crossed to.
    assert table.count("<tr") == 1 + 6

  def test_it_survives_the_disk(self, tmp_path):
    pictures.save_gallery(tmp_path / "g.npz", self.gallery)
    found = pictures.load_gallery(tmp_path / "g.npz")
    assert pictures.is_text(found)
    np.testing.assert_array_equal(found.inputs, self.gallery.inputs)
    assert pictures.texts_table(found) == pictures.texts_table(self.gallery)

  def test_strings_need_two_axes(self, tmp_path):
    wrong = self.gallery._replace(inputs=self.gallery.inputs[0])
    with pytest.raises(ValueError, match=r"strings \[views, N\]"):
      pictures.save_gallery(tmp_path / "g.npz", wrong)


class TestRanked:
  """Training examples by influence are a table of images or texts."""

  def setup_method(self):
    rng = np.random.default_rng(0)
    self.ranked = pictures.Ranked(
      inputs=rng.uniform(size=(3, 8, 8, 1)).astype(np.float32),
      labels=np.array([0, 2, 1]),
      student=rng.dirichlet(np.ones(3), 3),
      teacher=np.tile([0.7, 0.2, 0.1], (3, 1)),
      influence=np.array([2.0, 0.5, -1.25]),
      class_names=("ant", "<bee>", "cow"),
      asked=1200,
      positive=0.625,
    )
    self.texts = self.ranked._replace(inputs=np.array(["a", "<b>", "c"]))

  def test_images(self):
    table = pictures.ranked_table(self.ranked, "lgtm")
    assert "lgtm: 62 % of 1,200 training examples help" in table
    assert table.count("<img ") == 3
    assert table.index("+2.00") < table.index("+0.50") < table.index("-1.25")
    assert "&lt;bee&gt;" in table and "<bee>" not in table
    # A rule stands where help ends.
    assert table.index('class="rule"') > table.index("+0.50")
    content = base64.b64decode(re.findall(r"base64,([^\"]*)", table)[0])
    pixels = _pixels(content)[::8, ::8, 0]
    np.testing.assert_allclose(
      pixels, self.ranked.inputs[0, ..., 0], atol=1 / 255
    )

  def test_texts(self):
    table = pictures.ranked_table(self.texts, "lgtm")
    assert "<img" not in table
    assert "&lt;b&gt;" in table

  @pytest.mark.parametrize("kind", ["ranked", "texts"])
  def test_it_is_kept(self, tmp_path, kind):
    made = getattr(self, kind)
    pictures.save_ranked(tmp_path / "r.npz", made)
    found = pictures.load_ranked(tmp_path / "r.npz")
    assert pictures.ranked_table(found, "a") == pictures.ranked_table(
      made._replace(inputs=found.inputs), "a"
    )

  def test_damage_is_named(self, tmp_path):
    path = tmp_path / "r.npz"
    pictures.save_ranked(path, self.texts)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"r\.npz is not a list of influences"):
      pictures.load_ranked(path)
    pictures.save_ranked(path, self.texts._replace(labels=np.zeros(2)))
    with pytest.raises(ValueError, match="leading axes must be equal"):
      pictures.load_ranked(path)
