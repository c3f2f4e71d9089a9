# SPDX-License-Identifier: Apache-2.0
"""Image augmentation as pure functions of images and uniform numbers.

An augmentation says how many uniform numbers it needs per example, and gets
them as an argument. The pipeline draws them from (seed, step) for the whole
global batch, so a resumed run, another number of processes or another version
of numpy's generators changes nothing.

Crop, flip and erasing are a few lines of numpy over the whole batch. The
RandAugment operations are Pillow's, because they are defined by it (the paper
and every reference code call `ImageOps` and `ImageEnhance`), it is maintained,
small, permissively licensed (MIT-CMU) and already here as a dependency of
matplotlib. Looked at and left: Albumentations (its last release is of 2025;
the successor AlbumentationsX is AGPL-3.0), Kornia and torchvision (need
PyTorch), PIX and augmax (no RandAugment; would take time on the device that
trains), OpenCV (the operations would have to be written by hand).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks


class Augmentation(NamedTuple):
  """A random change of every image or text of a batch.

  Attributes:
    draws: uniform numbers needed per example.
    apply: images float32 [B, H, W, C] in [0, 1], spectrograms float32
      [B, bands, frames, C], or token ids int32 [B, l], and uniforms float64
      [B, draws] in [0, 1) to inputs of the same shape and range; it leaves its
      arguments as they are.
  """

  draws: int
  apply: Callable[[np.ndarray, np.ndarray], np.ndarray]


def crop(*, padding: int = 4, mode: str = "constant") -> Augmentation:
  """Pads every side and cuts out a window of the original size.

  Args:
    padding: pixels on each side; every shift in [-padding, padding] is equally
      likely.
    mode: of `numpy.pad`: "constant" (zeros), "reflect" or "edge".
  """
  checks.positive(padding=padding)
  checks.one_of(("constant", "edge", "reflect"), mode=mode)

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, sides, mode=mode)  # type: ignore[call-overload]
    windows = np.lib.stride_tricks.sliding_window_view(
      padded, images.shape[1:], axis=(1, 2, 3)
    )
    shift = (uniforms * (2 * padding + 1)).astype(np.int64)
    return windows[np.arange(len(images)), shift[:, 0], shift[:, 1], 0]

  return Augmentation(2, apply)


def random_resized_crop(
  *,
  area: tuple[float, float] = (0.08, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Augmentation:
  """Cuts out a random part of the image and scales it to the original size.

  The box is drawn once and cut to the image, where Inception's cropping draws
  up to ten times until one fits.

  Args:
    area: least and largest share of the image.
    aspect: least and largest ratio height / width, uniform in the logarithm.

  Raises:
    ValueError: on use, images with neither one nor three channels.

  References:
    Szegedy et al., "Going Deeper with Convolutions", 2015, section 6.
  """
  _check_box(area, aspect)

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = images.shape[1:3]
    boxes = _boxes(uniforms, height, width, area, aspect)[:, (2, 0, 3, 1)]
    out = np.empty_like(images)
    for row, (pixels, box) in enumerate(
      zip(_pixels(images), boxes, strict=True)
    ):
      picture = Image.fromarray(pixels).resize(
        (width, height), Image.Resampling.BILINEAR, box=tuple(box)
      )
      out[row] = np.divide(
        np.asarray(picture).reshape(images.shape[1:]),
        np.float32(255),
        dtype=np.float32,
      )
    return out

  return Augmentation(4, apply)


def horizontal_flip(*, probability: float = 0.5) -> Augmentation:
  """Mirrors left and right with the given probability."""
  checks.in_range(0, 1, probability=probability)

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    chosen = uniforms[:, 0] < probability
    out = images.copy()
    mirrored = np.arange(images.shape[2])[::-1]
    out[chosen] = images[chosen].take(mirrored, axis=2)
    return out

  return Augmentation(1, apply)


def erase(
  *,
  probability: float = 0.5,
  area: tuple[float, float] = (0.02, 1 / 3),
  aspect: tuple[float, float] = (0.3, 10 / 3),
  fill: float = 0.0,
) -> Augmentation:
  """Random erasing: overwrites one rectangle with a constant.

  Args:
    probability: of erasing at all.
    area: least and largest share of the image.
    aspect: least and largest ratio height / width, uniform in the logarithm.
    fill: value to write, in [0, 1].

  References:
    Z. Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896.
  """
  checks.in_range(0, 1, probability=probability, fill=fill)
  _check_box(area, aspect)

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    boxes = _boxes(uniforms[:, 1:], height, width, area, aspect)
    out = images.copy()
    # A slice per example: ten times faster here than a mask of every pixel.
    for row in np.flatnonzero(uniforms[:, 0] < probability):
      y0, y1, x0, x1 = boxes[row]
      out[row, y0:y1, x0:x1] = fill
    return out

  return Augmentation(5, apply)


def spec_augment(
  *, bands: float = 0.375, frames: float = 0.192
) -> Augmentation:
  """Hides neighbouring rows and successive columns of every spectrogram.

  How many is uniform in {0, ..., most}, where they are uniform among all
  places. They become 0, about the mean of a normalised spectrogram. The
  defaults are 48 of 128 bands and 192 of 1,000 frames, as EAsT has it
  (arXiv:2306.17424).

  Args:
    bands: the most rows that are hidden, as a share of all, in [0, 1].
    frames: the most columns that are hidden, likewise.

  References:
    Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic
    Speech Recognition", arXiv:1904.08779; its warping of time is left out.
  """
  checks.in_range(0, 1, bands=bands, frames=frames)

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    out = images.copy()
    for axis, share in ((1, bands), (2, frames)):
      size = images.shape[axis]
      length, place = uniforms[:, 2 * axis - 2 : 2 * axis].T
      count = np.floor(length * (round(share * size) + 1))
      first = np.floor(place * (size - count + 1))
      at = np.arange(size)
      hidden = (at >= first[:, None]) & (at < (first + count)[:, None])
      np.copyto(out, 0.0, where=np.expand_dims(hidden, (3 - axis, 3)))
    return out

  return Augmentation(4, apply)


def _check_box(area: tuple[float, float], aspect: tuple[float, float]) -> None:
  if not (0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1]):
    raise ValueError(
      f"expected 0 < area <= 1 and 0 < aspect, each (least, largest), got"
      f" area {area} and aspect {aspect}"
    )


def _boxes(
  uniforms: np.ndarray,
  height: int,
  width: int,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> np.ndarray:
  """Draws rectangles from four numbers each: [B, (top, bottom, left, right)].

  Each is drawn once, its sides cut to the image, so that a fixed number of
  draws suffices.
  """
  low, high = math.log(aspect[0]), math.log(aspect[1])
  pixels = (area[0] + uniforms[:, 0] * (area[1] - area[0])) * height * width
  ratio = np.exp(low + uniforms[:, 1] * (high - low))
  rows = np.clip(np.rint(np.sqrt(pixels * ratio)), 1, height)
  cols = np.clip(np.rint(np.sqrt(pixels / ratio)), 1, width)
  top = np.floor(uniforms[:, 2] * (height - rows + 1))
  left = np.floor(uniforms[:, 3] * (width - cols + 1))
  return np.stack([top, top + rows, left, left + cols], axis=1).astype(int)


def _pixels(images: np.ndarray) -> np.ndarray:
  """Images as Pillow wants them: uint8 [B, H, W, 3] or [B, H, W]."""
  if images.shape[-1] not in (1, 3):
    raise ValueError(
      f"expected images with 1 or 3 channels, got shape {images.shape}"
    )
  pixels = np.rint(images * np.float32(255)).astype(np.uint8)
  return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _randaugment_operations() -> tuple[tuple[str, Callable[..., Any]], ...]:
  """Returns (name, function of a Pillow image and a signed strength).

  Strength is in [-1, 1]; its sign is drawn, its size is magnitude / 10. The
  ranges are the RandAugment paper's, as fixed by AutoAugment: 30 degrees, shear
  0.3, shift of a third of the side, enhancement factor 1 ± 0.9.
  """
  from PIL import Image, ImageEnhance, ImageOps

  def affine(picture: Any, *matrix: float) -> Any:
    return picture.transform(
      picture.size,
      Image.Transform.AFFINE,
      matrix,
      resample=Image.Resampling.BILINEAR,
    )

  def enhance(kind: Any) -> Callable[..., Any]:
    return lambda picture, s: kind(picture).enhance(1 + 0.9 * s)

  return (
    ("identity", lambda p, s: p),
    ("autocontrast", lambda p, s: ImageOps.autocontrast(p)),
    ("equalize", lambda p, s: ImageOps.equalize(p)),
    ("posterize", lambda p, s: ImageOps.posterize(p, 8 - round(4 * abs(s)))),
    ("solarize", lambda p, s: ImageOps.solarize(p, 256 - int(256 * abs(s)))),
    ("rotate", lambda p, s: p.rotate(30 * s, Image.Resampling.BILINEAR)),
    ("shear_x", lambda p, s: affine(p, 1, 0.3 * s, 0, 0, 1, 0)),
    ("shear_y", lambda p, s: affine(p, 1, 0, 0, 0.3 * s, 1, 0)),
    ("translate_x", lambda p, s: affine(p, 1, 0, s * p.width / 3, 0, 1, 0)),
    ("translate_y", lambda p, s: affine(p, 1, 0, 0, 0, 1, s * p.height / 3)),
    ("color", enhance(ImageEnhance.Color)),
    ("contrast", enhance(ImageEnhance.Contrast)),
    ("brightness", enhance(ImageEnhance.Brightness)),
    ("sharpness", enhance(ImageEnhance.Sharpness)),
  )


def randaugment(*, num_ops: int = 2, magnitude: float = 9) -> Augmentation:
  """RandAugment: some random operations of one common strength.

  Images pass through 8 bits per channel.

  Args:
    num_ops: operations per image, drawn with replacement from fourteen.
    magnitude: strength in [0, 10].

  Raises:
    ImportError: Pillow is missing.
    ValueError: on use, images with neither one nor three channels.

  References:
    E. Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a
    Reduced Search Space", arXiv:1909.13719.
  """
  checks.positive(num_ops=num_ops)
  checks.in_range(0, 10, magnitude=magnitude)
  try:
    from PIL import Image
  except ImportError as error:
    raise ImportError("randaugment needs Pillow: pip install pillow") from error
  operations = _randaugment_operations()

  def apply(images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    pixels = _pixels(images)
    # One draw selects the operation and its sign.
    choice = (uniforms * 2 * len(operations)).astype(np.int64)
    out = np.empty_like(pixels)
    for row, picks in enumerate(choice.tolist()):
      picture = Image.fromarray(pixels[row])
      for pick in picks:
        index, negative = divmod(pick, 2)
        strength = -magnitude / 10 if negative else magnitude / 10
        picture = operations[index][1](picture, strength)
      out[row] = np.asarray(picture)
    out = out.reshape(images.shape)
    return np.divide(out, np.float32(255), dtype=np.float32)

  return Augmentation(num_ops, apply)


IMAGE_AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
  "crop": crop,
  "erase": erase,
  "horizontal_flip": horizontal_flip,
  "randaugment": randaugment,
  "random_resized_crop": random_resized_crop,
  "spec_augment": spec_augment,
}
