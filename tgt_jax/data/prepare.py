# SPDX-License-Identifier: Apache-2.0
"""Packs a long-tailed benchmark for TFDS.

  python -m tgt_jax.data.prepare places_lt --manual_dir=DIR

DIR holds what `tgt_jax.data.long_tailed` names: images and split files. The
result (array_record files with the images as they are) is read by
`{"name": "places_lt", "source": "tfds"}`, also from Google Cloud Storage.
Needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from tgt_jax.data import image_list, long_tailed


def builder(name: str, *, data_dir: Any = None) -> Any:
  """Returns a TFDS builder of a benchmark.

  Args:
    name: a key of `long_tailed.BENCHMARKS`.
    data_dir: of TFDS; None for its default.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import registered

  benchmark = long_tailed.BENCHMARKS[name]

  def examples(
    folder: pathlib.Path, split: image_list.SplitList
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = zip(split.paths, split.labels.tolist(), strict=True)
    for number, (path, label) in enumerate(rows):
      yield number, {"image": str(folder / path), "label": label}

  def info(self: Any) -> Any:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{benchmark.title} from its split files.",
      homepage=benchmark.homepage,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "label": tfds.features.ClassLabel(num_classes=benchmark.classes),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def split_generators(self: Any, manager: Any) -> dict[str, Any]:
    folder = long_tailed.locate(benchmark, manager.manual_dir)
    return {
      split: examples(folder, image_list.read_split(folder / file))
      for split, file in benchmark.lists.items()
    }

  with (
    registered.skip_registration()
  ):  # What is prepared is found by its files.
    made: Any = type(
      "".join(word.capitalize() for word in name.split("_")),
      (tfds.core.GeneratorBasedBuilder,),
      {
        "__module__": __name__,
        "VERSION": tfds.core.Version("1.0.0"),
        "MANUAL_DOWNLOAD_INSTRUCTIONS": benchmark.instructions,
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self: None,
      },
    )
  return made(data_dir=data_dir, file_format="array_record")


def prepare(
  name: str,
  manual_dir: str | pathlib.Path,
  *,
  data_dir: Any = None,
  check_counts: bool = True,
) -> pathlib.Path:
  """Writes the prepared data set; returns its folder.

  Args:
    name: a key of `long_tailed.BENCHMARKS`.
    manual_dir: folder with the images and split files.
    data_dir: of TFDS; None for its default.
    check_counts: see `long_tailed.imagenet_lt`.

  Raises:
    FileNotFoundError: something is missing; says what to download.
    ValueError: the training split has other counts.
  """
  import tensorflow_datasets as tfds

  benchmark = long_tailed.BENCHMARKS[name]
  folder = long_tailed.locate(benchmark, manual_dir)
  if check_counts:
    train = image_list.read_split(folder / benchmark.lists["train"])
    long_tailed.check_counts(benchmark, train.labels)
  made = builder(name, data_dir=data_dir)
  made.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=str(folder))
  )
  return pathlib.Path(str(made.data_path))


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("name", choices=sorted(long_tailed.BENCHMARKS))
  parser.add_argument("--manual_dir", required=True)
  parser.add_argument(
    "--data_dir", help="of TFDS; its default is ~/tensorflow_datasets"
  )
  parser.add_argument(
    "--any_counts",
    action="store_true",
    help="do not compare with the published counts",
  )
  args = parser.parse_args()
  try:
    where = prepare(
      args.name,
      args.manual_dir,
      data_dir=args.data_dir,
      check_counts=not args.any_counts,
    )
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"prepared {args.name} in {where}")


if __name__ == "__main__":
  main()
