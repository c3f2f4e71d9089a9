# SPDX-License-Identifier: Apache-2.0
"""BART and its decoding against transformers.

Run with `-s` for the differences.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import transformers_oracle as oracle
from tgt_jax.models import bart as bart_lib, decoding, parameter_count
from tgt_jax.weights import convert, export
from tgt_jax.weights.tables import bart as tables

transformers = oracle.import_transformers()
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle

PAD = oracle.PAD
EOS, BOS = 2, 0
TARGET = 12  # Tokens to be written.


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


@functools.cache
def _model() -> Any:
  """transformers' model, whose texts end now and then."""
  model = transformers.BartForConditionalGeneration(oracle.bart_config())
  model = oracle.randomize(model)
  with torch.no_grad():
    # What is written must depend on place and source, and be uncertain; else
    # it repeats one token for ever.
    model.model.shared.weight.mul_(0.5)
    model.model.decoder.embed_positions.weight.mul_(4.0)
    for layer in model.model.decoder.layers:
      layer.encoder_attn.out_proj.weight.mul_(8.0)
    bias = model.final_logits_bias
    bias[:, EOS] = 1.8
    bias[:, EOS + 1 :] = 0.005 * torch.arange(bias.shape[1] - EOS - 1)
  return model


def _ours(dtype: str = "float64", **kwargs: Any) -> bart_lib.BART:
  return bart_lib.bart(
    **oracle.SIZES, num_decoder_layers=2, pad_id=PAD, dtype=dtype, **kwargs
  )


@functools.cache
def _params(dtype: str = "float64") -> Any:
  x = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(_ours().init, jax.random.key(0), x)["params"]
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), {"params": shapes}
  )
  arrays = oracle.state_arrays(_model())
  return convert(arrays, tables.BART, template)["params"]


def _embedded(x: np.ndarray) -> Any:
  """The keywords for token ids or soft tokens, without their prefix."""
  if x.ndim == 2:
    return {"input_ids": torch.tensor(x)}
  return {"inputs_embeds": torch.tensor(x) @ _model().model.shared.weight}


def _texts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Sources, their masks and targets."""
  source = oracle.texts()
  target = oracle.texts(lengths=(4, 8, 6))
  return source, source != PAD, target


def _moved(mask: np.ndarray) -> np.ndarray:
  """States of the encoder with noise on them, [B, L, D]."""
  noise = np.random.default_rng(2).normal(size=(*mask.shape, 32))
  with torch.no_grad():
    x = torch.tensor(_texts()[0])
    states = _model().model.encoder(x, torch.tensor(mask))
  return states.last_hidden_state.numpy() + 0.3 * noise


def _outputs(kept: Any, part: str) -> list[Any]:
  """What the layers gave, the embeddings first."""
  layers = sorted(name for name in kept if name.startswith(f"{part}_layer"))
  names = [f"{part}_norm", *layers]
  return [kept[name]["__call__"][0] for name in names]


@pytest.mark.parametrize("soft", [False, True])
def test_encode_and_decode(soft: bool) -> None:
  source, mask, target = _texts()
  if soft:
    source, target = oracle.soft_texts(source), oracle.soft_texts(target)
  model, moved, worst = _model(), _moved(mask), {}
  with torch.no_grad():
    encoded = model.model.encoder(
      attention_mask=torch.tensor(mask),
      output_hidden_states=True,
      **_embedded(source),
    )
    decoded = model(
      encoder_outputs=transformers.modeling_outputs.BaseModelOutput(
        last_hidden_state=torch.tensor(moved)
      ),
      attention_mask=torch.tensor(mask),
      output_hidden_states=True,
      **{f"decoder_{k}": v for k, v in _embedded(target).items()},
    )
  for dtype, bound in (("float64", 1e-8), ("float32", 1e-4)):
    module, variables = _ours(dtype), {"params": _params(dtype)}

    def given(x, dtype=dtype):
      return x if x.ndim == 2 else jnp.asarray(x, dtype)

    def run(method, *args, module=module, variables=variables):
      apply = functools.partial(
        module.apply, mutable="intermediates", capture_intermediates=True
      )
      return jax.jit(functools.partial(apply, method=method))(variables, *args)

    states, kept = run("encode", given(source))
    logits, kept_decoder = run(
      "decode", jnp.asarray(moved, dtype), mask, given(target)
    )
    assert logits.dtype == states.dtype == dtype
    errors = [oracle.difference(states, encoded.last_hidden_state)]
    errors += map(
      oracle.difference,
      _outputs(kept["intermediates"], "encoder"),
      encoded.hidden_states,
    )
    errors += map(
      oracle.difference,
      _outputs(kept_decoder["intermediates"], "decoder"),
      decoded.decoder_hidden_states,
    )
    errors.append(oracle.difference(logits, decoded.logits))
    count = parameter_count(variables["params"])
    assert len(errors) == 2 + 3 + 3
    worst[dtype] = max(errors)
    assert worst[dtype] < bound, errors
  texts = [f"{value:.1e}" for value in worst.values()]
  print(f"\n| bart, {soft=} | {count:,} | {' | '.join(texts)} |")


def test_gradient_of_moved_states() -> None:
  _, mask, target = _texts()
  states = torch.tensor(_moved(mask)).requires_grad_()
  logits = _model()(
    encoder_outputs=transformers.modeling_outputs.BaseModelOutput(
      last_hidden_state=states
    ),
    attention_mask=torch.tensor(mask),
    decoder_input_ids=torch.tensor(target),
  ).logits
  logits.sin().sum().backward()

  def loss(states):
    logits = _ours().apply(
      {"params": _params()}, states, mask, target, method="decode"
    )
    return jnp.sin(logits).sum()

  got = jax.jit(jax.grad(loss))(_moved(mask))
  assert oracle.difference(got, states.grad) < 1e-8


def test_whole_model_reads_what_stands_before() -> None:
  source, mask, _ = _texts()
  before = np.concatenate([np.full((3, 1), EOS), source[:, :-1]], axis=1)
  with torch.no_grad():
    want = _model()(
      torch.tensor(source),
      torch.tensor(mask),
      decoder_input_ids=torch.tensor(before),
    ).logits
  got = _ours().apply({"params": _params()}, source)
  assert oracle.difference(got, want) < 1e-8
  # Soft tokens of certainty are the tokens.
  sharp = jnp.asarray(np.eye(oracle.VOCAB)[source])
  soft = _ours().apply({"params": _params()}, sharp)
  assert oracle.difference(soft, want) < 1e-8


def _generate(states: np.ndarray, mask: np.ndarray, **kwargs: Any) -> Any:
  """transformers' tokens behind the first, padded to TARGET, and scores."""
  with torch.no_grad():
    found = _model().generate(
      encoder_outputs=transformers.modeling_outputs.BaseModelOutput(
        last_hidden_state=torch.tensor(states)
      ),
      attention_mask=torch.tensor(mask),
      max_new_tokens=TARGET,
      do_sample=False,
      early_stopping=False,
      return_dict_in_generate=True,
      output_scores=True,
      **kwargs,
    )
  tokens = found.sequences[:, 1:].numpy()
  padding = ((0, 0), (0, TARGET - tokens.shape[1]))
  tokens = np.pad(tokens, padding, constant_values=PAD)
  return tokens, getattr(found, "sequences_scores", None)


def _many(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
  """More states of the encoder, each at its own distance."""
  mask = np.repeat(_texts()[1], count // 3, axis=0)
  states = np.repeat(_moved(_texts()[1]), count // 3, axis=0)
  noise = np.random.default_rng(3).normal(size=states.shape)
  return states + noise, mask


SPECIAL = {
  "free": {},
  "forced": {"first_id": BOS, "last_id": EOS},
}


def _forced(special: dict[str, int]) -> dict[str, int]:
  return {
    theirs: special[ours]
    for ours, theirs in (
      ("first_id", "forced_bos_token_id"),
      ("last_id", "forced_eos_token_id"),
    )
    if ours in special
  }


@pytest.mark.parametrize("special", SPECIAL.values(), ids=SPECIAL)
def test_greedy(special: dict[str, int]) -> None:
  states, mask = _many()
  want, _ = _generate(states, mask, num_beams=1, **_forced(special))

  @jax.jit
  def write(params, states):
    step, past = bart_lib.decoder(
      _ours(), params, states, jnp.asarray(mask), max_length=TARGET
    )
    return decoding.greedy(
      step,
      past,
      count=len(states),
      length=TARGET,
      special=decoding.BART_TOKENS._replace(**special),
    )

  got = np.asarray(write(_params(), states))
  np.testing.assert_array_equal(got, want)
  # Some texts end early, some do not, and they differ.
  ended = (got == PAD).any(1)
  assert ended.any() and not ended.all()
  assert len(np.unique(got, axis=0)) >= 4


@pytest.mark.parametrize(
  "special, num_beams, length_penalty",
  [("free", 4, 1.0), ("forced", 3, 0.0), ("free", 2, 2.0), ("forced", 4, -1.0)],
)
def test_beams(special: str, num_beams: int, length_penalty: float) -> None:
  states, mask = _many()
  tokens = SPECIAL[special]
  want, scores = _generate(
    states,
    mask,
    num_beams=num_beams,
    length_penalty=length_penalty,
    **_forced(tokens),
  )

  @jax.jit
  def write(params, states):
    step, past = bart_lib.decoder(
      _ours(),
      params,
      states,
      jnp.asarray(mask),
      max_length=TARGET,
      copies=num_beams,
    )
    return decoding.beam_search(
      step,
      past,
      count=len(states),
      num_beams=num_beams,
      length=TARGET,
      special=decoding.BART_TOKENS._replace(**tokens),
      length_penalty=length_penalty,
    )

  got, got_scores = write(_params(), states)
  np.testing.assert_array_equal(got, want)
  # transformers adds log probabilities in float32.
  np.testing.assert_allclose(got_scores, scores, rtol=1e-5, atol=1e-6)
  assert len(np.unique(got, axis=0)) >= 4


def test_export_and_the_names_of_files() -> None:
  model, tree = _model(), {"params": _params()}
  arrays = oracle.state_arrays(model)
  written = export(tree, tables.BART)
  assert written.keys() == arrays.keys()
  for key, value in written.items():
    np.testing.assert_array_equal(value, arrays[key], err_msg=key)
  model.load_state_dict(
    {key: torch.tensor(value) for key, value in written.items()}, strict=True
  )

  tied = [
    key
    for key in arrays
    if key.endswith(("embed_tokens.weight", "lm_head.weight"))
  ]
  bare = {
    key.removeprefix("model."): value
    for key, value in arrays.items()
    if key not in (*tied, "final_logits_bias")
  }
  without_bias = {
    "params": {**tree["params"], "logits_bias": np.zeros(oracle.VOCAB)}
  }
  again = convert(bare, tables.BART, tree)
  jax.tree.map(np.testing.assert_array_equal, again, without_bias)
  for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
    other = {name if k == "shared.weight" else k: v for k, v in bare.items()}
    again = convert(other, tables.BART, tree)
    jax.tree.map(np.testing.assert_array_equal, again, without_bias)

  arrays["lm_head.weight"] = 2.0 * arrays["lm_head.weight"]
  with pytest.raises(ValueError, match=r"two names(?s:.)*lm_head\.weight"):
    convert(arrays, tables.BART, tree)


def test_parameters_of_public_size() -> None:
  config = transformers.BartConfig(
    d_model=768,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=12,
    decoder_attention_heads=12,
    encoder_ffn_dim=3072,
    decoder_ffn_dim=3072,
  )
  with torch.device("meta"):
    model = transformers.BartForConditionalGeneration(config)
  theirs = sum(p.numel() for p in model.parameters())
  assert theirs == 139_420_416
  module = bart_lib.bart()
  x = jnp.zeros((1, 8), jnp.int32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
  # The bias of the logits is a buffer there.
  assert parameter_count(shapes) == theirs + 50265
