# SPDX-License-Identifier: Apache-2.0
"""Auto-encoders against diffusers with the same weights, under its names."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgt_jax import generators, weights
from tgt_jax.weights.tables import (
  autoencoder_kl as kl_table,
  taesd as taesd_table,
)

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.oracle

# Parts of the largest value that float64 and float32 may differ by.
EXACT, SINGLE = 1e-8, 1e-4
SHAPE = (24, 32, 3)
KL = {
  "latent_channels": 3,
  "widths": (8, 12, 16),
  "blocks": 1,
  "groups": 4,
  "scaling": 0.3,
}
TINY = {
  "latent_channels": 5,
  "width": 6,
  "encoder_blocks": (1, 0, 2),
  "decoder_blocks": (2, 1, 1),
}


@pytest.fixture(autouse=True)
def _quiet():
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  with torch.no_grad(), jax.enable_x64(True):
    yield
  torch.set_num_threads(threads)


def _randomise(module):
  """Weights of one scale everywhere, norms included; float64."""
  rng = np.random.default_rng(0)
  for name, value in module.named_parameters():
    fan_in = int(np.prod(value.shape[1:])) if value.ndim > 1 else 16
    drawn = rng.normal(size=value.shape) / np.sqrt(fan_in)
    if "norm" in name and name.endswith("weight"):
      drawn = 1.0 + drawn
    value.data = torch.tensor(drawn)
  return module.double().eval()


def _kl(**kwargs):
  ours = {**KL, **kwargs}
  levels = len(ours["widths"])
  theirs = diffusers.AutoencoderKL(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * levels,
    up_block_types=("UpDecoderBlock2D",) * levels,
    block_out_channels=ours["widths"],
    layers_per_block=ours["blocks"],
    latent_channels=ours["latent_channels"],
    norm_num_groups=ours["groups"],
    scaling_factor=ours["scaling"],
  )
  theirs = _randomise(theirs)
  painted = theirs(2 * _nchw(_images()) - 1).sample
  _moderate(theirs.decoder.conv_out, painted, 0.0)
  return ours, theirs


def _tiny(**kwargs):
  ours = {**TINY, **kwargs}
  stages = len(ours["encoder_blocks"])
  theirs = diffusers.AutoencoderTiny(
    encoder_block_out_channels=(ours["width"],) * stages,
    decoder_block_out_channels=(ours["width"],) * stages,
    num_encoder_blocks=ours["encoder_blocks"],
    num_decoder_blocks=ours["decoder_blocks"],
    latent_channels=ours["latent_channels"],
  )
  theirs = _randomise(theirs)
  painted = theirs.decode(theirs.encode(2 * _nchw(_images()) - 1).latents)
  _moderate(theirs.decoder.layers[-1], painted.sample, 0.5)
  return ours, theirs


def _arrays(module) -> dict[str, np.ndarray]:
  return {name: value.numpy() for name, value in module.state_dict().items()}


def _ready(name: str, settings, arrays, rules, dtype: str, shape=SHAPE):
  """Our generator with another's weights."""
  factory = generators.GENERATORS[name]
  generator = factory(input_shape=shape, dtype=dtype, **settings)
  x = jax.ShapeDtypeStruct((1, *shape), dtype)
  params, state = jax.eval_shape(generator.init, jax.random.key(0), x)
  params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), params)
  template = {"params": params, "model_state": state}
  tree = weights.convert(arrays, rules, template)
  return generator, tree["params"]


def _images(shape=SHAPE) -> np.ndarray:
  return np.random.default_rng(1).uniform(size=(2, *shape))


def _nchw(x: np.ndarray) -> torch.Tensor:
  return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def _close(got, want: torch.Tensor, tolerance: float) -> None:
  want = want.permute(0, 2, 3, 1).numpy()
  assert got.shape == want.shape
  worst = np.abs(np.asarray(got) - want).max() / np.abs(want).max()
  assert worst <= tolerance, worst


def _shown(painted: torch.Tensor) -> torch.Tensor:
  """diffusers' [-1, 1] as an image; some pixels are outside, most are not."""
  inside = (painted.abs() < 1).double().mean()
  assert 0.5 < inside < 1, inside
  return (painted / 2 + 0.5).clamp(0, 1)


def _moderate(last, painted: torch.Tensor, middle: float) -> None:
  """Scales the last layer so that images are around the middle of [0, 1]."""
  scale = 0.7 / painted.std()
  last.weight.data *= scale
  last.bias.data = middle + 0.0 * last.bias.data


def _compiled(function, dtype: str):
  """Of float64 convolutions each is slow to compile: one by one, then."""
  return function if dtype == "float64" else jax.jit(function)


@pytest.mark.parametrize(
  "dtype, tolerance", [("float64", EXACT), ("float32", SINGLE)]
)
@pytest.mark.parametrize(
  "kwargs", [{}, {"widths": (8,), "blocks": 2}, {"widths": (4, 4), "groups": 1}]
)
def test_autoencoder_kl(kwargs: dict, dtype: str, tolerance: float) -> None:
  settings, theirs = _kl(**kwargs)
  rules = kl_table.autoencoder_kl(len(settings["widths"]))
  generator, params = _ready(
    "autoencoder_kl", settings, _arrays(theirs), rules, dtype
  )
  x, scaling = _images(), settings["scaling"]
  latent = theirs.encode(2 * _nchw(x) - 1).latent_dist.mode() * scaling
  z = _compiled(generator.encode, dtype)(params, {}, jnp.asarray(x, dtype))
  assert z.dtype == dtype
  _close(z, latent, tolerance)
  painted = theirs.decode(latent / scaling).sample
  z = jnp.asarray(latent.permute(0, 2, 3, 1).numpy(), dtype)
  got = _compiled(generator.decode, dtype)(params, {}, z)
  assert got.dtype == dtype
  _close(got, _shown(painted), tolerance)


@pytest.mark.parametrize(
  "dtype, tolerance", [("float64", EXACT), ("float32", SINGLE)]
)
@pytest.mark.parametrize(
  "kwargs",
  [
    {},
    {"encoder_blocks": (1, 3, 3, 3), "decoder_blocks": (3, 3, 3, 1)},
    {"encoder_blocks": (1,), "decoder_blocks": (1,)},
  ],
)
def test_taesd(kwargs: dict, dtype: str, tolerance: float) -> None:
  settings, theirs = _tiny(**kwargs)
  blocks = settings["encoder_blocks"], settings["decoder_blocks"]
  rules = taesd_table.taesd(*blocks)
  generator, params = _ready("taesd", settings, _arrays(theirs), rules, dtype)
  x = _images()
  latent = theirs.encode(2 * _nchw(x) - 1).latents
  z = _compiled(generator.encode, dtype)(params, {}, jnp.asarray(x, dtype))
  _close(z, latent, tolerance)
  # Beyond three the decoder's clamp is felt.
  latent = latent * (4.0 / latent.abs().max())
  z = jnp.asarray(latent.permute(0, 2, 3, 1).numpy(), dtype)
  got = _compiled(generator.decode, dtype)(params, {}, z)
  _close(got, _shown(theirs.decode(latent).sample), tolerance)


def test_gradient_of_the_latent() -> None:
  settings, theirs = _kl(widths=(4, 4), groups=2)
  rules = kl_table.autoencoder_kl(2)
  generator, params = _ready(
    "autoencoder_kl", settings, _arrays(theirs), rules, "float64"
  )
  z = np.random.default_rng(2).normal(size=(1, 12, 16, 3)) * settings["scaling"]
  with torch.enable_grad():
    latent = _nchw(z).requires_grad_()
    painted = theirs.decode(latent / settings["scaling"]).sample
    _shown(painted).sin().sum().backward()
  value = lambda z: jnp.sin(generator.decode(params, {}, z)).sum()
  _close(jax.grad(value)(jnp.asarray(z)), latent.grad, EXACT)


def test_export_to_diffusers() -> None:
  """Every name that `load_state_dict(strict=True)` wants, and no other."""
  for name, (settings, theirs), rules in (
    ("autoencoder_kl", _kl(), kl_table.autoencoder_kl(3)),
    ("taesd", _tiny(), taesd_table.taesd((1, 0, 2), (2, 1, 1))),
  ):
    arrays = _arrays(theirs)
    _, params = _ready(name, settings, arrays, rules, "float64")
    written = weights.export({"params": params, "model_state": {}}, rules)
    assert written.keys() == arrays.keys()
    for key, array in arrays.items():
      np.testing.assert_array_equal(written[key], array, err_msg=key)
    tensors = {key: torch.tensor(array) for key, array in written.items()}
    theirs.load_state_dict(tensors, strict=True)


def _same(one, other) -> None:
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_names_of_older_files() -> None:
  """Files with our old names become today's by diffusers' own conversion."""
  settings, theirs = _kl()
  rules = kl_table.autoencoder_kl(3)
  _, params = _ready(
    "autoencoder_kl", settings, _arrays(theirs), rules, "float64"
  )
  tree = {"params": params, "model_state": {}}
  old = weights.export(tree, kl_table.diffusers_old(3))
  assert "encoder.mid_block.attentions.0.proj_attn.weight" in old
  _same(_ready("autoencoder_kl", settings, old, rules, "float64")[1], params)
  tensors = {key: torch.tensor(array) for key, array in old.items()}
  theirs._fix_state_dict_keys_on_load(tensors)
  theirs.load_state_dict(tensors, strict=True)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_names_of_the_original_code(prefix: str) -> None:
  from diffusers.loaders import single_file_utils

  settings, theirs = _kl()
  rules = kl_table.autoencoder_kl(3)
  _, params = _ready(
    "autoencoder_kl", settings, _arrays(theirs), rules, "float64"
  )
  tree = {"params": params, "model_state": {}}
  original = weights.export(tree, kl_table.compvis(prefix))
  other = {
    "loss.logvar": np.zeros(()),
    "model.diffusion_model.out.2.bias": np.zeros(4),
  }
  name = list(other)[bool(prefix)]
  both = {**original, name: other[name]}
  _same(_ready("autoencoder_kl", settings, both, rules, "float64")[1], params)
  tensors = {key: torch.tensor(array) for key, array in original.items()}
  renamed = single_file_utils.convert_ldm_vae_checkpoint(tensors, theirs.config)
  assert renamed.keys() == theirs.state_dict().keys()
  for key, value in theirs.state_dict().items():
    np.testing.assert_array_equal(renamed[key], value, err_msg=key)


def test_names_of_the_original_tiny_files() -> None:
  """Each half a plain sequence, the decoder's with a clamp in front."""
  settings, theirs = _tiny()
  rules = taesd_table.taesd((1, 0, 2), (2, 1, 1))
  arrays = _arrays(theirs)
  _, params = _ready("taesd", settings, arrays, rules, "float64")
  original = {}
  for key, array in arrays.items():
    half, _, number, *rest = key.split(".")
    number = int(number) + (half == "decoder")
    original[".".join([half, str(number), *rest])] = array
  _same(_ready("taesd", settings, original, rules, "float64")[1], params)
