# SPDX-License-Identifier: Apache-2.0
"""Converted weights as the beginning of a training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tgt_jax import (
  build,
  export,
  models,
  networks,
  settings,
  splits,
  train,
  trees,
  weights,
)

SPEC = {"name": "mlp", "widths": (8,), "mean": 0.25, "std": 0.5}


def arrays(num_classes, seed=0):
  network = models.from_spec(models.MODELS, SPEC, num_classes=num_classes)
  params, state = network.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))
  return {"params": params, "model_state": state}


def write(path, tree):
  card = weights.WeightsCard(
    name="public",
    family="models",
    model=SPEC,
    input_shape=(8, 8, 1),
    source="file",
    sha256="0",
    licence="CC0-1.0",
    preprocessing=weights.Preprocessing((0.25,), (0.5,), 8),
  )
  weights.save_converted(path, tree, card)
  return path


def test_weights_are_those_of_the_file(tmp_path):
  tree = arrays(10)
  path = write(tmp_path / "w.safetensors", tree)
  found = weights.start_from(path, arrays(10, seed=1), SPEC)
  jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_the_head_of_another_number_of_classes_is_drawn(tmp_path):
  path = write(tmp_path / "w.safetensors", arrays(7))
  found = weights.start_from(path, arrays(10), SPEC)
  assert found["params"]["head"] == {"kernel": None, "bias": None}


@pytest.mark.parametrize(
  ("change", "match"),
  [
    ({"mean": 0.5}, r"trained on images with mean \(0.25,\)"),
    ({"std": 1.0}, r"trained on images with std"),
    ({"widths": (9,)}, "does not fit"),
  ],
)
def test_what_does_not_fit_is_named(tmp_path, change, match):
  path = write(tmp_path / "w.safetensors", arrays(10))
  spec = {**SPEC, **change}
  network = models.from_spec(models.MODELS, spec, num_classes=10)
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1))
  )
  template = {"params": shapes[0], "model_state": shapes[1]}
  with pytest.raises(ValueError, match=match):
    weights.start_from(path, template, spec)


def test_a_run_begins_with_weights(tmp_path):
  """A labeler used as it is, and a student that starts from the same file."""
  tree = arrays(10)
  path = str(write(tmp_path / "w.safetensors", tree))
  config = settings.plain(tiny.get_config("2"))
  config["generator_training"]["steps"] = 0
  config["generator"] = {**config["generator"], "whitened": True}
  config["labeler"], config["labeler_weights"] = SPEC, path
  config["labeler_training"]["steps"] = 0
  config["student"], config["student_weights"] = SPEC, path
  config["optimizer"]["learning_rate"] = 1e-9
  config["gallery_examples"] = 0
  build.abstract(config)
  train.run(config, tmp_path / "run")
  labeler, _ = trees.load_tree(tmp_path / "run/teacher/labeler-0.safetensors")
  jax.tree.map(np.testing.assert_array_equal, labeler["params"], tree["params"])
  # Its latents have the unit of their spread over the generator's images.
  generator, _ = trees.load_tree(tmp_path / "run/teacher/generator.safetensors")
  full = splits.load_sets(config).full
  z = networks.generator(config).encode(
    generator["params"],
    {"generator": {}, **generator["state"]},
    full.fetch(np.arange(len(full)))["input"],
  )
  np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(z.std(0), 1, atol=1e-4)
  for seed in (0, 1):
    student = export.load_student(
      tmp_path / "run" / "arms" / "gradient" / f"seed{seed}"
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
      student.params,
      tree["params"],
    )


def test_every_network_resizes_its_input():
  spec = {"name": "cnn", "widths": (4,), "input_size": 16}
  network = models.from_spec(models.MODELS, spec, num_classes=3)
  x = jnp.asarray(np.random.default_rng(0).random((2, 24, 24, 3), np.float32))
  params, state = network.init(jax.random.key(0), x)
  plain = models.from_spec(
    models.MODELS, {"name": "cnn", "widths": (4,)}, num_classes=3
  )
  small = jax.image.resize(x, (2, 16, 16, 3), "bilinear")
  np.testing.assert_allclose(
    network.apply(params, state, x)[0].logits,
    plain.apply(params, state, small)[0].logits,
    rtol=1e-6,
  )
  slope = jax.grad(lambda x: network.apply(params, state, x)[0].logits.sum())(x)
  assert slope.shape == x.shape and float(jnp.abs(slope).sum()) > 0
  with pytest.raises(ValueError, match="input_size"):
    models.with_input_size(plain, -1)
