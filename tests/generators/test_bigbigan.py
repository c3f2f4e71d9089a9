# SPDX-License-Identifier: Apache-2.0
"""BigBiGAN against a second derivation, and its parts against PyTorch."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generators import bigbigan_numpy as reference
from tests.models.random_weights import random_weights
from tgt_jax import generators, weights
from tgt_jax.generators.bigbigan import BigBiGANGenerator, _Attention, _Norm
from tgt_jax.generators.bigbigan_encoder import BigBiGANEncoder
from tgt_jax.models.network import parameter_count
from tgt_jax.weights.tables import bigbigan as table

CH = 4


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
  worst = np.abs(np.asarray(got) - want).max() / np.abs(want).max()
  assert worst <= rtol, worst


def _converted(arrays, dtype: str = "float64"):
  module = _generator_module(dtype=jnp.dtype(dtype))
  baked = table.prepare_torch(arrays)
  rules = table.torch_generator(CH)
  tree = weights.convert(baked, rules, _template(module))
  return module, jax.tree.map(lambda a: jnp.asarray(a, dtype), _variables(tree))


def test_the_generator_equals_numpy(arrays, images) -> None:
  module, variables = _converted(arrays)
  got = jax.jit(module.apply)(variables, jnp.asarray(_latents()))
  assert np.abs(images).max() < 1.0
  assert images.std() > 0.1
  _close(got, images, 1e-8)


def test_float32_is_close(arrays, images) -> None:
  module, variables = _converted(arrays, "float32")
  z = jnp.asarray(_latents(), jnp.float32)
  got = jax.jit(module.apply)(variables, z)
  assert got.dtype == jnp.float32
  _close(got, images, 1e-4)


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


def test_remat_changes_nothing(arrays) -> None:
  """Nor does any sixth of the latent fall away in the gradient."""
  _, variables = _converted(arrays, "float32")
  results = []
  for remat in (False, True):
    module = _generator_module(remat=remat, dtype=jnp.dtype("float32"))

    def value(z, module=module):
      return jnp.sin(module.apply(variables, z)).sum()

    gradient = jax.grad(value)
    z = jnp.asarray(_latents(), jnp.float32)
    assert ("remat" in str(jax.make_jaxpr(gradient)(z))) == remat
    results.append(np.asarray(jax.jit(gradient)(z)))
  plain, again = results
  assert np.all(plain != 0.0)
  _close(again, plain, 1e-4)


def test_published_size() -> None:
  """The port's arrays without its 999 further copies of the class."""
  module = _generator_module(ch=96)
  variables = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 120))
  )
  image = jax.eval_shape(module.apply, variables, jnp.zeros((2, 120)))
  assert image.shape == (2, 128, 128, 3)
  assert parameter_count(variables["params"]) == 70_306_116


def _full(**kwargs):
  settings = {
    "input_shape": (20, 24, 3),
    "ch": CH,
    "latent_dim": 12,
    "encoder_size": 32,
    "encoder_blocks": (1,),
    "head_width": 5,
  }
  return generators.bigbigan(**{**settings, **kwargs})


def _photos(count: int = 2) -> jax.Array:
  values = np.random.default_rng(7).uniform(size=(count, 20, 24, 3))
  return jnp.asarray(values, jnp.float32)


def test_the_head_equals_numpy() -> None:
  """Encode against the trunk's features and a head written out."""
  rng = np.random.default_rng(0)
  module = BigBiGANEncoder(_Trunk(), 3, 5, 2, jnp.dtype("float64"))
  x = jnp.asarray(rng.normal(size=(4, 6, 6, 7)))
  variables = random_weights(module.init, x)
  mean, deviation = module.apply(variables, x)
  params = jax.tree.map(np.asarray, variables["params"])

  def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]

  relu = lambda x: np.maximum(x, 0)
  h = np.asarray(x).mean(axis=(1, 2)) - 0.1
  assert "shortcut" not in params["head_1"]
  for i in range(2):
    block = params[f"head_{i}"]
    y = dense(relu(dense(relu(h), block["dense_0"])), block["dense_1"])
    h = y + (h if i else dense(h, block["shortcut"]))
  moments = dense(h, params["moments"])
  np.testing.assert_allclose(mean, moments[:, :3], rtol=1e-10)
  softplus = np.log1p(np.exp(moments[:, 3:]))
  np.testing.assert_allclose(deviation, softplus, rtol=1e-10)


class _Trunk(nn.Module):
  """Stands for a residual network: a tuple that ends in a map."""

  def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
    return x, x - 0.1


def test_images_are_resized_on_both_sides() -> None:
  generator = _full()
  params, state = random_weights(generator.init, _photos())
  single = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)
  params, state = single(params), single(state)
  native = _full(resize=False)
  z = jax.jit(generator.encode)(params, state, _photos())

  @jax.jit  # In one program, which has what they share once.
  def decode(z):
    return [g.decode(params, state, z) for g in (native, generator)]

  large, small = decode(z)
  assert large.shape == (2, 128, 128, 3)
  np.testing.assert_allclose(
    small, generators.resize(large, (20, 24)), atol=1e-6
  )
  assert float(large.min()) >= 0.0
  assert float(large.max()) <= 1.0
  # At the encoder's own size nothing is resized.
  direct = _full(input_shape=(32, 32, 3))
  resized = generators.resize(_photos(), (32, 32))
  np.testing.assert_allclose(
    jax.jit(direct.encode)(params, state, resized), z, rtol=1e-4, atol=1e-5
  )


def test_without_an_encoder() -> None:
  generator = _full(with_encoder=False)
  params, state = random_weights(generator.init, _photos())
  assert params.keys() == state["batch_stats"].keys() == {"generator"}
  image = jax.eval_shape(generator.decode, params, state, jnp.zeros((3, 12)))
  assert image.shape == (3, 20, 24, 3)
  with pytest.raises(ValueError, match="has no encoder.*with_encoder=True"):
    generator.encode(params, state, _photos())


def test_it_is_not_trained_here() -> None:
  generator = _full(with_encoder=False)
  with pytest.raises(ValueError, match="as it was trained.*Convert"):
    generator.loss({}, {}, _photos(), rng=jax.random.key(0))
