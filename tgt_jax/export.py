# SPDX-License-Identifier: Apache-2.0
"""The student as two files that need none of the training code.

`student.safetensors` holds the arrays, named `params/…` and `model_state/…`.
`student.json`, the card, says how to use them; its keys are

  model          {"name": …, **keyword_arguments} as in the config
  num_classes    K
  input_shape    [H, W, C] of images, values in [0, 1], channels last; or [L]
                 of texts, token ids of the tokenizer.json that lies beside
  preprocessing  {"mean": …, "std": …}, applied by the network itself
  class_names    K strings                                     (optional)
  metrics        name to value, at the last step               (optional)
  fingerprint    of the config that trained it                 (optional)
  sha256, parameters, tgt_jax, format                  (added by the export)

and whatever else the caller writes. To use a student:

  import jax
  from tgt_jax import export

  network, params, model_state, card = export.load_student("runs/digits")

  @jax.jit
  def probabilities(images):  # float32 [B, H, W, C] in [0, 1]
    outputs, _ = network.apply(params, model_state, images)
    return jax.nn.softmax(outputs.logits)

  names = [card["class_names"][k] for k in probabilities(images).argmax(-1)]
"""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import tgt_jax
from tgt_jax import files, models, registry, trees
from tgt_jax.types import ModelState, Network, Params, input_struct

FORMAT = 1
ARRAYS = "student.safetensors"
CARD = "student.json"
TOKENIZER = "tokenizer.json"  # Beside them where a student reads text.

_REQUIRED = {"model": Mapping, "num_classes": int, "input_shape": list | tuple}
_KINDS = {
  "model": 'a mapping {"name": ..., **arguments}',
  "num_classes": "a whole number",
  "input_shape": "[height, width, channels], or [length] of a text",
}


class Student(NamedTuple):
  """A network with its parameters and its card."""

  network: Network
  params: Params
  model_state: ModelState
  card: dict[str, Any]


def build_network(
  card: Mapping[str, Any],
  *,
  dtype: str | None = None,
  table: Mapping[str, Any] = models.MODELS,
  allow_imports: bool = False,
) -> Network:
  """Returns the network that a card describes.

  Args:
    card: see the module's docstring.
    dtype: compute dtype; by default float32, whatever training used.
    table: names to factories.
    allow_imports: whether a card may name a factory outside `table`, as
      `"package.module:function"`. Such a card runs code on this machine.

  Raises:
    ValueError: an unknown model, an argument that it does not take, or an
      import that is not allowed.
  """
  spec = {**card["model"], **card.get("preprocessing", {})}
  name = spec.get("name")
  if isinstance(name, str) and ":" in name and not allow_imports:
    raise ValueError(
      f"the card's model {name!r} would import code; if you trust where the"
      " student comes from, pass allow_imports=True"
    )
  spec["dtype"] = dtype or "float32"
  # A factory of the user's need not know of what the card adds.
  added = {"dtype", *card.get("preprocessing", {})} - set(card["model"])
  factory = registry.resolve(table, str(name), family="model")
  for key in added:
    if not registry.takes(factory, key):
      del spec[key]
  classes = card["num_classes"]
  return models.from_spec(table, spec, num_classes=classes)


def expected_trees(
  network: Network, input_shape: Sequence[int]
) -> tuple[Params, ModelState]:
  """Returns the shapes of a network's params and model state, no numbers."""
  x = input_struct(input_shape)
  return jax.eval_shape(network.init, jax.random.key(0), x)


def export_student(
  directory: str | pathlib.Path,
  params: Params,
  model_state: ModelState,
  card: Mapping[str, Any],
) -> pathlib.Path:
  """Writes a student's two files and returns the path of the arrays.

  Args:
    directory: where to; made if it is not there.
    params: of one student; no leading axis of seeds.
    model_state: its batch statistics, or `{}`.
    card: what is known of it; see the module's docstring.

  Raises:
    ValueError: a card without a key that loading needs, or arrays that are
      not those of its model.
    OSError: the disk is full; files that were there are as they were.
  """
  directory = pathlib.Path(directory)
  full: dict[str, Any] = files.plain_json(card)
  _check_card(full, name="card")
  network = build_network(full, allow_imports=True)
  shapes = expected_trees(network, full["input_shape"])
  tree = {"params": params, "model_state": model_state}
  expected = {"params": shapes[0], "model_state": shapes[1]}
  trees.check_tree(tree, expected, what="the student to export")
  fingerprint = str(full.get("fingerprint", ""))
  metadata = {"format": str(FORMAT), "fingerprint": fingerprint}
  data = trees.tree_bytes(tree, metadata)
  leaves = jax.tree.leaves(params)
  full |= {
    "parameters": sum(math.prod(np.shape(leaf)) for leaf in leaves),
    "sha256": hashlib.sha256(data).hexdigest(),
    "tgt_jax": tgt_jax.__version__,
    "format": FORMAT,
  }
  text = files.json_bytes(full)  # Fails, if it does, before a file is touched.
  files.atomic_write(directory / ARRAYS, data)
  files.atomic_write(directory / CARD, text)
  return directory / ARRAYS


def read_card(directory: str | pathlib.Path) -> dict[str, Any]:
  """Returns a student's card.

  Raises:
    FileNotFoundError: no card there.
    ValueError: not a card, or one of another format.
  """
  path = pathlib.Path(directory) / CARD
  card = files.read_json(
    path, hint=f"expected a folder with {ARRAYS} and {CARD}"
  )
  if not isinstance(card, dict):
    raise ValueError(f"{path}: expected an object, got {type(card).__name__}")
  if card.get("format") != FORMAT:
    raise ValueError(
      f"{path}: expected format {FORMAT}, got {card.get('format')!r}; it was"
      f" written by tgt_jax {card.get('tgt_jax', '(unknown)')}, and this is"
      f" {tgt_jax.__version__}"
    )
  _check_card(card, name=str(path))
  return card


def load_student(
  directory: str | pathlib.Path,
  *,
  dtype: str | None = None,
  allow_imports: bool = False,
) -> Student:
  """Returns `(network, params, model_state, card)` of an exported student.

  Args:
    directory: holds `student.safetensors` and `student.json`.
    dtype: compute dtype, float32 unless given.
    allow_imports: see `build_network`.

  Raises:
    FileNotFoundError: one of the two files is not there.
    ValueError: the arrays are damaged or of another card, or their names or
      shapes are not those of the model; lists the missing and the unexpected.
  """
  directory = pathlib.Path(directory)
  card = read_card(directory)
  path = directory / ARRAYS
  if not path.is_file():
    raise FileNotFoundError(f"no file {path} beside {CARD}")
  data = path.read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  if digest != card["sha256"]:
    raise ValueError(
      f"{path}: sha256 is {digest}, but {CARD} says {card['sha256']}; the file"
      " is damaged or belongs to another card. Copy both again."
    )
  tree, _ = trees.parse_tree(data, name=str(path))
  network = build_network(card, dtype=dtype, allow_imports=allow_imports)
  params, state = expected_trees(network, card["input_shape"])
  expected = {"params": params, "model_state": state}
  tree = trees.check_tree(tree, expected, what=str(path))
  return Student(network, tree["params"], tree["model_state"], card)


def _check_card(card: Mapping[str, Any], *, name: str) -> None:
  """Raises `ValueError` unless a network can be built from the card."""
  for key, kind in _REQUIRED.items():
    if not isinstance(card.get(key), kind):
      raise ValueError(
        f"{name}: {key!r} must be {_KINDS[key]}, got {card.get(key)!r}"
      )
  classes, names = card["num_classes"], card.get("class_names")
  if names and len(names) != classes:
    raise ValueError(
      f"{name}: {len(names)} class_names for num_classes={classes}"
    )
