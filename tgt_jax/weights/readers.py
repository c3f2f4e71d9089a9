# SPDX-License-Identifier: Apache-2.0
"""Arrays of a public weight file, by the names that they have there.

  .safetensors                        one file
  .safetensors.index.json             several, by their index
  .npz
  prefix, prefix.index                a TensorFlow checkpoint
  .pth .pt .bin .ckpt                 PyTorch; needs torch (extra `oracle`)
  a folder                            that holds one of these, or a TF-Hub
                                      module or SavedModel

Arrays are read-only and stay on the disk until they are used, where the format
allows it.
"""

from __future__ import annotations

import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tgt_jax.weights import safetensors_file, tf_bundle
from tgt_jax.weights.raw import bad_file

_TORCH = (".pth", ".pt", ".bin", ".ckpt")


class Source(NamedTuple):
  """What a path stands for.

  Attributes:
    path: of the file that is opened first.
    read: from that path to the arrays.
    files: from that path to all the files that hold the weights.
  """

  path: pathlib.Path
  read: Callable[[pathlib.Path], dict[str, np.ndarray]]
  files: Callable[[pathlib.Path], list[pathlib.Path]]


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a numpy archive.

  Raises:
    ValueError: not an archive, damaged, or one that holds Python objects.
  """
  arrays = {}
  try:
    # np.load leaves the file open when it is damaged.
    with zipfile.ZipFile(path) as archive:
      for member in archive.namelist():
        with archive.open(member) as file:
          array = np.lib.format.read_array(file, allow_pickle=False)
          file.read()  # At its end the checksum is compared.
        # numpy has no name for bfloat16 and stores its two bytes as they are.
        is_bfloat16 = array.dtype == np.dtype("V2")
        name = member.removesuffix(".npy")
        arrays[name] = array.view(ml_dtypes.bfloat16) if is_bfloat16 else array
  except (
    EOFError,
    NotImplementedError,  # A compression that Python lacks.
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise bad_file(
      path,
      expected="a whole .npz of plain arrays",
      got=f"{type(error).__name__}: {error}",
    ) from error
  return arrays


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a PyTorch state dict.

  A level named `state_dict` is taken off. Nothing but tensors is unpickled.

  Raises:
    ImportError: torch is not installed.
    ValueError: damaged, or something else than a mapping of tensors.
  """
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"{path} is a pickle of PyTorch, which only torch reads: pip install"
      " 'tgt_jax[oracle]', or convert it to safetensors where torch is"
    ) from error
  try:
    content = torch.load(
      path,
      map_location="cpu",
      weights_only=True,
      mmap=zipfile.is_zipfile(path),
    )
  except Exception as error:  # torch raises half a dozen kinds.
    reason = str(error).strip().partition("\n")[0][:300]
    raise bad_file(
      path,
      expected="a PyTorch file of tensors alone",
      got=f"{type(error).__name__}: {reason}",
      remedy="download it again; if it holds other objects and you trust its"
      " author, load it in torch and save the state_dict as safetensors",
    ) from error
  if isinstance(content, Mapping) and isinstance(
    content.get("state_dict"), Mapping
  ):
    content = content["state_dict"]
  others = (
    [name for name, x in content.items() if not isinstance(x, torch.Tensor)]
    if isinstance(content, Mapping)
    else [type(content).__name__]
  )
  if others:
    raise bad_file(
      path,
      expected="a mapping of names to tensors",
      got=f"other things: {', '.join(map(str, others[:5]))}",
      remedy="load it in torch and save its state_dict as safetensors",
    )
  return {str(name): _numpy(tensor) for name, tensor in content.items()}


def _numpy(tensor: Any) -> np.ndarray:
  import torch

  tensor = tensor.detach()
  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


def _itself(path: pathlib.Path) -> list[pathlib.Path]:
  return [path]


def _index_and_shards(index: pathlib.Path) -> list[pathlib.Path]:
  return [index, *safetensors_file.shard_paths(index)]


def _source_of_file(path: pathlib.Path) -> Source | None:
  """Returns the reader that the end of a name asks for."""
  name = path.name.lower()
  if name.endswith(safetensors_file.INDEX_SUFFIX):
    return Source(path, safetensors_file.read_sharded, _index_and_shards)
  if name.endswith(".safetensors"):
    return Source(path, safetensors_file.read_safetensors, _itself)
  if name.endswith(".npz"):
    return Source(path, read_npz, _itself)
  if name.endswith(".index"):
    return Source(path, tf_bundle.read_bundle, tf_bundle.bundle_files)
  if name.endswith(_TORCH):
    return Source(path, read_torch, _itself)
  return None


# The order in which a folder's formats are tried. An index stands for its
# shards; what torch alone can read comes last.
_IN_FOLDERS = (
  (f"*{safetensors_file.INDEX_SUFFIX}",),
  ("*.safetensors",),
  ("*.npz",),
  ("*.index", "variables/variables.index"),
  tuple(f"*{suffix}" for suffix in _TORCH),
)


def _source_of_folder(folder: pathlib.Path) -> Source:
  for globs in _IN_FOLDERS:
    found = sorted(path for glob in globs for path in folder.glob(glob))
    source = _source_of_file(found[0]) if found else None
    if len(found) > 1:
      names = ", ".join(path.name for path in found[:5])
      raise bad_file(
        folder,
        expected="one weight file",
        got=f"{len(found)}: {names}",
        remedy="name one of them",
      )
    if source is not None:
      return source
  raise bad_file(
    folder,
    expected=f"a folder with a weight file ({_kinds(_IN_FOLDERS)})",
    got=", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing",
    remedy="name the file itself",
  )


def _kinds(groups: Iterable[Iterable[str]]) -> str:
  return ", ".join(glob for group in groups for glob in group)


def locate(path: str | pathlib.Path) -> Source:
  """Returns what a path stands for, without reading arrays.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: a format that cannot be read, or a folder without exactly one
      weight file.
  """
  path = pathlib.Path(path).expanduser()
  index = path.with_name(path.name + ".index")
  if path.is_dir():
    return _source_of_folder(path)
  if not path.is_file():
    if index.is_file():
      return Source(index, tf_bundle.read_bundle, tf_bundle.bundle_files)
    raise FileNotFoundError(
      f"no file {path}, nor {index.name} beside it; expected a weight file, a"
      " folder that holds one, or the prefix of a TensorFlow checkpoint"
    )
  source = _source_of_file(path)
  if source is None:
    prefix = path.name.partition(".data-")[0]
    is_shard = prefix != path.name
    raise bad_file(
      path,
      expected=f"a name that ends like one of {_kinds(_IN_FOLDERS)}",
      got=repr(path.suffix),
      remedy=f"pass the prefix {path.with_name(prefix)}"
      if is_shard
      else "rename the file after its format",
    )
  return source


def read_arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Returns name to array; see the module's docstring for the formats.

  Raises:
    FileNotFoundError: no such file, or one of its parts is missing.
    ImportError: a PyTorch file, and torch is not installed.
    ValueError: a file that is damaged, cut short or of another format.
  """
  source = locate(path)
  return source.read(source.path)


def sha256_of(path: str | pathlib.Path) -> str:
  """Returns the SHA-256 of a weight file.

  Of weights in several files, that of the lines that `sha256sum` prints for
  them, the index first.
  """
  source = locate(path)
  paths = source.files(source.path)
  digests = []
  for part in paths:
    with part.open("rb") as file:
      digests.append(hashlib.file_digest(file, "sha256").hexdigest())
  if len(digests) == 1:
    return digests[0]
  lines = [f"{d}  {p.name}\n" for d, p in zip(digests, paths, strict=True)]
  return hashlib.sha256("".join(lines).encode()).hexdigest()
