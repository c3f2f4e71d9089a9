# SPDX-License-Identifier: Apache-2.0
"""From sound to what a network of spectrograms reads.

`mel_filters` is numpy on the host, in float64; the rest is JAX: it may be
compiled and differentiated, and computes in float32, or in the input's dtype
where that is wider. Sounds are [..., L] and spectrograms
[..., frequency, time], with any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import checks
from tgt_jax.types import Array

SCALES = ("htk", "kaldi", "slaney")
NORMS = ("none", "slaney")
PAD_MODES = ("constant", "reflect")
WINDOWS = ("periodic", "symmetric")

# Slaney's scale is linear up to this frequency, and logarithmic from there.
_SLANEY_KNEE = 1000.0
_SLANEY_LINEAR = 200.0 / 3.0
_SLANEY_STEP = np.log(6.4) / 27.0


class _Scale(NamedTuple):
  """From hertz to mel and back."""

  to_mel: Callable[[np.ndarray], np.ndarray]
  to_hertz: Callable[[np.ndarray], np.ndarray]


def _logarithmic(factor: float) -> _Scale:
  """The scale `factor * log(1 + hertz / 700)`."""
  return _Scale(
    lambda hertz: factor * np.log1p(hertz / 700.0),
    lambda mel: 700.0 * np.expm1(mel / factor),
  )


def _slaney_mel(hertz: np.ndarray) -> np.ndarray:
  above = np.log(np.maximum(hertz, _SLANEY_KNEE) / _SLANEY_KNEE)
  low = np.minimum(hertz, _SLANEY_KNEE) / _SLANEY_LINEAR
  return low + above / _SLANEY_STEP


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
  knee = _SLANEY_KNEE / _SLANEY_LINEAR
  factor = np.exp(_SLANEY_STEP * np.maximum(mel - knee, 0.0))
  return np.minimum(mel, knee) * _SLANEY_LINEAR * factor


_SCALES = {
  "htk": _logarithmic(2595.0 / np.log(10.0)),
  "kaldi": _logarithmic(1127.0),
  "slaney": _Scale(_slaney_mel, _slaney_hertz),
}


def mel_filters(
  *,
  num_mels: int,
  n_fft: int,
  sample_rate: float,
  fmin: float = 0.0,
  fmax: float | None = None,
  scale: str = "kaldi",
  norm: str = "none",
) -> np.ndarray:
  """Returns triangular filters whose centres are equally far apart in mel.

  "kaldi" and "htk" are the scale 1127 ln(1 + f / 700), but for the last digits
  of the factor; Kaldi's triangles are straight over mel, those of the others
  over hertz. "slaney" is linear up to 1 kHz.

  Args:
    num_mels: number of filters M.
    n_fft: length of the Fourier transform.
    sample_rate: samples per second.
    fmin: where the first filter begins, hertz.
    fmax: where the last filter ends, hertz; half the sample rate by default.
    scale: one of `SCALES`.
    norm: "none" is a peak of 1, "slaney" divides each filter by half its
      width in hertz.

  Returns:
    Weights of every frequency, float64, shape [M, n_fft // 2 + 1].

  Raises:
    ValueError: an argument out of its range, or a filter without a frequency.

  References:
    Povey et al., 2011, "The Kaldi Speech Recognition Toolkit".
    Slaney, 1998, "Auditory Toolbox", version 2.
  """
  checks.positive(num_mels=num_mels, n_fft=n_fft, sample_rate=sample_rate)
  checks.non_negative(fmin=fmin)
  checks.one_of(SCALES, scale=scale)
  checks.one_of(NORMS, norm=norm)
  nyquist = sample_rate / 2.0
  fmax = nyquist if fmax is None else fmax
  if not fmin < fmax <= nyquist:
    raise ValueError(
      f"expected fmin < fmax <= half the sample rate, {nyquist}; got"
      f" fmin={fmin}, fmax={fmax}, sample_rate={sample_rate}: lower fmax, or"
      " sample the sound more often"
    )

  to_mel, to_hertz = _SCALES[scale]
  frequencies = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
  first, last = to_mel(np.array([fmin, fmax]))
  edges = np.linspace(first, last, num_mels + 2)
  hertz = to_hertz(edges)
  if scale == "kaldi":
    frequencies, corners = to_mel(frequencies), edges
  else:
    corners = hertz
  left, centre, right = corners[:-2], corners[1:-1], corners[2:]
  rise = (frequencies - left[:, None]) / (centre - left)[:, None]
  fall = (right[:, None] - frequencies) / (right - centre)[:, None]
  filters = np.maximum(0.0, np.minimum(rise, fall))
  empty = np.flatnonzero(filters.max(axis=1) == 0.0)
  if empty.size:
    raise ValueError(
      f"mel filters {empty.tolist()} of {num_mels} hold none of the"
      f" frequencies {sample_rate / n_fft} hertz apart: raise n_fft={n_fft} or"
      " lower num_mels"
    )
  if norm == "slaney":
    filters *= 2.0 / (hertz[2:] - hertz[:-2])[:, None]
  return filters


def _hann(length: int, window: str) -> np.ndarray:
  """A raised cosine; the periodic one ends a sample before its zero."""
  period = length if window == "periodic" else max(length - 1, 1)
  return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / period)


def _frames(x: Array, length: int, hop: int, count: int) -> Array:
  """Cuts [..., L] into [..., count, length], `hop` samples apart.

  Made of blocks of `hop` samples, shifted: neither this nor its gradient
  gathers or scatters.
  """
  blocks = -(-length // hop)
  total = (count - 1 + blocks) * hop
  x = x[..., :total]
  ends = [(0, 0)] * (x.ndim - 1) + [(0, total - x.shape[-1])]
  cells = jnp.pad(x, ends).reshape(*x.shape[:-1], -1, hop)
  shifted = [cells[..., i : i + count, :] for i in range(blocks)]
  return jnp.concatenate(shifted, axis=-1)[..., :length]


def stft_power(
  x: Array,
  *,
  n_fft: int,
  win_length: int,
  hop_length: int,
  center: bool = True,
  window: str = "periodic",
  pad_mode: str = "reflect",
) -> Array:
  """Returns the squared absolute values of a short-time Fourier transform.

  Args:
    x: sounds, floating point, shape [..., L].
    n_fft: length of the transforms.
    win_length: length of the Hann window, in the middle of a transform, in
      [1, n_fft].
    hop_length: samples from one window to the next.
    center: whether the first window is centred at the first sample, beyond
      which the sound is padded; else the first transform begins there.
    window: "periodic", or "symmetric": it ends with the zero that it begins
      with.
    pad_mode: what lies beyond a centred sound, "reflect" or "constant" (zeros).

  Returns:
    Shape [..., n_fft // 2 + 1, T]; of an even n_fft, T is `1 + L //
    hop_length` if centred, else `1 + (L - n_fft) // hop_length`.

  Raises:
    ValueError: an argument out of its range, or too short a sound.
  """
  checks.floating(x=x)
  checks.positive(n_fft=n_fft, hop_length=hop_length)
  checks.in_range(1, n_fft, win_length=win_length)
  checks.one_of(WINDOWS, window=window)
  checks.one_of(PAD_MODES, pad_mode=pad_mode)
  half = n_fft // 2
  fewest = max(win_length, half + 1) if center else n_fft
  if x.ndim < 1 or x.shape[-1] < fewest:
    raise ValueError(
      f"x: expected sounds [..., L] of at least {fewest} samples, a window's"
      f" (win_length={win_length}, n_fft={n_fft}, center={center}), got shape"
      f" {x.shape}: pad the sound or shorten the window"
    )

  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if center:
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode=pad_mode)
  count = 1 + (x.shape[-1] - n_fft) // hop_length
  # Where within a transform the window lies does not change absolute values:
  # the samples that it makes zero are left out, and zeros put behind.
  x = x[..., (n_fft - win_length) // 2 :]
  hann = jnp.asarray(_hann(win_length, window), x.dtype)
  frames = _frames(x, win_length, hop_length, count)
  frames = frames * hann.reshape((1,) * (frames.ndim - 1) + (-1,))
  spectrum = jnp.fft.rfft(frames, n=n_fft)
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  return jnp.moveaxis(power, -1, -2)


def log_mel(
  waveform: Array,
  *,
  sample_rate: float,
  num_mels: int,
  n_fft: int = 1024,
  win_length: int = 800,
  hop_length: int = 320,
  fmin: float = 0.0,
  fmax: float | None = None,
  pre_emphasis: float = 0.97,
  offset: float = 1e-5,
  shift: float = 3.7,
  scale: float = 3.1,
  mel_scale: str = "kaldi",
  norm: str = "none",
) -> Array:
  """Returns a normalised log-mel spectrogram.

  Pre-emphasis x_t - c x_{t-1}, which has one sample less; the power of a
  centred transform with a symmetric Hann window, reflected at the ends;
  `(log(mel + offset) + shift) / scale`. The defaults are those of CP-ResNet and
  MobileFCN as students of audio embeddings; 10 s at 32 kHz are 1000 frames.

  Args:
    waveform: sounds in [-1, 1], floating point, shape [..., L].
    sample_rate: samples per second.
    num_mels: number of mel bands M.
    n_fft: length of the transforms.
    win_length: length of the window, in [1, n_fft].
    hop_length: samples from one frame to the next.
    fmin: where the first band begins, hertz.
    fmax: where the last band ends, hertz; half the sample rate by default.
    pre_emphasis: the factor c, in [0, 1]; 0 leaves the sound as it is, with
      all its samples.
    offset: added to the power before the logarithm, above 0.
    shift: added to the logarithm.
    scale: divides the sum.
    mel_scale: one of `SCALES`.
    norm: of the filters, one of `NORMS`.

  Returns:
    Shape [..., M, T] with T as of `stft_power`.

  Raises:
    ValueError: an argument out of its range, or too short a sound.

  References:
    Ding and Lerch, 2023, "Audio Embeddings as Teachers for Music
    Classification" (https://arxiv.org/abs/2306.17424).
  """
  checks.floating(waveform=waveform)
  checks.in_range(0.0, 1.0, pre_emphasis=pre_emphasis)
  checks.positive(offset=offset, scale=scale)
  checks.finite(shift=shift)
  filters = mel_filters(
    num_mels=num_mels,
    n_fft=n_fft,
    sample_rate=sample_rate,
    fmin=fmin,
    fmax=fmax,
    scale=mel_scale,
    norm=norm,
  )

  x = waveform.astype(jnp.promote_types(waveform.dtype, jnp.float32))
  if pre_emphasis:
    x = x[..., 1:] - pre_emphasis * x[..., :-1]
  power = stft_power(
    x,
    n_fft=n_fft,
    win_length=win_length,
    hop_length=hop_length,
    window="symmetric",
  )
  weights = jnp.asarray(filters, power.dtype)
  # An accelerator would else round the power to bfloat16.
  exact = jax.lax.Precision.HIGHEST
  mel = jnp.einsum("mf,...ft->...mt", weights, power, precision=exact)
  return (jnp.log(mel + offset) + shift) / scale
