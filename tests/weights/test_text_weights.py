# SPDX-License-Identifier: Apache-2.0
"""Files that transformers writes, read by the converters, and back."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests import transformers_oracle as oracle
from tgt_jax import models, trees, weights
from tgt_jax.weights import converters
from tgt_jax.weights.tables import text

transformers = oracle.import_transformers()
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle

# Of each family transformers' name, the converter, and further arguments.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
  "bert": ("Bert", "bert_base_uncased", {"sep_id": oracle.SEP}),
  "roberta": ("Roberta", "roberta_base", {}),
  "distilbert": (
    "DistilBert",
    "distilbert_base_uncased",
    {},
  ),
}


def _arguments(name: str) -> dict[str, Any]:
  return {
    **oracle.SIZES,
    "pad_id": oracle.PAD,
    "num_classes": oracle.CLASSES,
    **CASES[name][2],
  }


def _save(name: str, kind: str, folder: pathlib.Path) -> Any:
  """Writes a model of transformers, float32; the folder holds one file."""
  family = f"{CASES[name][0]}{kind}"
  model = getattr(transformers, family)(oracle.config(name))
  model = oracle.randomize(model).float()
  model.save_pretrained(folder)
  return model


def _convert(name: str, folder: pathlib.Path) -> pathlib.Path:
  out = folder / "ours.safetensors"
  source = folder / "model.safetensors"
  tree, card = weights.convert_file(source, CASES[name][1], _arguments(name))
  weights.save_converted(out, tree, card)
  return out


@pytest.mark.parametrize("name", CASES)
def test_a_saved_classifier(name: str, tmp_path: pathlib.Path) -> None:
  model = _save(name, "ForSequenceClassification", tmp_path)
  out = _convert(name, tmp_path)
  loaded = weights.load_model(out)
  x = oracle.texts(lengths=(9,))
  kwargs = {"input_ids": torch.tensor(x)}
  if name == "bert":
    segments = np.cumsum(x == oracle.SEP, axis=1) - (x == oracle.SEP) > 0
    kwargs["token_type_ids"] = torch.tensor(segments.astype(np.int64))
  with torch.no_grad():
    want = model(**kwargs).logits.numpy()
  got, _ = jax.jit(loaded.model.apply)(loaded.params, {}, x)
  assert oracle.difference(got.logits, want) < 1e-4

  written = converters.export_file(out, CASES[name][1])
  model.load_state_dict(
    {key: torch.tensor(value) for key, value in written.items()}, strict=True
  )


HEADLESS = [
  ("bert", "Model", {"head"}),
  ("bert", "ForMaskedLM", {"head", "pooler"}),
  ("bert", "ForPreTraining", {"head"}),
  ("roberta", "Model", {"head", "pooler"}),
  ("roberta", "ForMaskedLM", {"head", "pooler"}),
  ("distilbert", "Model", {"head", "pooler"}),
  ("distilbert", "ForMaskedLM", {"head", "pooler"}),
]


@pytest.mark.parametrize(("name", "kind", "drawn"), HEADLESS)
def test_a_file_without_a_classifier_starts_a_student(
  name: str, kind: str, drawn: set[str], tmp_path: pathlib.Path
) -> None:
  _save(name, kind, tmp_path)
  out = _convert(name, tmp_path)
  factory = converters.find(CASES[name][1]).model["name"]
  spec = {"name": factory, **_arguments(name)}
  classes = spec.pop("num_classes") + 2
  network = models.from_spec(models.MODELS, spec, num_classes=classes)
  params, state = jax.eval_shape(
    network.init, jax.random.key(0), oracle.texts()
  )
  template = {"params": params, "model_state": state}
  found = weights.start_from(out, template, spec)
  empty = {
    name
    for name, child in found["params"].items()
    if any(leaf is None for leaf in child.values())
  }
  assert empty == drawn
  assert found["params"]["head"] == {"kernel": None, "bias": None}
  # A labeler wants a classifier that has learnt.
  with pytest.raises(ValueError, match="missing.*head"):
    weights.load_model(out)


def test_old_names_of_bert(tmp_path: pathlib.Path) -> None:
  _save("bert", "ForSequenceClassification", tmp_path)
  want, _ = trees.load_tree(_convert("bert", tmp_path))
  path = tmp_path / "model.safetensors"
  arrays = safetensors.numpy.load_file(path)
  old = {
    key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ): value
    for key, value in arrays.items()
  }
  assert len(old.keys() - arrays.keys()) == 10
  old["bert.embeddings.position_ids"] = np.arange(oracle.POSITIONS)[None]
  old["cls.predictions.bias"] = np.zeros(oracle.VOCAB, np.float32)
  safetensors.numpy.save_file(old, path)
  got, _ = trees.load_tree(_convert("bert", tmp_path))
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_what_does_not_fit_is_named_on_both_sides(
  tmp_path: pathlib.Path,
) -> None:
  _save("roberta", "ForSequenceClassification", tmp_path)
  path = tmp_path / "model.safetensors"
  arrays = safetensors.numpy.load_file(path)
  lost = "roberta.encoder.layer.1.output.dense.bias"
  arrays["roberta.encoder.layer.1.adapter.bias"] = arrays.pop(lost)
  safetensors.numpy.save_file(arrays, path)
  with pytest.raises(ValueError) as error:
    _convert("roberta", tmp_path)
  message = str(error.value)
  assert "no place for (1)" in message
  assert "roberta.encoder.layer.1.adapter.bias (32,)" in message
  assert f"params/layer_1/mlp/down/bias (32,), expected as {lost}" in message


@pytest.mark.parametrize("kind", ["Model", "ForConditionalGeneration"])
def test_bart(kind: str, tmp_path: pathlib.Path) -> None:
  """The bare file has neither a prefix nor a bias of the logits."""
  model = getattr(transformers, f"Bart{kind}")(oracle.bart_config())
  model = oracle.randomize(model).float()
  model.save_pretrained(tmp_path)
  out = tmp_path / "ours.safetensors"
  arguments = {
    **oracle.SIZES,
    "num_decoder_layers": 2,
    "pad_id": oracle.PAD,
    "mask_id": 3,
  }
  tree, card = weights.convert_file(
    tmp_path / "model.safetensors", "bart_base", arguments
  )
  weights.save_converted(out, tree, card)
  loaded = weights.load_model(out)
  x = oracle.texts(lengths=(9,))
  with torch.no_grad():
    encoder = model.get_encoder()
    want = encoder(torch.tensor(x)).last_hidden_state
  states = loaded.model.encode(loaded.params, {}, x)
  assert oracle.difference(states, want) < 1e-4
  assert not np.any(loaded.params["logits_bias"])
  halved, card = weights.convert_file(
    tmp_path / "model.safetensors", "bart_base", arguments, layers=(1,)
  )
  assert card.model["num_layers"] == card.model["num_decoder_layers"] == 1
  for part in ("encoder", "decoder"):
    jax.tree.map(
      np.testing.assert_array_equal,
      halved["params"][f"{part}_layer_0"],
      tree["params"][f"{part}_layer_1"],
    )
  if kind != "Model":
    written = converters.export_file(out, "bart_base")
    model.load_state_dict(
      {key: torch.tensor(value) for key, value in written.items()}, strict=True
    )


def test_tensorflow_names_are_read_back() -> None:
  spec = {"name": "bert", **_arguments("bert")}
  network = converters.build_model("models", spec, None)
  params, _ = jax.jit(network.init)(jax.random.key(0), oracle.texts())
  tree = {"params": jax.device_get(params), "model_state": {}}
  arrays = weights.export(tree, text.BERT_TF)
  assert arrays["bert/encoder/layer_0/intermediate/dense/kernel"].shape == (
    32,
    48,
  )
  assert arrays["output_weights"].shape == (3, 32)
  arrays["global_step"] = np.int64(7)
  arrays["bert/pooler/dense/bias/adam_m"] = np.zeros(32, np.float32)
  again = weights.convert(arrays, text.BERT_TF, tree)
  jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_a_student_begins_with_some_layers_of_its_teacher(
  tmp_path: pathlib.Path,
) -> None:
  """Layers 1 and 0, in this order, against their arrays in the file."""
  theirs = _save("bert", "Model", tmp_path).state_dict()
  tree, card = weights.convert_file(
    tmp_path / "model.safetensors",
    "bert_base_uncased",
    _arguments("bert"),
    layers=(1, 0),
  )
  assert card.model["num_layers"] == 2
  assert card.notes.endswith("layers 1, 0")
  flat = trees.flatten_names(tree)
  for new, old in enumerate((1, 0)):
    mine = next(
      array
      for name, array in flat.items()
      if f"layer_{new}/" in name and name.endswith("query/kernel")
    )
    their_name = f"encoder.layer.{old}.attention.self.query.weight"
    np.testing.assert_array_equal(mine, theirs[their_name].numpy().T)
  for layers, message in (((0, 7), r"no \[7\]"), ((0, 0), "each once")):
    with pytest.raises(ValueError, match=message):
      weights.convert_file(
        tmp_path / "model.safetensors",
        "bert_base_uncased",
        _arguments("bert"),
        layers=layers,
      )
