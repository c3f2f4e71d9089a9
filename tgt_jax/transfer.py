# SPDX-License-Identifier: Apache-2.0
"""`python -m tgt_jax.transfer`: students of a run, probed on other data.

What a student has learned beyond its task shows on another one: the student
stays as it is, and a linear classifier learns the other task from its
embedding. Students that were taught by embeddings are said to do better here
(arXiv 2402.06761).

What is found goes into the run's `transfer.json` too, so that
`python -m tgt_jax.compare RUN --metric=SPLIT/probe_accuracy` shows it.
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
  models,
  networks,
  results as results_lib,
  scoring,
  settings,
  tables,
  teach,
  teachers,
  writers,
)
from tgt_jax.checkpoint import PreemptionGuard
from tgt_jax.data import draws
from tgt_jax.types import Network

_BATCH = 256
_ENCODER = "encoder"


class Probed(NamedTuple):
  """Linear probes of one arm's students.

  Attributes:
    name: of the arm, or "encoder".
    width: numbers of the embedding.
    scores: of each seed by metric, in [0, 1].
  """

  name: str
  width: int
  scores: dict[int, dict[str, float]]


def probe(
  train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
  """Scores of logistic regression on standardised embeddings.

  The penalty is scikit-learn's default, C = 1. Of tags each has a regression of
  its own, on the examples that know it; one of which those are all alike is
  told by chance.

  Args:
    train: embeddings [N, D], and labels [N] or tags [N, K], in [0, 1] or -1
      where nobody knows.
    test: the same of what is scored.

  Returns:
    "probe_accuracy"; of tags "probe_map" and "probe_roc_auc".
  """
  x, y = train
  if y.ndim == 1:
    return {"probe_accuracy": float(_fit(x, y).score(*test))}
  logits = np.zeros(test[1].shape)
  for tag in range(y.shape[1]):
    known = y[:, tag] >= 0
    yes = y[known, tag] > 0.5
    if yes.any() and not yes.all():
      logits[:, tag] = _fit(x[known], yes).decision_function(test[0])
  found = scoring.score_tags(logits[None], test[1])
  return {f"probe_{name}": float(found[name][0]) for name in ("map", "roc_auc")}


def _fit(x: np.ndarray, y: np.ndarray) -> Any:
  from sklearn import linear_model, pipeline, preprocessing

  return pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(max_iter=1000),
  ).fit(x, y)


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

  return ask


def _check_fits(config: settings.Config, train: data.Source) -> None:
  """Raises `ValueError` where a run's students cannot read the data."""
  shape = config["input_shape"]
  if len(shape) != len(train.input_shape):
    raise ValueError(
      f"{train.name} has inputs of shape {train.input_shape}, the run's"
      f" students take {tuple(shape)}: choose other data"
    )
  if train.targets is not None and train.tags is None:
    raise ValueError(
      f"{train.name} has grades, which a classifier cannot learn: choose data"
      " with labels or tags"
    )


def _in_words(
  network: Network,
  source: data.Source,
  own: Callable[[], data.Tokenizer],
  length: int,
) -> Network:
  """A network as one that reads a source's texts, in its own words or not.

  Args:
    network: takes token ids of `own`, [B, length] or less.
    source: what it is to read; anything where that is no text.
    own: the tokenizer.
    length: of its texts.
  """
  if source.text is None:
    return network
  mine, theirs = own(), source.text.tokenizer
  if mine.words == theirs.words and source.input_shape[0] <= length:
    return network
  translate = data.translation(theirs, mine, length)
  return models.with_translation(network, translate, length)


def _run_words(config: settings.Config) -> data.Tokenizer:
  """The tokenizer of a run's data."""
  text = data.loaded(config["data"]).train.text
  assert text is not None
  return text.tokenizer


def _student(
  folder: pathlib.Path, source: data.Source, length: int
) -> tuple[Network, teachers.Frozen]:
  """A run's student as one that reads a source; see `_in_words`."""
  student = export.load_student(folder, allow_imports=True)
  words = functools.partial(data.load_tokenizer, folder / export.TOKENIZER)
  network = _in_words(student.network, source, words, length)
  return network, teachers.Frozen(student.params, student.model_state)


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
    train_size: examples to learn from, the first of a fixed order; 0, or more
      than there are: all.

  Raises:
    FileNotFoundError: no finished run there.
    ValueError: the data do not fit its students.
  """
  if train_size < 0:
    raise ValueError(f"train_size must be >= 0, got {train_size}")
  found = results_lib.read_results(workdir)
  config = experiment.read_config(workdir)["config"]
  writer = writers.MultiWriter()
  runtime = fit.Runtime(None, (), PreemptionGuard(), writer, quick=True)
  train = dataset.train
  if train_size:
    drawn = draws.permutation(0, "transfer", 0, len(train))[:train_size]
    train = data.subset(train, np.sort(drawn))
  shape = tuple(config["input_shape"])
  _check_fits(config, train)

  def score(network: Network, arrays: Any) -> tuple[int, dict[str, float]]:
    ask = _embedder(network, shape)
    pairs = [
      (
        answers.compute(ask, arrays, source, runtime, _BATCH)["embedding"],
        source.labels if source.tags is None else source.tags,
      )
      for source in (train, dataset.test)
    ]
    return pairs[0][0].shape[1], probe(*pairs)

  rows: list[Probed] = []
  for arm in found.arms:
    mine = settings.arm_config(config, arm.name)
    if mine["student_reads"] != "input":
      continue  # It reads what the other data have not.
    scores: dict[int, dict[str, float]] = {}
    width = 0
    for seed in arm.seeds:
      folder = experiment.student_folder(workdir, arm.name, seed.seed)
      length = networks.own_words(config, mine["student"])[2][0]
      width, scores[seed.seed] = score(*_student(folder, train, length))
      said = ", ".join(f"{n} {v:.3f}" for n, v in scores[seed.seed].items())
      print(f"{arm.name}, seed {seed.seed}: {said}", file=sys.stderr)
    rows.append(Probed(arm.name, width, scores))
  if networks.has_encoder(config):
    arrays = teach.encoder(config, workdir, runtime)["encoder"]
    one = networks.network(config, config["encoder"])
    words = functools.partial(_run_words, config)
    one = _in_words(one, train, words, config["input_shape"][0])
    width, values = score(one, arrays)
    rows.append(Probed(_ENCODER, width, {config["seed"]: values}))
  results_lib.add_probes(
    workdir,
    dataset.test.name,
    {row.name: row.scores for row in rows if row.name != _ENCODER},
  )
  return rows


def table(rows: list[Probed], source: data.Source) -> tables.Table:
  """The probes as a table."""
  names = list(next(iter(rows[0].scores.values()))) if rows else []
  values = lambda row, name: [one[name] for one in row.scores.values()]
  students = [row for row in rows if row.name != _ENCODER]
  best = {
    (
      max(
        range(len(students)),
        key=lambda i: float(np.mean(values(students[i], name))),
      ),
      column,
    )
    for column, name in enumerate(names, 1)
    if students
  }
  return tables.Table(
    header=["arm", *map(measures.label, names), "numbers"],
    rows=[
      [
        row.name,
        *(measures.format_spread(name, values(row, name)) for name in names),
        str(row.width),
      ]
      for row in rows
    ],
    rules=[len(students)] if 0 < len(students) < len(rows) else (),
    best=frozenset(best),
    notes=[
      f"Logistic regression, tested on {source.name}, {len(source)} examples."
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
    if not isinstance(spec, dict):
      raise ValueError(
        f'--data: expected a JSON object such as {{"name": "digits"}}, got'
        f" {options.data}"
      )
    dataset = data.load(spec)
    rows = transfer(options.workdir, dataset, train_size=options.train_size)
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(tables.render(table(rows, dataset.test), style=options.format))
  return 0


if __name__ == "__main__":
  sys.exit(main())
