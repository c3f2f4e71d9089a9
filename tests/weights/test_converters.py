# SPDX-License-Identifier: Apache-2.0
"""Converters, cards and the command line, on a network of ours."""

from __future__ import annotations

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from tgt_jax import export as students, trees, weights
from tgt_jax.weights import cards, converters, torch_layers
from tgt_jax.weights.__main__ import main

PREPROCESSING = cards.Preprocessing(
  mean=(0.4,), std=(0.3,), size=4, crop=0.875, interpolation="bicubic"
)
CONVERTER = weights.Converter(
  family="models",
  model={"name": "mlp", "num_classes": 3, "widths": (6, 5)},
  input_shape=(2, 2, 1),
  rules=[
    *torch_layers.dense("layers.{i}", "dense_{i}"),
    *torch_layers.dense("fc", "head"),
  ],
  licence="Apache-2.0",
  preprocessing=PREPROCESSING,
  notes="Of ünit tests.",
)


@pytest.fixture(autouse=True)
def _table(monkeypatch):
  table = {
    "tiny_mlp": CONVERTER,
    "scaled": CONVERTER._replace(
      prepare=lambda arrays: {k: 2 * v for k, v in arrays.items()}
    ),
    "vae": CONVERTER._replace(
      family="generators",
      model={"name": "vae", "input_shape": (4, 4, 1)},
    ),
  }
  monkeypatch.setattr(converters, "CONVERTERS", table)


def _public(widths=(6, 5), classes=3) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  sizes, arrays = (4, *widths, classes), {}
  for i, (before, after) in enumerate(itertools.pairwise(sizes)):
    name = "fc" if i == len(widths) else f"layers.{i}"
    kernel = rng.normal(size=(after, before))
    arrays[f"{name}.weight"] = kernel.astype(np.float32)
    arrays[f"{name}.bias"] = rng.normal(size=after).astype(np.float32)
  return arrays


@pytest.fixture(name="public")
def _public_file(tmp_path):
  path = tmp_path / "public.npz"
  np.savez(path, **_public())
  return path


def _logits(arrays, x):
  """The network in numpy, PyTorch's layout."""
  x = (x.reshape(len(x), -1) - 0.4) / 0.3
  for name in ("layers.0", "layers.1"):
    x = x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]
    x = np.maximum(x, 0)
  return x @ arrays["fc.weight"].T + arrays["fc.bias"]


def test_from_a_public_file_to_logits(public, tmp_path, capsys):
  out = tmp_path / "ours.safetensors"
  main(["convert", str(public), "--to=tiny_mlp", f"--out={out}"])
  assert "licence Apache-2.0" in capsys.readouterr().out
  loaded = weights.load_model(out)
  x = np.random.default_rng(1).uniform(size=(5, 2, 2, 1)).astype(np.float32)
  outputs, _ = loaded.model.apply(loaded.params, loaded.model_state, x)
  np.testing.assert_allclose(outputs.logits, _logits(_public(), x), rtol=1e-5)
  card = loaded.card
  assert (card.name, card.source) == ("tiny_mlp", "public.npz")
  assert card.sha256 == weights.sha256_of(public)
  assert card.preprocessing == PREPROCESSING
  assert card.notes == "Of ünit tests."


@pytest.mark.parametrize(
  ("said", "expected"),
  [
    ({"id2label": {"0": "cat", "2": "emu", "1": "Dog"}}, ("cat", "Dog", "emu")),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, ()),
    ({"hidden_size": 5}, ()),
  ],
)
def test_classes_are_those_of_the_files_neighbour(
  public, tmp_path, said, expected
):
  (tmp_path / "config.json").write_text(json.dumps(said))
  out = tmp_path / "ours.safetensors"
  main(["convert", str(public), "--to=tiny_mlp", f"--out={out}"])
  assert weights.load_converted(out)[1].class_names == expected


def test_arguments_of_the_model(tmp_path, capsys):
  public, out = tmp_path / "x.npz", tmp_path / "y.safetensors"
  np.savez(public, **_public(widths=(7,), classes=4))
  command = ["convert", str(public), "--to=tiny_mlp", f"--out={out}"]
  with pytest.raises(SystemExit) as stop:
    main(command)
  assert stop.value.code == 2
  assert "layers.0.weight for params/dense_0/kernel" in capsys.readouterr().err
  main([*command, "--arg", "num_classes=4", "--arg", "widths=(7,)"])
  loaded = weights.load_model(out, dtype="bfloat16")
  assert loaded.card.model["num_classes"] == 4
  assert loaded.params["dense_0"]["kernel"].shape == (4, 7)


def test_and_back(public, tmp_path):
  ours, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
  main(["convert", str(public), "--to=tiny_mlp", f"--out={ours}"])
  main(["export", str(ours), "--to=tiny_mlp", f"--out={again}"])
  found = safetensors.numpy.load_file(again)
  assert found.keys() == _public().keys()
  for name, array in _public().items():
    np.testing.assert_array_equal(found[name], array)
  content = again.read_bytes()
  length = int.from_bytes(content[:8], "little")
  assert json.loads(content[8 : 8 + length])["__metadata__"] == {"format": "pt"}


def _student(folder, name="mlp"):
  spec = {"name": name, "widths": [6, 5]}
  card = {"model": spec, "num_classes": 3, "input_shape": (4, 4, 1)}
  network = students.build_network(card)
  params, state = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype),
    students.expected_trees(network, (4, 4, 1)),
  )
  students.export_student(folder, params, state, card)


def test_a_student_leaves_under_public_names(tmp_path):
  _student(tmp_path / "run")
  out = tmp_path / "x.safetensors"
  main(["export", str(tmp_path / "run"), "--to=tiny_mlp", f"--out={out}"])
  found = weights.read_arrays(out)
  assert found["layers.0.weight"].shape == (6, 16)


def test_a_student_of_another_model(tmp_path):
  _student(tmp_path / "run", name="cnn")
  with pytest.raises(
    ValueError, match="models/mlp for 'tiny_mlp', got models/c"
  ):
    weights.export_file(tmp_path / "run", "tiny_mlp")


def test_a_prepared_file_has_no_way_back(public, tmp_path):
  tree, card = weights.convert_file(public, "scaled", {})
  bias = tree["params"]["head"]["bias"]
  np.testing.assert_array_equal(bias, 2 * _public()["fc.bias"])
  out = tmp_path / "x.safetensors"
  weights.save_converted(out, tree, card)
  with pytest.raises(ValueError, match="'scaled' changes.*no export"):
    weights.export_file(out, "scaled")


def test_a_generator():
  model = converters.build_model(
    "generators",
    {"name": "vae", "input_shape": (4, 4, 1), "latent_dim": 2},
    PREPROCESSING,
  )
  assert hasattr(model, "decode")


@pytest.mark.parametrize(
  ("arguments", "match"),
  [
    (["inspect", "nothing.npz"], "no file nothing.npz"),
    (["inspect", "PUBLIC", "--match=("], "no regular expression"),
    (
      ["convert", "PUBLIC", "--to=tiny_mpl", "--out=x.safetensors"],
      "'tiny_mlp'?",
    ),
    (
      ["convert", "PUBLIC", "--to=tiny_mlp", "--out=x.npz"],
      "ends in .safetens",
    ),
    (
      [
        "convert",
        "PUBLIC",
        "--to=tiny_mlp",
        "--out=x.safetensors",
        "--arg=a=1",
      ],
      "takes no 'a'",
    ),
    (
      ["export", "PUBLIC", "--to=tiny_mlp", "--out=x.safetensors"],
      "not a whole",
    ),
    (
      ["convert", "PUBLIC", "--to=t", "--out=x", "--arg=3"],
      "key=value, got '3'",
    ),
    ([], "command"),
  ],
)
def test_errors_are_one_message(public, capsys, arguments, match):
  with pytest.raises(SystemExit) as stop:
    main([str(public) if a == "PUBLIC" else a for a in arguments])
  assert stop.value.code == 2
  assert match in capsys.readouterr().err


def test_inspect(public, capsys):
  main(["inspect", str(public), "--match=weight$"])
  text = capsys.readouterr().out
  assert "layers.0.weight  6 x 4  float32       24" in text
  assert "bias" not in text
  assert "3 of 6 arrays, 69 numbers, 0.0 MiB." in text


def test_help_names_the_converters(capsys):
  with pytest.raises(SystemExit) as stop:
    main(["convert", "--help"])
  assert stop.value.code == 0
  assert "scaled, tiny_mlp, vae" in " ".join(capsys.readouterr().out.split())


def test_cards_survive_json(public):
  _, card = weights.convert_file(public, "tiny_mlp", {})
  text = cards.card_to_json(card)
  again = cards.card_from_json(text)
  assert cards.card_to_json(again) == text
  # JSON has lists only; everything else comes back as it was.
  model = {"name": "mlp", "num_classes": 3, "widths": [6, 5]}
  assert again == dataclasses.replace(card, model=model)


@pytest.mark.parametrize(
  "text",
  [
    "{",
    "[]",
    "{}",
    '{"preprocessing": {}, "model": {}}',
    '{"preprocessing": 3}',
  ],
)
def test_cards_that_are_none(text):
  with pytest.raises(ValueError, match="x: expected a card with name, family"):
    cards.card_from_json(text, name="x")


def test_a_file_without_a_card(tmp_path):
  path = tmp_path / "x.safetensors"
  trees.save_tree(path, {"params": {"a": np.ones(2)}})
  with pytest.raises(ValueError, match="with a card.*weights convert"):
    weights.load_converted(path)


def test_a_card_of_another_model(public, tmp_path):
  path = tmp_path / "x.safetensors"
  tree, card = weights.convert_file(public, "tiny_mlp", {})
  other = dataclasses.replace(card, model={**card.model, "num_classes": 4})
  weights.save_converted(path, tree, other)
  with pytest.raises(ValueError, match="x.safetensors does not fit.*head"):
    weights.load_model(path)


def test_the_converters_of_the_package(monkeypatch):
  monkeypatch.undo()
  for name, converter in converters.CONVERTERS.items():
    assert converter.family in converters.FAMILIES, name
    assert converter.model["name"] in converters.FAMILIES[converter.family]
    assert converter.rules and converter.licence
