# SPDX-License-Identifier: Apache-2.0
"""The batches that an arm trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def _chain(
  source: data.Source,
  specs: Sequence[Any],
  split: Callable[[str], data.Source],
) -> list[Any]:
  """The augmentations of some specs, for a source and a look at others."""
  offered = {"source": source, "split": split}
  return [
    registry.build(
      data.AUGMENTATIONS, spec, family="augmentation", offered=offered
    )
    for spec in specs
  ]


class _Stream(NamedTuple):
  """Where the examples of a stream come from.

  Attributes:
    source: name of the split.
    sampler: of its order.
    number: sets its order apart from that of the seed's other streams.
    specs: augmentations.
    strong: augmentations of a second view.
    ratio: of its examples to those of the batch.
  """

  source: str
  sampler: str
  number: int
  specs: Sequence[Any] = ()
  strong: Sequence[Any] = ()
  ratio: int = 1


def _streams(arm: build.Arm) -> dict[str, _Stream]:
  """The streams that an arm's batches are joined of, by their names."""
  train, starts = arm.config["training"], arm.config["starts"]
  augment, strong = arm.config["augment"], starts["strong"]
  separate = starts["source"] != "batch"
  own = () if separate else strong
  found = {"": _Stream("train", train["sampler"], 0, augment, own)}
  if separate:
    specs = augment if starts["augment"] else ()
    source, sampler = starts["source"], starts["sampler"]
    # Start points have an order of their own.
    found["starts"] = _Stream(
      source, sampler, 1, specs, strong, starts["ratio"]
    )
  if arm.feedback:
    found["feedback"] = _Stream("feedback", "natural", 1)
  return found


def batches(experiment: Experiment, arm: build.Arm, seed: int) -> Any:
  """One seed's training batches, start points included."""
  config, train = arm.config, arm.config["training"]
  reads, streams = config["student_reads"], _streams(arm)
  size = lambda stream: stream.ratio * train["batch_size"]
  window = min(
    data.window(len(experiment.source(stream.source, reads)), size(stream))
    for stream in streams.values()
  )

  def made(stream: _Stream) -> Any:
    changed = experiment.source(stream.source, "input")
    chain = lambda specs: _chain(changed, specs, experiment.source)
    augment = chain(stream.specs) if reads == "input" else []
    views = {"strong": chain(stream.strong)} if stream.strong else {}
    columns = dict(experiment.columns.get(stream.source, {}))
    if augment:
      # What is not kept is asked for in the step, of what the student sees.
      kept = reading.kept_of_augmented(config)
      columns = {name: columns[name] for name in kept}
    if config["pixel_space"]:
      columns.pop("latent", None)
    return data.training_batches(
      experiment.source(stream.source, reads),
      batch_size=size(stream),
      seed=2 * seed + stream.number,
      num_steps=train["steps"],
      sampler=stream.sampler,
      augment=augment,
      views=views,
      columns=columns,
      window=window,
      shard=experiment.runtime.shard,
    )

  joined = {name: made(stream) for name, stream in streams.items()}
  return data.zip_batches(joined, pad_id=experiment.sets.train.pad_id)
