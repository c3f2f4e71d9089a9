# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back, by the library `tokenizers`.

A tokenizer is one JSON document, and its fingerprint is the digest of it. It
comes from local files in the layouts that public weights have, or is trained
on the spot. Nothing is downloaded.

  tokenizer.json             any; what fixes length and padding in it is undone
  vocab.txt                  BERT: lower case, WordPiece
  vocab.json + merges.txt    RoBERTa and BART: byte-level BPE

The symbols that frame a text have two families of names: [CLS] a [SEP] b [SEP]
and <s> a </s></s> b </s>. Fields are named after the first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tgt_jax import checks, files

# What a symbol is for, and its names in the two families.
_NAMES = {
  "pad": ("[PAD]", "<pad>"),
  "unk": ("[UNK]", "<unk>"),
  "cls": ("[CLS]", "<s>"),
  "sep": ("[SEP]", "</s>"),
  "mask": ("[MASK]", "<mask>"),
}
_BERT, _ROBERTA = (tuple(names[i] for names in _NAMES.values()) for i in (0, 1))

# The library keeps where to cut in the object that splits: one caller at a
# time. It has threads of its own.
_SPLITTING = threading.Lock()

# Texts that are split at a time: bounds what the library's objects take.
_CHUNK = 4096


class Ragged(NamedTuple):
  """Rows of unequal length, one after the other.

  Attributes:
    flat: int32 [T], all rows.
    offsets: int64 [N + 1]; row i is `flat[offsets[i]:offsets[i + 1]]`.
  """

  flat: np.ndarray
  offsets: np.ndarray

  @property
  def lengths(self) -> np.ndarray:
    """Entries of each row, int32 [N]."""
    return np.diff(self.offsets).astype(np.int32)


def _library() -> Any:
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "text needs the library tokenizers: pip install 'tgt_jax[text]'"
    ) from error
  return tokenizers


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A vocabulary, how text is split into it, and the symbols that frame it.

  Attributes:
    backend: the `tokenizers.Tokenizer`.
    pad_id: fills a row up.
    unk_id: stands for what the vocabulary cannot spell; None if it can all.
    cls_id: opens a text; None where the vocabulary has no such symbol. RoBERTa
      and BART call it "bos".
    sep_id: closes a text, and stands between two; there "eos".
    mask_id: stands for a hidden token.
  """

  backend: Any
  pad_id: int
  unk_id: int | None
  cls_id: int | None
  sep_id: int | None
  mask_id: int | None

  @property
  def frame_ids(self) -> tuple[int, ...]:
    """Ids that are no part of a text: padding, opening, closing."""
    ids = (self.pad_id, self.cls_id, self.sep_id)
    return tuple(i for i in ids if i is not None)

  @property
  def vocab_size(self) -> int:
    """Rows that an embedding needs: the largest id plus one."""
    return 1 + max(self.backend.get_vocab().values())

  @property
  def fingerprint(self) -> str:
    """SHA-256 of the JSON document."""
    return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

  @property
  def words(self) -> str:
    """SHA-256 of the tokens in order, whatever file they come from."""
    numbers = self.backend.get_vocab()
    pairs = sorted((number, token) for token, number in numbers.items())
    return hashlib.sha256(repr(pairs).encode()).hexdigest()

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes a `tokenizer.json`, which `load` reads."""
    text = self.backend.to_str(pretty=True)
    files.atomic_write(pathlib.Path(path), text.encode())

  def check_length(self, name: str, length: int, is_pair: bool = False) -> None:
    """Raises `ValueError` where a text's frame leaves no room for its words.

    Args:
      name: of the length, for the message.
      length: ids of a text at most.
      is_pair: whether there are two texts in the frame.
    """
    frame = self.backend.num_special_tokens_to_add(is_pair)
    if length <= frame:
      raise ValueError(
        f"{name} must be > {frame}, which the symbols around a text take, got"
        f" {length}"
      )

  def encode(
    self,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
  ) -> Ragged:
    """Returns the token ids of texts or of pairs of texts, framed.

    "[SEP]" in a text is what somebody wrote, and letters like others, where
    transformers takes it for the symbol by default.

    Args:
      texts: N texts.
      pairs: N second texts, or None.
      max_length: ids of a row at most, the frame included. What is too long
        loses tokens at its end; of a pair, the longer text does.

    Raises:
      ValueError: another number of pairs than of texts, or a length that
        leaves no room beside the frame.
    """
    self.check_length("max_length", max_length, pairs is not None)
    if pairs is not None and len(pairs) != len(texts):
      raise ValueError(f"{len(texts)} texts but {len(pairs)} second texts")
    items: Sequence[Any] = texts
    if pairs is not None:
      items = list(zip(texts, pairs, strict=True))
    rows: list[np.ndarray] = []
    with _SPLITTING:
      self.backend.enable_truncation(max_length, strategy="longest_first")
      try:
        for start in range(0, len(items), _CHUNK):
          found = self.backend.encode_batch(list(items[start : start + _CHUNK]))
          rows += [np.array(row.ids, np.int32) for row in found]
      finally:
        self.backend.no_truncation()
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    flat = np.concatenate([np.zeros(0, np.int32), *rows])
    return Ragged(flat, offsets)

  def parts(self, ids: Any) -> list[list[str]]:
    """Returns readable texts without frame and padding: one, two, or none.

    Args:
      ids: integers [B, L], padded or not; `sep_id` separates.
    """
    parts: list[list[int]] = []
    owners: list[int] = []
    rows = np.asarray(ids)
    for row, tokens in enumerate(rows):
      cuts = np.flatnonzero(tokens == self.sep_id)
      for part in np.split(tokens, cuts):
        kept = part[~np.isin(part, self.frame_ids)]
        if kept.size:
          parts.append(kept.tolist())
          owners.append(row)
    texts = self.backend.decode_batch(parts, skip_special_tokens=False)
    joined: list[list[str]] = [[] for _ in rows]
    for row, text in zip(owners, texts, strict=True):
      joined[row].append(text.strip())
    return joined

  def decode(self, ids: Any) -> list[str]:
    """Returns readable text; the parts of `parts` joined by " / "."""
    return [" / ".join(some) for some in self.parts(ids)]


def wrap(backend: Any, *, what: str) -> Tokenizer:
  """Finds the symbols of a vocabulary; adds a frame where it has none."""
  vocabulary = backend.get_vocab()
  found = {
    use: next((name for name in names if name in vocabulary), None)
    for use, names in _NAMES.items()
  }
  if found["pad"] is None:
    raise ValueError(
      f"{what}: the vocabulary has no pad token: expected one of"
      f" {', '.join(_NAMES['pad'])} among its {len(vocabulary)} tokens; add"
      " one, or take the tokenizer of a BERT, RoBERTa or BART"
    )
  backend.no_padding()
  backend.no_truncation()
  backend.encode_special_tokens = True  # As letters.
  cls, sep = found["cls"], found["sep"]
  if backend.post_processor is None and cls and sep:
    between = [sep, sep] if sep == "</s>" else [sep]
    symbols = [(name, vocabulary[name]) for name in (cls, sep)]
    backend.post_processor = _library().processors.TemplateProcessing(
      single=[cls, "$A:0", sep],
      pair=[cls, "$A:0", *between, "$B:1", f"{sep}:1"],
      special_tokens=symbols,
    )
  ids: dict[str, Any] = {
    f"{use}_id": None if name is None else vocabulary[name]
    for use, name in found.items()
  }
  return Tokenizer(backend, **ids)


def _word_pieces(model: Any) -> Any:
  """A backend that splits as BERT does in lower case."""
  library = _library()
  backend = library.Tokenizer(model)
  backend.normalizer = library.normalizers.BertNormalizer(lowercase=True)
  backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  backend.decoder = library.decoders.WordPiece(prefix="##")
  return backend


def _byte_pairs(model: Any) -> Any:
  """A backend that splits as RoBERTa and BART do."""
  library = _library()
  backend = library.Tokenizer(model)
  backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  backend.decoder = library.decoders.ByteLevel()
  return backend


def _mark(backend: Any, names: Iterable[str]) -> Any:
  """Makes those of the names that the vocabulary has symbols of their own."""
  added = _library().AddedToken
  known = backend.get_vocab()
  backend.add_special_tokens(
    [
      # RoBERTa's mask takes the space before it along.
      added(name, special=True, normalized=False, lstrip=name == "<mask>")
      for name in names
      if name in known
    ]
  )
  return backend


def _find(path: pathlib.Path) -> pathlib.Path:
  """Returns the file that says which layout a path has."""
  if path.name in ("vocab.json", "merges.txt"):
    path = path.parent
  if path.is_file():
    return path
  if path.is_dir():
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
      if (path / name).is_file():
        return path / name
  state = "holds none of them" if path.is_dir() else "is missing"
  raise FileNotFoundError(
    f"tokenizer: {str(path)!r} {state}: expected tokenizer.json, vocab.txt, or"
    " vocab.json with merges.txt, or a folder with one of these. They are"
    " published next to a network's weights; download them from there."
  )


def load(path: str | os.PathLike[str]) -> Tokenizer:
  """Returns a tokenizer from local files; see the top of the module.

  Args:
    path: a file, or a folder that holds it; with several layouts in a folder,
      tokenizer.json comes first.

  Raises:
    FileNotFoundError: nothing there, or merges.txt is missing.
    ImportError: the extra `text` is not installed.
    ValueError: a file that cannot be read, or a vocabulary without padding.
  """
  library = _library()
  file = _find(pathlib.Path(path).expanduser())
  try:
    if file.name == "vocab.json":
      merges = file.with_name("merges.txt")
      if not merges.is_file():
        raise FileNotFoundError(
          f"tokenizer: {file} needs {merges.name} beside it, which is missing"
        )
      model = library.models.BPE.from_file(str(file), str(merges))
      backend = _mark(_byte_pairs(model), _ROBERTA)
    elif file.suffix == ".txt":
      model = library.models.WordPiece.from_file(str(file), unk_token="[UNK]")
      backend = _mark(_word_pieces(model), _BERT)
      if backend.token_to_id("[UNK]") is None:
        raise ValueError("no token [UNK], which stands for what is unknown")
    else:
      backend = library.Tokenizer.from_file(str(file))
  except OSError:
    raise
  except Exception as error:  # The library raises bare `Exception`.
    raise ValueError(
      f"tokenizer: {file} cannot be read: {error}; restore or download it again"
    ) from error
  return wrap(backend, what=f"tokenizer: {file}")


def train(
  texts: Iterable[str], *, kind: str = "wordpiece", vocab_size: int = 8000
) -> Tokenizer:
  """Returns a tokenizer made for some texts; the same for the same texts.

  Args:
    texts: what to learn from.
    kind: "wordpiece" (lower case, [CLS] a [SEP]) or "bpe" (byte-level,
      <s> a </s>).
    vocab_size: tokens at most; symbols and single characters are among them,
      and kept where they are more.

  Raises:
    ImportError: the extra `text` is not installed.
    ValueError: an unknown kind.
  """
  checks.one_of(("wordpiece", "bpe"), kind=kind)
  checks.positive(vocab_size=vocab_size)
  library = _library()
  if kind == "bpe":
    backend = _byte_pairs(library.models.BPE())
    trainer = library.trainers.BpeTrainer(
      vocab_size=vocab_size,
      special_tokens=list(_ROBERTA),
      initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return wrap(backend, what="tokenizer")
  return _train_word_pieces(list(texts), vocab_size)


def _train_word_pieces(texts: list[str], vocab_size: int) -> Tokenizer:
  library = _library()
  draft = _word_pieces(library.models.WordPiece(unk_token="[UNK]"))
  normalize = draft.normalizer.normalize_str
  letters = sorted({c for text in texts for c in normalize(text)} - {" "})
  # The library numbers "##x" in the order of a hash table, and breaks ties by
  # number: named beforehand, the result is the same in every process.
  first = [*_BERT, *letters, *(f"##{letter}" for letter in letters)]
  trainer = library.trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    special_tokens=first,
    continuing_subword_prefix="##",
    show_progress=False,
  )
  draft.train_from_iterator(texts, trainer)
  numbers = draft.get_vocab()
  return of_pieces(sorted(numbers, key=numbers.__getitem__))


def of_pieces(pieces: Iterable[str]) -> Tokenizer:
  """Returns BERT's tokenizer of a vocabulary, its symbols added in front."""
  tokens = dict.fromkeys([*_BERT, *pieces])
  numbers = {token: number for number, token in enumerate(tokens)}
  model = _library().models.WordPiece(numbers, unk_token="[UNK]")
  return wrap(_mark(_word_pieces(model), _BERT), what="tokenizer")
