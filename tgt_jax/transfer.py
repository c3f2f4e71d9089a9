# SPDX-License-Identifier: Apache-2.0
"""`python -m tgt_jax.transfer`: students of a run, probed on other data.

What a student has learned beyond its task shows on another one: the student
stays as it is, and a linear classifier learns the other task from its
embedding. Students that were taught by embeddings are said to do better here
(arXiv 2402.06761).
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgt_jax import (
  answers,
  data,
  experiment,
  export,
  fit,
  measures,
  networks,
  registry,
  results as results_lib,
  settings,
  tables,
  teach,
  teachers,
  training,
  writers,
)
from tgt_jax.checkpoint import PreemptionGuard
from tgt_jax.data import draws
from tgt_jax.types import Network

_BATCH = 256


class Probed(NamedTuple):
  """Linear probes of one arm's students.

  Attributes:
    name: of the arm, or "encoder".
    width: numbers of the embedding.
    accuracies: of each seed, in [0, 1].
  """

  name: str
  width: int
  accuracies: list[float]


def probe(
  train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> float:
  """Accuracy of logistic regression on standardised embeddings.

  The penalty is scikit-learn's default, C = 1.

  Args:
    train: embeddings [N, D] and labels [N].
    test: the same of what is scored.
  """
  from sklearn import linear_model, pipeline, preprocessing

  found = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(max_iter=1000),
  )
  return float(found.fit(*train).score(*test))


def fitted_inputs(images: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Images as a network takes them: resized, grey as three equal channels.

  Args:
    images: [B, H, W, C].
    shape: of its inputs, (H', W', C').

  Raises:
    ValueError: channels that cannot be made to fit.
  """
  channels = images.shape[-1], shape[-1]
  if channels[0] != channels[1] and channels[0] != 1:
    raise ValueError(
      f"the data have {channels[0]} channels and the student takes"
      f" {channels[1]}: choose other data"
    )
  images = jnp.broadcast_to(images, (*images.shape[:-1], channels[1]))
  if images.shape[1:] == shape:
    return images
  size = (len(images), *shape)
  return jax.image.resize(images, size, "bilinear")


@functools.cache
def _embedder(network: Network, shape: tuple[int, ...]) -> Callable:
  """`(arrays, x) -> {"embedding"}` of a network of other inputs."""

  def ask(arrays: Any, x: jax.Array) -> dict[str, jax.Array]:
    if len(shape) == 3:
      x = fitted_inputs(x, shape)
    said = teachers.single(network.apply)(arrays, x)
    return {"embedding": said.embedding}

  return training.jit_once(ask)


def _check_fits(config: settings.Config, train: data.Source) -> None:
  """Raises `ValueError` where a run's students cannot read the data."""
  shape, words = config["input_shape"], config["vocabulary"]["vocab_size"]
  if len(shape) != len(train.input_shape):
    raise ValueError(
      f"{train.name} has inputs of shape {train.input_shape}, the run's"
      f" students take {tuple(shape)}: choose other data"
    )
  if train.text is not None and train.text.tokenizer.vocab_size > words:
    raise ValueError(
      f"{train.name} has {train.text.tokenizer.vocab_size} token ids, the run's"
      f" students know {words}: give the run's tokenizer to the data"
    )


def transfer(
  workdir: pathlib.Path,
  dataset: data.Dataset,
  *,
  train_size: int = 0,
) -> list[Probed]:
  """Probes every student of a finished run, and its encoder, on other data.

  Args:
    workdir: the run's folder.
    dataset: the other data.
    train_size: examples to learn from, the first of a fixed order; 0: all.

  Raises:
    FileNotFoundError: no finished run there.
    ValueError: the data do not fit its students.
  """
  found = results_lib.read_results(workdir)
  config = experiment.read_config(workdir)["config"]
  runtime = fit.Runtime(None, (), PreemptionGuard(), writers.MultiWriter())
  train = dataset.train
  if train_size:
    drawn = draws.permutation(0, "transfer", 0, len(train))[:train_size]
    train = data.subset(train, np.sort(drawn))
  shape = tuple(config["input_shape"])
  _check_fits(config, train)

  def score(network: Network, arrays: Any) -> tuple[int, float]:
    ask = _embedder(network, shape)
    pairs = [
      (
        answers.compute(ask, arrays, source, runtime, _BATCH)["embedding"],
        source.labels,
      )
      for source in (train, dataset.test)
    ]
    return pairs[0][0].shape[1], probe(*pairs)

  rows: list[Probed] = []
  for arm in found.arms:
    mine = settings.arm_config(config, arm.name)
    if mine["student_reads"] != "input":
      continue  # It reads what the other data have not.
    scores: list[float] = []
    width = 0
    for seed in arm.seeds:
      folder = experiment.student_folder(workdir, arm.name, seed.seed)
      student = export.load_student(folder, allow_imports=True)
      arrays = teachers.Frozen(student.params, student.model_state)
      width, accuracy = score(student.network, arrays)
      scores.append(accuracy)
      print(f"{arm.name}, seed {seed.seed}: {accuracy:.3f}", file=sys.stderr)
    rows.append(Probed(arm.name, width, scores))
  if networks.has_encoder(config):
    arrays = teach.encoder(config, workdir, runtime)["encoder"]
    one = networks.network(config, config["encoder"])
    width, accuracy = score(one, arrays)
    rows.append(Probed("encoder", width, [accuracy]))
  return rows


def table(rows: list[Probed], source: data.Source) -> tables.Table:
  """The probes as a table."""
  best = max(
    (r for r in rows if r.name != "encoder"),
    key=lambda r: float(np.mean(r.accuracies)),
    default=None,
  )
  return tables.Table(
    header=["arm", f"accuracy % on {source.name}", "numbers"],
    rows=[
      [
        row.name,
        measures.format_spread("accuracy", row.accuracies),
        str(row.width),
      ]
      for row in rows
    ],
    rules=[len(rows) - 1] if rows and rows[-1].name == "encoder" else (),
    best=frozenset({(rows.index(best), 1)} if best else ()),
    notes=[
      f"Logistic regression on embeddings; {len(source)} examples tested on."
    ],
  )


def main(arguments: list[str] | None = None) -> int:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.transfer",
    description=(
      "Linear probes of a finished run's students on other data: the students"
      " stay as they are."
    ),
  )
  parser.add_argument("--workdir", required=True, type=pathlib.Path)
  parser.add_argument(
    "--data",
    required=True,
    help='the other data as JSON, such as \'{"name": "digits"}\'',
  )
  parser.add_argument(
    "--train_size", type=int, default=0, help="examples to learn from; 0: all"
  )
  parser.add_argument(
    "--format", default="text", choices=["text", "markdown", "html"]
  )
  options = parser.parse_args(arguments)
  try:
    spec: Mapping[str, Any] = json.loads(options.data)
    dataset = registry.build(data.DATASETS, spec, family="data set")
    rows = transfer(options.workdir, dataset, train_size=options.train_size)
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(tables.render(table(rows, dataset.test), style=options.format))
  return 0


if __name__ == "__main__":
  sys.exit(main())
