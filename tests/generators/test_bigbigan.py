# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN against a second derivation, and its parts against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generators import bigbigan_numpy as reference
from tests.models.random_weights import random_weights
from tgt_jax import weights
from tgt_jax.generators.bigbigan import BigBiGANGenerator, _Attention, _Norm
from tgt_jax.models.network import parameter_count
from tgt_jax.weights.tables import bigbigan as table

CH = 4
SMALL = {
  "ch": CH,
  "encoder_size": 32,
  "encoder": {"trunk_width": 4, "head_width": 8},
}


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _generator_module(**kwargs) -> BigBiGANGenerator:
  settings = {
    "ch": CH,
    "channels": 3,
    "bn_eps": 1e-4,
    "output_bn_eps": 1e-4,
    "remat": False,
    "dtype": jnp.dtype("float64"),
  }
  return BigBiGANGenerator(**{**settings, **kwargs})


def _template(module) -> dict:
  variables = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 120))
  )
  variables = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), variables
  )
  return {
    "params": {"generator": variables["params"]},
    "model_state": {"batch_stats": {"generator": variables["batch_stats"]}},
  }


def _variables(tree) -> dict:
  stats = tree["model_state"]["batch_stats"]["generator"]
  return {"params": tree["params"]["generator"], "batch_stats": stats}


def _latents(count: int = 2) -> np.ndarray:
  return np.random.default_rng(3).normal(size=(count, 120))


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
  return reference.random_arrays(CH)


@pytest.fixture(scope="module")
def images(arrays) -> np.ndarray:
  settings = {"epsilon": 1e-4, "output_epsilon": 1e-4}
  made = reference.generate(arrays, _latents(), **settings)
  return made.transpose(0, 2, 3, 1)


def _close(got, want, rtol: float) -> None:
  assert np.abs(np.asarray(got) - want).max() <= rtol * np.abs(want).max()


def _converted(arrays, dtype: str = "float64"):
  module = _generator_module(dtype=jnp.dtype(dtype))
  baked = table.prepare_torch(arrays)
  rules = table.torch_generator(CH)
  tree = weights.convert(baked, rules, _template(module))
  return module, _variables(tree)


def test_the_generator_equals_numpy(arrays, images) -> None:
  module, variables = _converted(arrays)
  got = jax.jit(module.apply)(variables, jnp.asarray(_latents()))
  assert np.abs(images).max() < 1.0
  assert images.std() > 0.1
  _close(got, images, 1e-8)


def test_float32_is_close(arrays, images) -> None:
  module, variables = _converted(arrays, "float32")
  single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
  z = jnp.asarray(_latents(), jnp.float32)
  _close(jax.jit(module.apply)(single, z), images, 1e-4)


def test_epsilons_are_where_they_belong(arrays) -> None:
  settings = {"epsilon": 0.02, "output_epsilon": 0.3}
  want = reference.generate(arrays, _latents(), **settings)
  _, variables = _converted(arrays)
  module = _generator_module(bn_eps=0.02, output_bn_eps=0.3)
  got = jax.jit(module.apply)(variables, jnp.asarray(_latents()))
  _close(got, want.transpose(0, 2, 3, 1), 1e-8)


@pytest.mark.parametrize("count", [1.0, 7.0])
def test_the_tensorflow_module_holds_the_same(arrays, count: float) -> None:
  _, want = _converted(arrays)
  baked = table.prepare_tensorflow(
    reference.tensorflow_arrays(arrays, count=count)
  )
  tree = weights.convert(
    baked, table.tensorflow_generator(), _template(_generator_module())
  )
  got = _variables(tree)
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for one, other in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_baked_port_is_written_back(arrays) -> None:
  baked = table.prepare_torch(arrays)
  tree = weights.convert(
    baked, table.torch_generator(CH), _template(_generator_module())
  )
  again = weights.export(tree, table.torch_generator(CH))
  assert again.keys() == baked.keys()
  for name, array in baked.items():
    np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_what_does_not_fit(arrays) -> None:
  classes = arrays["shared.weight"].copy()
  classes[3] += 1.0
  with pytest.raises(ValueError, match="equal rows.*class-conditional"):
    table.prepare_torch({**arrays, "shared.weight": classes})
  with pytest.raises(ValueError, match="begin with GenEncWrapper/Generator/"):
    table.prepare_tensorflow(arrays)
  with pytest.raises(ValueError, match="counter: must be > 0, got 0.0"):
    table.prepare_tensorflow(reference.tensorflow_arrays(arrays, count=0.0))
  with pytest.raises(ValueError, match="u: expected 3 values.*got 4"):
    table.spectral_norm(np.ones((3, 2)), np.ones(4))


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(6, 10), (6, 4, 3, 3)])
def test_spectral_norm_equals_torch(shape: tuple[int, ...]) -> None:
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  weight, u = rng.normal(size=shape), rng.normal(size=(1, 6))
  if len(shape) == 2:
    layer = torch.nn.Linear(10, 6, bias=False).double()
    x = torch.eye(10, dtype=torch.float64)
  else:
    layer = torch.nn.Conv2d(4, 6, 3, bias=False).double()
    x = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
  layer.weight.data = torch.tensor(weight)
  layer = torch.nn.utils.spectral_norm(layer, n_power_iterations=1)
  layer.weight_u.copy_(torch.tensor(u[0]))
  layer.train()(x)  # Takes one step of the iteration and divides.
  want = layer.weight.detach().numpy()
  got = weight / table.spectral_norm(weight, u)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_spectral_norm_of_the_right_vector_is_exact() -> None:
  weight = np.random.default_rng(0).normal(size=(5, 7))
  left, values, _ = np.linalg.svd(weight)
  got = table.spectral_norm(weight, left[:, 0])
  np.testing.assert_allclose(got, values[0], rtol=1e-12)


@pytest.mark.oracle
def test_conditional_normalisation_equals_torch() -> None:
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  x, condition = rng.normal(size=(2, 5, 4, 6)), rng.normal(size=(2, 3))
  norm = _Norm(0.01, jnp.dtype("float64"))
  init = lambda rng, x: norm.init(rng, x, jnp.asarray(condition))
  variables = random_weights(init, jnp.asarray(x))
  params, stats = variables["params"], variables["batch_stats"]
  as_tensor = lambda a: torch.tensor(np.asarray(a))
  want = torch.nn.functional.batch_norm(
    as_tensor(x).permute(0, 3, 1, 2),
    as_tensor(stats["mean"]),
    as_tensor(stats["var"]),
    eps=0.01,
  )
  gain = 1 + as_tensor(condition) @ as_tensor(params["gain"]["kernel"])
  offset = as_tensor(condition) @ as_tensor(params["offset"]["kernel"])
  want = want * gain[:, :, None, None] + offset[:, :, None, None]
  got = norm.apply(variables, jnp.asarray(x), jnp.asarray(condition))
  np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), rtol=1e-12)


@pytest.mark.oracle
def test_attention_equals_torch() -> None:
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional
  x = np.random.default_rng(0).normal(size=(2, 6, 4, 16))
  module = _Attention(jnp.dtype("float64"))
  variables = random_weights(module.init, jnp.asarray(x))
  params = variables["params"]

  def project(name: str, images):
    kernel = torch.tensor(np.asarray(params[name]["kernel"]))
    return functional.conv2d(images, kernel.T[:, :, None, None])

  images = torch.tensor(x).permute(0, 3, 1, 2)
  query = project("query", images).flatten(2).transpose(1, 2)
  pool = lambda y: functional.max_pool2d(y, 2).flatten(2).transpose(1, 2)
  key, value = pool(project("key", images)), pool(project("value", images))
  mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
  mixed = mixed.transpose(1, 2).reshape(2, 8, 6, 4)
  gamma = float(params["gamma"])
  assert abs(gamma) > 0.01
  want = images + gamma * project("out", mixed)
  got = module.apply(variables, jnp.asarray(x))
  np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), rtol=1e-10)


def test_every_sixth_of_the_latent_matters(arrays) -> None:
  module, variables = _converted(arrays)
  z = jnp.asarray(_latents(1))
  gradient = jax.jit(
    jax.grad(lambda z: module.apply(variables, z)[0, 5, 7, 1])
  )(z)
  assert np.all(np.asarray(gradient) != 0.0)


@pytest.mark.parametrize("remat", [False, True])
def test_remat_changes_nothing(arrays, images, remat: bool) -> None:
  _, variables = _converted(arrays)
  module = _generator_module(remat=remat)

  @jax.jit
  def run(z):
    value, pullback = jax.vjp(lambda z: module.apply(variables, z), z)
    return value, pullback(jnp.cos(value))[0]

  z = jnp.asarray(_latents())
  image, gradient = run(z)
  _close(image, images, 1e-8)
  step = 1e-6 * jnp.asarray(np.random.default_rng(5).normal(size=z.shape))
  value = lambda z: jnp.sin(module.apply(variables, z)).sum()
  slope = value(z + step) - value(z - step)
  np.testing.assert_allclose((2 * gradient * step).sum(), slope, rtol=1e-6)


def test_published_size() -> None:
  """The port's arrays without its 999 further copies of the class."""
  module = _generator_module(ch=96)
  variables = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 120))
  )
  image = jax.eval_shape(module.apply, variables, jnp.zeros((2, 120)))
  assert image.shape == (2, 128, 128, 3)
  assert parameter_count(variables["params"]) == 70_306_116
