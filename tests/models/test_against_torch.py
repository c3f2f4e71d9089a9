# SPDX-License-Identifier: Apache-2.0
"""Networks against PyTorch with the same weights, in float64."""

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


@pytest.fixture(autouse=True)
def _float64():
  # The networks are tiny: threads would only wait for each other.
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  with jax.enable_x64(True):
    yield
  torch.set_num_threads(threads)


def _setup(network, shape: tuple[int, ...]):
  x = jnp.asarray(np.random.default_rng(0).uniform(size=shape))
  params, state = random_weights(network.init, x)
  return params, state, x


def _tensor(array) -> torch.Tensor:
  return torch.tensor(np.asarray(array))


def _nchw(x) -> torch.Tensor:
  return _tensor(x).permute(0, 3, 1, 2)


def _load_dense(layer, params) -> None:
  layer.weight.data = _tensor(params["kernel"]).T.contiguous()
  if layer.bias is not None:
    layer.bias.data = _tensor(params["bias"])


def _load_conv(layer, params) -> None:
  layer.weight.data = _tensor(params["kernel"]).permute(3, 2, 0, 1).contiguous()
  if layer.bias is not None:
    layer.bias.data = _tensor(params["bias"])


def _load_norm(layer, params, stats) -> None:
  layer.weight.data, layer.bias.data = (
    _tensor(params["scale"]),
    _tensor(params["bias"]),
  )
  layer.running_mean.data = _tensor(stats["mean"])
  layer.running_var.data = _tensor(stats["var"])


def _close(got, want: torch.Tensor, rtol: float = 1e-8) -> None:
  want = want.detach().numpy()
  scale = np.abs(want).max()
  np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale)


def test_mlp() -> None:
  network = models.mlp(
    num_classes=5, widths=(7, 6), mean=0.4, std=0.3, dtype="float64"
  )
  params, state, x = _setup(network, (3, 4, 5, 2))
  dense_0, dense_1 = nn.Linear(40, 7).double(), nn.Linear(7, 6).double()
  head = nn.Linear(6, 5).double()
  for layer, name in (
    (dense_0, "dense_0"),
    (dense_1, "dense_1"),
    (head, "head"),
  ):
    _load_dense(layer, params[name])
  hidden = ((_tensor(x) - 0.4) / 0.3).flatten(1)
  embedding = dense_1(dense_0(hidden).relu()).relu()

  outputs, _ = jax.jit(network.apply)(params, state, x)
  _close(outputs.embedding, embedding)
  _close(outputs.logits, head(embedding))


def test_cnn_and_its_input_gradient() -> None:
  network = models.cnn(
    num_classes=5, widths=(4, 6), dense_widths=(7,), dtype="float64"
  )
  params, state, x = _setup(network, (3, 9, 7, 2))
  conv_0 = nn.Conv2d(2, 4, 3, padding=1).double()
  conv_1 = nn.Conv2d(4, 6, 3, padding=1).double()
  dense, head = nn.Linear(12, 7).double(), nn.Linear(7, 5).double()
  _load_conv(conv_0, params["conv_0"])
  _load_conv(conv_1, params["conv_1"])
  _load_dense(dense, params["dense_0"])
  _load_dense(head, params["head"])
  images = _tensor(x).requires_grad_()
  hidden = functional.max_pool2d(conv_0(images.permute(0, 3, 1, 2)).relu(), 2)
  hidden = functional.max_pool2d(conv_1(hidden).relu(), 2)
  logits = head(dense(hidden.permute(0, 2, 3, 1).flatten(1)).relu())
  logits.sin().sum().backward()

  def loss(x):
    outputs, _ = network.apply(params, state, x)
    return jnp.sin(outputs.logits).sum(), outputs

  gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(x)
  _close(outputs.logits, logits)
  _close(gradient, images.grad)


class _TorchBlock(nn.Module):
  """A residual block written from the paper, with either shortcut."""

  def __init__(self, before: int, after: int, stride: int, shortcut: str):
    super().__init__()
    self.conv_0 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    self.norm_0 = nn.BatchNorm2d(after)
    self.conv_1 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
    self.norm_1 = nn.BatchNorm2d(after)
    self.stride, self.extra = stride, after - before
    if before != after and shortcut == "B":
      self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
      self.shortcut_norm = nn.BatchNorm2d(after)

  def forward(self, x):
    y = self.norm_0(self.conv_0(x)).relu()
    y = self.norm_1(self.conv_1(y))
    if hasattr(self, "shortcut"):
      x = self.shortcut_norm(self.shortcut(x))
    elif self.extra:
      half = self.extra // 2
      x = x[:, :, :: self.stride, :: self.stride]
      x = functional.pad(x, (0, 0, 0, 0, half, half))
    return (x + y).relu()

  def load(self, params, stats) -> None:
    for name in params:
      if "norm" in name:
        _load_norm(getattr(self, name), params[name], stats[name])
      elif name == "shortcut":
        kernel = {"kernel": params[name]["kernel"][None, None]}
        _load_conv(self.shortcut, kernel)
      else:
        _load_conv(getattr(self, name), params[name])


class _TorchResNet(nn.Module):
  def __init__(self, blocks: int, num_classes: int, shortcut: str):
    super().__init__()
    self.stem_conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    self.stem_norm = nn.BatchNorm2d(16)
    self.blocks = nn.ModuleDict()
    before = 16
    for stage, after in enumerate((16, 32, 64)):
      for i in range(blocks):
        stride = 2 if stage > 0 and i == 0 else 1
        self.blocks[f"stage_{stage}_block_{i}"] = _TorchBlock(
          before, after, stride, shortcut
        )
        before = after
    self.head = nn.Linear(64, num_classes)

  def forward(self, x):
    x = self.stem_norm(self.stem_conv(x)).relu()
    for block in self.blocks.values():
      x = block(x)
    return self.head(x.mean((2, 3)))

  def load(self, params, stats) -> None:
    _load_conv(self.stem_conv, params["stem_conv"])
    _load_norm(self.stem_norm, params["stem_norm"], stats["stem_norm"])
    for name, block in self.blocks.items():
      block.load(params[name], stats[name])
    _load_dense(self.head, params["head"])


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet20_on_running_statistics(shortcut: str) -> None:
  network = models.resnet20(num_classes=10, shortcut=shortcut, dtype="float64")
  # 8x8 images end in 2x2 pixels; 10x9 has odd sizes at every stage.
  params, state, x = _setup(network, (2, 10, 9, 3))
  oracle = _TorchResNet(3, 10, shortcut).double().eval()
  oracle.load(params, state["batch_stats"])
  assert sum(p.numel() for p in oracle.parameters()) == (
    models.parameter_count(params)
  )

  outputs, _ = jax.jit(network.apply)(params, state, x)
  _close(outputs.logits, oracle(_nchw(x)))


def test_resnet_on_batch_statistics() -> None:
  network = models.resnet(num_classes=10, depth=8, dtype="float64")
  params, state, x = _setup(network, (4, 8, 8, 3))
  oracle = _TorchResNet(1, 10, "A").double().train()
  oracle.load(params, state["batch_stats"])
  logits = oracle(_nchw(x))
  logits.sin().sum().backward()

  def loss(params):
    outputs, new_state = network.apply(params, state, x, train=True)
    return jnp.sin(outputs.logits).sum(), (outputs, new_state)

  gradient, (outputs, new_state) = jax.jit(jax.grad(loss, has_aux=True))(params)
  _close(outputs.logits, logits)
  kernel = oracle.stem_conv.weight.grad.permute(2, 3, 1, 0)
  _close(gradient["stem_conv"]["kernel"], kernel)

  stem = new_state["batch_stats"]["stem_norm"]
  _close(stem["mean"], oracle.stem_norm.running_mean)
  # PyTorch keeps the unbiased variance of the batch, of 4 * 8 * 8 values.
  old = np.asarray(state["batch_stats"]["stem_norm"]["var"])
  unbiased = 0.9 * old + (stem["var"] - 0.9 * old) * 256 / 255
  _close(unbiased, oracle.stem_norm.running_var)
