# SPDX-License-Identifier: Apache-2.0
"""A WordPiece vocabulary without what a data set does not use.

  python -m tgt_jax.data.vocabulary --tokenizer=bert/vocab.txt --out=words.json
    --data='{"name": "glue", "task": "sst2", "data_dir": "glue"}'

The table of words is most of a small network and, where texts are generated or
are soft tokens, most of its time. Words of the training texts keep their token;
others are spelled in the pieces that are left, of which every letter is one.
`python -m tgt_jax.weights words` takes the rows of converted weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from tgt_jax.data import tokenizer as tokenizer_lib
from tgt_jax.data.datasets import load
from tgt_jax.data.tokenizer import Tokenizer


def restrict(words: Tokenizer, used: Iterable[int]) -> Tokenizer:
  """Returns a tokenizer with some of the tokens of another, counted anew.

  Args:
    words: a WordPiece tokenizer.
    used: ids to keep; symbols and single letters are kept besides.

  Raises:
    ValueError: not a WordPiece tokenizer.
  """
  document = json.loads(words.backend.to_str())
  if document["model"]["type"] != "WordPiece":
    raise ValueError(
      "only the tokens of a WordPiece tokenizer can be left out, got"
      f" {document['model']['type']}: others are made of one another"
    )
  vocabulary: dict[str, int] = document["model"]["vocab"]
  symbols = {token["content"] for token in document["added_tokens"]}
  kept_ids = set(used)
  kept = [
    token
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1])
    if number in kept_ids
    or token in symbols
    or len(token.removeprefix("##")) == 1
  ]
  kept += sorted(symbols - set(vocabulary))  # Of the library's own table.
  number = {token: new for new, token in enumerate(kept)}
  document["model"]["vocab"] = number
  for token in document["added_tokens"]:
    token["id"] = number[token["content"]]
  _renumber(document["post_processor"], number)
  backend = type(words.backend).from_str(json.dumps(document))
  found = tokenizer_lib.wrap(backend, what="tokenizer")
  framed = found.encode(["a"], ["a"], max_length=64).flat
  if framed.max() >= found.vocab_size:
    raise ValueError(
      "the tokenizer frames a text with ids that its vocabulary does not have:"
      f" {framed.tolist()} of {found.vocab_size} tokens"
    )
  return found


def _renumber(processor: Any, number: dict[str, int]) -> None:
  """Gives the symbols around a text their new ids."""
  if not processor:
    return
  for inner in processor.get("processors", ()):
    _renumber(inner, number)
  for symbol in processor.get("special_tokens", {}).values():
    symbol["ids"] = [number[token] for token in symbol["tokens"]]
  for name in ("sep", "cls"):  # Of BERT's own processor.
    if name in processor:
      processor[name][1] = number[processor[name][0]]


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.data.vocabulary",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--tokenizer", required=True, help="that is restricted")
  parser.add_argument(
    "--data", required=True, help="spec of the data set, as JSON"
  )
  parser.add_argument("--out", required=True, help="tokenizer.json to write")
  args = parser.parse_args()
  try:
    words = tokenizer_lib.load(args.tokenizer)
    spec = {**json.loads(args.data), "tokenizer": args.tokenizer}
    source = load(spec).train_full
    ids = source.read(np.arange(len(source)))
    small = restrict(words, np.unique(ids).tolist())
    small.save(args.out)
  except (OSError, TypeError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(
    f"{args.out}: {small.vocab_size} of {words.vocab_size} tokens;"
    f" pad_id {small.pad_id}, cls_id {small.cls_id}, sep_id {small.sep_id},"
    f" mask_id {small.mask_id}"
  )


if __name__ == "__main__":
  main()
