# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a config is said before anything is written."""

from __future__ import annotations

import pytest

from tests import tiny
from tgt_jax import settings, train

BAD_VALUES = {
  "arms.gradient.starts.source": "somewhere",
  "arms.gradient.starts.sampler": "balanced",
  "arms.gradient.starts.ratio": 0,
  "arms.gradient.starts": {"source": "batch", "ratio": 2},
  "starts.strong": ({"name": "randaugmnet"},),
  "training.together": "allways",
  "training.batch_size": 0,
  "training.accumulate": 3,
  "training.steps": 0,
  "generator_training.source": "rest",
  "labeler_training.steps": -1,
  "augment": ({"name": "crop", "pading": 2},),
  "evaluation_batch_size": 0,
  "cadence.log": -1,
  "gallery_examples": -1,
  "mesh.data": 0,
  "sharding_rules": (("kernel", "fsdp", 1),),
  "reference_arms": ("kd",),
  "arms": {"a/b": {}},
  "long_tail.profile": "expo",
  "long_tail.imbalance_ratio": 0.0,
  "groups.few_below": 30,
}


@pytest.mark.parametrize("path", BAD_VALUES)
def test_bad_values_are_named(path, tmp_path):
  config = section = settings.plain(tiny.get_config())
  *parents, last = path.split(".")
  for parent in parents:
    section = section[parent]
  section[last] = BAD_VALUES[path]
  if path == "arms":
    config["main_arm"] = "a/b"
  with pytest.raises(ValueError, match=r"\w") as error:
    train.run(config, tmp_path / "run")
  words = path.replace("_", " ").replace(".", " ").split()
  assert any(word in str(error.value) for word in words), error.value
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "shape, spec, match",
  [
    ((8,), {"name": "replace_words", "probability": 0.2}, None),
    ((8,), {"name": "erase_tokens", "probabilty": 0.2}, "mean 'probability'"),
    ((8,), {"name": "crop"}, "unknown text augmentation 'crop'; choose from e"),
    ((8, 8, 1), {"name": "erase_tokens"}, "unknown image augmentation 'erase_"),
  ],
)
def test_augmentations_are_those_of_the_input(shape, spec, match):
  """Those that need the data are checked by name and arguments."""
  config = settings.plain(tiny.get_config())
  config["input_shape"], config["augment"] = shape, (spec,)
  config["vocabulary"]["vocab_size"] = 99
  if match is None:
    assert settings.checked(config)["augment"] == (spec,)
  else:
    with pytest.raises(ValueError, match=match):
      settings.checked(config)


@pytest.mark.parametrize(
  "path, message",
  [
    ("optimzer", "the config has no key 'optimzer'; .*mean 'optimizer'"),
    ("generator_training.source_", "generator_training has no key 'source_'"),
    ("labeler_training.label_los", "no key 'label_los'; .*'label_loss'"),
  ],
)
def test_keys_of_an_unlocked_config_are_checked(path, message):
  config = tiny.get_config().unlock()
  *parents, last = path.split(".")
  section = config
  for parent in parents:
    section = section[parent]
  section[last] = {"name": "adam"}
  with pytest.raises(ValueError, match=message):
    settings.checked(config)


def test_a_section_is_no_number():
  config = {**settings.plain(tiny.get_config()), "cadence": 3}
  with pytest.raises(TypeError, match="cadence: expected a section, got 3"):
    settings.checked(config)
