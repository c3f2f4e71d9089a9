# SPDX-License-Identifier: Apache-2.0
"""The cache of the teacher's answers: resumed, verified, the same numbers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests import tiny
from tgt_jax import (
  answers,
  build,
  data,
  fit,
  networks,
  settings,
  splits,
  teach,
  teachers,
  trees,
)
from tgt_jax.checkpoint import PreemptionGuard
from tgt_jax.types import Outputs
from tgt_jax.writers import MultiWriter


@pytest.fixture(scope="module")
def setting():
  config = settings.plain(tiny.get_config("2"))
  sets = splits.load_sets(config)
  teacher = networks.teacher(config)
  frozen = networks.init_frozen(
    config, jax.random.key(0), build.example_batch(config)["input"]
  )
  return teacher, teach.Prepared(frozen, "abc"), sets.train


def ask(setting, folder, **options):
  teacher, prepared, source = setting
  runtime = fit.Runtime(None, (), PreemptionGuard(), MultiWriter())
  options = {"batch_size": 16, "part_rows": 32, **options}
  return answers.columns(teacher, prepared, source, folder, runtime, **options)


def test_answers_are_the_teacher_s(setting, tmp_path):
  teacher, prepared, source = setting
  found = ask(setting, tmp_path)
  images = source.fetch(np.arange(len(source)))["input"]
  np.testing.assert_allclose(
    found["latent"], teacher.encode(prepared.frozen, images), atol=1e-5
  )
  np.testing.assert_allclose(
    found["teacher_logits"],
    teacher.label(prepared.frozen, images).logits,
    atol=1e-5,
  )
  one_part = ask(setting, tmp_path / "other", part_rows=10**6)
  for name in found:
    np.testing.assert_allclose(found[name], one_part[name], atol=1e-6)


def test_all_splits_are_asked_by_one_program(setting, tmp_path):
  teacher, prepared, source = setting
  traced = []

  def label(frozen, x):
    traced.append(x.shape)
    return teacher.label(frozen, x)

  counting = teacher._replace(label=label)
  for rows in (np.arange(40), np.arange(40, 70)):
    ask((counting, prepared, data.subset(source, rows)), tmp_path)
  assert len(traced) == 1


def test_what_is_asked_is_compiled_and_split(setting):
  """Outside of `jit`, a `shard_map` is compiled anew at every call."""
  _, prepared, source = setting
  runtime = fit.Runtime(None, (), PreemptionGuard(), MultiWriter())
  given = []

  def mean(frozen, x):
    given.append(x)
    return {"mean": x.mean(axis=(1, 2, 3))}

  found = answers.compute(mean, prepared.frozen, source, runtime, 16)
  images = source.fetch(np.arange(len(source)))["input"]
  np.testing.assert_allclose(
    found["mean"], images.mean(axis=(1, 2, 3)), rtol=1e-5
  )
  (traced,) = given
  assert isinstance(traced, jax.core.Tracer)


def test_only_missing_parts_are_computed(setting, tmp_path, capsys):
  first = ask(setting, tmp_path)
  parts = sorted(tmp_path.glob("cache-*/*.safetensors"))
  assert len(parts) == -(-len(setting[2]) // 32) > 2
  times = {part: part.stat().st_mtime_ns for part in parts}
  parts[1].unlink()  # As after a kill, only that the last ones are missing.
  capsys.readouterr()
  again = ask(setting, tmp_path)
  assert "32/32" in capsys.readouterr().err
  kept = [part for part in parts if part.stat().st_mtime_ns == times[part]]
  assert kept == [parts[0], *parts[2:]]
  for name in first:
    np.testing.assert_array_equal(first[name], again[name])


def test_a_part_that_changed_is_refused(setting, tmp_path):
  ask(setting, tmp_path)
  part = min(tmp_path.glob("cache-*/*.safetensors"))
  tree, metadata = trees.load_tree(part)
  changed = {name: np.array(array) for name, array in tree.items()}
  changed["latent"][3] += 1
  metadata = {name: metadata[name] for name in ("fingerprint", "digest")}
  trees.save_tree(part, changed, metadata)
  with pytest.raises(ValueError, match=r"does not hold .* delete it"):
    ask(setting, tmp_path)
  trees.save_tree(part, {name: a[:5] for name, a in tree.items()}, metadata)
  with pytest.raises(ValueError, match=r"rows \[5\], expected 32"):
    ask(setting, tmp_path)


def test_latents_are_asked_for_where_somebody_explores(setting, tmp_path):
  found = ask(setting, tmp_path, latents=False)
  assert found.keys() == {"teacher_logits"}
  # Another folder: a run that explores does not find it.
  assert ask(setting, tmp_path).keys() == {"teacher_logits", "latent"}
  assert len(list(tmp_path.glob("cache-*"))) == 2


def test_texts_are_asked_by_length_and_come_back_in_order(tmp_path):
  pytest.importorskip("tokenizers")
  source = data.DATASETS["sentences"](train_size=50, test_size=10).train
  seen = []

  def label(frozen, x):
    seen.append(x.shape)
    counts = (x != source.pad_id).sum(1)
    return Outputs(counts[:, None] + 0.0 * frozen, counts[:, None])

  teacher = teachers.without_generator(label)._replace(
    encode=lambda frozen, x: x[..., None] * (x != source.pad_id)[..., None]
  )
  prepared = teach.Prepared({"labeler": np.ones(())}, "abc")
  found = ask((teacher, prepared, source), tmp_path, batch_size=8)
  x = source.read(np.arange(50))
  np.testing.assert_array_equal(found["latent"][..., 0], x * (x != 0))
  lengths = source.text.lengths
  np.testing.assert_array_equal(found["teacher_logits"][:, 0], lengths)
  assert len({shape[1] for shape in seen}) > 1
