# SPDX-License-Identifier: Apache-2.0
"""Spectrograms against librosa, and Kaldi's filters against torchaudio."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sounds import close, kaldi_bank, noise
from tgt_jax import spectrograms

pytestmark = pytest.mark.oracle


def _librosa():
  librosa = pytest.importorskip("librosa")
  with warnings.catch_warnings():
    # Its parts load on first use, numba among them.
    warnings.simplefilter("ignore")
    librosa.filters.mel(sr=8000, n_fft=64, n_mels=4)
    librosa.stft(np.zeros(64), n_fft=64)
  return librosa


@pytest.mark.parametrize("norm", spectrograms.NORMS)
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize(
  "rate, n_fft, num_mels, fmin, fmax",
  [(22_050, 2048, 128, 0.0, None), (16_000, 1024, 64, 50.0, 7600.0)],
)
def test_filters_of_librosa(
  rate, n_fft, num_mels, fmin, fmax, scale, norm
) -> None:
  expected = _librosa().filters.mel(
    sr=rate,
    n_fft=n_fft,
    n_mels=num_mels,
    fmin=fmin,
    fmax=fmax,
    htk=scale == "htk",
    norm=None if norm == "none" else norm,
    dtype=np.float64,
  )
  got = spectrograms.mel_filters(
    num_mels=num_mels,
    n_fft=n_fft,
    sample_rate=rate,
    fmin=fmin,
    fmax=fmax,
    scale=scale,
    norm=norm,
  )
  close(got, expected, rtol=1e-11)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("pad_mode", spectrograms.PAD_MODES)
@pytest.mark.parametrize("window", spectrograms.WINDOWS)
def test_power_of_librosa(window: str, pad_mode: str, center: bool) -> None:
  librosa = _librosa()
  x = noise(5000).astype(np.float32)
  sizes = {"n_fft": 1024, "win_length": 800, "hop_length": 320}
  fftbins = window == "periodic"
  expected = librosa.stft(
    x,
    window=librosa.filters.get_window("hann", 800, fftbins=fftbins),
    center=center,
    pad_mode=pad_mode,
    **sizes,
  )
  got = spectrograms.stft_power(
    x, window=window, center=center, pad_mode=pad_mode, **sizes
  )
  close(got, np.abs(expected) ** 2)


@pytest.mark.parametrize("mel_scale", spectrograms.SCALES)
def test_log_mel_of_librosa(mel_scale: str) -> None:
  librosa = _librosa()
  rate, num_mels = 32_000, 128
  if mel_scale == "kaldi":
    bank = kaldi_bank(num_mels, 1024, rate, 0.0, rate / 2)
  else:
    bank = librosa.filters.mel(
      sr=rate,
      n_fft=1024,
      n_mels=num_mels,
      htk=mel_scale == "htk",
      norm=None,
      dtype=np.float64,
    )

  def expected(x: np.ndarray) -> np.ndarray:
    spectrum = librosa.stft(
      # The first sample has none before it.
      librosa.effects.preemphasis(x, coef=0.97)[1:],
      n_fft=1024,
      win_length=800,
      hop_length=320,
      window=librosa.filters.get_window("hann", 800, fftbins=False),
      pad_mode="reflect",
    )
    return (np.log(bank @ np.abs(spectrum) ** 2 + 1e-5) + 3.7) / 3.1

  log_mel = functools.partial(
    spectrograms.log_mel,
    sample_rate=rate,
    num_mels=num_mels,
    mel_scale=mel_scale,
  )
  x, seconds = noise(rate).astype(np.float32), np.arange(rate) / rate
  wanted = expected(x.astype(np.float64))
  # Of a quiet band the logarithm shows the rounding of the loud ones.
  close(jax.jit(log_mel)(x), wanted, rtol=3e-5)
  chirp = 0.5 * np.sin(2.0 * np.pi * (200.0 + 3000.0 * seconds) * seconds)
  with jax.enable_x64(True):
    got = jax.jit(log_mel)(jnp.asarray(chirp))
  close(got, expected(chirp), rtol=1e-9)


def test_kaldi_filters_of_torchaudio() -> None:
  torch = pytest.importorskip("torch")
  try:
    from torchaudio.compliance import kaldi
  except (ImportError, OSError) as error:  # Built for another torch.
    pytest.skip(f"no torchaudio: {error}")
  torch.set_default_dtype(torch.float64)
  try:
    expected, _ = kaldi.get_mel_banks(
      128, 1024, 32_000, 10.0, 15_000.0, 100.0, -500.0, 1.0
    )
  finally:
    torch.set_default_dtype(torch.float32)
  got = spectrograms.mel_filters(
    num_mels=128, n_fft=1024, sample_rate=32_000, fmin=10.0, fmax=15_000.0
  )
  close(got[:, :-1], expected.numpy(), rtol=1e-11)
  np.testing.assert_array_equal(got[:, -1], 0.0)
