# SPDX-License-Identifier: Apache-2.0
"""Converted weights compute what PyTorch computes, and go back strictly."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import models
from tgt_jax.weights import Rule, convert, export, torch_layers
from tgt_jax.weights.transforms import linear_reads_map

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle


@pytest.fixture(autouse=True)
def _float64():
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  torch.manual_seed(0)
  with jax.enable_x64(True):
    yield
  torch.set_num_threads(threads)


def _arrays(module) -> dict[str, np.ndarray]:
  return {k: v.numpy() for k, v in module.double().state_dict().items()}


def _check_back(tree, table, build) -> None:
  """The export fills a fresh PyTorch module that then equals the first."""
  arrays = export(tree, table)
  fresh = build().double()
  tensors = {name: torch.tensor(array) for name, array in arrays.items()}
  fresh.load_state_dict(tensors, strict=True)


def _close(got, want) -> None:
  want = want.detach().numpy()
  np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def _template(network, x):
  params, state = jax.eval_shape(network.init, jax.random.key(0), x)
  return {"params": params, "model_state": state}


def test_mlp():
  def build():
    layers = torch.nn
    return layers.Sequential(
      layers.Flatten(),
      layers.Linear(24, 7),
      layers.ReLU(),
      layers.Linear(7, 6),
      layers.ReLU(),
      layers.Linear(6, 5),
    )

  table = [
    Rule(
      "1.weight", "params/dense_0/kernel", linear_reads_map(4, 3, channels=2)
    ),
    Rule("1.bias", "params/dense_0/bias"),
    *torch_layers.dense("3", "dense_1"),
    *torch_layers.dense("5", "head"),
  ]
  network = models.mlp(num_classes=5, widths=(7, 6), dtype="float64")
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 3, 2)))
  module = build()
  tree = convert(_arrays(module), table, _template(network, x))
  outputs, _ = network.apply(tree["params"], {}, x)
  _close(outputs.logits, module(torch.tensor(np.array(x)).permute(0, 3, 1, 2)))
  _check_back(tree, table, build)


def test_cnn():
  def build():
    layers = torch.nn
    stages = [
      layers.Sequential(
        layers.Conv2d(before, after, 3, padding=1),
        layers.MaxPool2d(2),
        layers.ReLU(),
      )
      for before, after in ((3, 4), (4, 6))
    ]
    dense = layers.Sequential(
      layers.Flatten(), layers.Linear(24, 7), layers.ReLU()
    )
    return layers.Sequential(*stages, dense, layers.Linear(7, 5))

  reads = linear_reads_map(2, 2, channels=6)
  table = [
    Rule("2.1.weight", "params/dense_0/kernel", reads),
    Rule("2.1.bias", "params/dense_0/bias"),
    *torch_layers.conv("{i}.0", "conv_{i}"),
    *torch_layers.dense("3", "head"),
  ]
  network = models.cnn(
    num_classes=5, widths=(4, 6), dense_widths=(7,), dtype="float64"
  )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
  module = build()
  tree = convert(_arrays(module), table, _template(network, x))
  outputs, _ = network.apply(tree["params"], {}, x)
  _close(outputs.logits, module(torch.tensor(np.array(x)).permute(0, 3, 1, 2)))
  _check_back(tree, table, build)


LAYERS = {
  "depthwise": (
    lambda: torch.nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
    nn.Conv(6, (3, 3), strides=2, padding=1, feature_group_count=6),
    torch_layers.conv,
  ),
  "grouped": (
    lambda: torch.nn.Conv2d(6, 4, (3, 1), groups=2),
    nn.Conv(4, (3, 1), padding="VALID", feature_group_count=2),
    torch_layers.conv,
  ),
  "transposed": (
    lambda: torch.nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1),
    nn.ConvTranspose(4, (4, 4), strides=(2, 2), padding=((2, 2), (2, 2))),
    torch_layers.conv_transpose,
  ),
  "1x1": (
    lambda: torch.nn.Conv2d(6, 4, 1),
    nn.Dense(4),
    lambda source, target: torch_layers.dense(source, target, "conv1x1"),
  ),
  "group norm": (
    lambda: torch.nn.GroupNorm(3, 6, eps=1e-6),
    nn.GroupNorm(3, epsilon=1e-6),
    torch_layers.norm,
  ),
  "batch norm": (
    lambda: torch.nn.BatchNorm2d(6),
    nn.BatchNorm(use_running_average=True, epsilon=1e-5),
    torch_layers.batch_norm,
  ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
  build, ours, group = LAYERS[name]

  class Around(nn.Module):
    @nn.compact
    def __call__(self, x):
      return ours.clone(name="layer", parent=self)(x)

  def build_named():
    return torch.nn.ModuleDict({"a": build()})

  module = build_named()
  for tensor in module.state_dict().values():
    if tensor.is_floating_point():  # Norms start at 1 and 0.
      tensor.uniform_(0.5, 1.5)
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 6))
  shapes = dict(jax.eval_shape(Around().init, jax.random.key(0), x))
  template = {"params": shapes.pop("params"), "model_state": shapes}
  table = group("a", "layer")
  tree = convert(_arrays(module), table, template)
  variables = {"params": tree["params"], **tree["model_state"]}
  # flax keeps parameters in float32.
  y = Around().apply(jax.tree.map(np.float64, variables), x)
  want = module.eval()["a"](torch.tensor(x).permute(0, 3, 1, 2))
  np.testing.assert_allclose(
    y, want.permute(0, 2, 3, 1).detach().numpy(), rtol=1e-5, atol=1e-5
  )
  _check_back(tree, table, build_named)
