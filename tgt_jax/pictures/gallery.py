# SPDX-License-Identifier: Apache-2.0
"""The exploration gallery: an example, its reconstruction, its neighbours.

One row is one example, one column one view of it. Below an image stand what
the student and what the teacher see in it; further columns show how the
neighbours differ from the reconstruction.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np

from tgt_jax.pictures import stored
from tgt_jax.pictures.canvas import (
  GREY,
  PALETTE,
  drawing,
  enlarge,
  new_figure,
  png,
  shorten,
)

# Pixels at two per CSS pixel.
_CELL = 200  # An image is about this wide.
_GAP = 28
_LINE = 30  # One line of text.
_TITLE = 48
_NAMES = 190  # The column of class names.
_DPI = 192
_STUDENT, _TEACHER, _CROSSED = PALETTE[0], PALETTE[2], PALETTE[1]


class Gallery(NamedTuple):
  """What the gallery shows; plain numpy arrays.

  Attributes:
    views: V names; the first is the example itself and the second its
      reconstruction, for instance `("x", "reconstruction", "random",
      "gradient")`.
    inputs: images of shape [V, N, H, W, C] in [0, 1], or texts, strings of
      shape [V, N].
    student: the student's probabilities, shape [V, N, K].
    teacher: the teacher's probabilities, shape [V, N, K].
    labels: true classes, shape [N].
    class_names: K names.
    disagreement: distance of student and teacher, shape [V, N].
  """

  views: tuple[str, ...]
  inputs: np.ndarray
  student: np.ndarray
  teacher: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  disagreement: np.ndarray


def is_text(gallery: Gallery) -> bool:
  """Whether the gallery shows texts instead of images."""
  return np.asarray(gallery.inputs).dtype.kind == "U"


def crossed(gallery: Gallery) -> np.ndarray:
  """Returns where the teacher names another class than for the first view.

  Returns:
    Booleans of shape [V, N]; the first row is False.
  """
  classes = np.asarray(gallery.teacher).argmax(-1)
  return classes != classes[:1]


def _checked(gallery: Gallery) -> Gallery:
  """Returns the gallery as numpy arrays; raises `ValueError` on a shape."""
  inputs = np.asarray(gallery.inputs)
  if inputs.dtype.kind != "U":
    inputs = inputs.astype(np.float32)
  if inputs.ndim != (2 if inputs.dtype.kind == "U" else 5):
    raise ValueError(
      "inputs: expected images [views, N, H, W, C] or strings [views, N], got"
      f" {inputs.dtype} of shape {inputs.shape}"
    )
  views, count = inputs.shape[:2]
  classes = len(gallery.class_names)
  expected = {
    "student": (views, count, classes),
    "teacher": (views, count, classes),
    "disagreement": (views, count),
    "labels": (count,),
  }
  if len(gallery.views) != views:
    raise ValueError(f"views: expected {views} names, got {gallery.views}")
  arrays: dict[str, Any] = {
    name: np.asarray(getattr(gallery, name)) for name in expected
  }
  for name, shape in expected.items():
    if arrays[name].shape != shape:
      raise ValueError(
        f"{name}: expected shape {shape}, got {arrays[name].shape}"
      )
  return gallery._replace(inputs=inputs, **arrays)


def save_gallery(path: str | pathlib.Path, gallery: Gallery) -> None:
  """Writes a gallery to an `.npz` file, whole or not at all."""
  stored.save(path, _checked(gallery)._asdict())


def load_gallery(path: str | pathlib.Path) -> Gallery:
  """Returns what `save_gallery` wrote, images to eight bits.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a gallery, or one cut short.
  """
  found: dict[str, Any] = stored.load(path, Gallery._fields, what="a gallery")
  names = {n: tuple(map(str, found[n])) for n in ("views", "class_names")}
  return _checked(Gallery(**{**found, **names}))


def _rgb(color: str) -> np.ndarray:
  return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def difference_image(difference: np.ndarray, scale: float) -> np.ndarray:
  """Returns a signed difference as RGB: grey is none, orange more, blue less.

  Args:
    difference: shape [H, W, C].
    scale: the absolute value of full colour.
  """
  strength = np.clip(difference.mean(-1, keepdims=True) / (scale or 1), -1, 1)
  more, less = _rgb("#E69F00"), _rgb("#0072B2")
  end = np.where(strength > 0, more, less)
  return 0.5 + np.abs(strength) * (end - 0.5)


class _Sheet:
  """A canvas of pixels with text on it."""

  def __init__(self, width: int, height: int):
    self.pixels = np.zeros((height, width, 4), np.float32)
    self.texts: list[tuple[int, int, str, dict[str, Any]]] = []

  def paste(self, x: int, y: int, rgb: np.ndarray) -> None:
    target = self.pixels[y : y + rgb.shape[0], x : x + rgb.shape[1]]
    target[..., :3], target[..., 3] = rgb, 1

  def box(
    self, x: int, y: int, width: int, height: int, color: str, alpha: float
  ) -> None:
    self.pixels[y : y + height, x : x + width] = [*_rgb(color), alpha]

  def text(self, x: int, y: int, text: str, **options: Any) -> None:
    self.texts.append((x, y, text, options))

  def png(self) -> bytes:
    height, width = self.pixels.shape[:2]
    with drawing():
      figure = new_figure(width / _DPI, height / _DPI)
      figure.set_dpi(_DPI)
      figure.set_layout_engine("none")
      # Neither axes nor imshow: they would resample what is pixels already.
      image = np.round(255 * self.pixels).astype(np.uint8)
      figure.figimage(image, resize=False)
      for x, y, text, options in self.texts:
        options = {"fontsize": 7.5, "va": "center"} | options
        figure.text(x / width, 1 - y / height, text, **options)
      return png(figure, dpi=_DPI)


def _beliefs(
  sheet: _Sheet,
  x: int,
  y: int,
  size: int,
  probabilities: np.ndarray,
  names: tuple[str, ...],
  color: str,
) -> None:
  """Writes the top class, and the next if it fits, above a bar."""
  top = np.argsort(-probabilities, kind="stable")[:2]
  share = float(probabilities[top[0]])
  sheet.box(x, y + 23, size, 5, GREY, 0.25)
  sheet.box(x, y + 23, max(1, round(size * share)), 5, color, 1.0)
  words = [
    f"{shorten(names[k], 11)} {100 * probabilities[k]:.0f}%" for k in top
  ]
  text = words[0]
  if len(words) > 1 and len("  ".join(words)) * 13 <= size:
    text = "  ".join(words)
  sheet.text(x, y + 11, text)


def draw_gallery(gallery: Gallery, *, rows: int = 8) -> bytes:
  """Draws the gallery.

  Args:
    gallery: what to show.
    rows: examples at most; the first ones.

  Returns:
    PNG bytes, at twice the resolution of a plain screen. An image in which
    the teacher names another class than in the first view has a red border
    and the word "crossed".
  """
  gallery = _checked(gallery)
  images = gallery.inputs[:, :rows]
  views, count = images.shape[:2]
  height, width = (
    enlarge(images[0, 0], _CELL).shape[:2] if count else (_CELL, _CELL)
  )
  neighbours = range(2, views)
  columns = views + len(neighbours)
  step_x, step_y = width + _GAP, height + 3 * _LINE + _GAP + 12
  sheet = _Sheet(_NAMES + columns * step_x, 2 * _TITLE + count * step_y)
  _headings(sheet, gallery.views, step_x)
  cross = crossed(gallery)
  differences = images[2:] - images[1:2]
  scale = float(np.abs(differences).mean(-1).max(initial=1e-6))
  for row in range(count):
    y = 2 * _TITLE + row * step_y
    name = shorten(gallery.class_names[int(gallery.labels[row])], 14)
    sheet.text(_NAMES - 16, y + height // 2, name, ha="right", weight="bold")
    for view in range(views):
      _image_cell(
        sheet, _NAMES + view * step_x, y, gallery, view, row, cross[view, row]
      )
    for index, difference in enumerate(differences[:, row]):
      x = _NAMES + (views + index) * step_x
      sheet.paste(x, y, enlarge(difference_image(difference, scale), _CELL))
      norm = float(np.linalg.norm(difference))
      sheet.text(x, y + height + 22, f"length {norm:.2f}", fontsize=6.5)
  return sheet.png()


def _headings(sheet: _Sheet, views: tuple[str, ...], step_x: int) -> None:
  """Writes the legend and the names of the columns."""
  x = _NAMES
  for name, color in (("student", _STUDENT), ("teacher", _TEACHER)):
    sheet.box(x, 22, 26, 5, color, 1.0)
    sheet.text(x + 36, 24, name)
    x += 160
  sheet.text(x, 24, "gap: their disagreement")
  text = "crossed: the teacher has changed its mind since the first column"
  sheet.text(x + 260, 24, text, color=_CROSSED)
  names = [*views, *(f"Δ {view}" for view in views[2:])]
  for column, name in enumerate(names):
    place = _NAMES + column * step_x, _TITLE + 28
    sheet.text(*place, shorten(name, 16), weight="bold")
  place = _NAMES + len(views) * step_x, _TITLE - 20
  text = "Δ: brighter (orange) or darker (blue)"
  if len(views) > 2:
    sheet.text(place[0], place[1] + 26, text, fontsize=6.5)


def _image_cell(
  sheet: _Sheet,
  x: int,
  y: int,
  gallery: Gallery,
  view: int,
  row: int,
  cross: bool,
) -> None:
  """Draws one image with what both models see in it."""
  image = enlarge(gallery.inputs[view, row], _CELL)
  height, width = image.shape[:2]
  if cross:
    sheet.box(x - 6, y - 6, width + 12, height + 12, _CROSSED, 1.0)
  sheet.paste(x, y, image)
  y += height + 10
  names = gallery.class_names
  for probabilities, color in (
    (gallery.student[view, row], _STUDENT),
    (gallery.teacher[view, row], _TEACHER),
  ):
    _beliefs(sheet, x, y, width, probabilities, names, color)
    y += _LINE + 2
  value = gallery.disagreement[view, row]
  sheet.text(x, y + 12, f"gap {value:.2g}", fontsize=6.5)
  if cross:
    sheet.text(
      x + width, y + 12, "crossed", ha="right", fontsize=6.5, color=_CROSSED
    )
