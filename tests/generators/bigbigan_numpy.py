# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN's generator once more: loops over taps, channels first, float64.

It reads the names and layouts of the PyTorch port before anything is baked,
and shares no code with the package.
"""

from __future__ import annotations

import numpy as np

WIDTHS = (16, 16, 8, 4, 2, 1)
CLASS = 128


def random_arrays(
  ch: int, *, latent_dim: int = 120, channels: int = 3, seed: int = 0
) -> dict[str, np.ndarray]:
  """Weights under the names of `BigBiGAN_x1.pth` at a small width."""
  rng = np.random.default_rng(seed)
  part = latent_dim // 6
  arrays: dict[str, np.ndarray] = {}

  def layer(name: str, shape: tuple[int, ...], *, bias: bool) -> None:
    fan_in = np.prod(shape[1:])
    arrays[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(fan_in)
    arrays[f"{name}.u0"] = rng.normal(size=(1, shape[0]))
    arrays[f"{name}.sv0"] = np.ones(1)
    if bias:
      arrays[f"{name}.bias"] = 0.3 * rng.normal(size=shape[0])

  def statistics(name: str, size: int) -> None:
    arrays[f"{name}.stored_mean"] = np.zeros(size)
    arrays[f"{name}.stored_var"] = np.ones(size)

  row = rng.normal(size=(1, CLASS))
  arrays["shared.weight"] = np.repeat(row, 1000, axis=0)
  layer("linear", (16 * WIDTHS[0] * ch, part), bias=True)
  for i in range(5):
    before, after = WIDTHS[i] * ch, WIDTHS[i + 1] * ch
    block = f"blocks.{i}.0"
    layer(f"{block}.conv1", (after, before, 3, 3), bias=True)
    layer(f"{block}.conv2", (after, after, 3, 3), bias=True)
    layer(f"{block}.conv_sc", (after, before, 1, 1), bias=True)
    for norm, size in (("bn1", before), ("bn2", after)):
      statistics(f"{block}.{norm}", size)
      for what in ("gain", "bias"):
        layer(f"{block}.{norm}.{what}", (size, CLASS + part), bias=False)
  wide = 2 * ch
  for name, shape in {
    "theta": (wide // 8, wide),
    "phi": (wide // 8, wide),
    "g": (wide // 2, wide),
    "o": (wide, wide // 2),
  }.items():
    layer(f"blocks.3.1.{name}", (*shape, 1, 1), bias=False)
  arrays["blocks.3.1.gamma"] = np.asarray(0.7)
  arrays["output_layer.0.gain"] = rng.uniform(0.5, 1.5, size=ch)
  arrays["output_layer.0.bias"] = 0.3 * rng.normal(size=ch)
  statistics("output_layer.0", ch)
  layer("output_layer.2", (channels, ch, 3, 3), bias=True)
  # Statistics near those of its images, or nothing would stay in range.
  z = rng.normal(size=(4, latent_dim))
  generate(arrays, z, epsilon=0.0, output_epsilon=0.0, measure=True)
  for name in arrays:
    if name.endswith("stored_mean"):
      arrays[name] += 0.2 * rng.normal(size=arrays[name].shape)
    if name.endswith("stored_var"):
      arrays[name] *= rng.uniform(0.7, 1.4, size=arrays[name].shape)
  return arrays


def normalised(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
  """The kernel over its norm after half a step of the power iteration."""
  weight, u = arrays[f"{name}.weight"], arrays[f"{name}.u0"][0]
  matrix = weight.reshape(weight.shape[0], -1)
  v = matrix.T @ u
  v = v / np.sqrt((v**2).sum())
  return weight / np.sqrt(((matrix @ v) ** 2).sum())


def convolve(x: np.ndarray, weight: np.ndarray, bias=None) -> np.ndarray:
  """A zero-padded convolution that keeps the size, tap by tap."""
  side = weight.shape[2]
  margin = side // 2
  height, width = x.shape[2:]
  wide = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
  y = np.zeros((x.shape[0], weight.shape[0], height, width))
  for i in range(side):
    for j in range(side):
      seen = wide[:, :, i : i + height, j : j + width]
      y += np.einsum("bchw,dc->bdhw", seen, weight[:, :, i, j])
  return y if bias is None else y + bias[None, :, None, None]


def _norm(arrays, name, x, gain, bias, epsilon, measure):
  if measure:
    arrays[f"{name}.stored_mean"] = x.mean(axis=(0, 2, 3))
    arrays[f"{name}.stored_var"] = x.var(axis=(0, 2, 3))
  mean, var = arrays[f"{name}.stored_mean"], arrays[f"{name}.stored_var"]
  x = (x - mean[None, :, None, None]) / np.sqrt(var + epsilon)[:, None, None]
  return x * gain[:, :, None, None] + bias[:, :, None, None]


def _conditional(arrays, name, x, condition, epsilon, measure):
  gain = 1 + condition @ normalised(arrays, f"{name}.gain").T
  bias = condition @ normalised(arrays, f"{name}.bias").T
  return _norm(arrays, name, x, gain, bias, epsilon, measure)


def _double(x: np.ndarray) -> np.ndarray:
  return x.repeat(2, axis=2).repeat(2, axis=3)


def _pool(x: np.ndarray) -> np.ndarray:
  views = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
  return np.max(views, axis=0)


def attention(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
  """Self-attention, one image at a time."""
  project = lambda name, x: convolve(
    x, normalised(arrays, f"blocks.3.1.{name}")
  )
  theta, phi = project("theta", x), _pool(project("phi", x))
  values = _pool(project("g", x))
  mixed = np.zeros((x.shape[0], values.shape[1], *x.shape[2:]))
  for image in range(len(x)):
    queries = theta[image].reshape(theta.shape[1], -1)
    keys = phi[image].reshape(phi.shape[1], -1)
    scores = queries.T @ keys
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    beta = scores / scores.sum(axis=1, keepdims=True)
    flat = values[image].reshape(values.shape[1], -1)
    mixed[image] = (flat @ beta.T).reshape(-1, *x.shape[2:])
  return x + arrays["blocks.3.1.gamma"] * project("o", mixed)


def generate(
  arrays: dict[str, np.ndarray],
  z: np.ndarray,
  *,
  epsilon: float,
  output_epsilon: float,
  measure: bool = False,
) -> np.ndarray:
  """Returns images [B, channels, 128, 128] in [-1, 1].

  With `measure` the stored statistics become those of this batch.
  """
  label = np.repeat(arrays["shared.weight"][5:6], len(z), axis=0)
  part = z.shape[1] // 6
  x = z[:, :part] @ normalised(arrays, "linear").T + arrays["linear.bias"]
  x = x.reshape(len(z), -1, 4, 4)
  for i in range(5):
    chunk = z[:, (i + 1) * part : (i + 2) * part]
    condition = np.concatenate([label, chunk], axis=1)
    conv = lambda name, x, i=i: convolve(
      x,
      normalised(arrays, f"blocks.{i}.0.{name}"),
      arrays[f"blocks.{i}.0.{name}.bias"],
    )
    norm = lambda name, x, i=i, c=condition: np.maximum(
      _conditional(arrays, f"blocks.{i}.0.{name}", x, c, epsilon, measure), 0
    )
    y = conv("conv1", _double(norm("bn1", x)))
    x = conv("conv2", norm("bn2", y)) + conv("conv_sc", _double(x))
    if i == 3:
      x = attention(arrays, x)
  last = "output_layer.0"
  gain, bias = arrays[f"{last}.gain"][None], arrays[f"{last}.bias"][None]
  x = _norm(arrays, last, x, gain, bias, output_epsilon, measure)
  name = "output_layer.2"
  weight, bias = normalised(arrays, name), arrays[f"{name}.bias"]
  return np.tanh(convolve(np.maximum(x, 0), weight, bias))


def _to_hwc(rows: np.ndarray) -> np.ndarray:
  """Rows of a linear layer that writes a 4x4 map, channels last."""
  channels = len(rows) // 16
  unfolded = rows.reshape(channels, 4, 4, -1).transpose(1, 2, 0, 3)
  return unfolded.reshape(len(rows), -1)


def _swap(rows: np.ndarray) -> np.ndarray:
  """The latent in front of the class; a vector [C, 1] is left alone."""
  if rows.shape[1] == 1:
    return rows
  return np.concatenate([rows[:, CLASS:], rows[:, :CLASS]], axis=1)


def tensorflow_arrays(
  arrays: dict[str, np.ndarray], *, count: float = 1.0
) -> dict[str, np.ndarray]:
  """The same weights under the names and layouts of the TensorFlow module.

  Plain variables get other values than their moving averages, and other
  networks' variables stand beside them.
  """
  root, found = "GenEncWrapper/Generator", {}

  def put(name: str, value: np.ndarray, *, averaged: bool = True) -> None:
    found[f"{root}/{name}"] = value
    if averaged:
      found[f"{root}/{name}"] = value + 1.0
      found[f"{root}/{name}/ema_0.9999"] = value

  def layer(theirs: str, name: str, change=lambda a: a) -> None:
    weight = arrays[f"{name}.weight"]
    if weight.ndim == 4:
      put(f"{theirs}/w", weight.transpose(2, 3, 1, 0))
    else:
      put(f"{theirs}/w", change(weight).T)
    u = arrays[f"{name}.u0"]
    put(f"{theirs}/u0", change(u.T).T, averaged=False)
    put(f"{theirs}/u1", np.ones((1, 3)), averaged=False)
    if f"{name}.bias" in arrays and "bn" not in name:
      put(f"{theirs}/b", change(arrays[f"{name}.bias"][:, None])[:, 0])

  def statistics(theirs: str, name: str) -> None:
    for what in ("mean", "var"):
      value = arrays[f"{name}.stored_{what}"] * count
      put(f"{theirs}/accumulated_{what}", value, averaged=False)
    put(f"{theirs}/accumulation_counter", np.asarray(count), averaged=False)

  put("linear/w", arrays["shared.weight"][:1])
  layer("GenZ/G_linear", "linear", _to_hwc)
  for i in range(5):
    block = "GBlock" + (f"_{i}" if i else "")
    for theirs, name in (
      ("conv0", "conv1"),
      ("conv1", "conv2"),
      ("conv_sc", "conv_sc"),
    ):
      layer(f"{block}/{theirs}", f"blocks.{i}.0.{name}")
    for theirs, name in (("BatchNorm", "bn1"), ("BatchNorm_1", "bn2")):
      theirs, name = f"{block}/{theirs}", f"blocks.{i}.0.{name}"
      statistics(theirs, name)
      layer(f"{theirs}/scale", f"{name}.gain", _swap)
      layer(f"{theirs}/offset", f"{name}.bias", _swap)
  for theirs in ("theta", "phi", "g", "o"):
    name = "o_conv" if theirs == "o" else theirs
    layer(f"attention/{name}", f"blocks.3.1.{theirs}")
  put("attention/gamma", arrays["blocks.3.1.gamma"])
  statistics("BatchNorm", "output_layer.0")
  put("BatchNorm/scale", arrays["output_layer.0.gain"][None, None, None])
  put("BatchNorm/offset", arrays["output_layer.0.bias"][None, None, None])
  layer("conv_2d", "output_layer.2")
  found["GenEncWrapper/Encoder/anything/w"] = np.ones((2, 2))
  return found
