# SPDX-License-Identifier: Apache-2.0
"""How fast batches come out of the input pipeline, in images per second.

  python benchmarks/input_throughput.py --json=input.json

Each case is read by this package's pipeline with and without reading ahead, by
a plain numpy loop (a permutation per epoch, one gather per batch), by grain's
own shuffle-and-batch example by example, and by PyTorch's DataLoader where
torch is installed, over samples (its default) and over whole batches. All do
the same work: uint8 in memory to float32 batches in a new order every epoch,
with the same operations on every image. They take turns in every round, so
that a busy machine slows all of them; the median over the rounds counts, and
the ratio is to `tgt_jax, reading ahead`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np

from tgt_jax import data

_OURS = "tgt_jax, reading ahead"


class Case(NamedTuple):
  """One thing to read.

  Attributes:
    name: for the table.
    source: in-memory images of type uint8.
    batch_size: images per batch.
    augment: names of augmentations, in order.
  """

  name: str
  source: data.Source
  batch_size: int
  augment: tuple[str, ...] = ()


def _synthetic(
  name: str, size: int, shape: tuple[int, int, int]
) -> data.Source:
  generator = np.random.default_rng(0)
  images = generator.integers(0, 256, (size, *shape), dtype=np.uint8)
  return data.from_arrays(images, np.arange(size) % 10, name=name)


def cases(data_dir: str | None) -> list[Case]:
  if data_dir is None:
    fashion = _synthetic("fashion", 60000, (28, 28, 1))
  else:
    fashion = data.DATASETS["fashion_mnist"](data_dir=data_dir).train
  cifar = _synthetic("cifar", 50000, (32, 32, 3))
  return [
    Case("digits 8x8x1", _synthetic("digits", 1258, (8, 8, 1)), 64),
    Case("fashion 28x28x1", fashion, 64),
    Case("cifar 32x32x3", cifar, 128),
    Case("cifar, crop + flip", cifar, 128, augment=("crop", "horizontal_flip")),
    Case(
      "cifar, crop + flip + RandAugment",
      cifar,
      128,
      augment=("crop", "horizontal_flip", "randaugment"),
    ),
  ]


def _chain(case: Case) -> list[data.Augmentation]:
  return [data.AUGMENTATIONS[name]() for name in case.augment]


def _uint8(source: data.Source) -> np.ndarray:
  images = source.fetch(np.arange(len(source)))["input"]
  return np.rint(images * 255).astype(np.uint8)


def ours(case: Case, prefetch: int) -> Iterator[Any]:
  batches = data.training_batches(
    case.source,
    batch_size=case.batch_size,
    seed=0,
    num_steps=10**9,
    augment=_chain(case),
  )
  return iter(data.iterate(batches, prefetch=prefetch))


def numpy_loop(case: Case) -> Iterator[Any]:
  images, labels = _uint8(case.source), case.source.labels
  generator = np.random.default_rng(0)
  chain = _chain(case)
  while True:
    order = generator.permutation(len(images))
    for start in range(0, len(order) - case.batch_size + 1, case.batch_size):
      ids = order[start : start + case.batch_size]
      batch = images[ids].astype(np.float32) / 255
      for augmentation in chain:
        uniforms = generator.random((len(ids), augmentation.draws))
        batch = augmentation.apply(batch, uniforms)
      yield {"input": batch, "label": labels[ids], "id": ids}


def _one_sample(case: Case) -> Callable[[int, np.random.Generator], Any]:
  """Returns the per-example function that sample loaders call."""
  images, labels = _uint8(case.source), case.source.labels
  chain = _chain(case)

  def sample(index: int, generator: np.random.Generator) -> Any:
    image = images[index].astype(np.float32) / 255
    for augmentation in chain:
      uniforms = generator.random((1, augmentation.draws))
      image = augmentation.apply(image[None], uniforms)[0]
    return {"input": image, "label": labels[index], "id": index}

  return sample


def grain_samples(case: Case) -> Iterator[Any]:
  dataset = grain.MapDataset.range(len(case.source)).shuffle(seed=0)
  dataset = dataset.repeat().random_map(_one_sample(case), seed=0)
  return iter(
    dataset.batch(case.batch_size).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
  )


def _epochs(loader: Any) -> Iterator[Any]:
  return itertools.chain.from_iterable(itertools.repeat(loader))


def torch_samples(case: Case) -> Iterator[Any]:
  import torch

  sample = _one_sample(case)
  generator = np.random.default_rng(0)

  class Samples(torch.utils.data.Dataset):
    def __len__(self) -> int:
      return len(case.source)

    def __getitem__(self, index: int) -> Any:
      return sample(index, generator)

  return _epochs(
    torch.utils.data.DataLoader(
      Samples(), batch_size=case.batch_size, shuffle=True, drop_last=True
    )
  )


def torch_batches(case: Case) -> Iterator[Any]:
  """The fast idiom: a batch sampler, and one tensor gather per batch."""
  import torch

  images = torch.from_numpy(_uint8(case.source))
  labels = torch.from_numpy(case.source.labels.copy())
  generator = np.random.default_rng(0)
  chain = _chain(case)

  class Batches(torch.utils.data.Dataset):
    def __len__(self) -> int:
      return len(labels)

    def __getitem__(self, ids: list[int]) -> Any:
      rows = torch.as_tensor(ids)
      batch = images[rows].float().div_(255)
      for augmentation in chain:
        uniforms = generator.random((len(ids), augmentation.draws))
        batch = torch.from_numpy(augmentation.apply(batch.numpy(), uniforms))
      return {"input": batch, "label": labels[rows], "id": rows}

  dataset = Batches()
  sampler = torch.utils.data.BatchSampler(
    torch.utils.data.RandomSampler(dataset), case.batch_size, drop_last=True
  )
  return _epochs(
    torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=None)
  )


def contenders(case: Case) -> dict[str, Iterator[Any]]:
  made = {
    _OURS: ours(case, prefetch=2),
    "tgt_jax, one thread": ours(case, prefetch=0),
    "numpy loop": numpy_loop(case),
    "grain, by sample": grain_samples(case),
  }
  try:
    import torch
  except ImportError:
    print("torch is not installed: its rows are left out")
    return made
  torch.manual_seed(0)
  torch.set_num_threads(1)  # As many as the others read with.
  made["torch, by sample"] = torch_samples(case)
  made["torch, by batch"] = torch_batches(case)
  return made


def measure(
  iterators: dict[str, Iterator[Any]],
  batch_size: int,
  rounds: int,
  seconds: float,
) -> dict[str, float]:
  """Returns images per second of each contender, the median of the rounds."""
  rates: dict[str, list[float]] = {name: [] for name in iterators}
  for iterator in iterators.values():
    assert next(iterator)["input"].shape[0] == batch_size
  for _ in range(rounds):
    for name, iterator in iterators.items():
      count, began = 0, time.perf_counter()
      while time.perf_counter() - began < seconds / rounds:
        next(iterator)
        count += 1
      elapsed = time.perf_counter() - began
      rates[name].append(count * batch_size / elapsed)
  for iterator in iterators.values():
    if hasattr(iterator, "close"):
      iterator.close()
  return {name: statistics.median(values) for name, values in rates.items()}


def show(name: str, batch_size: int, rates: dict[str, float]) -> None:
  """Prints rates, the first of them being ours."""
  first, *_ = rates.values()
  print(f"\n{name}, batch {batch_size}")
  for who, rate in rates.items():
    micro = batch_size / rate * 1e6
    print(
      f"  {who:24s} {rate:12,.0f} img/s {micro:9.0f} us {first / rate:7.2f}x"
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", help="folder with Fashion-MNIST IDX files")
  parser.add_argument("--json", help="file to write the numbers to")
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument(
    "--seconds", type=float, default=2.0, help="per contender and case"
  )
  arguments = parser.parse_args()
  report = {
    "machine": platform.machine(),
    "python": platform.python_version(),
    "numpy": np.__version__,
    "cases": {},
  }
  for case in cases(arguments.data_dir):
    rates = measure(
      contenders(case), case.batch_size, arguments.rounds, arguments.seconds
    )
    report["cases"][case.name] = {
      "batch_size": case.batch_size,
      "images_per_second": rates,
    }
    show(case.name, case.batch_size, rates)
  if arguments.json:
    path = pathlib.Path(arguments.json)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwrote {path}")


if __name__ == "__main__":
  main()
