# SPDX-License-Identifier: Apache-2.0
"""The ImageNet networks against timm, through the tables of names.

Weights are random and the statistics of batch normalisation are near those of
a batch, so that no layer's output drowns in the others'. They are well
conditioned: PyTorch's own float32 is within the bound of its float64. Run with
`-s` for the differences.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.timm_oracle import import_timm
from tgt_jax import models
from tgt_jax.weights import convert, export
from tgt_jax.weights.tables import mobile, resnets

timm = import_timm()
torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.oracle

CLASSES = 7
PLAIN = {"mean": 0.0, "std": 1.0}
# Even all the way down, and odd on the way.
SHAPE = (2, 64, 75, 3)


class Case(NamedTuple):
  """A network of ours and timm's."""

  network: Callable[..., Any]
  oracle: Callable[..., Any]
  rules: list
  stages: tuple[str, ...]


def _timm(name: str, **kwargs) -> Callable[[], Any]:
  return lambda: timm.create_model(name, num_classes=CLASSES, **kwargs)


def _resnet10() -> Any:
  blocks = timm.models.resnet.BasicBlock
  return timm.models.resnet.ResNet(blocks, (1,) * 4, num_classes=CLASSES)


def _v2(*, stride_on: str = "conv3x3", eps: float = 1e-5, same: bool) -> Any:
  """The pre-activation network in forms that timm has no name for."""
  norm = functools.partial(timm.layers.BatchNormAct2d, eps=eps)
  kwargs = {"norm_layer": norm}
  if same:
    conv = timm.layers.create_conv2d
    kwargs["conv_layer"] = functools.partial(conv, padding="same")
    kwargs["stem_type"] = "same"
  model = timm.create_model("resnetv2_50", num_classes=CLASSES, **kwargs)
  if stride_on == "conv1x1":
    for stage in list(model.stages)[1:]:
      first = stage.blocks[0]
      first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
  return model


def _bit(eps: float) -> Any:
  standardized = functools.partial(timm.layers.StdConv2d, eps=eps)
  return timm.models.resnetv2.ResNetV2(
    layers=[3, 4, 6, 3],
    stem_type="fixed",
    conv_layer=standardized,
    num_classes=CLASSES,
  )


def _thin_mobilenet() -> Any:
  return timm.models.mobilenetv3._gen_mobilenet_v3(
    "large", 0.5, num_classes=CLASSES
  )


def _lite0() -> Any:
  package = pytest.importorskip("efficientnet_lite_pytorch")
  # Else it pads as is right for images of 224 pixels alone.
  return package.EfficientNet.from_name(
    "efficientnet-lite0", num_classes=CLASSES, image_size=None
  )


_LAYERS = tuple(f"layer{i + 1}" for i in range(4))
_STAGES = (*(f"stages.{i}" for i in range(4)), "norm")
_BLOCKS = tuple(f"blocks.{i}" for i in range(7))
_TORCH = {"padding": "torch", "bn_eps": 1e-5}
# The last block of every stage, where blocks count through.
_LITE0 = tuple(f"_blocks.{i}" for i in (0, 2, 4, 7, 10, 14, 15))


def _resnet(name: str, oracle: Callable[[], Any], **kwargs) -> Case:
  network = functools.partial(models.MODELS[name], **kwargs)
  return Case(network, oracle, resnets.TIMM_RESNET, _LAYERS)


def _resnet_v2(name: str, oracle: Callable[[], Any], **kwargs) -> Case:
  network = functools.partial(models.MODELS[name], **kwargs)
  return Case(network, oracle, resnets.TIMM_RESNET_V2, _STAGES)


def _mobile(oracle: Callable[[], Any], **kwargs) -> Case:
  network = functools.partial(models.mobilenet_v3_large, **kwargs)
  return Case(network, oracle, mobile.TIMM_MOBILENET_V3, _BLOCKS)


def _efficient(size: str, oracle: Callable[[], Any], **kwargs) -> Case:
  network = functools.partial(models.MODELS[f"efficientnet_{size}"], **kwargs)
  return Case(network, oracle, mobile.TIMM_EFFICIENTNET, _BLOCKS)


CASES = {
  "resnet10": _resnet("resnet10", _resnet10),
  "resnet18": _resnet("resnet18", _timm("resnet18")),
  "resnet50": _resnet("resnet50", _timm("resnet50")),
  "resnet101": _resnet("resnet101", _timm("resnet101")),
  "resnet152": _resnet("resnet152", _timm("resnet152")),
  "resnext50": _resnet("resnext50", _timm("resnext50_32x4d")),
  "resnet50_v2": _resnet_v2("resnet50_v2", _timm("resnetv2_50")),
  "resnet50_v2_same": _resnet_v2(
    "resnet50_v2",
    functools.partial(_v2, same=True, eps=1e-4),
    padding="SAME",
    norm_eps=1e-4,
  ),
  "resnet50_v2_conv1x1": _resnet_v2(
    "resnet50_v2",
    functools.partial(_v2, same=False, stride_on="conv1x1"),
    stride_on="conv1x1",
  ),
  "bit_resnet50": _resnet_v2("bit_resnet50", functools.partial(_bit, 1e-10)),
  "bit_resnet50_timm": _resnet_v2(
    "bit_resnet50", _timm("resnetv2_50x1_bit"), standardize_eps=1e-8
  ),
  "tf_mobilenetv3_large_075": _mobile(
    _timm("tf_mobilenetv3_large_075"), width=0.75
  ),
  "tf_mobilenetv3_large_100": _mobile(_timm("tf_mobilenetv3_large_100")),
  "mobilenetv3_large_100": _mobile(_timm("mobilenetv3_large_100"), **_TORCH),
  "mobilenetv3_large_050": _mobile(_thin_mobilenet, width=0.5, **_TORCH),
  "tf_efficientnet_b0": _efficient("b0", _timm("tf_efficientnet_b0")),
  "efficientnet_b0": _efficient("b0", _timm("efficientnet_b0"), **_TORCH),
  "tf_efficientnet_b1": _efficient("b1", _timm("tf_efficientnet_b1")),
  "tf_efficientnet_b2": _efficient("b2", _timm("tf_efficientnet_b2")),
  "tf_efficientnet_b3": _efficient("b3", _timm("tf_efficientnet_b3")),
  "efficientnet_b3": _efficient("b3", _timm("efficientnet_b3"), **_TORCH),
  "tf_efficientnet_lite0": _efficient("lite0", _timm("tf_efficientnet_lite0")),
  "efficientnet_lite0": Case(
    models.efficientnet_lite0, _lite0, mobile.EFFICIENTNET_LITE0, _LITE0
  ),
}
# What an ordinary run compares; the others differ in depth or options alone,
# and `pytest -m oracle` has them too.
QUICK = (
  "resnet10",
  "resnet50",
  "resnext50",
  "bit_resnet50",
  "tf_mobilenetv3_large_075",
  "tf_efficientnet_b0",
)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _images() -> np.ndarray:
  """Colours that differ from place to place, and some noise."""
  draws = np.random.default_rng(0)
  coarse = torch.tensor(draws.uniform(size=(SHAPE[0], 3, 4, 5)))
  smooth = nn.functional.interpolate(coarse, size=SHAPE[1:3], mode="bilinear")
  noise = draws.uniform(size=SHAPE)
  return 0.8 * smooth.permute(0, 2, 3, 1).numpy() + 0.2 * noise


def _nchw(x: np.ndarray) -> Any:
  return torch.tensor(x).permute(0, 3, 1, 2)


def _randomize(model: Any, x: Any) -> None:
  """Draws weights, and statistics around those of the batch `x`."""
  draws = torch.Generator().manual_seed(0)

  def normal(tensor, scale):
    tensor.data = scale * torch.randn(
      tensor.shape, generator=draws, dtype=tensor.dtype
    )

  norms = [m for m in model.modules() if hasattr(m, "running_var")]
  for module in model.modules():
    if isinstance(module, nn.Conv2d | nn.Linear):
      normal(module.weight, (2.0 / module.weight[0].numel()) ** 0.5)
    elif getattr(module, "weight", None) is not None:
      normal(module.weight, 0.2)
      module.weight.data += 1.0
    if getattr(module, "bias", None) is not None:
      normal(module.bias, 0.2)
  for norm in norms:
    norm.momentum = 1.0
  model.train()
  for module in model.modules():  # Neither dropout nor skipped blocks.
    if type(module).__name__ in ("Dropout", "DropPath"):
      module.eval()
  with torch.no_grad():
    model(x)
  for norm in norms:
    # Channels that hardly vary would turn rounding into signal.
    norm.running_var += 0.2 * norm.running_var.mean()
    std = norm.running_var.sqrt()
    noise = torch.randn(std.shape, generator=draws, dtype=std.dtype)
    norm.running_mean += 0.2 * noise * std
    norm.running_var *= torch.exp(0.3 * noise.flip(0))


def _oracle(case: Case) -> tuple[Any, dict[str, np.ndarray]]:
  """timm's model in float64 and its weights."""
  model = case.oracle().double()
  if hasattr(model, "_global_params"):  # Else blocks are skipped at random.
    model._global_params = model._global_params._replace(
      drop_connect_rate=0.0, dropout_rate=0.0
    )
  _randomize(model, _nchw(_images()))
  model.eval()
  arrays = {name: a.numpy() for name, a in model.state_dict().items()}
  return model, arrays


def _tree(network: Any, case: Case, arrays: dict, dtype: str) -> Any:
  """The weights in our layout."""
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros(SHAPE, dtype)
  )
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
    {"params": shapes[0], "model_state": shapes[1]},
  )
  return convert(arrays, case.rules, template)


def _difference(got: Any, want: Any) -> float:
  got, want = np.asarray(got, np.float64), np.asarray(want)
  assert got.shape == want.shape
  return float(np.abs(got - want).max() / np.abs(want).max())


def _stages(model: Any, names: tuple[str, ...]) -> list[Any]:
  """A list that a forward pass fills with the outputs of these modules."""
  found: list[Any] = []
  modules = dict(model.named_modules())
  for name in names:
    modules[name].register_forward_hook(
      lambda _module, _inputs, output: found.append(output.detach().clone())
    )
  return found


@pytest.mark.parametrize(
  "name",
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough)
    for name in CASES
  ],
)
def test_logits_features_and_export(name: str) -> None:
  case, x = CASES[name], _images()
  model, arrays = _oracle(case)
  found = _stages(model, case.stages)
  with torch.no_grad():
    want = model(_nchw(x)).numpy()
  features = [f.permute(0, 2, 3, 1).numpy() for f in found]
  errors = {}
  for dtype, bound in (("float64", 1e-8), ("float32", 1e-4)):
    network = case.network(num_classes=CLASSES, dtype=dtype, **PLAIN)
    tree = _tree(network, case, arrays, dtype)
    outputs, _ = jax.jit(network.apply)(
      tree["params"], tree["model_state"], jnp.asarray(x, dtype)
    )
    assert outputs.logits.dtype == dtype
    errors[dtype] = [_difference(outputs.logits, want)]
    for got, feature in zip(outputs.features, features, strict=False):
      errors[dtype].append(_difference(got, feature))
    assert max(errors[dtype]) < bound, (name, errors)
    if dtype == "float64":
      assert models.parameter_count(tree["params"]) == sum(
        p.numel() for p in model.parameters()
      )
      written = export(tree, case.rules)
      model.load_state_dict(
        {k: torch.tensor(v) for k, v in written.items()}, strict=True
      )
      for key, array in written.items():
        if not key.endswith("num_batches_tracked"):
          np.testing.assert_array_equal(array, arrays[key], err_msg=key)
  assert len(errors["float64"]) == 1 + len(case.stages[: len(features)])
  worst = {dtype: f"{max(values):.1e}" for dtype, values in errors.items()}
  print(f"\n| {name} | {worst['float64']} | {worst['float32']} |")


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  ["resnet10", "bit_resnet50", "tf_mobilenetv3_large_075", "efficientnet_b0"],
)
def test_input_gradients(name: str) -> None:
  case, x = CASES[name], _images()
  model, arrays = _oracle(case)
  images = _nchw(x).requires_grad_()
  model(images).sin().sum().backward()
  want = images.grad.permute(0, 2, 3, 1).numpy()
  network = case.network(num_classes=CLASSES, dtype="float64", **PLAIN)
  tree = _tree(network, case, arrays, "float64")

  def loss(x):
    outputs, _ = network.apply(tree["params"], tree["model_state"], x)
    return jnp.sin(outputs.logits).sum()

  assert _difference(jax.jit(jax.grad(loss))(x), want) < 1e-8


@pytest.mark.parametrize("name", ["resnet10", "tf_mobilenetv3_large_075"])
def test_training_uses_and_updates_statistics(name: str) -> None:
  case, x = CASES[name], _images()
  model, arrays = _oracle(case)
  for module in model.modules():
    if hasattr(module, "running_var"):
      module.momentum = 0.1
  network = case.network(
    num_classes=CLASSES, dtype="float64", momentum=0.9, **PLAIN
  )
  tree = _tree(network, case, arrays, "float64")
  with torch.no_grad():
    want = model.train()(_nchw(x)).numpy()
  outputs, state = jax.jit(functools.partial(network.apply, train=True))(
    tree["params"], tree["model_state"], x
  )
  assert _difference(outputs.logits, want) < 1e-8
  moved = export({**tree, "model_state": state}, case.rules)
  for key, value in model.state_dict().items():
    # PyTorch's running variance is of the unbiased estimator.
    if key.endswith("running_mean"):
      assert _difference(moved[key], value.numpy()) < 1e-8, key


@pytest.mark.slow
def test_bit_file_as_timm_reads_it(tmp_path: pathlib.Path) -> None:
  """Writes the original layout, and lets timm read it."""
  case, x = CASES["bit_resnet50"], _images()
  model, arrays = _oracle(case)
  with torch.no_grad():
    want = model(_nchw(x)).numpy()
  network = case.network(num_classes=CLASSES, dtype="float64", **PLAIN)
  tree = _tree(network, case, arrays, "float64")
  written = export(tree, resnets.BIT_NPZ)
  np.savez(tmp_path / "bit.npz", **written)
  other = case.oracle().double().eval()
  other.load_pretrained(str(tmp_path / "bit.npz"))
  with torch.no_grad():
    np.testing.assert_allclose(other(_nchw(x)).numpy(), want, rtol=1e-12)

  counted = {
    key.replace("standardized_conv2d", f"standardized_conv2d_{i}"): array
    for i, (key, array) in enumerate(written.items())
  }
  again = convert(resnets.prepare_bit(counted), resnets.BIT_NPZ, tree)
  jax.tree.map(np.testing.assert_array_equal, again, tree)
