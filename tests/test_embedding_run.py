# SPDX-License-Identifier: Apache-2.0
"""Whole runs with embeddings as teachers: caches, probes, tags, transfer."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tgt_jax import (
  beginnings,
  build,
  data,
  evaluate,
  fit,
  networks,
  results as results_lib,
  settings,
  splits,
  teach,
  train,
  transfer,
  writers,
)
from tgt_jax.checkpoint import PreemptionGuard

WIDTH = 12
RAW = {"name": "compress", "objective": "none"}
FIXED = {"name": "bottleneck", "width": 3, "fixed": True}


def config(**changes):
  """A linear probe of a random encoder as labeler, four students."""
  made = settings.plain(tiny.get_config("4"))
  made.update(
    seeds=2,
    main_arm="compact",
    validation_per_class=0,
    gallery_examples=0,
    generator={"name": ""},
    encoder={"name": "mlp", "widths": (WIDTH,)},
    embedding_shape=(1, 1, WIDTH),
    labeler={"name": "mlp", "widths": ()},
    labeler_reads="embedding",
    columns=("accuracy", "compressor_accuracy", "dcor", "rank"),
    arms={
      "probe": {
        "student_reads": "embedding",
        "student": {"name": "mlp", "widths": ()},
        "method": {"name": "kd"},
      },
      "reader": {
        "student_reads": "embedding",
        "student": {"name": "bottleneck", "width": 3},
        "method": {"name": "supervised"},
      },
      "staged": {
        "method": RAW,
        "compressor": {"name": "bottleneck", "width": 3},
        "compressor_start": "reader",
        "optimizer": {"weight_decay": 0.1},
      },
      "compact": {
        "method": {"name": "compress"},
        "compressor": {"name": "bottleneck", "width": 3},
      },
      "pca": {
        "method": RAW,
        "compressor": FIXED,
        "compressor_start": "pca",
      },
    },
  )
  made["labeler_training"]["reconstruction"] = 0.0
  return {**made, **changes}


def runtime():
  return fit.Runtime(None, (), PreemptionGuard(), writers.MultiWriter())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, train.run(config(), workdir)


def test_the_teacher_is_the_probe_of_the_encoder(finished):
  workdir, results = finished
  made = settings.checked(config())
  sets = splits.load_sets(made)
  prepared = teach.prepare(made, sets, sets.counts, workdir, runtime())
  frozen, x = prepared.frozen, sets.test.read(np.arange(20))
  seen = teach.embeddings(made, sets.test, frozen, workdir, runtime())[:20]
  one = networks.network(made, made["encoder"])
  expected, _ = one.apply(*frozen["encoder"], x)
  np.testing.assert_allclose(seen[:, 0, 0], expected.embedding, atol=1e-5)
  # On an input as on its embedding.
  np.testing.assert_allclose(
    networks.teacher(made).label(frozen, x).logits,
    networks.prober(made).label(frozen, jnp.asarray(seen)).logits,
    atol=1e-5,
  )
  assert results.teacher.parameters == 10 * (WIDTH + 1)


def test_columns_are_there_for_whom_they_concern(finished):
  _, results = finished
  metrics = {arm.name: arm.seeds[0].metrics for arm in results.arms}
  assert "compressor_accuracy" not in metrics["probe"]
  assert 0 <= metrics["compact"]["compressor_accuracy"] <= 1
  assert metrics["compact"]["compressor_rank"] <= 3
  # Nothing taught its classifier.
  assert "compressor_accuracy" not in metrics["pca"]
  assert metrics["pca"]["compressor_rank"] <= 3
  # In two stages: the first reader to the bit, for all seeds, whatever decays.
  assert {a.name: a for a in results.arms}["staged"].seeds[1].metrics[
    "compressor_rank"
  ] == pytest.approx(metrics["reader"]["rank"], rel=1e-6)
  # A probe of the embedding has the embedding.
  assert metrics["probe"]["dcor"] == pytest.approx(1.0)
  assert metrics["probe"]["rank"] <= WIDTH


def test_evaluation_finds_the_same(finished):
  workdir, results = finished
  again = evaluate.evaluate_run(workdir)
  for arm, other in zip(results.arms, again.arms, strict=True):
    for seed, fresh in zip(arm.seeds, other.seeds, strict=True):
      for name in ("accuracy", "dcor", "cka", "rank"):
        assert fresh.metrics[name] == pytest.approx(
          seed.metrics[name], rel=1e-4, abs=1e-6
        )


def test_students_are_probed_on_other_data(finished):
  workdir, _ = finished
  other = data.DATASETS["manifold"](train_size=80, test_size=60)
  rows = transfer.transfer(workdir, other)
  assert [row.name for row in rows] == [
    "staged",
    "compact",
    "pca",
    "encoder",
  ]
  assert [row.width for row in rows] == [8, 8, 8, WIDTH]
  assert [len(row.scores) for row in rows] == [2, 2, 2, 1]
  # The encoder's, by hand.
  made = settings.checked(config())
  arrays = teach.encoder(made, workdir, runtime())["encoder"]
  one = networks.network(made, made["encoder"])
  pairs = [
    (
      np.asarray(
        one.apply(*arrays, part.read(np.arange(len(part))))[0].embedding
      ),
      part.labels,
    )
    for part in (other.train, other.test)
  ]
  assert rows[-1].scores[0] == pytest.approx(transfer.probe(*pairs))
  text = transfer.table(rows, other.test)
  assert text.rules == [3] and len(text.rows) == 4
  # And in the run's results, for tables of several runs.
  again = results_lib.read_results(workdir).arm("pca")
  assert again.values(f"{other.test.name}/probe_accuracy") == {
    seed: values["probe_accuracy"] for seed, values in rows[2].scores.items()
  }
  kept = workdir / results_lib.PROBES
  before = kept.read_bytes()
  kept.write_text("[]")
  with pytest.raises(ValueError, match=r"transfer.json .*delete it and give"):
    results_lib.read_results(workdir)
  kept.write_bytes(before)
  with pytest.raises(ValueError, match="channels"):
    transfer.fitted_inputs(jnp.zeros((1, 4, 4, 3)), (4, 4, 1))


def test_probes_of_tags_know_what_is_known():
  from sklearn import metrics as sklearn_metrics

  rng = np.random.default_rng(0)
  x, axes = rng.normal(size=(300, 6)), rng.normal(size=(6, 3))
  tags = (x @ axes > 0).astype(np.float32)
  tags[:200, 0] = np.where(rng.uniform(size=200) < 0.5, -1, tags[:200, 0])
  # What is unknown, were it known, would be wrong.
  wrong = np.where(tags < 0, 1 - (x @ axes > 0), tags)
  train, test = (x[:200], tags[:200]), (x[200:], tags[200:])
  found = transfer.probe(train, test)
  assert found["probe_map"] > 0.95
  assert (
    found["probe_map"]
    > transfer.probe((x[:200], wrong[:200]), test)["probe_map"]
  )
  # A tag that no training example has is told by chance.
  train[1][:, 2] = 0
  found = transfer.probe(train, test)
  said = [
    transfer._fit(x[:200][k], train[1][k, i]).decision_function(x[200:])
    for i, k in ((0, train[1][:, 0] >= 0), (1, train[1][:, 1] >= 0))
  ]
  areas = [
    sklearn_metrics.roc_auc_score(test[1][:, i], one)
    for i, one in enumerate(said)
  ]
  assert found["probe_roc_auc"] == pytest.approx((sum(areas) + 0.5) / 3)


def test_transfer_s_command_line(finished, capsys):
  workdir, _ = finished
  where = f"--workdir={workdir}"
  spec = '{"name": "manifold", "train_size": 60, "test_size": 40}'
  assert transfer.main([where, f"--data={spec}", "--train_size=50"]) == 0
  assert "encoder" in capsys.readouterr().out
  for arguments, said in (
    ([where, "--data={"], "error:"),
    ([where, "--data=[]"], "expected a JSON object"),
    ([where, f"--data={spec}", "--train_size=-5"], "train_size"),
    ([where, '--data={"name": "nothing"}'], "unknown data set"),
    ([f"--workdir={workdir}/none", f"--data={spec}"], "expected"),
    ([where, '--data={"name": "sentences"}'], "choose other data"),
  ):
    assert transfer.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_principal_components_are_those_of_the_training_data(finished):
  from sklearn.decomposition import PCA

  workdir, _ = finished
  made = settings.checked(config())
  sets = splits.load_sets(made)
  frozen = teach.encoder(made, workdir, runtime())
  rows = teach.embeddings(made, sets.train, frozen, workdir, runtime())
  arm = build.arm(made, "pca", sets.counts)
  start = beginnings.of_arm(arm.config, arm, None, rows)["compressor"]
  own = (rows[:, 0, 0] - start.state["fixed"]["mean"]) @ (
    start.state["fixed"]["kernel"]
  )
  theirs = PCA(3).fit_transform(rows[:, 0, 0].astype(np.float64))
  for k in range(3):
    assert abs(np.corrcoef(own[:, k], theirs[:, k])[0, 1]) > 1 - 1e-6
  np.testing.assert_allclose(own.std(0), theirs.std(0), rtol=1e-4)
  with pytest.raises(ValueError, match="principal components"):
    beginnings.of_arm(arm.config, arm, None, rows[:2])


def test_embeddings_of_augmented_inputs_are_asked_for_in_the_step(tmp_path):
  arms = {"compact": config()["arms"]["compact"]}
  crop = ({"name": "crop", "padding": 1},)
  found = {}
  for anew in (False, True):
    changed = config(arms=arms, augment=crop, seeds=1, embed_augmented=anew)
    results = train.run(changed, tmp_path / str(anew))
    found[anew] = results.arms[0].seeds[0].metrics["nll"]
  assert np.isfinite(found[True]) and found[True] != found[False]
  # Of start points too, which have no labels.
  arms["compact"] = {**arms["compact"], "starts": {"source": "full"}}
  changed = config(arms=arms, augment=crop, seeds=1)
  results = train.run(changed, tmp_path / "starts")
  assert results.arms[0].seeds[0].metrics["nll"] != found[False]


def test_tags_are_scored_as_tags_and_embeddings_come_with_the_data(tmp_path):
  made = config(
    data={"name": "tests.tiny:tagged"},
    num_classes=4,
    tags=True,
    encoder={"name": ""},
    embedding_shape=(4, 1, 16),
    label_loss={"name": "binary_cross_entropy"},
    distance={"name": "bernoulli_kl", "temperature": 2.0},
    columns=("map", "roc_auc", "macro_f1", "compressor_map"),
    augment=({"name": "crop", "padding": 1},),  # Says nothing of embeddings.
    seeds=1,
  )
  made["labeler_training"]["label_loss"] = {"name": "binary_cross_entropy"}
  made["long_tail"]["profile"] = ""
  found = train.run(made, tmp_path)
  for arm in found.arms:
    metrics = arm.seeds[0].metrics
    assert 0 < metrics["map"] <= 1 and 0 < metrics["roc_auc"] <= 1
    assert len(arm.seeds[0].per_class) == 4
  assert found.class_counts[3] < found.class_counts[0]
  again = evaluate.evaluate_run(tmp_path)
  for arm, other in zip(found.arms, again.arms, strict=True):
    assert other.seeds[0].metrics["map"] == pytest.approx(
      arm.seeds[0].metrics["map"]
    )


def test_bad_settings_are_named(tmp_path):
  with pytest.raises(ValueError, match="embedding_shape is"):
    settings.checked(config(embedding_shape=()))
  with pytest.raises(ValueError, match="network that embeds"):
    settings.checked(config(embed_augmented=True, encoder={"name": ""}))
  with pytest.raises(ValueError, match="one frame"):
    settings.checked(config(embedding_shape=(2, 1, WIDTH)))
  wrong = config(embedding_shape=(1, 1, 5))
  with pytest.raises(ValueError, match=r"gives \(1, 1, 12\)"):
    build.abstract(wrong)
  with pytest.raises(ValueError, match=r"shape \(1, 1, 12\)"):
    train.run(wrong, tmp_path)
  probe = {**config()["arms"]["probe"], "method": {"name": "tgt"}}
  with pytest.raises(ValueError, match="is a probe"):
    settings.checked(config(arms={"compact": probe}))
  learning = {
    "compact": {**config()["arms"]["pca"], "compressor": {"name": "bottleneck"}}
  }
  with pytest.raises(ValueError, match="fixed"):
    settings.checked(config(arms=learning))
  with pytest.raises(ValueError, match="tags"):
    splits.load_sets(settings.checked(config(tags=True)))
  none = settings.checked(config(encoder={"name": ""}))
  with pytest.raises(ValueError, match="brings no embeddings"):
    train.run(none, tmp_path / "other")


def test_another_encoder_is_not_taken_for_the_first(finished, tmp_path):
  workdir, _ = finished
  other = config(
    encoder={"name": "mlp", "widths": (5, WIDTH)},
    teacher_dir=str(workdir / "teacher"),
  )
  with pytest.raises(ValueError, match="fingerprint"):
    train.run(other, tmp_path)
