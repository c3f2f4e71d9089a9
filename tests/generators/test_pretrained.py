# SPDX-License-Identifier: Apache-2.0
"""Pretrained auto-encoders without their weights: sizes and objectives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.random_weights import random_weights
from tgt_jax import generators
from tgt_jax.models.network import parameter_count

SHAPE = (12, 16, 2)
SMALL = {
  "autoencoder_kl": {
    "widths": (4, 6),
    "blocks": 1,
    "groups": 2,
    "scaling": 0.4,
  },
  "taesd": {"width": 6, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
}


def _images(count: int = 3) -> jax.Array:
  values = np.random.default_rng(7).uniform(size=(count, *SHAPE))
  return jnp.asarray(values, jnp.result_type(float))


def _ready(name: str, **kwargs):
  generator = generators.GENERATORS[name](
    input_shape=SHAPE, **{**SMALL[name], **kwargs}
  )
  return generator, *random_weights(generator.init, _images())


@pytest.mark.parametrize(
  "name, latent, sizes",
  [
    (
      "autoencoder_kl",
      (32, 32, 4),
      {
        "encoder": 34_163_592,
        "decoder": 49_490_179,
        "moments": 72,
        "latent": 20,
      },
    ),
    ("taesd", (32, 32, 4), {"encoder": 1_222_532, "decoder": 1_222_531}),
    (
      "bigbigan",
      (120,),
      # timm's resnetv2_50 without its last layer, and four wide layers, a
      # shortcut and the moments.
      {
        "generator": 70_306_116,
        "encoder": 23_500_352
        + 2 * (2048 + 1) * 4096
        + 3 * (4096 + 1) * 4096
        + (4096 + 1) * 240,
      },
    ),
  ],
)
def test_published_sizes(name: str, latent: tuple, sizes: dict) -> None:
  generator = generators.GENERATORS[name](input_shape=(256, 256, 3))

  def run(rng, x):
    params, state = generator.init(rng, x)
    z = generator.encode(params, state, x)
    return params, z, generator.decode(params, state, z)

  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  params, z, painted = jax.eval_shape(run, jax.random.key(0), x)
  assert {key: parameter_count(params[key]) for key in params} == sizes
  assert z.shape == (1, *latent)
  assert painted.shape == x.shape


@pytest.mark.thorough
@pytest.mark.parametrize(
  "name, kwargs",
  [
    ("autoencoder_kl", {"widths": (4,)}),
    ("taesd", {"encoder_blocks": (1,), "decoder_blocks": (1,)}),
  ],
)
def test_remat_changes_nothing(name: str, kwargs: dict) -> None:
  """The same names and gradients, and blocks that are marked."""
  x, results = _images(), []
  for remat in (False, True):
    generator, params, state = _ready(name, remat=remat, **kwargs)

    def value(params, x, generator=generator, state=state):
      z = generator.encode(params, state, x)
      return jnp.sin(generator.decode(params, state, z)).sum()

    gradient = jax.grad(value, (0, 1))
    assert ("remat" in str(jax.make_jaxpr(gradient)(params, x))) == remat
    results.append(jax.jit(gradient)(params, x))
  plain, again = results
  # A gradient that is nothing but rounding (of a bias that a group norm takes
  # away) has no size of its own: errors are measured by the largest.
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
  for one, other in zip(
    jax.tree.leaves(plain), jax.tree.leaves(again), strict=True
  ):
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6 * scale)


def test_decoded_images_are_clipped_and_the_loss_is_not() -> None:
  generator, params, state = _ready("taesd", noise_scale=0.2)
  last = params["decoder"]["conv_out"]
  bright = {"kernel": 0.05 * last["kernel"], "bias": jnp.full((2,), 3.0)}
  x, rng = _images(), jax.random.key(0)

  def value(bright):
    decoder = {**params["decoder"], "conv_out": bright}
    moved = {**params, "decoder": decoder}
    z = generator.encode(moved, state, x)
    loss, terms, _ = generator.loss(moved, state, x, rng=rng)
    return loss.sum(), (loss, terms, generator.decode(moved, state, z))

  gradient, (loss, terms, image) = jax.grad(value, has_aux=True)(bright)
  assert float(image.max()) == 1.0
  assert np.all(np.asarray(gradient["bias"]) > 0)
  # Off by two and more, ten deviations, on each of 384 pixels.
  assert float(loss.min()) > 0.5 * (2.0 / 0.2) ** 2 * 384
  np.testing.assert_array_equal(terms["reconstruction"], loss)


def test_objective_of_the_kl_autoencoder() -> None:
  """From the module's own moments and image, in numpy."""
  options = {"beta": 0.3, "noise_scale": 0.2, "dtype": "float64"}
  with jax.enable_x64(True):
    generator, params, state = _ready("autoencoder_kl", **options)
    # A faint image lies inside [0, 1], where decoding does not clip.
    last = params["decoder"]["conv_out"]
    params["decoder"]["conv_out"] = jax.tree.map(lambda a: 0.05 * a, last)
    x, rng = _images(), jax.random.key(5)
    loss, terms, new_state = generator.loss(params, state, x, rng=rng)
    mean = np.asarray(generator.encode(params, state, x))
    epsilon = np.asarray(jax.random.normal(rng, mean.shape, jnp.float64))
    # The other half of the moments: swap what the last layer writes.
    halves = params["moments"]
    swapped = {
      name: jnp.concatenate(jnp.split(leaf, 2, axis=-1)[::-1], axis=-1)
      for name, leaf in halves.items()
    }
    log_variance = generator.encode({**params, "moments": swapped}, state, x)
    scale = 0.4 * np.exp(0.5 * np.asarray(log_variance) / 0.4)
    painted = generator.decode(params, state, mean + scale * epsilon)
    inside = bool(jnp.all((painted > 0) & (painted < 1)))
  assert inside
  x, painted = np.asarray(x), np.asarray(painted)
  nll = 0.5 * ((x - painted) / 0.2) ** 2 + np.log(0.2 * np.sqrt(2 * np.pi))
  # KL(N(m, s) || N(0, 1)) before the latent is scaled.
  m, s = mean / 0.4, scale / 0.4
  kl = (0.5 * (m**2 + s**2 - 1) - np.log(s)).reshape(3, -1).sum(1)
  nll = nll.reshape(3, -1).sum(1)
  np.testing.assert_allclose(terms["reconstruction"], nll, rtol=1e-9)
  np.testing.assert_allclose(terms["kl"], kl, rtol=1e-9)
  np.testing.assert_allclose(loss, nll + 0.3 * kl, rtol=1e-9)
  assert new_state == {}


@pytest.mark.thorough
def test_extreme_variances_are_bounded() -> None:
  generator, params, state = _ready("autoencoder_kl")
  for shift in (-1e4, 1e4):
    bias = params["moments"]["bias"].at[4:].add(shift)
    moved = {**params, "moments": {**params["moments"], "bias": bias}}
    loss, _, _ = generator.loss(moved, state, _images(), rng=jax.random.key(0))
    assert np.isfinite(loss).all()


@pytest.mark.parametrize(
  "name, kwargs, message",
  [
    ("autoencoder_kl", {"widths": ()}, "number_of_widths must be > 0, got 0"),
    ("autoencoder_kl", {"widths": (4, 6), "groups": 4}, "groups 4 must divide"),
    ("autoencoder_kl", {"scaling": 0.0}, "scaling must be > 0, got 0.0"),
    ("autoencoder_kl", {"beta": -1.0}, "beta must be >= 0, got -1.0"),
    ("taesd", {"width": 0}, "width must be > 0, got 0"),
    ("taesd", {"encoder_blocks": ()}, "number_of_stages must be > 0, got 0"),
    ("taesd", {"encoder_blocks": (1, -1)}, r"encoder_blocks\[1\] must be >= 0"),
    ("taesd", {"encoder_blocks": (1, 1)}, "as many stages, got 2 and 4"),
    ("bigbigan", {"ch": 3}, "ch must be >= 4, got 3"),
    ("bigbigan", {"latent_dim": 13}, "a multiple of 6, got 13"),
    ("bigbigan", {"bn_eps": 0.0}, "bn_eps must be > 0, got 0.0"),
    ("bigbigan", {"head_blocks": -1}, "head_blocks must be >= 0, got -1"),
    ("bigbigan", {"encoder_padding": "VALID"}, "unknown 'VALID'; choose from"),
    ("bigbigan", {"encoder_stride_on": "pool"}, "unknown 'pool'; choose from"),
  ],
)
def test_bad_arguments(name: str, kwargs: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    generators.GENERATORS[name](input_shape=(8, 8, 3), **kwargs)
