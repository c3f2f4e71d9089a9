# SPDX-License-Identifier: Apache-2.0
"""Augmentations: closed forms, and laws that hold for each of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tgt_jax.data.augment import IMAGE_AUGMENTATIONS as AUGMENTATIONS

_NAMES = sorted(AUGMENTATIONS)


def _images(shape=(6, 9, 7, 3), seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, shape)
  return (pixels / 255).astype(np.float32)


def _uniforms(augmentation, size, seed=1):
  return np.random.default_rng(seed).random((size, augmentation.draws))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", _NAMES)
def test_laws(name, channels):
  augmentation = AUGMENTATIONS[name]()
  images = _images((40, 9, 7, channels))
  uniforms = _uniforms(augmentation, 40)
  kept, kept_uniforms = images.copy(), uniforms.copy()
  out = augmentation.apply(images, uniforms)
  assert out.shape == images.shape and out.dtype == np.float32
  assert out.min() >= 0 and out.max() <= 1
  assert not np.array_equal(out, images)
  # Arguments stay as they are.
  np.testing.assert_array_equal(images, kept)
  np.testing.assert_array_equal(uniforms, kept_uniforms)
  # An example's result depends on itself and its own draws alone.
  some = [3, 17, 4]
  np.testing.assert_array_equal(
    augmentation.apply(images[some], uniforms[some]), out[some]
  )
  assert augmentation.apply(images[:0], uniforms[:0]).shape[0] == 0


def _shift_by_hand(image, down, right):
  """Moves the window; what it uncovers is zero."""
  out = np.zeros_like(image)
  height, width = image.shape[:2]
  for y in range(height):
    for x in range(width):
      if 0 <= y + down < height and 0 <= x + right < width:
        out[y, x] = image[y + down, x + right]
  return out


def test_crop_is_a_shift():
  crop = AUGMENTATIONS["crop"](padding=2)
  shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
  images = _images((25, 5, 6, 2))
  uniforms = (np.array(shifts) + 2.5) / 5
  out = crop.apply(images, uniforms)
  for row, shift in enumerate(shifts):
    np.testing.assert_array_equal(out[row], _shift_by_hand(images[row], *shift))


def test_crop_reaches_the_ends():
  crop = AUGMENTATIONS["crop"](padding=1)
  images = _images((2, 4, 4, 1))
  out = crop.apply(images, np.array([[0.0, 0.0], [1 - 2**-53, 1 - 2**-53]]))
  np.testing.assert_array_equal(out[0], _shift_by_hand(images[0], -1, -1))
  np.testing.assert_array_equal(out[1], _shift_by_hand(images[1], 1, 1))


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_crop_modes_are_those_of_numpy(mode):
  crop = AUGMENTATIONS["crop"](padding=2, mode=mode)
  images = _images((1, 5, 5, 3))
  padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)), mode=mode)
  out = crop.apply(images, np.array([[0.0, 0.99]]))
  np.testing.assert_array_equal(out[0], padded[0:5, 4:9])


def test_flip_mirrors_those_below_the_probability():
  flip = AUGMENTATIONS["horizontal_flip"](probability=0.3)
  images = _images((4, 3, 5, 3))
  out = flip.apply(images, np.array([[0.0], [0.29], [0.3], [0.9]]))
  np.testing.assert_array_equal(out[:2], images[:2, :, ::-1])
  np.testing.assert_array_equal(out[2:], images[2:])


def test_erase_overwrites_one_rectangle():
  erase = AUGMENTATIONS["erase"](
    probability=0.5, area=(0.25, 0.25), aspect=(1.0, 1.0), fill=0.5
  )
  images = _images((3, 8, 8, 3)) * 0.4
  # Side 4; rows and columns 0..4 can hold its corner.
  uniforms = np.array(
    [
      [0.1, 0.0, 0.0, 0.999, 0.0],
      [0.1, 0.0, 0.0, 0.5, 0.7],
      [0.5, 0.0, 0.0, 0.5, 0.5],
    ]
  )
  out = erase.apply(images, uniforms)
  expected = images.copy()
  expected[0, 4:8, 0:4] = 0.5
  expected[1, 2:6, 3:7] = 0.5
  np.testing.assert_array_equal(out, expected)


def test_erased_area_and_aspect_are_as_asked():
  erase = AUGMENTATIONS["erase"](
    probability=1.0, area=(0.05, 0.1), aspect=(0.5, 2.0)
  )
  images = np.ones((300, 64, 64, 1), np.float32)
  out = erase.apply(images, _uniforms(erase, 300))
  holes = out[..., 0] == 0
  heights = holes.any(axis=2).sum(axis=1)
  widths = holes.any(axis=1).sum(axis=1)
  np.testing.assert_array_equal(holes.sum(axis=(1, 2)), heights * widths)
  shares = heights * widths / 64**2
  assert shares.min() > 0.045 and shares.max() < 0.11
  assert abs(shares.mean() - 0.075) < 0.003
  ratios = heights / widths
  assert ratios.min() > 0.45 and ratios.max() < 2.2
  assert abs(np.log(ratios).mean()) < 0.1


# Name, and the same by a direct call of Pillow at strength s.
_OPERATIONS = [
  ("identity", lambda p, s: p),
  ("autocontrast", lambda p, s: ImageOps.autocontrast(p)),
  ("equalize", lambda p, s: ImageOps.equalize(p)),
  ("posterize", lambda p, s: ImageOps.posterize(p, 6)),
  ("solarize", lambda p, s: ImageOps.solarize(p, 128)),
  ("rotate", lambda p, s: p.rotate(30 * s, resample=Image.BILINEAR)),
  ("shear_x", lambda p, s: _affine(p, (1, 0.3 * s, 0, 0, 1, 0))),
  ("shear_y", lambda p, s: _affine(p, (1, 0, 0, 0.3 * s, 1, 0))),
  ("translate_x", lambda p, s: _affine(p, (1, 0, s * p.width / 3, 0, 1, 0))),
  ("translate_y", lambda p, s: _affine(p, (1, 0, 0, 0, 1, s * p.height / 3))),
  ("color", lambda p, s: ImageEnhance.Color(p).enhance(1 + 0.9 * s)),
  ("contrast", lambda p, s: ImageEnhance.Contrast(p).enhance(1 + 0.9 * s)),
  ("brightness", lambda p, s: ImageEnhance.Brightness(p).enhance(1 + 0.9 * s)),
  ("sharpness", lambda p, s: ImageEnhance.Sharpness(p).enhance(1 + 0.9 * s)),
]


def _affine(picture, matrix):
  return picture.transform(
    picture.size, Image.AFFINE, matrix, resample=Image.BILINEAR
  )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_randaugment_operations_are_pillows(sign, channels):
  augment = AUGMENTATIONS["randaugment"](num_ops=1, magnitude=5)
  images = _images((len(_OPERATIONS), 16, 15, channels))
  pick = 2 * np.arange(len(_OPERATIONS)) + (sign < 0) + 0.5
  out = augment.apply(images, pick[:, None] / (2 * len(_OPERATIONS)))
  pixels = np.rint(images * 255).astype(np.uint8)
  for row, (name, operation) in enumerate(_OPERATIONS):
    one = pixels[row, ..., 0] if channels == 1 else pixels[row]
    expected = np.asarray(operation(Image.fromarray(one), 0.5 * sign))
    np.testing.assert_array_equal(
      np.rint(out[row] * 255).reshape(expected.shape), expected, err_msg=name
    )


def test_randaugment_composes():
  one = AUGMENTATIONS["randaugment"](num_ops=1)
  two = AUGMENTATIONS["randaugment"](num_ops=2)
  images, uniforms = _images(), _uniforms(two, 6)
  inner = one.apply(images, uniforms[:, :1])
  np.testing.assert_array_equal(
    two.apply(images, uniforms), one.apply(inner, uniforms[:, 1:])
  )


@pytest.mark.parametrize(
  "name, arguments, message",
  [
    ("crop", {"padding": 0}, "padding must be > 0"),
    ("crop", {"mode": "refelct"}, "Did you mean 'reflect'"),
    ("horizontal_flip", {"probability": 1.5}, "probability must be in"),
    ("erase", {"area": (0.5, 0.2)}, "area"),
    ("erase", {"fill": 2}, "fill must be in"),
    ("randaugment", {"magnitude": 30}, "magnitude must be in"),
    ("randaugment", {"num_ops": 0}, "num_ops must be > 0"),
  ],
)
def test_bad_settings_are_named(name, arguments, message):
  with pytest.raises(ValueError, match=message):
    AUGMENTATIONS[name](**arguments)


def test_randaugment_refuses_other_channels():
  augment = AUGMENTATIONS["randaugment"]()
  with pytest.raises(ValueError, match="1 or 3 channels"):
    augment.apply(_images((2, 4, 4, 2)), _uniforms(augment, 2))


def test_random_resized_crop_is_pillow_s():
  images = _images((1, 20, 30, 3))
  crop = AUGMENTATIONS["random_resized_crop"](area=(0.25, 0.25), aspect=(1, 1))
  # A quarter of 600 pixels, square: 12 x 12, as far right and down as it goes.
  (out,) = crop.apply(images, np.array([[0.3, 0.3, 1 - 1e-9, 1 - 1e-9]]))
  pixels = np.rint(images[0] * 255).astype(np.uint8)
  expected = Image.fromarray(pixels).resize(
    (30, 20), Image.Resampling.BILINEAR, box=(18, 8, 30, 20)
  )
  np.testing.assert_array_equal(np.rint(out * 255), np.asarray(expected))


def test_random_resized_crop_of_everything_is_the_image():
  images = _images((3, 8, 8, 1))
  crop = AUGMENTATIONS["random_resized_crop"](area=(1, 1), aspect=(1, 1))
  np.testing.assert_array_equal(crop.apply(images, _uniforms(crop, 3)), images)


def test_spec_augment_hides_one_span_of_each_axis():
  augment = AUGMENTATIONS["spec_augment"](bands=0.5, frames=0.25)
  spectrograms = np.full((400, 6, 12, 1), -7.0, np.float32)
  out = augment.apply(spectrograms, _uniforms(augment, 400))
  for axis, most in ((1, 3), (2, 3)):
    hidden = (out == 0).all(axis=(3 - axis, 3))
    # Uniform: 100 of each length are expected, with a deviation of 9.
    lengths = hidden.sum(axis=1)
    assert np.bincount(lengths).min() > 65 and lengths.max() == most
    for row, length in zip(hidden, lengths, strict=True):
      assert row[row.argmax() :][:length].all()
    # Every place is hidden at times, both ends too.
    assert hidden.any(axis=0).all()
  bands, frames = ((out == 0).all(axis=a) for a in ((2, 3), (1, 3)))
  kept = ~(bands[:, :, None, None] | frames[:, None, :, None])
  np.testing.assert_array_equal(out, np.where(kept, spectrograms, 0.0))
  nothing = AUGMENTATIONS["spec_augment"](bands=0, frames=0)
  same = nothing.apply(spectrograms, _uniforms(nothing, 400))
  np.testing.assert_array_equal(same, spectrograms)


def test_spec_augment_s_defaults_are_those_of_openmic():
  augment = AUGMENTATIONS["spec_augment"]()
  ends = np.array([[1 - 2**-53] * 4])
  out = augment.apply(np.ones((1, 128, 1000, 1), np.float32), ends)[0, ..., 0]
  assert (out[-48:] == 0).all() and (out[:, -192:] == 0).all()
  assert (out[:-48, :-192] == 1).all()
