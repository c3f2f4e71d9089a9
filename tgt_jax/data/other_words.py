# SPDX-License-Identifier: Apache-2.0
"""Texts in the words of another tokenizer, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tgt_jax.data.tokenizer import Tokenizer


def translation(
  ours: Tokenizer, theirs: Tokenizer, length: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from token ids of one vocabulary to another's.

  Args:
    ours: the vocabulary of what is given, int [B, L]. Its symbols for what is
      unknown or hidden have no text, and are left out.
    theirs: that of the result, int32 [B, length], padded. Parts beyond the
      second belong to the second.
    length: longer texts are cut.
  """
  silent = [i for i in (ours.unk_id, ours.mask_id) if i is not None]

  def translate(ids: Any) -> np.ndarray:
    ids = np.asarray(ids)
    ids = np.where(np.isin(ids, silent), ours.pad_id, ids)
    parts = ours.parts(ids)
    out = np.full((len(parts), length), theirs.pad_id, np.int32)
    double = np.array([len(some) > 1 for some in parts], bool)
    for is_pair in (False, True):
      places = np.flatnonzero(double == is_pair)
      if not len(places):
        continue
      some = [parts[place] for place in places]
      texts = [one[0] if one else "" for one in some]
      pairs = [" ".join(one[1:]) for one in some] if is_pair else None
      rows = theirs.encode(texts, pairs, max_length=length)
      inside = np.arange(length)[None] < rows.lengths[:, None]
      written = np.full((len(places), length), theirs.pad_id, np.int32)
      written[inside] = rows.flat
      out[places] = written
    return out

  return translate
