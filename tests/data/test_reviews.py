# SPDX-License-Identifier: Apache-2.0
"""Reviews from made files in the published layouts, and from TFDS."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from tgt_jax import data
from tgt_jax.data import tokenizer as tokenizer_lib

pytest.importorskip("tokenizers")

_LETTERS = tokenizer_lib.train(["abc"], kind="bpe", vocab_size=262)


@pytest.fixture
def letters(tmp_path):
  """A tokenizer of bytes: it returns every text as it was."""
  path = tmp_path / "tokenizer.json"
  _LETTERS.save(path)
  return path


def _texts(source):
  # `decode` takes the outer spaces; what is inside stays.
  return _LETTERS.decode(source.read(np.arange(len(source))))


# As in the archives: quotation marks doubled, line ends as backslash n.
_YELP = (
  '"5","dr. goldberg\\n\\nhe said ""hi"""\n'
  '"1","a, b"\n"2","c \\""d\\"""\n"3","x"\n"4","y"\n'
)
_AMAZON = '"3","more like funchuck","a gift"\n"1","","no title"\n'


def _csv(folder, train, test=None):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "train.csv").write_bytes(train.encode())
  (folder / "test.csv").write_bytes((train if test is None else test).encode())
  return folder


@pytest.mark.parametrize("above", [False, True])
def test_yelp(tmp_path, letters, above):
  folder = _csv(tmp_path / "yelp_review_full_csv", _YELP)
  dataset = data.DATASETS["reviews_csv"](
    corpus="yelp5",
    data_dir=tmp_path if above else folder,
    tokenizer=letters,
    max_length=64,
  )
  assert dataset.train.labels.tolist() == [4, 0, 1, 2, 3]
  assert dataset.train.class_names[4] == "5 stars"
  assert _texts(dataset.test) == [
    'dr. goldberg\n\nhe said "hi"',
    "a, b",
    'c "d"',
    "x",
    "y",
  ]
  assert dataset.train_full is dataset.train


def test_amazon_has_titles(tmp_path, letters):
  dataset = data.DATASETS["reviews_csv"](
    corpus="amazon5", data_dir=_csv(tmp_path, _AMAZON), tokenizer=letters
  )
  assert dataset.train.labels.tolist() == [2, 0]
  assert _texts(dataset.train) == ["more like funchuck a gift", "no title"]


def _many(size=200):
  return "".join(f'"{1 + i % 5}","review {i}"\n' for i in range(size))


def test_few_labels_of_many_texts(tmp_path, letters):
  folder = _csv(tmp_path, _many(), _YELP)

  def make(**arguments):
    return data.DATASETS["reviews_csv"](
      corpus="yelp5", data_dir=folder, tokenizer=letters, **arguments
    )

  dataset = make(num_labelled=50)
  assert dataset.train.class_counts().tolist() == [10] * 5
  assert len(dataset.train_full) == 200 and len(dataset.test) == 5
  # A view: what a teacher says of all texts holds for the few.
  assert _texts(dataset.train) == [
    f"review {i}" for i in dataset.train.ids.tolist()
  ]
  again, other = make(num_labelled=50), make(num_labelled=50, subsample_seed=1)
  assert again.train.fingerprint == dataset.train.fingerprint
  assert other.train.ids.tolist() != dataset.train.ids.tolist()
  # More labels contain fewer.
  larger = make(num_labelled=100).train.ids
  assert set(dataset.train.ids.tolist()) < set(larger.tolist())
  found = dataset.train.name.rpartition("-")[2]
  assert dataset.train.name == f"yelp5/train/50-{found}" and len(found) == 12
  assert len(make(num_labelled=50, subsample_hash=found).train) == 50
  with pytest.raises(ValueError, match=f"have the hash {found}, expected 0123"):
    make(num_labelled=50, subsample_hash="0123")
  with pytest.raises(ValueError, match="num_labelled 52 is not divisible by"):
    make(num_labelled=52)
  with pytest.raises(ValueError, match="class 0: 50 examples wanted, 40"):
    make(num_labelled=250)


@pytest.mark.parametrize(
  "corpus, content, match",
  [
    (
      "yelp5",
      _AMAZON,
      "train.csv: example 0: expected the 2 columns label, te",
    ),
    ("amazon5", _YELP, "expected the 3 columns label, title, text, got 2"),
    ("yelp5", '"5","fine"\n"5","a long ni', "train.csv:2: unexpected end of"),
    ("yelp5", '"6","x"\n', "example 0: label '6': expected one of 1, 2, 3, 4"),
    ("yelp", _YELP, "corpus: unknown 'yelp'.*Did you mean 'yelp5'"),
  ],
)
def test_bad_files(tmp_path, corpus, content, match):
  with pytest.raises(ValueError, match=match):
    data.DATASETS["reviews_csv"](
      corpus=corpus, data_dir=_csv(tmp_path, content)
    )


def test_missing_files(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no train.csv. Get yelp_review"):
    data.DATASETS["reviews_csv"](corpus="yelp5", data_dir=tmp_path)
  with pytest.raises(FileNotFoundError, match="neg holds no .txt file: expect"):
    data.DATASETS["imdb"](data_dir=tmp_path)


def _imdb(folder):
  for split in ("train", "test"):
    for name, files in {
      "pos": {"1_9.txt": f"fine<br /><br />{split}", "0_8.txt": "good"},
      "neg": {"0_2.txt": "bad"},
      "unsup": {"0_0.txt": "who knows"},
    }.items():
      place = folder / "aclImdb" / split / name
      place.mkdir(parents=True)
      for file, text in files.items():
        (place / file).write_text(text, encoding="utf-8")
  return folder


@pytest.mark.parametrize("above", [False, True])
def test_imdb(tmp_path, letters, above):
  folder = _imdb(tmp_path)
  dataset = data.DATASETS["imdb"](
    data_dir=folder if above else folder / "aclImdb", tokenizer=letters
  )
  assert dataset.train.labels.tolist() == [0, 1, 1]
  assert _texts(dataset.train) == ["bad", "good", "fine\n\ntrain"]
  assert _texts(dataset.test)[2] == "fine\n\ntest"
  assert dataset.train.class_names == ("negative", "positive")


def _prepare(data_dir, name, label_names, splits):
  """Writes a prepared data set of text as TFDS lays it out."""
  tfds = pytest.importorskip("tensorflow_datasets")
  array_record_module = pytest.importorskip(
    "array_record.python.array_record_module"
  )
  from tensorflow_datasets.proto import tf_example_pb2

  features = tfds.features.FeaturesDict(
    {
      **{key: tfds.features.Text() for key in splits["train"][0]},
      "label": tfds.features.ClassLabel(names=label_names)
      if label_names
      else tfds.features.Scalar(np.float32),
    }
  )
  name, _, config = name.partition("/")
  folder = pathlib.Path(data_dir) / name / config / "1.0.0"
  folder.mkdir(parents=True)
  features.save_config(folder)
  described = []
  for split, records in splits.items():
    file = folder / f"{name}-{split}.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
      example = tf_example_pb2.Example()
      for key, value in record.items():
        feature = example.features.feature[key]
        if isinstance(value, int):
          feature.int64_list.value.append(value)
        elif isinstance(value, float):
          feature.float_list.value.append(value)
        else:
          feature.bytes_list.value.append(value.encode())
      writer.write(example.SerializeToString())
    writer.close()
    described.append(
      {
        "name": split,
        "shardLengths": [str(len(records))],
        "numBytes": "1",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
      }
    )
  (folder / "dataset_info.json").write_text(
    json.dumps(
      {
        "name": name,
        "configName": config,
        "version": "1.0.0",
        "fileFormat": "array_record",
        "splits": described,
      }
    )
  )


@pytest.fixture
def prepared(tmp_path, monkeypatch):
  """The folder that TFDS reads where none is given."""
  pytest.importorskip("tensorflow_datasets")
  # TFDS reads TFDS_DATA_DIR when it is imported, which is long past.
  monkeypatch.setattr(
    "tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path)
  )
  return tmp_path


def test_imdb_from_tfds(prepared, letters):
  _prepare(
    prepared,
    "imdb_reviews/plain_text",
    ["neg", "pos"],
    {
      "train": [{"text": "a<br />b", "label": 1}, {"text": "c", "label": 0}],
      "test": [{"text": "é", "label": 0}],
    },
  )
  dataset = data.DATASETS["imdb"](tokenizer=letters)
  assert _texts(dataset.train) == ["a\nb", "c"]
  assert dataset.train.labels.tolist() == [1, 0]
  assert _texts(dataset.test) == ["é"]


def test_mnli_from_tfds(prepared, letters):
  names = ["entailment", "neutral", "contradiction"]
  records = [
    {"premise": f"p{i}", "hypothesis": f"h{i}", "label": i} for i in range(3)
  ]
  splits = {
    "train": records,
    "validation_matched": records[1:2],
    "validation_mismatched": records[2:],
  }
  _prepare(prepared, "glue/mnli", names, splits)
  dataset = data.DATASETS["glue"](task="mnli", tokenizer=letters)
  assert _texts(dataset.train) == ["p0 / h0", "p1 / h1", "p2 / h2"]
  assert dataset.train.labels.tolist() == [0, 1, 2]
  assert _texts(dataset.test) == ["p1 / h1"]
  assert _texts(dataset.others["mismatched"]) == ["p2 / h2"]


def test_grades_from_tfds(prepared, letters):
  records = [
    {"sentence1": "a", "sentence2": "b", "label": grade} for grade in (2.4, 5.0)
  ]
  splits = {"train": records, "validation": records[1:]}
  _prepare(prepared, "glue/stsb", None, splits)
  dataset = data.DATASETS["glue"](task="stsb", tokenizer=letters)
  np.testing.assert_allclose(dataset.train.grades, [2.4, 5.0])
  assert dataset.train.labels.tolist() == [2, 5]


def test_other_classes_or_features_are_named(prepared):
  record = {"premise": "p", "hypothesis": "h", "label": 0}
  splits = {"train": [record], "validation": [record]}
  _prepare(prepared, "glue/rte", ["entailment", "not_entailment"], splits)
  with pytest.raises(ValueError, match="expected the features sentence1, sent"):
    data.DATASETS["glue"](task="rte")
  _prepare(prepared, "glue/mnli", ["yes", "no"], splits)
  with pytest.raises(
    ValueError, match="classes entailment, neutral, .*got yes"
  ):
    data.DATASETS["glue"](task="mnli")


@pytest.mark.parametrize("name", ["imdb", "glue"])
def test_what_is_not_prepared_is_named(prepared, name):
  arguments = {"task": "rte"} if name == "glue" else {}
  built = {"imdb": "imdb_reviews", "glue": "glue/rte"}[name]
  with pytest.raises(FileNotFoundError, match=f"tfds build {built} --file_fo"):
    data.DATASETS[name](**arguments)
