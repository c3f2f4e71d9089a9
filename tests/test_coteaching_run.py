# SPDX-License-Identifier: Apache-2.0
"""A whole run with teachers that learn: splits, first arrays, what is kept."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glue_lgtm
from tests import tiny
from tgt_jax import (
  build,
  evaluate,
  export,
  losses,
  networks,
  pictures,
  plan,
  ranking,
  results,
  settings,
  splits,
  train,
  trees,
)


def config(**changes):
  """Students of ProKT, LGTM and weighed exploration for four updates."""
  made = settings.plain(tiny.get_config("4"))
  made["arms"] = {
    "prokt": {"method": {"name": "prokt"}},
    "lgtm": {"method": {"name": "lgtm"}},
    "weighed": {
      "method": {"name": "influenced_tgt"},
      "exploration": {"name": "random", "sigma": 1.0},
    },
  }
  made.update(
    seeds=1, main_arm="lgtm", validation_per_class=0, gallery_examples=3
  )
  made["feedback"] = {"source": "train", "share": 0.2}
  made["columns"] = ("accuracy", "teacher_accuracy", "again/accuracy")
  made["data"] = {"name": "tests.tiny:graded_twice"}
  for section in (made, made["labeler_training"]):
    section["label_loss"] = {"name": "graded_cross_entropy"}
  return {**made, **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, train.run(config(), workdir)


def test_three_splits_have_nothing_in_common():
  sets = splits.load_sets(settings.checked(config()))
  assert sets.feedback is not None
  ids = [set(s.ids.tolist()) for s in (sets.train, sets.feedback)]
  assert not ids[0] & ids[1]
  # The labeler and the generator do not see it either.
  assert not ids[1] & set(sets.full.ids.tolist())
  everything = splits.load_sets(
    settings.checked(config(feedback={"source": "train", "share": 0.0}))
  )
  assert ids[0] | ids[1] == set(everything.train.ids.tolist())
  # The test split is another source.
  test = {row.tobytes() for row in sets.test.read(np.arange(len(sets.test)))}
  held = sets.feedback.read(np.arange(len(sets.feedback)))
  assert not test & {row.tobytes() for row in held}


def test_the_teacher_is_scored_and_its_influence_logged(finished):
  workdir, found = finished
  assert [arm.name for arm in found.arms] == ["prokt", "lgtm", "weighed"]
  for arm in found.arms[:2]:
    for seed in arm.seeds:
      assert 0 <= seed.metrics["teacher_accuracy"] <= 1
      for name in ("accuracy", "teacher_accuracy"):
        assert seed.metrics[f"again/{name}"] == seed.metrics[name]
    for name in ("pearson", "spearman"):
      assert -1 <= seed.metrics[name] <= 1
      assert seed.metrics[f"again/{name}"] == seed.metrics[name]
  metrics = found.teacher.metrics
  assert {"pearson", "spearman"} <= metrics.keys()
  assert metrics["again/accuracy"] == metrics["accuracy"]
  lines = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  logged = [line for line in lines if line["arm"] == "lgtm"]
  assert any("influence/positive" in line for line in logged)
  assert any("feedback/teacher_loss" in line for line in logged)
  assert "teacher_accuracy %" in results.format_table(found)


@pytest.mark.thorough
def test_a_teacher_begins_as_the_labeler(tmp_path, capsys):
  """Without a step's length it ends as it began.

  The run's feedback is the test split's, which is said and marked.
  """
  still = {"learning_rate": 1e-12}
  arms = {
    name: {"method": {"name": "lgtm"}, "teacher_optimizer": still, **more}
    for name, more in (
      ("kept", {}),
      ("fresh", {"teacher_start": "untrained"}),
    )
  }
  made = config(arms=arms, main_arm="kept")
  made["feedback"] = {"source": "test", "share": 0.0}
  found = train.run(made, tmp_path)
  assert "evaluation split" in capsys.readouterr().err
  assert results.LEAK in results.format_table(found)
  assert found.teacher is not None
  kept, fresh = (
    [seed.metrics["teacher_accuracy"] for seed in arm.seeds]
    for arm in found.arms
  )
  np.testing.assert_allclose(kept, found.teacher.metrics["accuracy"])
  assert fresh != kept


def test_without_held_out_examples_there_is_no_influence(tmp_path):
  made = config(feedback={"source": "train", "share": 0.0})
  with pytest.raises(ValueError, match=r"arms.lgtm: .*feedback.share"):
    train.run(made, tmp_path)


def test_networks_that_do_not_fit_are_named_before_anything_runs(tmp_path):
  arms = {"inner": {"method": {"name": "pkd", "layers": ((9, 1),)}}}
  with pytest.raises(ValueError, match=r"arms\.inner: layers must be in"):
    train.run(config(arms=arms, main_arm="inner"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_a_chain_of_teachers(tmp_path):
  """An assistant is trained and kept; so are the labeler's checkpoints."""
  arms = {name: {"method": {"name": name}} for name in ("takd", "rco")}
  made = config(
    arms=arms,
    main_arm="rco",
    assistants=({"name": "mlp", "widths": (12,)},),
    anchors=3,
    columns=("accuracy",),
  )
  found = train.run(made, tmp_path)
  assert [arm.name for arm in found.arms] == ["takd", "rco"]
  folder = tmp_path / "teacher"
  names = {path.name for path in (folder / "labeler-0-anchors").iterdir()}
  assert names == {"2.safetensors", "4.safetensors", "6.safetensors"}
  last, _ = trees.load_tree(folder / "labeler-0-anchors" / "6.safetensors")
  labeler, _ = trees.load_tree(folder / "labeler-0.safetensors")
  jax.tree.map(np.testing.assert_array_equal, last, labeler)
  before = (folder / "assistant-0.safetensors").stat().st_mtime_ns
  # A second run takes both from the folder; other numbers of anchors do not.
  again = {**made, "arms": {"rco": arms["rco"]}, "teacher_dir": str(folder)}
  train.run(again, tmp_path / "again")
  assert (folder / "assistant-0.safetensors").stat().st_mtime_ns == before
  with pytest.raises(FileNotFoundError, match="without 2 anchors"):
    train.run({**again, "anchors": 2}, tmp_path / "fewer")


def test_assistants_are_distilled_as_the_arm_is():
  def made(*arms, **changes):
    return settings.checked(
      config(
        arms={
          name: {
            "method": {"name": name},
            "distance": {"name": "kl_divergence", "temperature": 4.0},
          }
          for name in arms
        },
        main_arm=arms[0],
        assistants=({"name": "mlp", "widths": (12,)},),
        columns=("accuracy",),
        **changes,
      )
    )

  chained = made("kd", "takd")
  sets = splits.load_sets(chained)
  of = lambda found: plan.parts(found, sets, sets.counts)
  mine = networks.chain(chained)
  assert mine is not None and mine["distance"]["temperature"] == 4.0
  assert [part.name for part in of(chained)][-1] == "assistant-0"
  # Where nobody learns from it there is none.
  assert networks.chain(made("kd")) is None
  assert of(made("kd"))[-1].name == "labeler-0"
  with pytest.raises(ValueError, match="2 files for 1 assistants"):
    networks.chain(made("takd", assistant_weights=("a", "b")))
  # By any of its names; two arms that teach their assistants differently
  # cannot share them, and no assistant answers at random.
  chained["arms"]["takd"]["method"]["name"] = "tgt_jax.methods:takd"
  assert networks.chain(chained)["distance"] == mine["distance"]
  other = {"method": {"name": "takd"}, "distance": {"name": "mse"}}
  with pytest.raises(ValueError, match=r"arms\.other: .* differ"):
    networks.chain({**chained, "arms": {**chained["arms"], "other": other}})
  chained["labeler_training"]["steps"] = 0
  with pytest.raises(ValueError, match="answer at random"):
    networks.chain(chained)


def test_checkpoints_of_a_labeler_that_does_not_train():
  made = config(anchors=3)
  assert networks.anchors(made) == 0  # Nobody learns from them.
  made["arms"]["rco"] = {"method": {"name": "rco"}}
  assert networks.anchors(made) == 3
  made["labeler_training"]["steps"] = 0
  assert networks.anchors(made) == 0
  arms = {"rco": {"method": {"name": "rco"}}}
  with pytest.raises(ValueError, match="labeler_training.steps above 0"):
    build.abstract({**made, "arms": arms, "main_arm": "rco"})
  with pytest.raises(ValueError, match="anchors"):
    settings.checked(config(anchors=-1))


@pytest.mark.parametrize(
  ("within", "message"),
  [("nowhere", "no parameter matches"), ("(", "unterminated")],
)
def test_a_part_of_the_student_that_is_none(within, message):
  arms = {"lgtm": {"method": {"name": "lgtm", "within": within}}}
  made = settings.checked(config(arms=arms))
  with pytest.raises(
    ValueError, match=rf"arms.lgtm.method.within: .*{message}"
  ):
    build.arm(made, "lgtm", np.full(10, 10))


@pytest.mark.thorough
def test_no_arm_is_lost_where_heads_begin_at_zero(tmp_path):
  """Directions and correlations of nothing have gradients of 1e8 or none."""
  pytest.importorskip("tokenizers")
  made = settings.plain(glue_lgtm.get_config("kd,skd,dist,mrpc,smoke"))
  assert made["student"]["zero_head"] and made["labeler"]["zero_head"]
  made["training"]["steps"] = 3
  made["cadence"]["log"] = 1
  made["optimizer"]["learning_rate"] = 1e-3
  made["labeler_training"]["steps"] = 30  # SKD has the teacher's length.
  made["labeler_training"]["optimizer"]["learning_rate"] = 1e-2
  train.run(made, tmp_path)
  lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
  norms = {}
  for line in lines:
    if line["arm"] in made["arms"] and "loss/gradient_norm" in line:
      norms.setdefault(line["arm"], []).append(line["loss/gradient_norm"][0])
  for name in made["arms"]:
    found = np.array(norms[name])
    assert len(found) == 3 and found.min() > 1e-3, norms
    assert found.max() < min(1e3, 30 * found.min()), norms


@pytest.mark.parametrize("weight", [1.0, "official", "normalised"])
@pytest.mark.parametrize("form", ["exact", "finite_difference"])
def test_networks_of_bfloat16(form, weight):
  method = {"name": "lgtm", "influence": form, "influence_weight": weight}
  made = config(arms={"lgtm": {"method": method}})
  for part in ("student", "labeler"):
    made[part] = {**made[part], "dtype": "bfloat16"}
  _, metrics = build.abstract(made)["lgtm"]
  assert metrics["influence/mean"].total.dtype == np.float32


@pytest.mark.parametrize("key", ["ema_decay", "accumulate"])
def test_what_does_not_go_together(key):
  made = config()
  made["training"][key] = {"ema_decay": 0.9, "accumulate": 2}[key]
  with pytest.raises(ValueError, match=rf"arms\.prokt: .*training.{key} to"):
    build.arm(settings.checked(made), "prokt", np.full(10, 10))


def test_a_finished_run_is_scored_anew_on_all_its_test_splits(finished):
  workdir, found = finished
  again = evaluate.evaluate_run(workdir)
  for old, new in zip(found.arms, again.arms, strict=True):
    for first, second in zip(old.seeds, new.seeds, strict=True):
      assert second.metrics == pytest.approx(first.metrics, nan_ok=True)


def test_a_column_of_no_test_split_is_an_error(tmp_path):
  made = config(columns=("accuracy", "mismatched/accuracy"))
  with pytest.raises(ValueError, match="'mismatched' .further ones: again"):
    train.run(made, tmp_path)


def test_the_hardest_and_easiest_examples_are_kept(finished):
  """Of a frozen teacher's arm, against one gradient for each example."""
  workdir, _ = finished
  assert not (workdir / "arms" / "prokt" / ranking.FILENAME).exists()
  # A teacher that has learned is asked itself, and not as it began.
  learned = pictures.load_ranked(workdir / "arms" / "lgtm" / ranking.FILENAME)
  made = settings.checked(config())
  labeler, _ = trees.load_tree(workdir / "teacher" / "labeler-0.safetensors")
  began, _ = networks.network(made, made["labeler"]).apply(
    labeler["params"], labeler.get("state", {}), learned.inputs
  )
  gap = np.abs(jax.nn.softmax(began.logits) - learned.teacher).max()
  assert 1e-4 < gap < 0.5
  folder = workdir / "arms" / "weighed"
  found = pictures.load_ranked(folder / ranking.FILENAME)
  assert len(found.influence) == 6
  assert np.all(np.diff(found.influence) <= 0)

  student = export.load_student(folder / "seed0")
  feedback = splits.load_sets(settings.checked(config())).feedback
  held = feedback.fetch(np.arange(len(feedback)))

  def logits(params, x):
    return student.network.apply(params, student.model_state, x)[0].logits

  def held_out(params):
    said = logits(params, held["input"])
    return jnp.mean(losses.graded_cross_entropy(said, held["label"]))

  def one(params, x, probabilities):
    own = logits(params, x[None])
    return losses.kl_divergence(own, jnp.log(probabilities)[None])[0]

  v = jax.grad(held_out)(student.params)
  slopes = jax.vmap(jax.grad(one), (None, 0, 0))(
    student.params, found.inputs, found.teacher
  )
  pairs = jax.tree.map(lambda g, d: jnp.einsum("i...,...->i", g, d), slopes, v)
  each = np.asarray(sum(jax.tree.leaves(pairs)))
  np.testing.assert_allclose(
    each / each[0], found.influence / found.influence[0], rtol=0.02, atol=1e-3
  )
  page = (workdir / "report.html").read_text()
  assert page.count("training examples help") == 2
