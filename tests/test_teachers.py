# SPDX-License-Identifier: Apache-2.0
"""The teacher triple, ensembles, and training its parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgt_jax import generators, losses, methods, models, teachers
from tgt_jax.types import Outputs

SHAPE, K = (4, 4, 1), 3


@pytest.fixture(scope="module")
def x():
  return jax.random.uniform(jax.random.key(0), (6, *SHAPE))


def networks(number):
  return [
    models.MODELS["mlp"](num_classes=K, widths=(5,)) for _ in range(number)
  ]


def frozen_of(members, x):
  return tuple(
    teachers.Frozen(*member.init(jax.random.key(i), x))
    for i, member in enumerate(members)
  )


def test_ensemble_averages_probabilities(x):
  members = networks(3)
  frozen = frozen_of(members, x)
  outputs = teachers.labeler(members)(frozen, x)
  each = [
    np.asarray(jax.nn.softmax(m.apply(*f, x)[0].logits), np.float64)
    for m, f in zip(members, frozen, strict=True)
  ]
  np.testing.assert_allclose(
    jax.nn.softmax(outputs.logits), np.mean(each, axis=0), rtol=1e-5
  )
  assert outputs.embedding.shape == (6, 15)


def test_an_ensemble_of_one_is_the_network_itself(x):
  members = networks(1)
  frozen = frozen_of(members, x)
  expected = members[0].apply(*frozen[0], x)[0].logits
  found = teachers.labeler(members)(frozen, x).logits
  np.testing.assert_array_equal(found, expected)


def test_ensembles_fit(x):
  members = networks(2)
  with pytest.raises(ValueError):
    teachers.labeler(members)(frozen_of(members, x)[:1], x)
  with pytest.raises(ValueError, match="at least one member"):
    teachers.ensemble([])


def test_extreme_opinions_stay_finite():
  apply = lambda params, state, x, train=False, rng=None: (
    Outputs(x, x),
    state,
  )
  label = teachers.ensemble([apply, apply])
  frozen = (teachers.Frozen({}, {}), teachers.Frozen({}, {}))
  logits = jnp.array([[1e4, -1e4, 0.0]])
  found = label(frozen, logits).logits
  np.testing.assert_allclose(jax.nn.softmax(found), [[1.0, 0.0, 0.0]])
  slope = jax.grad(lambda a: jnp.sum(label(frozen, a).logits))(logits)
  assert np.all(np.isfinite(slope))


def test_render_is_a_constant(x):
  generator = generators.GENERATORS["vae"](
    input_shape=SHAPE, latent_dim=2, widths=(4,)
  )
  teacher = teachers.triple(generator, teachers.labeler(networks(1)))
  frozen = {"generator": teachers.Frozen(*generator.init(jax.random.key(0), x))}
  z = teacher.encode(frozen, x)
  keys = jax.random.split(jax.random.key(1), len(x))
  np.testing.assert_array_equal(
    teacher.render(frozen, z, x, keys), teacher.decode(frozen, z, x)
  )
  slope = jax.grad(lambda z: jnp.sum(teacher.render(frozen, z, x, keys)))(z)
  np.testing.assert_array_equal(slope, jnp.zeros_like(z))


class TestLabelerLoss:
  """Labels on images and on reconstructions."""

  def setup_method(self):
    self.network = networks(1)[0]
    self.generator = generators.GENERATORS["vae"](
      input_shape=SHAPE, latent_dim=2, widths=(4,)
    )
    self.x = jax.random.uniform(jax.random.key(0), (6, *SHAPE))
    self.batch = {"input": self.x, "label": jnp.arange(6) % K}
    self.frozen = {
      "generator": teachers.Frozen(
        *self.generator.init(jax.random.key(1), self.x)
      )
    }
    self.params, _ = self.network.init(jax.random.key(2), self.x)
    self.teacher = teachers.triple(
      self.generator, teachers.labeler([self.network])
    )

  def value(self, **options):
    loss = methods.labeler_loss(
      self.network,
      losses.LABEL_LOSSES["cross_entropy"](),
      self.teacher,
      **options,
    )
    return loss(
      {"student": self.params},
      {"student": {}},
      self.frozen,
      self.batch,
      jax.random.key(3),
      0,
    )

  def cross_entropy(self, x):
    logits, _ = self.network.apply(self.params, {}, x)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits.logits, self.batch["label"]
    ).mean()

  def test_weights_add_up(self):
    z = self.teacher.encode(self.frozen, self.x)
    seen = self.teacher.decode(self.frozen, z, self.x)
    expected = self.cross_entropy(self.x) + 0.5 * self.cross_entropy(seen)
    np.testing.assert_allclose(
      self.value(reconstruction=0.5)[0], expected, rtol=1e-5
    )

  def test_without_reconstruction_no_generator_is_needed(self):
    self.frozen = {}
    np.testing.assert_allclose(
      self.value()[0], self.cross_entropy(self.x), rtol=1e-5
    )

  def test_noise_changes_what_it_sees(self):
    assert (
      self.value(reconstruction=1.0, sigma=1.0)[0]
      != (self.value(reconstruction=1.0)[0])
    )

  def test_negative_weights_raise(self):
    with pytest.raises(ValueError, match="must be >= 0"):
      self.value(reconstruction=-1.0)
