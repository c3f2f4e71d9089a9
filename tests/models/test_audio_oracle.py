# SPDX-License-Identifier: Apache-2.0
"""Networks of spectrograms against PyTorch with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import models

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

pytestmark = pytest.mark.oracle

# Largest difference over the largest value.
TOLERANCES = {"float64": 1e-8, "float32": 1e-4}


@pytest.fixture(autouse=True)
def _one_thread():
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


def _tensor(array) -> torch.Tensor:
  return torch.tensor(np.asarray(array))


def _conv(x, params, **kwargs):
  """A convolution of the weights of a flax layer, "same" in size at stride 1."""
  weight = _tensor(params["kernel"]).permute(3, 2, 0, 1)
  return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, **kwargs)


class _Oracle:
  """PyTorch's functions on the weights of a network, by the layers' names."""

  def __init__(self, params, state):
    self.params, self.stats = params, state["batch_stats"]

  def norm(self, x, *path: str):
    params, stats = self.params, self.stats
    for name in path:
      params, stats = params[name], stats[name]
    arrays = (stats["mean"], stats["var"], params["scale"], params["bias"])
    return functional.batch_norm(x, *map(_tensor, arrays))

  def head(self, x):
    head = self.params["head"]
    weight, bias = _tensor(head["kernel"]), _tensor(head["bias"])
    return functional.linear(x.mean((2, 3)), weight.T, bias)


class _CPResNet(_Oracle):
  """Twelve blocks; which kernels are 3x3 is written out for rho 7."""

  KERNELS = "31 33 33 33 31 13 13 13 11 11 11 11"

  def block(self, x, name: str, kernels: str):
    params = self.params[name]
    sides = [params[f"conv_{i}"]["kernel"].shape[0] for i in range(2)]
    assert sides == [int(side) for side in kernels]
    y = self.norm(_conv(x, params["conv_0"]), name, "norm_0").relu()
    y = self.norm(_conv(y, params["conv_1"]), name, "norm_1")
    if "shortcut" in params:
      assert y.shape[1] == 2 * x.shape[1]
      x = self.norm(_conv(x, params["shortcut"]), name, "shortcut_norm")
    return (x + y).relu()

  def __call__(self, x):
    x = _conv(x, self.params["stem_conv"], stride=2)
    x, features = self.norm(x, "stem_norm").relu(), []
    for i, kernels in enumerate(self.KERNELS.split()):
      x = self.block(x, f"stage_{i // 4}_block_{i % 4}", kernels)
      if i in (0, 1, 3):
        x = functional.max_pool2d(x, 2)
      if i % 4 == 3:
        features.append(x)
    return self.head(x), features


class _MobileFCN(_Oracle):
  """Eight blocks for 96 mels, ReLU before pooling as it was published."""

  POOLS = ((2, 4), (2, 3), (2, 2), (3, 2), (4, 2), 1, 1, 1)

  def __call__(self, x):
    features = []
    for i, pool in enumerate(self.POOLS):
      name = f"block_{i}"
      if i >= 2:
        params = self.params[f"{name}_depthwise_conv"]
        x = _conv(x, params, groups=x.shape[1])
        x = self.norm(x, f"{name}_depthwise_norm").relu()
      x = _conv(x, self.params[f"{name}_conv"])
      x = self.norm(x, f"{name}_norm").relu()
      x = functional.max_pool2d(x, pool)
      if i in (3, 5, 7):
        features.append(x)
    return self.head(x), features


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
  "name, oracle, size",
  # Odd sizes at every pooling.
  [("cp_resnet", _CPResNet, (37, 46)), ("mobile_fcn", _MobileFCN, (96, 109))],
)
def test_logits_features_and_input_gradient(name, oracle, size, dtype) -> None:
  rtol = TOLERANCES[dtype]

  def close(got, want) -> None:
    want = want.detach().numpy()
    atol = rtol * np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)

  with jax.enable_x64(dtype == "float64"):
    network = models.MODELS[name](num_classes=5, width=8, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(2, *size, 1)).astype(dtype)
    params, state = random_weights(network.init, jnp.asarray(x))
    spectrograms = _tensor(x).requires_grad_()
    logits, features = oracle(params, state)(spectrograms.permute(0, 3, 1, 2))
    logits.sin().sum().backward()

    def loss(x):
      outputs, _ = network.apply(params, state, x)
      return jnp.sin(outputs.logits).sum(), outputs

    gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(jnp.asarray(x))
    aligned = [models.frames(feature) for feature in outputs.features]

  assert outputs.logits.dtype == dtype
  close(outputs.logits, logits)
  for i, want in enumerate(features):
    close(outputs.features[i], want.permute(0, 2, 3, 1))
    close(aligned[i], want.mean(2).permute(0, 2, 1))
  if dtype == "float64":  # A near tie of float32 may go to another pixel.
    close(gradient, spectrograms.grad)
