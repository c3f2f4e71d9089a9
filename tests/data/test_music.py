# SPDX-License-Identifier: Apache-2.0
"""OpenMIC and MagnaTagATune, from small copies of their layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import clips, openmic

_KEYS = [f"{i:03d}{i:03d}_0" for i in range(10)]
_MELS, _FRAMES = 4, 6


def _values(key):
  """The spectrogram of a clip; no two are alike."""
  return np.full((_MELS, _FRAMES), sum(map(ord, key)) / 100, np.float16)


def _save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, array)


def _log_mels(folder, keys):
  for key in keys:
    _save(folder / "log_mels" / f"{key}.npy", _values(key))
  settings = {"sample_rate": 8000, "seconds": 1.0, "num_mels": _MELS}
  (folder / "log_mels" / "front_end.json").write_text(json.dumps(settings))


@pytest.fixture(name="archive")
def _archive(tmp_path):
  """Ten clips in the layout of the archive, without their sounds."""
  folder = tmp_path / "openmic-2018"
  (folder / "partitions").mkdir(parents=True)
  truth = np.tile([0.9, 0.1, 0.5], (10, 1))
  mask = np.ones((10, 3), bool)
  mask[1] = [False, True, True]
  shipped = np.arange(10 * 2 * 4, dtype=np.uint8).reshape(10, 2, 4)
  np.savez(
    folder / "openmic-2018.npz",
    X=shipped,
    Y_true=truth,
    Y_mask=mask,
    sample_key=np.array(_KEYS, dtype=object),
  )
  names = {"banjo": 1, "accordion": 0, "bass": 2}
  (folder / "class-map.json").write_text(json.dumps(names))
  parts = {"train": _KEYS[:8], "test": _KEYS[8:]}
  for part, keys in parts.items():
    path = folder / "partitions" / f"split01_{part}.csv"
    path.write_text("\n".join(keys) + "\n")
  _log_mels(folder, _KEYS)
  return folder


def _openmic(folder, **kwargs):
  kwargs = {"check_counts": False, "validation": 0.0, **kwargs}
  return data.DATASETS["openmic"](data_dir=folder, **kwargs)


def test_openmic_reads_what_was_written(archive):
  dataset = _openmic(archive.parent)  # The folder above will do.
  train, test = dataset.train, dataset.test
  assert (len(train), len(test), dict(dataset.others)) == (8, 2, {})
  assert train.class_names == ("accordion", "banjo", "bass")
  assert train.input_shape == (_MELS, _FRAMES, 1) and train.embed is None
  np.testing.assert_array_equal(train.tags[0], [1, 0, -1])
  np.testing.assert_array_equal(train.tags[1], [-1, 0, -1])
  batch = test.fetch(np.array([1, 0, 1]))
  assert batch["input"].dtype == np.float32
  for image, key in zip(batch["input"], [9, 8, 9], strict=True):
    np.testing.assert_array_equal(image[..., 0], _values(_KEYS[key]))
  view = data.subset(train, [3])
  expected = _values(_KEYS[3])
  np.testing.assert_array_equal(view.read(np.arange(1))[0, ..., 0], expected)


def test_openmic_validation_is_cut_from_training(archive):
  dataset = _openmic(archive, validation=0.25)
  assert dataset.others.keys() == {"validation"}
  parts = (dataset.train, dataset.others["validation"])
  assert [len(part) for part in parts] == [6, 2]
  seen = np.concatenate([p.read(np.arange(len(p)))[:, 0, 0, 0] for p in parts])
  expected = [_values(key)[0, 0] for key in _KEYS[:8]]
  np.testing.assert_array_equal(np.sort(seen), np.sort(expected))
  again = _openmic(archive, validation=0.25)
  assert again.train.fingerprint == dataset.train.fingerprint


def test_embeddings_that_openmic_has(archive):
  train = _openmic(archive, embedding="npz").train
  shipped = np.arange(80.0).reshape(10, 2, 1, 4)
  ids = np.array([5, 0])
  np.testing.assert_array_equal(train.embed(ids), (shipped[ids] - 128) / 256)
  raw = {"embedding_offset": 0.0, "embedding_scale": 1.0}
  other = _openmic(archive, embedding="npz", embedding_frames=3, **raw).train
  longer = shipped[ids][:, [0, 1, 1]]  # The last is repeated.
  np.testing.assert_array_equal(other.embed(ids), longer)
  assert other.embed(ids).dtype == np.float32
  assert other.fingerprint != train.fingerprint


def test_embeddings_per_clip(archive):
  generator = np.random.default_rng(0)
  values = {
    key: generator.normal(size=(2 + i % 2, 5)) for i, key in enumerate(_KEYS)
  }
  for key, value in values.items():
    _save(archive / "embeddings" / "openl3" / f"{key}.npy", value)
  dataset = _openmic(archive, embedding="openl3")
  got = dataset.test.embed(np.array([1]))
  # Two frames, as the first training clip has; the third is cut.
  expected = (values[_KEYS[9]][:2, None] - 2.24)[None]
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  (archive / "embeddings" / "openl3" / f"{_KEYS[4]}.npy").unlink()
  message = rf"{_KEYS[4]}.npy \(1 of 8 files are missing\). Embeddings are"
  with pytest.raises(FileNotFoundError, match=message):
    _openmic(archive, embedding="openl3")


def test_embeddings_in_one_array(archive):
  values = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float16)
  _save(archive / "embeddings" / "panns.npy", values[::-1])
  listed = archive / "embeddings" / "panns.json"
  listed.write_text(json.dumps(_KEYS[::-1]))
  train = _openmic(archive, embedding="panns").train
  got = train.embed(np.array([2]))
  np.testing.assert_array_equal(
    got, values[2].astype(np.float32)[None, None, None]
  )
  before = train.fingerprint
  _save(archive / "embeddings" / "panns.npy", values[::-1] + np.float16(1))
  assert _openmic(archive, embedding="panns").train.fingerprint != before
  listed.write_text(json.dumps(["x", *_KEYS[:9]]))
  with pytest.raises(ValueError, match=f"no row for {_KEYS[9]} .1 of 2 keys"):
    _openmic(archive, embedding="panns")
  listed.write_text(json.dumps(_KEYS[:9]))
  with pytest.raises(ValueError, match="panns.npy: 10 rows but 9 keys"):
    _openmic(archive, embedding="panns")
  listed.write_text(json.dumps([*_KEYS[:9], _KEYS[0]]))
  with pytest.raises(ValueError, match=f"panns.npy: two rows for {_KEYS[0]}"):
    _openmic(archive, embedding="panns")
  listed.write_text(json.dumps({key: 9 - i for i, key in enumerate(_KEYS)}))
  with pytest.raises(ValueError, match="expected a list of the keys"):
    _openmic(archive, embedding="panns")


def test_what_is_missing_is_named(archive):
  with pytest.raises(ValueError, match=r"openmic: expected classes 20, got 3"):
    _openmic(archive, check_counts=True)
  with pytest.raises(FileNotFoundError, match=r"split02_train.csv. Get it fro"):
    _openmic(archive, split="split02")
  (archive / "log_mels" / f"{_KEYS[8]}.npy").unlink()
  message = "1 of 2 files .*prepare_audio openmic --data_dir=.*openmic-2018"
  with pytest.raises(FileNotFoundError, match=message):
    _openmic(archive)
  (archive / "log_mels" / "front_end.json").unlink()
  with pytest.raises(FileNotFoundError, match="front_end.json; Compute the sp"):
    _openmic(archive)
  (archive / "class-map.json").unlink()
  message = "lacks files: expected class-map.json; or the folder openmic-2018"
  with pytest.raises(FileNotFoundError, match=f"{message}.*zenodo.org"):
    _openmic(archive)


@pytest.mark.parametrize(
  "name, value, message",
  [
    (0, np.zeros((2, 3, 4)), r"expected an array \[mels, frames\], got"),
    (3, np.zeros((2, 3)), r"the shape \(4, 6, 1\) of .*, got \(2, 3, 1\)"),
    (3, np.full((4, 6), np.nan), "a value is not finite"),
    (3, np.array(["a"], object), "not a whole .npy file: Object arrays"),
  ],
)
def test_damaged_spectrograms_are_named(archive, name, value, message):
  path = archive / "log_mels" / f"{_KEYS[name]}.npy"
  np.save(path, value, allow_pickle=True)
  with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
    _openmic(archive).train.read(np.arange(8))


@pytest.mark.parametrize(
  "name, change, message",
  [
    ("Y_true", None, "there is no array Y_true, only .*Get the file again"),
    ("Y_true", lambda a: a[:9], "Y_true has 9 rows, sample_key 10"),
    ("Y_true", lambda a: a * np.nan, "Y_true: some values are not finite"),
    ("X", lambda a: a[:9], "X has 9 rows, sample_key 10"),
  ],
)
def test_damaged_arrays_of_openmic(archive, name, change, message):
  path = archive / "openmic-2018.npz"
  with np.load(path, allow_pickle=True) as content:
    kept = dict(content)
  kept[name] = None if change is None else change(kept[name])
  np.savez(path, **{k: v for k, v in kept.items() if v is not None})
  with pytest.raises(ValueError, match=message):
    _openmic(archive, embedding="npz")


def test_every_class_of_openmic_has_its_column(archive):
  path = archive / "class-map.json"
  path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), 0)))
  with pytest.raises(ValueError, match="every class's own column, 0 to 2"):
    _openmic(archive)


def test_a_clip_is_in_one_split(archive):
  path = archive / "partitions" / "split01_test.csv"
  path.write_text(f"{_KEYS[0]}\n")
  with pytest.raises(ValueError, match=f"{_KEYS[0]} is in train and in test"):
    _openmic(archive)
  path.write_text("unknown_0\n")
  with pytest.raises(ValueError, match="no row for the clip unknown_0"):
    _openmic(archive)


def test_the_published_numbers_of_openmic_are_accepted():
  splits = {"train": range(14915), "test": range(5085)}
  tags = np.full((5085, 20), -1.0)
  tags.flat[: 4517 + 6005] = np.repeat([1, 0], [4517, 6005])
  openmic._check_counts(["x"] * 20, splits, tags)
  tags.flat[0] = 0
  with pytest.raises(
    ValueError, match=r"expected answers .* \[4517, 6005\], g"
  ):
    openmic._check_counts(["x"] * 20, splits, tags)


class _Attack:
  def __reduce__(self):
    return eval, ("__import__('builtins').print('owned')",)


def test_keys_cannot_call_anything(archive, capsys):
  path = archive / "openmic-2018.npz"
  with np.load(path) as content:
    kept = {k: content[k] for k in ("X", "Y_true", "Y_mask")}
  np.savez(path, **kept, sample_key=np.array([_Attack()] * 10, object))
  with pytest.raises(ValueError, match=r"refused to load builtins\.eval"):
    _openmic(archive)
  np.savez(path, **kept, sample_key=np.array([1] * 10, object))
  with pytest.raises(ValueError, match=r"sample_key: expected strings \[N\]"):
    _openmic(archive)
  np.savez(path, **kept, sample_key=np.array(_KEYS))
  assert len(_openmic(archive).train) == 8
  np.savez(path, **kept)
  with pytest.raises(ValueError, match="sample_key: cannot be read"):
    _openmic(archive)
  assert "owned" not in capsys.readouterr().out


_TAGS = ["guitar", "slow", "violin"]
_SONGS = [f"{'abc'[i % 3]}/song_{i}-0-29" for i in range(6)]
_PARTS = {"train": range(3), "valid": [3], "test": [4, 5]}


def _magna(folder, **kwargs):
  kwargs = {"check_counts": False, **kwargs}
  return data.DATASETS["magnatagatune"](data_dir=folder, **kwargs)


@pytest.fixture
def magna(tmp_path):
  """Six clips with the files of the clean split."""
  binary = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(6)])
  for part, rows in _PARTS.items():
    lines = [f"{i}\t{_SONGS[i]}.mp3" for i in rows]
    _save(tmp_path / "split" / f"{part}.npy", np.array(lines))
  _save(tmp_path / "split" / "binary.npy", binary)
  _save(tmp_path / "split" / "tags.npy", np.array(_TAGS))
  _log_mels(tmp_path, _SONGS)
  return tmp_path


def test_magnatagatune_reads_the_clean_split(magna):
  dataset = _magna(magna)
  assert dataset.train.class_names == tuple(_TAGS)
  np.testing.assert_array_equal(dataset.test.tags, [[0, 0, 1], [1, 0, 1]])
  validation = dataset.others["validation"]
  np.testing.assert_array_equal(validation.tags, [[1, 1, 0]])
  got = dataset.train.read(np.array([2]))[0, ..., 0]
  np.testing.assert_array_equal(got, _values(_SONGS[2]))
  with pytest.raises(ValueError, match="expected tags 50, got 3"):
    _magna(magna, check_counts=True)


def test_magnatagatune_reads_lists_of_paths(magna):
  expected = _magna(magna)
  for part, rows in _PARTS.items():
    path = magna / "split" / f"{part}.csv"
    path.write_text("".join(f"{_SONGS[i]}.mp3\n" for i in rows))
    path.with_suffix(".npy").unlink()
  with pytest.raises(FileNotFoundError, match="; or annotations_final.csv; or"):
    _magna(magna)
  binary = np.load(magna / "split" / "binary.npy")
  lines = [["clip_id", *_TAGS[::-1], "mp3_path"]]
  for i in range(6):
    lines.append([i, *binary[i, ::-1], f"{_SONGS[i]}.mp3"])
  text = "\n".join("\t".join(f'"{v}"' for v in line) for line in lines)
  (magna / "annotations_final.csv").write_text(text)
  dataset = _magna(magna)
  # Three guitars, two that are slow, two violins.
  assert dataset.train.class_names == tuple(_TAGS)
  np.testing.assert_array_equal(dataset.test.tags, expected.test.tags)
  (magna / "split" / "test.csv").write_text("f/unknown.mp3\n")
  with pytest.raises(ValueError, match="no row for the clip f/unknown.mp3"):
    _magna(magna)


@pytest.mark.parametrize(
  "file, value, message",
  [
    ("tags", np.array(["a"]), r"with the K names of tags.npy, got \(6, 3\)"),
    ("binary", np.zeros((3, 3)), "expected more than 5 rows, got 3"),
    ("valid", np.array(["f/x.mp3"]), "expected lines 'row<TAB>"),
    ("valid", np.array([f"0\t{_SONGS[4]}.mp3"]), "is in test and in valid"),
  ],
)
def test_damaged_files_of_magnatagatune(magna, file, value, message):
  _save(magna / "split" / f"{file}.npy", value)
  with pytest.raises(ValueError, match=message):
    _magna(magna)


def test_embeddings_of_magnatagatune_lie_in_folders(magna):
  for i, song in enumerate(_SONGS):
    _save(magna / "embeddings" / "vggish" / f"{song}.npy", np.full((3, 2), i))
  got = _magna(magna, embedding="vggish").test.embed(np.arange(2))
  assert got.shape == (2, 3, 1, 2)
  np.testing.assert_array_equal(got[1], (np.full((3, 1, 2), 5) - 128) / 256)


@pytest.mark.parametrize("value", [np.zeros((2, 2, 2)), np.zeros((0, 3))])
def test_embeddings_of_another_shape(value):
  with pytest.raises(ValueError, match=r"expected embeddings \[D\] or \[T, D"):
    clips.framed(clips.Scaling(), 0)(value)


def test_a_scale_must_be_positive():
  assert clips.scaling("vggish", None, 2.0) == clips.Scaling(128.0, 2.0)
  assert clips.scaling("other", None, None) == clips.Scaling(0.0, 1.0)
  with pytest.raises(ValueError, match="embedding_scale must be > 0"):
    clips.scaling("", None, 0.0)
