# SPDX-License-Identifier: Apache-2.0
"""Looks at public weight files, converts them, and writes ours as such.

python -m tgt_jax.weights inspect model.safetensors --match=head
python -m tgt_jax.weights convert PATH --to=NAME --out=FILE --arg num_classes=10
python -m tgt_jax.weights export PATH --to=NAME --out=FILE
"""

from __future__ import annotations

import argparse
import ast
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import safetensors.numpy

from tgt_jax import data, files, tables
from tgt_jax.weights import cards, converters, readers, words


def inspect(path: str, *, match: str = "") -> tables.Table:
  """Returns the names, shapes and dtypes in a weight file as a table.

  Args:
    path: see `readers`.
    match: regular expression that a name must contain.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it cannot be read, or `match` is no regular expression.
  """
  try:
    expression = re.compile(match)
  except re.error as error:
    raise ValueError(
      f"--match={match!r} is no regular expression: {error}"
    ) from error
  arrays = readers.read_arrays(path)
  shown = {n: a for n, a in sorted(arrays.items()) if expression.search(n)}
  rows = [
    [
      name,
      " x ".join(map(str, a.shape)) or "scalar",
      str(a.dtype),
      f"{a.size:,}",
    ]
    for name, a in shown.items()
  ]
  note = (
    f"{len(shown)} of {len(arrays)} arrays,"
    f" {sum(a.size for a in shown.values()):,} numbers,"
    f" {sum(a.nbytes for a in shown.values()) / 2**20:,.1f} MiB."
  )
  return tables.Table(
    ["name", "shape", "dtype", "numbers"], rows, left=(0, 1, 2), notes=[note]
  )


def _argument(text: str) -> tuple[str, Any]:
  """Reads `key=value`; the value is a Python literal, or else text."""
  key, equals, value = text.partition("=")
  if not equals or not key.isidentifier():
    raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
  try:
    return key, ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return key, value


def _numbers(text: str) -> tuple[int, ...]:
  """Reads `0,2,4`."""
  try:
    return tuple(int(word) for word in text.split(","))
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f"expected numbers joined by commas, got {text!r}"
    ) from error


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m tgt_jax.weights",
    description="Looks at public weight files, converts them, and writes ours"
    " under the public names.",
    epilog="Formats: safetensors (also in shards), npz, TensorFlow checkpoints"
    " and TF-Hub folders, PyTorch files where torch is installed.",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  names = ", ".join(sorted(converters.CONVERTERS)) or "none yet"
  for name, text in (
    ("inspect", "list the arrays of a file"),
    ("convert", "write a public file as a file of ours"),
    ("export", "write a converted file or a student under public names"),
    ("words", "give a converted file the words of another tokenizer"),
  ):
    command = commands.add_parser(
      name, help=text, description=text.capitalize() + "."
    )
    command.add_argument("path", metavar="PATH", help="file, prefix or folder")
    if name == "inspect":
      command.add_argument(
        "--match", default="", metavar="REGEX", help="only names that hold this"
      )
      continue
    if name == "words":
      for which in ("old", "new"):
        command.add_argument(
          f"--{which}",
          required=True,
          metavar="PATH",
          help=f"the {which} tokenizer",
        )
    else:
      command.add_argument(
        "--to", required=True, metavar="NAME", help=f"converter: {names}"
      )
    command.add_argument(
      "--out", required=True, metavar="FILE", help="a .safetensors file"
    )
    if name == "convert":
      command.add_argument(
        "--arg",
        action="append",
        default=[],
        type=_argument,
        metavar="KEY=VALUE",
        help="argument of the model; may be given several times",
      )
      command.add_argument(
        "--layers",
        type=_numbers,
        default=(),
        metavar="0,1,...",
        help="layers of a transformer to take, counted from 0; all if not given",
      )
  return parser


def _run(args: argparse.Namespace) -> str:
  """Does what the command says and returns what to print."""
  if args.command == "inspect":
    table = inspect(args.path, match=args.match)
    text = tables.render(table)
    if tables.console_lacks(text):
      text = tables.render(table, ascii_only=True)
    return text
  out = pathlib.Path(args.out)
  if out.suffix != ".safetensors":
    raise ValueError(f"--out={out}: expected a name that ends in .safetensors")
  if args.command == "words":
    old, new = map(data.load_tokenizer, (args.old, args.new))
    tree, card, drawn = words.change_words(args.path, old, new)
    cards.save_converted(out, tree, card)
    return f"{out}: {new.vocab_size} tokens, {drawn} of them new"
  if args.command == "convert":
    tree, card = converters.convert_file(
      args.path, args.to, dict(args.arg), layers=args.layers
    )
    cards.save_converted(out, tree, card)
    return f"{out}: {card.model} of {card.source}, licence {card.licence}"
  arrays = converters.export_file(args.path, args.to)
  # Hugging Face's loaders ask for a format; the layout is PyTorch's.
  content = safetensors.numpy.save(arrays, metadata={"format": "pt"})
  files.atomic_write(out, content)
  return f"{out}: {len(arrays)} arrays"


def main(argv: Sequence[str] | None = None) -> None:
  """Runs one command; errors of the user are one message and exit code 2."""
  parser = _parser()
  args = parser.parse_args(argv)
  try:
    text = _run(args)
  except (ImportError, OSError, TypeError, ValueError) as error:
    parser.exit(2, f"{parser.prog}: error: {error}\n")
  sys.stdout.write(text + "\n")


if __name__ == "__main__":
  main()
