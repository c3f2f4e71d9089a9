# SPDX-License-Identifier: Apache-2.0
"""BERT and BART as transformers has them on PyTorch, with weights of ours.

Attention is PyTorch's fused one (transformers' default), Adam the fused one;
at half precision inference has half-precision weights and training
`torch.autocast` over float32 ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  import transformers

from tgt_jax.weights import export
from tgt_jax.weights.tables import bart as bart_names, text as bert_names

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(number: int) -> None:
  """Sets the threads of PyTorch's operators."""
  torch.set_num_threads(number)


def _filled(model: Any, params: Any, rules: Sequence[Any]) -> Any:
  """The model with our parameters, ready for inference."""
  arrays = export({"params": params, "model_state": {}}, rules)
  state = {name: torch.tensor(array) for name, array in arrays.items()}
  lacking, unknown = model.load_state_dict(state, strict=False)
  # Positions and segments by default are buffers, not weights.
  lacking = [name for name in lacking if not name.endswith("_ids")]
  if lacking or unknown:
    raise ValueError(f"not the same network: {lacking} {unknown}")
  return model.to(_DEVICE).eval()


def _wait() -> None:
  if _DEVICE == "cuda":
    torch.cuda.synchronize()


class Bert:
  """A classifier's forward pass and its update.

  Args:
    sizes: arguments of `models.bert`.
    params: of it, float32.
    batch: "input" [B, L] and "label" [B] as numpy arrays.
    dtype: compute dtype.
    compiled: whether `torch.compile` is applied.
  """

  def __init__(
    self,
    sizes: Mapping[str, Any],
    params: Any,
    batch: Mapping[str, np.ndarray],
    *,
    dtype: str,
    compiled: bool,
  ):
    dropout = {
      f"{part}_dropout_prob": sizes["dropout"]
      for part in ("hidden", "attention_probs")
    }
    config = transformers.BertConfig(
      vocab_size=sizes["vocab_size"],
      hidden_size=sizes["width"],
      num_hidden_layers=sizes["num_layers"],
      num_attention_heads=sizes["num_heads"],
      intermediate_size=sizes["mlp_width"],
      max_position_embeddings=sizes["max_positions"],
      num_labels=sizes["num_classes"],
      pad_token_id=sizes["pad_id"],
      **dropout,
    )
    made = lambda: _filled(
      transformers.BertForSequenceClassification(config),
      params,
      bert_names.BERT,
    )
    self._dtype = getattr(torch, dtype)
    self._reader, self._learner = made().to(self._dtype), made().train()
    ids = torch.tensor(batch["input"], device=_DEVICE).long()
    self._given = {
      "input_ids": ids,
      "attention_mask": (ids != sizes["pad_id"]).long(),
      "token_type_ids": torch.zeros_like(ids),
    }
    self._label = torch.tensor(batch["label"], device=_DEVICE).long()
    self._optimizer = torch.optim.Adam(
      self._learner.parameters(), lr=1e-5, fused=True
    )
    stage = torch.compile if compiled else lambda function: function
    self._read, self._loss = stage(self._read_once), stage(self._loss_once)

  def _read_once(self) -> torch.Tensor:
    return self._reader(**self._given).logits

  def _loss_once(self) -> torch.Tensor:
    with torch.autocast(
      _DEVICE, self._dtype, enabled=self._dtype is not torch.float32
    ):
      logits = self._learner(**self._given).logits
    return torch.nn.functional.cross_entropy(logits.float(), self._label)

  @torch.no_grad()
  def forward(self) -> np.ndarray:
    """Logits of the batch."""
    return self._read().float().cpu().numpy()

  def update(self) -> None:
    """One update of Adam."""
    self._optimizer.zero_grad(set_to_none=True)
    self._loss().backward()
    self._optimizer.step()
    _wait()


class Bart:
  """Greedy decoding with the keys and values of past places kept.

  Args:
    sizes: arguments of `models.bart.bart`.
    params: of it, float32.
    x: token ids [B, L].
    length: tokens to be written.
    dtype: compute dtype.
  """

  def __init__(
    self,
    sizes: Mapping[str, Any],
    params: Any,
    x: np.ndarray,
    *,
    length: int,
    dtype: str,
  ):
    each = lambda part, key: {
      f"encoder_{part}": sizes[key],
      f"decoder_{part}": sizes[key],
    }
    config = transformers.BartConfig(
      vocab_size=sizes["vocab_size"],
      d_model=sizes["width"],
      encoder_layers=sizes["num_layers"],
      decoder_layers=sizes["num_decoder_layers"],
      **each("attention_heads", "num_heads"),
      **each("ffn_dim", "mlp_width"),
      max_position_embeddings=sizes["max_positions"],
      pad_token_id=sizes["pad_id"],
      forced_eos_token_id=None,
      forced_bos_token_id=None,
    )
    model = _filled(
      transformers.BartForConditionalGeneration(config),
      params,
      bart_names.BART,
    )
    self._model = model.to(getattr(torch, dtype))
    ids = torch.tensor(x, device=_DEVICE).long()
    self._given = {
      "input_ids": ids,
      "attention_mask": (ids != sizes["pad_id"]).long(),
      "min_new_tokens": length,
      "max_new_tokens": length,
      "num_beams": 1,
      "do_sample": False,
      "use_cache": True,
    }

  @torch.no_grad()
  def write(self) -> np.ndarray:
    """Tokens [B, length] behind the start token."""
    return self._model.generate(**self._given)[:, 1:].cpu().numpy()


def forms(
  make: Callable[..., Any], method: str, *, compiled: bool
) -> dict[str, Callable[[], Any]]:
  """One method in the forms of PyTorch that work here, by name.

  Args:
    make: takes `compiled`.
    method: of what it makes.
    compiled: whether to include `torch.compile`.
  """
  made = {}
  for form in ("eager", "compile") if compiled else ("eager",):
    function = getattr(make(compiled=form == "compile"), method)
    try:
      function()
    except Exception as error:  # A compiler that is missing or fails.
      print(f"torch {form}: left out, {type(error).__name__}: {error}"[:200])
      continue
    made[f"torch {form}"] = function
  return made
