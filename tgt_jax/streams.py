# SPDX-License-Identifier: Apache-2.0
"""The batches that an arm trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgt_jax import build, data, distributed, reading, registry, settings
from tgt_jax.experiment import Experiment


def check_sizes(config: settings.Config, mesh: Any) -> None:
  """Raises `ValueError` where a batch does not split over the devices."""
  arms = {f"arms.{n}": settings.arm_config(config, n) for n in config["arms"]}
  sections = {
    **{f"{n}.training": arm["training"] for n, arm in arms.items()},
    "generator_training": config["generator_training"],
    "labeler_training": config["labeler_training"],
  }
  sizes = {f"{n}.batch_size": s["batch_size"] for n, s in sections.items()}
  sizes["evaluation_batch_size"] = config["evaluation_batch_size"]
  for name, size in sizes.items():
    try:
      distributed.process_batch_size(size, mesh)
    except ValueError as error:
      raise ValueError(f"{name}: {error}") from error


def _chain(source: data.Source, specs: Sequence[Any]) -> list[Any]:
  """The augmentations of some specs; statistics are those of the source."""
  offered = {"source": source}
  return [
    registry.build(
      data.AUGMENTATIONS, spec, family="augmentation", offered=offered
    )
    for spec in specs
  ]


def batches(experiment: Experiment, arm: build.Arm, seed: int) -> Any:
  """One seed's training batches, start points included."""
  config, sets = arm.config, experiment.sets
  train, starts = config["training"], config["starts"]
  separate = starts["source"] != "batch"
  reads = config["student_reads"]

  def stream(
    source: str,
    sampler: str,
    number: int,
    specs: Sequence[Any],
    strong: Sequence[Any],
    ratio: int = 1,
  ) -> Any:
    changed = experiment.source(source, "input")
    augment = _chain(changed, specs) if reads == "input" else []
    views = {"strong": _chain(changed, strong)} if strong else {}
    columns = dict(experiment.columns.get(source, {}))
    if augment:
      # What is not kept is asked for in the step, of what the student sees.
      kept = reading.kept_of_augmented(config)
      columns = {name: columns[name] for name in kept}
    if config["pixel_space"]:
      columns.pop("latent", None)
    seen = experiment.source(source, reads)
    return data.training_batches(
      seen,
      batch_size=ratio * train["batch_size"],
      # Start points have an order of their own.
      seed=2 * seed + number,
      num_steps=train["steps"],
      sampler=sampler,
      augment=augment,
      views=views,
      columns=columns,
      shard=experiment.runtime.shard,
    )

  sampler, augment = train["sampler"], config["augment"]
  strong = starts["strong"]
  streams = {
    "": stream("train", sampler, 0, augment, () if separate else strong)
  }
  if separate:
    streams["starts"] = stream(
      starts["source"],
      starts["sampler"],
      1,
      augment if starts["augment"] else (),
      strong,
      starts["ratio"],
    )
  if arm.feedback:
    streams["feedback"] = stream("feedback", "natural", 1, (), ())
  return data.zip_batches(streams, pad_id=sets.train.pad_id)
