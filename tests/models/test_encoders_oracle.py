# SPDX-License-Identifier: Apache-2.0
"""BERT, RoBERTa and DistilBERT against transformers, by the tables of names.

Run with `-s` for the differences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import transformers_oracle as oracle
from tgt_jax import models
from tgt_jax.weights import convert, export
from tgt_jax.weights.tables import text

transformers = oracle.import_transformers()
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle

PAD, SEP, CLASSES = oracle.PAD, oracle.SEP, oracle.CLASSES


class Case(NamedTuple):
  """A network of ours and that of transformers."""

  network: Callable[..., Any]
  theirs: str
  rules: list


def _ours(factory: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
  return functools.partial(
    factory, num_classes=CLASSES, pad_id=PAD, **oracle.SIZES, **kwargs
  )


CASES = {
  "bert": Case(_ours(models.bert, sep_id=SEP), "Bert", text.BERT),
  "roberta": Case(_ours(models.roberta), "Roberta", text.ROBERTA),
  "distilbert": Case(_ours(models.distilbert), "DistilBert", text.DISTILBERT),
}
# The public sizes, with the arguments of their configurations that differ from
# transformers' defaults.
_TALL = {"layer_norm_eps": 1e-5, "type_vocab_size": 1, "vocab_size": 50265}
_TALL["max_position_embeddings"] = 514
_LARGE = {
  "num_hidden_layers": 24,
  "hidden_size": 1024,
  "num_attention_heads": 16,
  "intermediate_size": 4096,
}
_TINY = {
  "num_hidden_layers": 2,
  "hidden_size": 128,
  "num_attention_heads": 2,
  "intermediate_size": 512,
}
PUBLIC = {
  "bert_base": ("Bert", {}, 109_483_778),
  "bert_tiny": ("Bert", _TINY, 4_386_178),
  "roberta_base": ("Roberta", _TALL, 124_647_170),
  "roberta_large": ("Roberta", {**_TALL, **_LARGE}, 355_361_794),
  "distilroberta_base": (
    "Roberta",
    {**_TALL, "num_hidden_layers": 6},
    82_119_938,
  ),
  "distilbert_base": ("DistilBert", {}, 66_955_010),
}


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _model(name: str) -> Any:
  family = f"{CASES[name].theirs}ForSequenceClassification"
  return oracle.randomize(getattr(transformers, family)(oracle.config(name)))


def _theirs(name: str, model: Any, ids: np.ndarray, x: np.ndarray) -> Any:
  """transformers' outputs of token ids, or of soft tokens around them."""
  kwargs: dict[str, Any] = {"attention_mask": torch.tensor(ids != PAD)}
  if name == "bert":
    segments = np.zeros_like(ids)
    for row, segment in zip(ids, segments, strict=True):
      first = int(np.argmax(row == SEP))
      segment[first + 1 :] = row[first + 1 :] != PAD
    kwargs["token_type_ids"] = torch.tensor(segments)
  if x.ndim == 2:
    kwargs["input_ids"] = torch.tensor(x)
  else:
    table = model.get_input_embeddings().weight
    kwargs["inputs_embeds"] = torch.tensor(x) @ table
    if name == "roberta":  # Else it counts padding too.
      kwargs["position_ids"] = (
        model.roberta.embeddings.create_position_ids_from_input_ids(
          torch.tensor(ids), PAD
        )
      )
  with torch.no_grad():
    return model(output_hidden_states=True, **kwargs)


def _tree(network: Any, rules: list, arrays: Any, dtype: str) -> Any:
  x = jnp.zeros((1, 4), jnp.int32)
  params, state = jax.eval_shape(network.init, jax.random.key(0), x)
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
    {"params": params, "model_state": state},
  )
  return convert(arrays, rules, template)


@pytest.mark.parametrize("name", CASES)
def test_logits_states_and_export(name: str) -> None:
  case, ids = CASES[name], oracle.texts()
  model = _model(name)
  arrays = oracle.state_arrays(model)
  worst = {}
  for dtype, bound in (("float64", 1e-8), ("float32", 1e-4)):
    network = case.network(dtype=dtype)
    tree = _tree(network, case.rules, arrays, dtype)
    apply, errors = jax.jit(network.apply), []
    for x in (ids, oracle.soft_texts(ids)):
      want = _theirs(name, model, ids, x)
      given = x if x.ndim == 2 else x.astype(dtype)
      got, _ = apply(tree["params"], {}, jnp.asarray(given))
      assert got.logits.dtype == dtype
      assert len(got.features) == len(want.hidden_states) == 3
      errors.append(oracle.difference(got.logits, want.logits))
      errors += map(oracle.difference, got.features, want.hidden_states)
    worst[dtype] = max(errors)
    assert worst[dtype] < bound, errors
    if dtype == "float64":
      written = export(tree, case.rules)
      assert written.keys() == arrays.keys()
      model.load_state_dict(
        {key: torch.tensor(value) for key, value in written.items()},
        strict=True,
      )
      for key, value in written.items():
        np.testing.assert_array_equal(value, arrays[key], err_msg=key)
  count = models.parameter_count(tree["params"])
  assert count == sum(p.numel() for p in model.parameters())
  texts = [f"{value:.1e}" for value in worst.values()]
  print(f"\n| {name} | {count:,} | {' | '.join(texts)} |")


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_soft_tokens(name: str) -> None:
  case, ids = CASES[name], oracle.texts()
  model = _model(name)
  network = case.network(dtype="float64")
  tree = _tree(network, case.rules, oracle.state_arrays(model), "float64")
  soft = oracle.soft_texts(ids)
  table = model.get_input_embeddings().weight.detach()
  embedded = (torch.tensor(soft) @ table).requires_grad_()
  kwargs: dict[str, Any] = {}
  if name == "bert":
    kwargs["token_type_ids"] = torch.zeros(ids.shape, dtype=torch.long)
  # One full text: neither padding nor, with `sep_id` unused, segments.
  full = slice(0, 1)
  kwargs = {key: value[full] for key, value in kwargs.items()}
  model(inputs_embeds=embedded[full], **kwargs).logits.sin().sum().backward()
  want = embedded.grad[full] @ table.T

  network = case.network(
    dtype="float64", **({"sep_id": 0} if name == "bert" else {})
  )

  def loss(x):
    return jnp.sin(network.apply(tree["params"], {}, x)[0].logits).sum()

  got = jax.jit(jax.grad(loss))(jnp.asarray(soft[full]))
  assert oracle.difference(got, want) < 1e-8


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_of_public_sizes(name: str) -> None:
  family, sizes, expected = PUBLIC[name]
  config = getattr(transformers, f"{family}Config")(**sizes, num_labels=2)
  with torch.device("meta"):
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
  assert sum(p.numel() for p in model.parameters()) == expected
  network = models.MODELS[name](num_classes=2)
  x = jnp.zeros((1, 8), jnp.int32)
  params, _ = jax.eval_shape(network.init, jax.random.key(0), x)
  assert models.parameter_count(params) == expected
