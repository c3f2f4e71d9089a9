# SPDX-License-Identifier: Apache-2.0
"""What the tests of spectrograms share."""

from __future__ import annotations

import numpy as np


def noise(*shape: int, seed: int = 0) -> np.ndarray:
  """White noise that mostly stays within [-1, 1]."""
  return 0.3 * np.random.default_rng(seed).normal(size=shape)


def kaldi_bank(
  num_mels: int, n_fft: int, rate: float, fmin: float, fmax: float
) -> np.ndarray:
  """Weight by weight, from the definition."""
  mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)
  step = (mel(fmax) - mel(fmin)) / (num_mels + 1)
  bank = np.zeros((num_mels, n_fft // 2 + 1))
  for band in range(num_mels):
    left = mel(fmin) + band * step
    for i in range(n_fft // 2):  # Kaldi leaves out the highest frequency.
      place = mel(i * rate / n_fft)
      if left < place <= left + step:
        bank[band, i] = (place - left) / step
      elif left + step < place < left + 2 * step:
        bank[band, i] = (left + 2 * step - place) / step
  return bank


def close(got, want, rtol: float = 1e-5) -> None:
  """Equal but for `rtol` of the largest value."""
  assert got.shape == want.shape
  atol = rtol * np.abs(want).max()
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)
