# SPDX-License-Identifier: Apache-2.0
"""One experiment from config to report."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np

from tgt_jax import (
  alignment,
  beginnings,
  build,
  data,
  distributed,
  export,
  files,
  fit,
  gallery,
  longtail,
  models,
  networks,
  pictures,
  plan,
  ranking,
  reconstruction,
  report,
  results as results_lib,
  scoring,
  settings,
  streams,
  teach,
)
from tgt_jax.checkpoint import PreemptionGuard
from tgt_jax.experiment import (
  Experiment,
  ask_teacher,
  claim_workdir,
  open_writer,
  read_config,
  student_folder,
)
from tgt_jax.splits import load_sets
from tgt_jax.teachers import Frozen


def run(config: Any, workdir: str | pathlib.Path) -> results_lib.Results:
  """Runs an experiment, or what is left of it.

  Args:
    config: a ConfigDict as in `configs/`, or a plain nested dict.
    workdir: the run's folder.

  Returns:
    The results, which are also in `workdir/results.json`.

  Raises:
    fit.Preempted: asked to stop; the same call resumes.
    ValueError: config, data or workdir do not fit.
  """
  config, workdir = settings.checked(config), pathlib.Path(workdir)
  sets = load_sets(config)
  leaks = False
  for name in config["arms"]:  # A mistake shows before the teacher trains.
    arm = build.arm(config, name, sets.counts)
    leaks |= arm.feedback and config["feedback"]["source"] == "test"
    beginnings.of_arm(arm.config, arm)
    if arm.feedback and sets.feedback is None:
      raise ValueError(
        f"arms.{name}: {arm.config['method']['name']} needs held-out examples:"
        " set feedback.share, for example to 0.1"
      )
  if leaks:
    print(f"warning: {results_lib.LEAK}", file=sys.stderr)
  _group_names(sets.counts, config["groups"])
  mesh = None
  if jax.device_count() > 1:
    mesh = distributed.make_mesh(**config["mesh"])
  streams.check_sizes(config, mesh)
  claim_workdir(workdir, config, sets.ids_hash)
  writer = open_writer(config, workdir)
  try:
    with PreemptionGuard() as guard:
      rules = tuple(map(tuple, config["sharding_rules"]))
      runtime = fit.Runtime(
        mesh, rules, guard, writer, config["quick_compilation"]
      )
      prepared = teach.prepare(config, sets, sets.counts, workdir, runtime)
      experiment = ask_teacher(config, workdir, sets, prepared, runtime)
      arms = []
      for name in config["arms"]:
        distributed.give_back_memory()
        with build.naming(name):
          arms.append(_run_arm(experiment, name))
  finally:
    writer.close()
  return _finish(experiment, arms, leaks)


def seed_groups(
  arm: build.Arm, seeds: tuple[int, ...]
) -> list[tuple[int, ...]]:
  """Which seeds train as one program."""
  how = arm.config["training"]["together"]
  if how == "auto" and len(seeds) > 1:
    batch = build.example_batch(arm.config)
    shapes = jax.eval_shape(arm.method.init, jax.random.key(0), batch)
    # Vmapped over kernels, a convolution becomes a grouped one, which is
    # slower than taking turns.
    how = "never" if models.has_convolution(shapes.params) else "always"
  return [seeds] if how == "always" else [(seed,) for seed in seeds]


def _run_arm(experiment: Experiment, name: str) -> results_lib.ArmResult:
  """Trains the students of one arm that are not done yet."""
  config = experiment.config
  arm = build.arm(
    config,
    name,
    experiment.sets.counts,
    per_example=experiment.runtime.per_example,
  )
  first = config["seed"]
  seeds = tuple(range(first, first + config["seeds"]))
  folder = experiment.workdir / "arms" / name
  groups, found = seed_groups(arm, seeds), []
  for group in groups:
    where = folder if len(groups) == 1 else folder / f"seed{group[0]}"
    done = where / "result.json"
    if not done.exists():
      result = _train_group(experiment, arm, group, where)
      if distributed.is_main_process():
        files.write_json(done, result)
      distributed.barrier(f"{name} {group} is done")
    found.append(files.read_json(done))
  timed = [r["ms_per_step"] for r in found if r["ms_per_step"] is not None]
  return results_lib.ArmResult(
    name=name,
    method=_describe(arm),
    parameters=found[0]["parameters"],
    steps=arm.config["training"]["steps"],
    ms_per_step=float(np.median(timed)) if timed else None,
    wall_seconds=float(np.mean([r["wall_seconds"] for r in found])),
    seeds=[
      results_lib.SeedResult(**seed) for r in found for seed in r["seeds"]
    ],
    reference=name in config["reference_arms"],
  )


def _describe(arm: build.Arm) -> str:
  """The method in one line."""
  words = [arm.config["method"]["name"]]
  if words[0] in settings.EXPLORING:
    spec = dict(arm.config["exploration"])
    words.append(spec.pop("name"))
    words += [f"{key}={value}" for key, value in spec.items()]
  return ", ".join(words)


def _train_group(
  experiment: Experiment,
  arm: build.Arm,
  seeds: tuple[int, ...],
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Trains some seeds of an arm, exports and scores them."""
  began = time.monotonic()
  config, train = arm.config, arm.config["training"]
  logits = scoring.network_logits(arm.parts.student)
  reads = config["student_reads"]
  probe = gallery.make_probe(experiment, arm)
  validates = experiment.sets.validation is not None

  def check(state):
    variables, scores = _final(state), {}
    if validates:
      found = experiment.score("validation", variables, logits, reads)
      scores = {f"eval/{n}": v for n, v in found.items() if n != "per_class"}
    return {**scores, **probe(variables, state.step)}

  job = fit.Job(
    name=arm.name,
    method=arm.method,
    seeds=seeds,
    batches=data.stack_batches(
      [streams.batches(experiment, arm, seed) for seed in seeds],
      pad_id=experiment.sets.train.pad_id,
    ),
    steps=train["steps"],
    directory=folder,
    cadence=fit.Cadence(**config["cadence"]),
    evaluate=check,
    best_metric=_best_metric(config) if validates else None,
    start=_start(experiment, arm),
  )
  fitted = fit.fit(job, experiment.prepared.frozen, experiment.runtime)
  variables = _final(fitted.state)
  scores = experiment.test(variables, logits, reads)
  scores |= _of_others(experiment, arm, fitted.state)
  scores |= alignment.scores(experiment, arm, variables, fitted.state)
  if config["seed"] in seeds:
    ranking.keep(experiment, arm, fitted.state)
  found = scoring.seed_results(scores, seeds)
  params, state = experiment.runtime.gather(variables)
  for i, seed in enumerate(found):
    one = jax.tree.map(lambda a, i=i: np.asarray(a[i]), (params, state))
    _export(experiment, arm, seed, *one)
  ms = fitted.ms_per_step / len(seeds)
  return {
    "parameters": models.parameter_count(params) // len(seeds),
    "ms_per_step": ms if np.isfinite(ms) else None,
    "wall_seconds": (time.monotonic() - began) / len(seeds),
    "seeds": [
      {"seed": s.seed, "metrics": s.metrics, "per_class": s.per_class}
      for s in found
    ],
  }


def _start(experiment: Experiment, arm: build.Arm) -> Any:
  """What the arm's participants begin with; see `beginnings.of_arm`."""
  return beginnings.of_arm(
    arm.config,
    arm,
    experiment.prepared.frozen,
    experiment.embeddings("train"),
    functools.partial(_first_student, experiment),
  )


def _first_student(experiment: Experiment, name: str) -> Frozen:
  """What the first seed of an arm has learned."""
  seed = experiment.config["seed"]
  folder = student_folder(experiment.workdir, name, seed)
  student = export.load_student(folder, allow_imports=True)
  return Frozen(student.params, student.model_state)


def _final(state: Any) -> tuple[Any, Any]:
  """The student's parameters, their running mean if there is one, and state."""
  params = state.params if state.ema is None else state.ema
  return params["student"], state.model_state["student"]


def _best_metric(config: settings.Config) -> str:
  return "eval/map" if config["tags"] else "eval/balanced"


def _of_others(
  experiment: Experiment, arm: build.Arm, state: Any
) -> scoring.Scores:
  """Scores on the test splits of others that learned meanwhile, [S]."""
  config, parts = arm.config, arm.parts
  scores: scoring.Scores = {}
  kept = ("accuracy", "map", "f1", "pearson", "spearman")
  for name, one, reads in (
    ("teacher", parts.labeler, config["labeler_reads"]),
    ("compressor", parts.compressor, "embedding"),
  ):
    if name not in arm.others or name in arm.untaught or one is None:
      continue
    variables = state.params[name], state.model_state[name]
    found = experiment.test(variables, scoring.network_logits(one), reads)
    for split in ("", *(f"{s}/" for s in experiment.sets.others)):
      scores |= {
        f"{split}{name}_{metric}": found[f"{split}{metric}"]
        for metric in kept
        if f"{split}{metric}" in found
      }
  return scores


def _export(
  experiment: Experiment,
  arm: build.Arm,
  seed: results_lib.SeedResult,
  params: Any,
  model_state: Any,
) -> None:
  """Writes one student; the main arm's first one also to the run's folder."""
  if not distributed.is_main_process():
    return
  config, text = arm.config, experiment.sets.test.text
  spec, path, shape = networks.own_words(config, config["student"])
  if config["student_reads"] == "embedding":
    shape, text = tuple(config["embedding_shape"]), None
  card = {
    "model": spec,
    "num_classes": config["num_classes"],
    "input_shape": list(shape),
    "preprocessing": models.normalisation(models.MODELS, spec),
    "class_names": list(experiment.sets.test.class_names),
    "metrics": dict(seed.metrics),
    "arm": arm.name,
    "method": _describe(arm),
    "seed": seed.seed,
    "fingerprint": plan.fingerprint(config),
    "training_ids": experiment.sets.ids_hash,
  }
  folders = [student_folder(experiment.workdir, arm.name, seed.seed)]
  if arm.name == config["main_arm"] and seed.seed == config["seed"]:
    folders.append(experiment.workdir)
  for folder in folders:
    export.export_student(folder, params, model_state, card)
    if text is not None:
      words = data.load_tokenizer(path) if path else text.tokenizer
      words.save(folder / export.TOKENIZER)


def _teacher_result(experiment: Experiment) -> results_lib.TeacherResult:
  """The labeler's row."""
  config = experiment.config
  arrays = experiment.prepared.frozen["labeler"]
  row = experiment.row(
    {name: said["teacher_logits"] for name, said in experiment.columns.items()},
    f"{config['labeler']['name']} x {config['num_labelers']}",
    models.parameter_count([f.params for f in arrays]),
  )
  found = reconstruction.measure(experiment)
  return dataclasses.replace(row, metrics={**row.metrics, **found})


def _beside(experiment: Experiment) -> list[results_lib.TeacherResult]:
  """Rows of classifiers that are no networks."""
  if not experiment.config["bag_of_words"]:
    return []
  sets = experiment.sets
  tests = {"test": sets.test, **sets.others}
  said = data.bag_of_words(sets.train, *tests.values())
  return [experiment.row(dict(zip(tests, said, strict=True)), "TF-IDF")]


def _finish(
  experiment: Experiment, arms: list[results_lib.ArmResult], leaks: bool
) -> results_lib.Results:
  """Writes results and report, and says where they are."""
  config, sets, workdir = (
    experiment.config,
    experiment.sets,
    experiment.workdir,
  )
  record = read_config(workdir)
  found = results_lib.Results(
    title=config["title"],
    main_arm=config["main_arm"],
    splits={
      "train": f"{sets.train.name}, {len(sets.train)} labelled examples"
      + (f" (ids {sets.ids_hash})" if sets.ids_hash else ""),
      "eval": sets.tests(),
    },
    class_names=sets.test.class_names,
    class_counts=sets.counts.tolist(),
    groups=_group_names(sets.counts, config["groups"]),
    fingerprints={
      "config": record["fingerprint"],
      "data": sets.train.fingerprint,
      "teacher": experiment.prepared.fingerprint,
    },
    arms=arms,
    teacher=_teacher_result(experiment),
    beside=_beside(experiment),
    columns=config["columns"],
    leaks=leaks,
    versions=record["versions"],
    hardware=record["hardware"],
    command=record["command"],
  )
  shows = config["gallery_examples"] and networks.has_generator(config)
  pictures_of = gallery.make(experiment) if shows else None
  if distributed.is_main_process():
    results_lib.write_results(workdir, found)
    if pictures_of is not None:
      pictures.save_gallery(workdir / report.GALLERY, pictures_of)
    page = report.write_report(workdir)
    print(results_lib.format_table(found))
    print(f"report: {page}")
    print(f"student: {workdir / export.ARRAYS} (and {export.CARD})")
  distributed.barrier("results are written")
  return found


def _group_names(counts: np.ndarray, thresholds: settings.Config) -> list[str]:
  """The group of each class: "many", "medium" or "few"."""
  groups = longtail.many_medium_few(
    counts, many=thresholds["many_above"], few=thresholds["few_below"]
  )
  members = groups._asdict().items()
  return [
    next(name for name, classes in members if classes[k])
    for k in range(len(counts))
  ]
