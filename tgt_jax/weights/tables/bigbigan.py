# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN's published weights, in two kinds of files.

* The TensorFlow Hub module of DeepMind, with generator and encoder. Known are
  the names of the generator's variables, by which a public port was made.
* `BigBiGAN_x1.pth`, that port to PyTorch: the generator alone.

Both store kernels before spectral normalisation and the vector of its power
iteration. `prepare_torch` and `prepare_tensorflow` divide the kernels by their
norms once and leave plain arrays, which the rules then rename:

  arrays = prepare_torch(read_arrays("BigBiGAN_x1.pth"))
  tree = convert(arrays, torch_generator(), template)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tgt_jax.weights import torch_layers
from tgt_jax.weights.rules import Rule
from tgt_jax.weights.transforms import (
  Transform,
  linear_writes_map,
  vector_of_map,
)

Arrays = Mapping[str, np.ndarray]

CLASS_DIM = 128
_SN_EPSILON = 1e-4
_ROOT = "GenEncWrapper/Generator/"
_EMA = "/ema_0.9999"
_PARAMS = "params/generator"
_STATS = "model_state/batch_stats/generator"


def spectral_norm(
  weight: np.ndarray, u: np.ndarray, *, epsilon: float = _SN_EPSILON
) -> np.float64:
  """Returns the largest singular value as the model estimates it.

  One step of the power iteration from the stored vector, in float64:
  v = u W / |u W|, then |v W^T|.

  Args:
    weight: [out, in], or [out, ...].
    u: the stored left vector, [1, out] or [out].
    epsilon: least norm that is divided by.

  Raises:
    ValueError: a vector of another length than `out`.
  """
  matrix = np.asarray(weight, np.float64).reshape(len(weight), -1)
  u = np.asarray(u, np.float64).reshape(-1)
  if len(u) != len(matrix):
    raise ValueError(
      f"u: expected {len(matrix)} values for a weight of shape"
      f" {np.shape(weight)}, got {len(u)}"
    )
  v = u @ matrix
  v = v / max(float(np.linalg.norm(v)), epsilon)
  left = matrix @ v
  return np.float64(left @ left / max(float(np.linalg.norm(left)), epsilon))


def prepare_torch(arrays: Arrays) -> dict[str, np.ndarray]:
  """Returns the arrays of `BigBiGAN_x1.pth` without spectral norms.

  Its thousand classes are copies of the one that the model has.

  Raises:
    ValueError: classes that differ: the weights of another BigGAN.
  """
  baked = {}
  for name, array in arrays.items():
    layer, _, leaf = name.rpartition(".")
    if leaf in ("u0", "sv0"):
      continue
    if leaf == "weight" and f"{layer}.u0" in arrays:
      sigma = spectral_norm(array, arrays[f"{layer}.u0"])
      array = (array / sigma).astype(array.dtype)
    baked[name] = array
  classes = baked.get("shared.weight")
  if classes is not None:
    if not np.array_equal(classes, np.broadcast_to(classes[:1], classes.shape)):
      raise ValueError(
        "shared.weight: expected equal rows, as BigBiGAN has no classes; got"
        " rows that differ. Is this file of a class-conditional BigGAN?"
      )
    baked["shared.weight"] = classes[0]
  return baked


def prepare_tensorflow(arrays: Arrays) -> dict[str, np.ndarray]:
  """Returns the generator of the TensorFlow Hub module, without spectral norms.

  Taken are the moving averages of the weights, which the module runs with,
  and the sums of batch statistics, divided by the number of batches.

  Args:
    arrays: all variables by name; those of other networks are left out.

  Returns:
    Names without the common root. The first of several equal layers, which
    TensorFlow leaves without a number, has the number 0.

  Raises:
    ValueError: no generator among the variables, or a count of zero.
  """
  mine = {
    name.removeprefix(_ROOT).removesuffix(":0"): array
    for name, array in arrays.items()
    if name.startswith(_ROOT)
  }
  if not mine:
    raise ValueError(
      f"expected variables whose names begin with {_ROOT}, got"
      f" {', '.join(sorted(arrays)[:5])}..."
    )
  baked = {}
  for name, array in mine.items():
    layer, _, leaf = name.rpartition("/")
    if name.endswith(_EMA) or leaf in ("u0", "u1", "accumulation_counter"):
      continue
    array = mine.get(name + _EMA, array)
    if leaf == "w" and f"{layer}/u0" in mine:
      # Kernels end in their outputs here.
      matrix = array.reshape(-1, array.shape[-1]).T
      sigma = spectral_norm(matrix, mine[f"{layer}/u0"])
      array = (array / sigma).astype(array.dtype)
    if leaf in ("accumulated_mean", "accumulated_var"):
      count = float(np.reshape(mine[f"{layer}/accumulation_counter"], ()))
      if count <= 0:
        raise ValueError(
          f"{layer}/accumulation_counter: must be > 0, got {count}"
        )
      array = np.reshape(array / count, -1).astype(array.dtype)
    baked[_numbered(name)] = array
  return baked


def _numbered(name: str) -> str:
  """Writes `GBlock/BatchNorm/w` as `GBlock_0/BatchNorm_0/w`."""
  parts = name.split("/")
  if parts[0] == "GBlock":
    parts[0] = "GBlock_0"
  if parts[0] != "BatchNorm":
    parts = ["BatchNorm_0" if part == "BatchNorm" else part for part in parts]
  return "/".join(parts)


def _condition_forward(array: np.ndarray) -> np.ndarray:
  if array.ndim != 2 or array.shape[1] <= CLASS_DIM:
    raise ValueError(
      f"expected [C, {CLASS_DIM} + part of the latent], got {array.shape}"
    )
  return np.concatenate([array[:, CLASS_DIM:], array[:, :CLASS_DIM]], axis=1).T


def _condition_inverse(array: np.ndarray) -> np.ndarray:
  array = array.T
  return np.concatenate([array[:, -CLASS_DIM:], array[:, :-CLASS_DIM]], axis=1)


# The port puts the class first, the original and we the latent.
_CONDITION = Transform(_condition_forward, _condition_inverse, "condition")


def torch_generator(ch: int = 96) -> list[Rule]:
  """The rules of a baked `BigBiGAN_x1.pth`."""
  block, attention = f"{_PARAMS}/block_{{i}}", f"{_PARAMS}/attention"
  norm, stats = f"{block}/norm_{{k}}", f"{_STATS}/block_{{i}}/norm_{{k}}"
  source = "blocks.{i}.0.bn{k+1}"
  rules = [
    Rule("shared.weight", f"{_PARAMS}/class_vector"),
    Rule(
      "linear.weight",
      f"{_PARAMS}/linear/kernel",
      linear_writes_map(4, 4, 16 * ch),
    ),
    Rule("linear.bias", f"{_PARAMS}/linear/bias", vector_of_map(4, 4, 16 * ch)),
    *torch_layers.conv(
      "blocks.{i}.0.conv{k+1}", "generator/block_{i}/conv_{k}"
    ),
    *torch_layers.dense(
      "blocks.{i}.0.conv_sc", "generator/block_{i}/shortcut", "conv1x1"
    ),
    Rule(f"{source}.gain.weight", f"{norm}/gain/kernel", _CONDITION),
    Rule(f"{source}.bias.weight", f"{norm}/offset/kernel", _CONDITION),
    Rule(f"{source}.stored_{{what:mean|var}}", f"{stats}/{{what}}"),
    Rule("blocks.3.1.gamma", f"{attention}/gamma"),
    Rule("output_layer.0.gain", f"{_PARAMS}/norm/scale"),
    Rule("output_layer.0.bias", f"{_PARAMS}/norm/bias"),
    Rule("output_layer.0.stored_{what:mean|var}", f"{_STATS}/norm/{{what}}"),
    *torch_layers.conv("output_layer.2", "generator/conv"),
  ]
  for theirs, ours in _ATTENTION.items():
    rules += torch_layers.dense(
      f"blocks.3.1.{theirs}", f"generator/attention/{ours}", "conv1x1"
    )
  return rules


_ATTENTION = {"theta": "query", "phi": "key", "g": "value", "o": "out"}


def tensorflow_generator() -> list[Rule]:
  """The rules of what `prepare_tensorflow` leaves; any width."""
  block, stats = f"{_PARAMS}/block_{{i}}", f"{_STATS}/block_{{i}}"
  rules = [
    Rule("linear/w", f"{_PARAMS}/class_vector", _ROW),
    Rule("GenZ/G_linear/w", f"{_PARAMS}/linear/kernel"),
    Rule("GenZ/G_linear/b", f"{_PARAMS}/linear/bias"),
    Rule("GBlock_{i}/conv{k}/w", f"{block}/conv_{{k}}/kernel"),
    Rule("GBlock_{i}/conv{k}/b", f"{block}/conv_{{k}}/bias"),
    Rule("GBlock_{i}/conv_sc/w", f"{block}/shortcut/kernel", "conv1x1_hwio"),
    Rule("GBlock_{i}/conv_sc/b", f"{block}/shortcut/bias"),
    Rule("GBlock_{i}/BatchNorm_{k}/scale/w", f"{block}/norm_{{k}}/gain/kernel"),
    Rule(
      "GBlock_{i}/BatchNorm_{k}/offset/w", f"{block}/norm_{{k}}/offset/kernel"
    ),
    Rule(
      "GBlock_{i}/BatchNorm_{k}/accumulated_{what:mean|var}",
      f"{stats}/norm_{{k}}/{{what}}",
    ),
    Rule("attention/gamma", f"{_PARAMS}/attention/gamma", _SCALAR),
    Rule("BatchNorm/scale", f"{_PARAMS}/norm/scale", _VECTOR),
    Rule("BatchNorm/offset", f"{_PARAMS}/norm/bias", _VECTOR),
    Rule("BatchNorm/accumulated_{what:mean|var}", f"{_STATS}/norm/{{what}}"),
    Rule("conv_2d/w", f"{_PARAMS}/conv/kernel"),
    Rule("conv_2d/b", f"{_PARAMS}/conv/bias"),
  ]
  for theirs, ours in _ATTENTION.items():
    theirs = "o_conv" if theirs == "o" else theirs
    rules.append(
      Rule(
        f"attention/{theirs}/w",
        f"{_PARAMS}/attention/{ours}/kernel",
        "conv1x1_hwio",
      )
    )
  return rules


# Sizes of one that TensorFlow keeps around a vector or a scalar.
_ROW = Transform(
  lambda array: array.reshape(array.size), lambda array: array[None], "row"
)
_VECTOR = Transform(
  lambda array: array.reshape(array.size), np.asarray, "vector"
)
_SCALAR = Transform(lambda array: array.reshape(()), np.asarray, "scalar")
