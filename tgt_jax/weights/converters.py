# SPDX-License-Identifier: Apache-2.0
"""From a public file to a model of ours: what belongs together.

`CONVERTERS` is the table of the public weights that are known by name.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import (
  export as students,
  files,
  generators,
  models,
  registry,
  trees,
)
from tgt_jax.types import Generator, ModelState, Network, Params
from tgt_jax.weights import readers, rules
from tgt_jax.weights.cards import Preprocessing, WeightsCard, load_converted
from tgt_jax.weights.converter import Converter
from tgt_jax.weights.tables import (
  bart,
  mobile,
  pretrained_generators,
  resnets,
  text,
)
from tgt_jax.weights.words import words_beside

# The number of a layer in the names of transformers.
_LAYER = re.compile(r"(\blayers?[._])(\d+)(?=[./])")

FAMILIES: Mapping[str, Mapping[str, Any]] = {
  "models": models.MODELS,
  "generators": generators.GENERATORS,
}


CONVERTERS: dict[str, Converter] = {
  **resnets.CONVERTERS,
  **mobile.CONVERTERS,
  **pretrained_generators.CONVERTERS,
  **text.CONVERTERS,
  **bart.CONVERTERS,
}


class Loaded(NamedTuple):
  """A model with its converted weights."""

  model: Network | Generator
  params: Params
  model_state: ModelState
  card: WeightsCard


def find(name: str) -> Converter:
  """Returns a converter by name.

  Raises:
    ValueError: unknown; lists the choices and the nearest one.
  """
  found: Any = registry.resolve(CONVERTERS, name, family="converter")
  return found


def build_model(
  family: str,
  spec: Mapping[str, Any],
  preprocessing: Preprocessing | None,
  **overrides: Any,
) -> Network | Generator:
  """Returns the model of a spec, a network with its mean and std.

  Args:
    family: a key of `FAMILIES`.
    spec: `{"name": ..., **arguments}`.
    preprocessing: whose mean and std a network takes; `None` for text.
    **overrides: replace arguments, `dtype` for example.

  Raises:
    ValueError: unknown family, model or argument.
  """
  table: Any = registry.resolve(FAMILIES, family, family="family")
  if family == "models" and preprocessing is not None:
    overrides = {
      "mean": preprocessing.mean,
      "std": preprocessing.std,
      **overrides,
    }
  return registry.build(table, {**spec, **overrides}, family=family)


def take_layers(
  arrays: Mapping[str, np.ndarray], layers: Sequence[int]
) -> dict[str, np.ndarray]:
  """Returns the arrays of some layers of a transformer, counted anew.

  A student of six layers may begin with layers (0, 2, 4, 7, 9, 11) of twelve,
  as DistilBERT's, or with the first six. What belongs to no layer is kept.

  Args:
    arrays: name in the file to array.
    layers: their numbers in the file, in the order of the result.

  Raises:
    ValueError: a layer that the file does not have, or one named twice.
  """
  found = {int(m[2]) for m in map(_LAYER.search, arrays) if m}
  if missing := sorted(set(layers) - found):
    raise ValueError(
      f"layers: the file has no {missing}; it has {sorted(found) or 'none'}"
    )
  if len(set(layers)) != len(layers):
    raise ValueError(f"layers: expected each once, got {tuple(layers)}")
  number = {old: new for new, old in enumerate(layers)}
  taken = {}
  for name, array in arrays.items():
    match = _LAYER.search(name)
    if match is None:
      taken[name] = array
    elif int(match[2]) in number:
      start, end = match.span(2)
      taken[f"{name[:start]}{number[int(match[2])]}{name[end:]}"] = array
  return taken


def convert_file(
  path: str | pathlib.Path,
  name: str,
  arguments: Mapping[str, Any],
  *,
  layers: Sequence[int] = (),
) -> tuple[Any, WeightsCard]:
  """Returns the tree and the card of a public weight file.

  Args:
    path: see `readers`.
    name: a key of `CONVERTERS`.
    arguments: of the model, replacing the converter's.
    layers: of a transformer, see `take_layers`; empty takes all.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unknown converter or argument, a damaged file, or one of
      another model.
  """
  converter = find(name)
  spec = {**converter.model, **arguments}
  if layers:
    factory = registry.resolve(
      FAMILIES[converter.family], spec["name"], family=converter.family
    )
    depths = ("num_layers", "num_decoder_layers")
    spec |= {d: len(layers) for d in depths if registry.takes(factory, d)}
  model = build_model(converter.family, spec, converter.preprocessing)
  shape = converter.input_shape
  if len(shape) == 1:  # A model for shorter texts has the same arrays.
    shape = (min(shape[0], spec.get("max_positions", shape[0])),)
  template = _template(model, shape)
  arrays: Mapping[str, np.ndarray] = readers.read_arrays(path)
  if layers:
    arrays = take_layers(arrays, layers)
  if converter.prepare is not None:
    arrays = converter.prepare(arrays)
  tree = rules.convert(arrays, converter.rules, template, what=str(path))
  card = WeightsCard(
    name=name,
    family=converter.family,
    model=spec,
    input_shape=shape,
    source=pathlib.Path(path).name,
    sha256=readers.sha256_of(path),
    licence=converter.licence,
    preprocessing=converter.preprocessing,
    notes=converter.notes
    + (f"; layers {', '.join(map(str, layers))}" if layers else ""),
    class_names=_class_names(pathlib.Path(path)),
    words=words_beside(pathlib.Path(path), tree),
  )
  return tree, card


def _class_names(path: pathlib.Path) -> tuple[str, ...]:
  """What `config.json` beside a file of a public hub says of its outputs."""
  file = (path if path.is_dir() else path.parent) / "config.json"
  said = files.read_json(file) if file.is_file() else {}
  labels = said.get("id2label") if isinstance(said, dict) else None
  if not labels:
    return ()
  names = tuple(str(labels[key]) for key in sorted(labels, key=int))
  unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
  return () if unnamed else names


def _template(
  model: Any, input_shape: Sequence[int]
) -> dict[str, Params | ModelState]:
  params, model_state = students.expected_trees(model, input_shape)
  return {"params": params, "model_state": model_state}


def load_model(path: str | pathlib.Path, **overrides: Any) -> Loaded:
  """Returns a model with the weights of a converted file.

  Args:
    path: written by `cards.save_converted`.
    **overrides: arguments of the model that leave its arrays alone, such as
      `dtype`.

  Raises:
    FileNotFoundError: no such file.
    ValueError: damaged, or its arrays are not those of its model.
  """
  tree, card = load_converted(path)
  model = build_model(card.family, card.model, card.preprocessing, **overrides)
  template = _template(model, card.input_shape)
  tree = trees.check_tree(tree, template, what=str(path))
  return Loaded(model, tree["params"], tree["model_state"], card)


def export_file(path: str | pathlib.Path, name: str) -> dict[str, np.ndarray]:
  """Returns arrays of ours by the names of the public file.

  Args:
    path: a converted file, or the folder of an exported student.
    name: a key of `CONVERTERS`, of the same model.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another model, or a converter without an inverse.
  """
  converter = find(name)
  if converter.prepare is not None:
    raise ValueError(
      f"converter {name!r} changes the public file's arrays before it renames"
      " them, so there is no export; choose another name"
    )
  if pathlib.Path(path).is_dir():
    _, params, model_state, student = students.load_student(path)
    tree = {"params": params, "model_state": model_state}
    family, model = "models", student["model"]["name"]
  else:
    tree, card = load_converted(path)
    family, model = card.family, card.model["name"]
  wanted = converter.family, converter.model["name"]
  if (family, model) != wanted:
    raise ValueError(
      f"{path}: expected {'/'.join(wanted)} for {name!r}, got {family}/{model};"
      " choose the converter of that model"
    )
  return rules.export(tree, converter.rules)
