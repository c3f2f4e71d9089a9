# SPDX-License-Identifier: Apache-2.0
"""Spectrograms against numpy, and masks on them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.sounds import close, kaldi_bank, noise
from tgt_jax import spectrograms

RATE = 16_000
# The front end of the published students, at two sizes.
OPEN_MIC = {"sample_rate": 32_000, "num_mels": 128}
MAGNA = {"sample_rate": 16_000, "num_mels": 96}


def _reference_power(
  x: np.ndarray,
  *,
  n_fft: int,
  win_length: int,
  hop_length: int,
  center: bool,
  window: str,
  pad_mode: str = "reflect",
) -> np.ndarray:
  """Frame by frame, with the window in the middle of a full transform."""
  period = win_length - (window == "symmetric")
  hann = np.sin(np.pi * np.arange(win_length) / period) ** 2
  before = (n_fft - win_length) // 2
  hann = np.pad(hann, (before, n_fft - win_length - before))
  if center:
    x = np.pad(x, n_fft // 2, mode=pad_mode)
  starts = range(0, len(x) - n_fft + 1, hop_length)
  frames = np.stack([x[start : start + n_fft] * hann for start in starts])
  return np.abs(np.fft.rfft(frames)).T ** 2


STFTS = [
  {"n_fft": 64, "win_length": 50, "hop_length": 20},
  {"n_fft": 64, "win_length": 64, "hop_length": 16, "window": "symmetric"},
  {"n_fft": 64, "win_length": 49, "hop_length": 70, "center": False},
  {"n_fft": 63, "win_length": 40, "hop_length": 13, "pad_mode": "constant"},
]


@pytest.mark.parametrize("options", STFTS)
def test_power_in_float64(options: dict) -> None:
  options = {"center": True, "window": "periodic", **options}
  x = noise(331)
  expected = _reference_power(x, **options)
  with jax.enable_x64(True):
    got = jax.jit(functools.partial(spectrograms.stft_power, **options))(x)
  assert got.dtype == np.float64
  close(got, expected, rtol=1e-12)


def test_power_sums_to_the_energy_of_the_windows() -> None:
  x = noise(200)
  with jax.enable_x64(True):
    power = spectrograms.stft_power(
      jnp.asarray(x), n_fft=64, win_length=64, hop_length=50, center=False
    )
  power = np.asarray(power)
  # A real signal's other frequencies mirror these.
  total = 2.0 * power.sum(0) - power[0] - power[-1]
  hann = np.sin(np.pi * np.arange(64) / 64) ** 2
  energy = [np.sum((hann * x[i : i + 64]) ** 2) for i in (0, 50, 100)]
  np.testing.assert_allclose(total, 64 * np.asarray(energy), rtol=1e-12)


def test_number_of_frames() -> None:
  power = functools.partial(
    spectrograms.stft_power, n_fft=64, win_length=50, hop_length=20
  )
  for samples in (64, 79, 80, 81, 140):
    for center, count in ((True, samples // 20), (False, (samples - 64) // 20)):
      framed = functools.partial(power, center=center)
      got = jax.eval_shape(framed, jnp.zeros(samples))
      assert got.shape == (33, 1 + count)


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  "options, samples, expected",
  [
    (OPEN_MIC, (2, 320_000), (2, 128, 1000)),
    (MAGNA, (2, 3, 465_600), (2, 3, 96, 1455)),
    (MAGNA, (16_000,), (96, 50)),
  ],
)
def test_shapes_and_dtypes_of_log_mel(options, samples, expected, kind) -> None:
  log_mel = functools.partial(spectrograms.log_mel, **options)
  got = jax.eval_shape(log_mel, jax.ShapeDtypeStruct(samples, kind))
  assert got.shape == expected
  assert got.dtype == jnp.float32


def test_log_mel_is_its_formula() -> None:
  x = noise(2000)
  emphasized = x[1:] - 0.97 * x[:-1]
  power = _reference_power(
    emphasized,
    n_fft=1024,
    win_length=800,
    hop_length=320,
    center=True,
    window="symmetric",
  )
  bank = kaldi_bank(96, 1024, RATE, 20.0, 7000.0)
  expected = (np.log(bank @ power + 1e-5) + 3.7) / 3.1
  log_mel = functools.partial(
    spectrograms.log_mel, fmin=20.0, fmax=7000.0, **MAGNA
  )
  batch = jnp.asarray(np.stack([x, noise(2000, seed=1)]), jnp.float32)
  got = jax.jit(log_mel)(batch)
  close(got[0], expected, rtol=1e-5)
  close(log_mel(batch[0]), got[0], rtol=1e-5)


def test_silence_and_no_pre_emphasis() -> None:
  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(x):
    got = spectrograms.log_mel(
      x,
      sample_rate=RATE,
      num_mels=40,
      n_fft=512,
      win_length=512,
      pre_emphasis=0.0,
    )
    return got.sum(), got

  (_, got), slope = run(jnp.zeros(640))
  np.testing.assert_allclose(got, (np.log(1e-5) + 3.7) / 3.1, rtol=1e-6)
  assert got.shape == (40, 3)  # 639 samples would be two frames.
  assert np.isfinite(slope).all()


@pytest.mark.parametrize("mel_scale", spectrograms.SCALES)
def test_a_sine_is_loudest_in_the_band_around_it(mel_scale: str) -> None:
  bands = np.array([3, 17, 36])
  options = {"sample_rate": RATE, "num_mels": 40}
  if mel_scale == "slaney":  # The peaks, to the nearest frequency.
    filters = spectrograms.mel_filters(**options, n_fft=1024, scale=mel_scale)
    hertz = filters[bands].argmax(axis=1) * RATE / 1024
  else:
    top = np.log1p(RATE / 2 / 700.0)
    hertz = 700.0 * np.expm1(top * (bands + 1) / 41)
  sines = np.sin(2.0 * np.pi * hertz[:, None] * np.arange(4000)[None] / RATE)
  log_mel = functools.partial(
    spectrograms.log_mel, mel_scale=mel_scale, **options
  )
  got = jax.jit(log_mel)(jnp.asarray(sines, jnp.float32))
  inner = got[:, :, 2:-2]  # At the ends the sine is reflected.
  expected = np.broadcast_to(bands[:, None], inner[:, 0].shape)
  np.testing.assert_array_equal(inner.argmax(axis=1), expected)


@pytest.mark.parametrize(
  "num_mels, n_fft, rate, fmin, fmax",
  [
    (128, 1024, 32_000, 0.0, 16_000.0),
    (128, 1024, 32_000, 13.0, 14_500.0),
    (96, 1024, 16_000, 0.0, 8000.0),
    (23, 511, 8000.0, 20.0, 3900.0),
  ],
)
def test_kaldi_filters(num_mels, n_fft, rate, fmin, fmax) -> None:
  got = spectrograms.mel_filters(
    num_mels=num_mels, n_fft=n_fft, sample_rate=rate, fmin=fmin, fmax=fmax
  )
  expected = kaldi_bank(num_mels, n_fft, rate, fmin, fmax)
  if n_fft % 2:  # Its last frequency is not half the sample rate.
    got, expected = got[:, :-1], expected[:, :-1]
  np.testing.assert_allclose(got, expected, atol=1e-11)


@pytest.mark.parametrize("scale", spectrograms.SCALES)
def test_filters_divide_the_frequencies_between_them(scale: str) -> None:
  options = {"num_mels": 24, "n_fft": 2048, "sample_rate": RATE, "scale": scale}
  filters = spectrograms.mel_filters(**options)
  peaks = filters.argmax(axis=1)
  assert np.all(np.diff(peaks) > 0)
  between = filters[:, peaks[0] + 1 : peaks[-1]]
  np.testing.assert_allclose(between.sum(axis=0), 1.0, rtol=1e-9)
  # Of triangles over hertz, Slaney's norm makes the area 1.
  areas = (
    spectrograms.mel_filters(**options, norm="slaney").sum(1) * RATE / 2048
  )
  if scale != "kaldi":
    np.testing.assert_allclose(areas, 1.0, rtol=0.05)


@pytest.mark.parametrize("window", spectrograms.WINDOWS)
def test_gradient(window: str) -> None:
  options = {"n_fft": 32, "win_length": 20, "hop_length": 6, "window": window}
  with jax.enable_x64(True):

    @jax.jit
    def loudness(x):
      return jnp.log(spectrograms.stft_power(x, **options) + 0.1)

    check_grads(loudness, (jnp.asarray(noise(60)),), order=1, rtol=1e-5)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"sample_rate": 0}, "sample_rate must be > 0, got 0"),
    ({"num_mels": 0}, "num_mels must be > 0, got 0"),
    ({"fmin": -1.0}, "fmin must be >= 0, got -1.0"),
    (
      {"fmax": 9000.0},
      r"fmax <= half the sample rate, 8000.0; got .*fmax=9000.0.*: lower fmax",
    ),
    ({"fmin": 500.0, "fmax": 400.0}, "expected fmin < fmax.*got fmin=500.0"),
    ({"num_mels": 400}, r"mel filters \[.*\] of 400 hold none .* raise n_fft"),
    ({"mel_scale": "bark"}, "scale: unknown 'bark'; choose from htk, kaldi"),
    ({"norm": "area"}, "norm: unknown 'area'; choose from none, slaney"),
    ({"win_length": 1025}, r"win_length must be in \[1, 1024\], got 1025"),
    ({"hop_length": 0}, "hop_length must be > 0, got 0"),
    ({"pre_emphasis": 1.5}, r"pre_emphasis must be in \[0.0, 1.0\], got 1.5"),
    ({"offset": 0.0}, "offset must be > 0, got 0.0"),
    ({"scale": 0.0}, "scale must be > 0, got 0.0"),
  ],
)
def test_bad_arguments(change: dict, message: str) -> None:
  options = {"sample_rate": RATE, "num_mels": 40, **change}
  with pytest.raises(ValueError, match=message):
    spectrograms.log_mel(jnp.zeros(2000), **options)


@pytest.mark.parametrize(
  "shape, options, message",
  [
    ((2, 49), {}, r"at least 50 samples.*got shape \(2, 49\): pad the sound"),
    ((63,), {"center": False}, r"at least 64 samples.*center=False"),
    ((32,), {"win_length": 20}, "at least 33 samples"),
    ((), {}, r"expected sounds \[..., L\]"),
    (
      (99,),
      {"window": "hamming"},
      "window: unknown 'hamming'; choose from per",
    ),
    (
      (99,),
      {"pad_mode": "edge"},
      "pad_mode: unknown 'edge'; choose from const",
    ),
  ],
)
def test_bad_sounds(shape: tuple, options: dict, message: str) -> None:
  options = {"n_fft": 64, "win_length": 50, "hop_length": 20, **options}
  with pytest.raises(ValueError, match=message):
    spectrograms.stft_power(jnp.zeros(shape), **options)


def test_whole_numbers_are_refused() -> None:
  with pytest.raises(TypeError, match="waveform: expected floating point, got"):
    spectrograms.log_mel(jnp.zeros(2000, jnp.int16), **MAGNA)
