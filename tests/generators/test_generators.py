# SPDX-License-Identifier: Apache-2.0
"""The contract of every generator, and the objective of each family."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import helpers
from tests.models.random_weights import random_weights
from tgt_jax import generators, registry

SHAPE = (7, 9, 2)  # No multiple of 4: padded and cropped inside.
STAGES = {"encoder_blocks": (1, 0, 1), "decoder_blocks": (1, 0, 1)}
SMALL = {
  "vae": {"latent_dim": 3, "widths": (8, 6)},
  "conv_vae": {"latent_dim": 3, "widths": (4, 6)},
  "vq_vae": {
    "num_latents": 4,
    "code_dim": 3,
    "num_codes": 5,
    "widths": (8, 6),
  },
  "conv_vq_vae": {"code_dim": 3, "num_codes": 5, "widths": (4, 6)},
  "autoencoder_kl": {
    "latent_channels": 3,
    "widths": (4, 6, 6),
    "blocks": 1,
    "groups": 2,
  },
  "taesd": {"latent_channels": 3, "width": 6, **STAGES},
  "bigbigan": {
    "ch": 4,
    "latent_dim": 6,
    "encoder_size": 32,
    "encoder_blocks": (1,),
    "head_width": 8,
  },
}
LATENTS = {
  "vae": (3,),
  "conv_vae": (3,),
  "vq_vae": (4, 3),
  "conv_vq_vae": (2, 3, 3),
  "autoencoder_kl": (2, 3, 3),
  "taesd": (2, 3, 3),
  "bigbigan": (6,),
}
# test_bart.py has the one of text.
OF_IMAGES = [name for name in generators.GENERATORS if name != "bart"]
# All but those that only come with their weights.
TRAINED = [name for name in OF_IMAGES if name != "bigbigan"]
QUANTISED = ("vq_vae", "conv_vq_vae")


def _build(name: str, input_shape=SHAPE, **kwargs):
  return registry.build(
    generators.GENERATORS,
    {"name": name, **SMALL[name], **kwargs},
    family="generator",
    input_shape=input_shape,
  )


def _images(count: int = 4) -> jax.Array:
  values = np.random.default_rng(7).uniform(size=(count, *SHAPE))
  return jnp.asarray(values, jnp.result_type(float))


def _ready(name: str, **kwargs):
  generator = _build(name, **kwargs)
  params, state = random_weights(generator.init, _images())
  return generator, params, state


def test_every_generator_is_under_test() -> None:
  assert SMALL.keys() == set(OF_IMAGES) == LATENTS.keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_shapes_and_dtypes(name: str, dtype: str) -> None:
  generator = _build(name, dtype=dtype)

  def run(rng, x):
    params, state = generator.init(rng, x)
    z = generator.encode(params, state, x)
    decoded = generator.decode(params, state, z)
    if name not in TRAINED:
      return params, state, z, decoded, (x[:, 0, 0, 0], {}, state)
    return params, state, z, decoded, generator.loss(params, state, x, rng=rng)

  x = jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)
  params, state, z, decoded, (loss, terms, new_state) = jax.eval_shape(
    run, jax.random.key(0), x
  )
  assert z.shape == (4, *LATENTS[name])
  assert decoded.shape == (4, *SHAPE)
  assert loss.shape == (4,)
  assert {term.shape for term in terms.values()} <= {(4,)}
  assert new_state == state
  everything = jax.tree.leaves((params, state, z, decoded, loss, terms))
  assert {leaf.dtype for leaf in everything} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_bfloat16_is_close_and_images_stay_in_range(name: str) -> None:
  _, params, state = _ready(name)
  z = jnp.asarray(
    np.random.default_rng(3).normal(size=(4, *LATENTS[name])), jnp.float32
  )
  exact, rounded = (
    jax.jit(_build(name, dtype=dtype).decode)(params, state, 5.0 * z)
    for dtype in ("float32", "bfloat16")
  )
  assert float(exact.min()) >= 0.0
  assert float(exact.max()) <= 1.0
  assert not np.array_equal(exact, rounded)
  np.testing.assert_allclose(rounded, exact, atol=0.06)


@pytest.mark.parametrize("name", ["vae", "conv_vae"])
def test_decode_has_the_numerical_gradient(name: str) -> None:
  with jax.enable_x64(True):
    generator, params, state = _ready(name, dtype="float64")
    z = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))
    direction = np.random.default_rng(2).normal(size=z.shape)

    @jax.jit
    def value(z):
      return jnp.sin(3.0 * generator.decode(params, state, z)).sum()

    gradient = jax.jit(jax.grad(value))(z)
    step = 1e-6 * direction
    slope = (value(z + step) - value(z - step)) / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6)
    assert np.all(np.asarray(gradient) != 0.0)


@pytest.mark.parametrize("name", QUANTISED)
def test_gradients_pass_the_quantiser_straight(name: str) -> None:
  generator, params, state = _ready(name)
  shape = (2, *LATENTS[name])
  z = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
  codes = generators.quantize(state["codebook"]["vectors"], z)

  @jax.jit
  def decode(z):
    value, pullback = jax.vjp(lambda z: generator.decode(params, state, z), z)
    return value, pullback(jnp.cos(value))[0]

  (image, gradient), (same_image, same_gradient) = decode(z), decode(codes)
  np.testing.assert_allclose(image, same_image, atol=1e-6)
  np.testing.assert_allclose(gradient, same_gradient, atol=1e-6)
  assert np.all(np.any(gradient != 0.0, axis=-1))


@pytest.mark.parametrize("name", QUANTISED)
def test_noise_acts_before_quantisation(name: str) -> None:
  generator, params, state = _ready(name)
  vectors = state["codebook"]["vectors"]
  z = jnp.broadcast_to(vectors[0], (2, *LATENTS[name][:-1], vectors.shape[-1]))
  decode = jax.jit(generator.decode)
  away = vectors[1] - vectors[0]
  image = decode(params, state, z)
  near = decode(params, state, z + 0.01 * jnp.broadcast_to(away, z.shape))
  far = decode(params, state, z + 0.99 * jnp.broadcast_to(away, z.shape))
  other = decode(params, state, jnp.broadcast_to(vectors[1], z.shape))

  np.testing.assert_allclose(near, image, atol=1e-6)
  np.testing.assert_allclose(far, other, atol=1e-6)
  assert float(jnp.abs(far - image).max()) > 1e-3


def _dense(x: np.ndarray, params) -> np.ndarray:
  return x @ np.float64(params["kernel"]) + np.float64(params["bias"])


def _stack(x: np.ndarray, params) -> np.ndarray:
  for i in range(2):
    x = np.maximum(_dense(x, params[f"dense_{i}"]), 0.0)
  return x


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_vae_objective_equals_numpy(likelihood: str) -> None:
  options = {"beta": 0.7, "likelihood": likelihood, "noise_scale": 0.3}
  with jax.enable_x64(True):
    generator, params, state = _ready("vae", dtype="float64", **options)
    x, rng = _images(), jax.random.key(5)
    loss, terms, new_state = jax.jit(generator.loss)(params, state, x, rng=rng)
    latent = generator.encode(params, state, x)
    epsilon = np.asarray(jax.random.normal(rng, (4, 3), jnp.float64))
  x = np.asarray(x).reshape(4, -1)
  moments = _dense(_stack(2 * x - 1, params["encoder"]), params["posterior"])
  mean, scale = moments[:, :3], np.log1p(np.exp(moments[:, 3:])) + 1e-6
  hidden = _stack(mean + scale * epsilon, params["decoder"])
  p = 1 / (1 + np.exp(-_dense(hidden, params["decoder"]["pixels"])))
  if likelihood == "bernoulli":
    nll = -(x * np.log(p) + (1 - x) * np.log1p(-p))
  else:
    nll = 0.5 * ((x - p) / 0.3) ** 2 + np.log(0.3 * np.sqrt(2 * np.pi))
  kl = 0.5 * (mean**2 + scale**2 - 1) - np.log(scale)

  np.testing.assert_allclose(latent, mean, rtol=1e-10)
  np.testing.assert_allclose(terms["reconstruction"], nll.sum(1), rtol=1e-9)
  np.testing.assert_allclose(terms["kl"], kl.sum(1), rtol=1e-10)
  np.testing.assert_allclose(loss, nll.sum(1) + 0.7 * kl.sum(1), rtol=1e-9)
  assert new_state == {}


def test_vq_objective_equals_numpy() -> None:
  options = {"commitment": 0.6, "decay": 0.9, "restart_below": 0.0}
  with jax.enable_x64(True):
    generator, params, state = _ready("vq_vae", dtype="float64", **options)
    x = _images()
    loss, terms, new_state = jax.jit(generator.loss)(
      params, state, x, rng=jax.random.key(0)
    )
    latent = generator.encode(params, state, x)
  x = np.asarray(x).reshape(4, -1)
  z = _dense(_stack(2 * x - 1, params["encoder"]), params["project"])
  z = z.reshape(4, 4, 3)
  vectors = np.asarray(state["codebook"]["vectors"])
  chosen = ((z[:, :, None] - vectors) ** 2).sum(-1).argmin(-1)
  codes = vectors[chosen]
  hidden = _stack(codes.reshape(4, 12), params["decoder"])
  p = 1 / (1 + np.exp(-_dense(hidden, params["decoder"]["pixels"])))
  nll = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(1)
  commitment = ((z - codes) ** 2).sum((1, 2))
  usage = np.bincount(chosen.reshape(-1), minlength=5)
  used = usage[usage > 0] / 16

  np.testing.assert_allclose(latent, z, rtol=1e-10)
  np.testing.assert_allclose(terms["reconstruction"], nll, rtol=1e-9)
  np.testing.assert_allclose(terms["commitment"], commitment, rtol=1e-9)
  np.testing.assert_allclose(loss, nll + 0.6 * commitment, rtol=1e-9)
  perplexity = np.exp(-(used * np.log(used)).sum())
  np.testing.assert_allclose(terms["perplexity"], perplexity, rtol=1e-6)
  counts = 0.9 * np.asarray(state["codebook"]["counts"]) + 0.1 * usage
  np.testing.assert_allclose(new_state["codebook"]["counts"], counts, rtol=1e-6)


def test_the_commitment_alone_pulls_towards_the_codes() -> None:
  """d loss / d z is the decoder's gradient plus 2 c (z - code)."""

  def gradient(commitment: float, what: str) -> dict:
    generator, params, state = _ready(
      "vq_vae", commitment=commitment, restart_below=0.0
    )

    def loss(params):
      value, terms, _ = generator.loss(
        params, state, _images(), rng=jax.random.key(0)
      )
      return {"loss": value, **terms}[what].sum()

    return jax.jit(jax.grad(loss))(params)

  none, some = gradient(0.0, "loss"), gradient(2.0, "loss")
  commitment = gradient(0.0, "commitment")
  for a, b, c in zip(
    *map(jax.tree.leaves, (none, some, commitment)), strict=True
  ):
    np.testing.assert_allclose(b, a + 2.0 * c, atol=2e-4)
  assert not any(
    np.any(leaf) for leaf in jax.tree.leaves(commitment["decoder"])
  )
  assert all(np.any(leaf) for leaf in jax.tree.leaves(commitment["project"]))


def test_one_trace_serves_every_update() -> None:
  generator, params, state = _ready("vq_vae")
  traces = []

  @jax.jit
  def loss(state, rng):
    traces.append(None)
    return generator.loss(params, state, _images(), rng=rng)

  for seed in range(3):
    _, _, state = loss(state, jax.random.key(seed))
  assert len(traces) == 1


@pytest.mark.parametrize(
  "name", ["vae", pytest.param("conv_vq_vae", marks=pytest.mark.slow)]
)
def test_training_lowers_the_loss(name: str) -> None:
  generator = _build(name, input_shape=(8, 8, 1), likelihood="gaussian")
  rows, columns = np.mgrid[:8, :8] / 7.0
  angles = np.random.default_rng(0).uniform(size=(64, 1, 1)) * 2 * np.pi
  waves = np.cos(angles) * rows + np.sin(angles) * columns
  x = jnp.asarray(1 / (1 + np.exp(-4 * waves))[..., None], jnp.float32)
  tx = optax.adam(0.01)

  def step(carry, rng):
    params, state, opt_state = carry

    def objective(params):
      loss, terms, new_state = generator.loss(params, state, x, rng=rng)
      return loss.mean(), (terms["reconstruction"].mean(), new_state)

    gradient, (value, state) = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = tx.update(gradient, opt_state)
    return (optax.apply_updates(params, updates), state, opt_state), value

  @jax.jit
  def train(rng):
    params, state = generator.init(rng, x)
    carry = (params, state, tx.init(params))
    return jax.lax.scan(step, carry, jax.random.split(rng, 120))[1]

  values = train(jax.random.key(0))
  # The best constant image leaves the variance of the pixels: in nats,
  constant = 0.5 * float(x.var(axis=0).sum()) / 0.1**2 + 64 * np.log(
    0.1 * np.sqrt(2 * np.pi)
  )
  assert values[0] > constant
  assert values[-1] < constant - 50.0


def test_sharded_batches_update_the_codebook_as_one() -> None:
  """Codebook sums are global under `jit` over a batch on many devices."""
  program = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from tests.models.random_weights import random_weights
    from tgt_jax import generators

    generator = generators.vq_vae(
      input_shape=(4, 4, 1), num_latents=4, code_dim=3, num_codes=16,
      widths=(8,), restart_below=1.0, decay=0.5,
    )
    x = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype("float32")
    params, state = random_weights(generator.init, x)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    shard = NamedSharding(mesh, PartitionSpec("data"))
    loss = jax.jit(lambda x: generator.loss(
      params, state, x, rng=jax.random.key(0)
    ))
    one, many = loss(x), loss(jax.device_put(x, shard))
    before = np.asarray(state["codebook"]["vectors"])
    assert np.abs(one[2]["codebook"]["vectors"] - before).max() > 0.1
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    print("equal")
  """
  assert "equal" in helpers.run_with_devices(program, 4)


@pytest.mark.parametrize(
  "name, kwargs, message",
  [
    ("vae", {"latent_dim": 0}, "latent_dim must be > 0, got 0"),
    ("vae", {"beta": -1.0}, "beta must be >= 0, got -1.0"),
    ("vae", {"widths": (8, 0)}, r"widths\[1\] must be > 0, got 0"),
    (
      "vae",
      {"likelihood": "normal"},
      "unknown 'normal'; choose from bernoulli",
    ),
    ("vae", {"noise_scale": 0.0}, "noise_scale must be > 0, got 0.0"),
    ("vae", {"dtype": "half"}, "dtype: unknown 'half'; choose from bfloat16"),
    ("vae", {"dtype": "float64"}, "needs jax_enable_x64"),
    ("vae", {"input_shape": (8, 8)}, r"\(height, width, channels\).*\(8, 8\)"),
    ("conv_vae", {"widths": ()}, "number_of_widths must be > 0, got 0"),
    ("vq_vae", {"num_codes": 0}, "num_codes must be > 0, got 0"),
    ("vq_vae", {"num_latents": 0}, "num_latents must be > 0, got 0"),
    ("vq_vae", {"commitment": -0.1}, "commitment must be >= 0, got -0.1"),
    ("vq_vae", {"decay": 1.1}, r"decay must be in \[0.0, 1.0\], got 1.1"),
    ("vq_vae", {"restart_below": 2.0}, "restart_below must be in"),
    ("conv_vq_vae", {"widths": ()}, "number_of_widths must be > 0, got 0"),
    ("conv_vq_vae", {"beta": 1.0}, "'conv_vq_vae' takes no 'beta'; it takes"),
  ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
  kwargs = {"input_shape": SHAPE, **kwargs}
  with pytest.raises(ValueError, match=message):
    _build(name, **kwargs)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_bad_arrays(name: str) -> None:
  generator, params, state = _ready(name)
  other = jnp.ones((2, 8, 8, 2))
  with pytest.raises(ValueError, match=r"x: expected \[B, 7, 9, 2\], got \(2"):
    generator.encode(params, state, other)
  if name in TRAINED:
    with pytest.raises(ValueError, match=r"x: expected \[B, 7, 9, 2\], got"):
      generator.loss(params, state, other, rng=jax.random.key(0))
  with pytest.raises(TypeError, match="x: expected floating point"):
    generator.encode(params, state, jnp.ones((2, *SHAPE), jnp.uint8))
  with pytest.raises(
    ValueError, match=r"z: expected \[B, .*[36]\], got \(2, 17\)"
  ):
    generator.decode(params, state, jnp.ones((2, 17)))
