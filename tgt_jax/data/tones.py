# SPDX-License-Identifier: Apache-2.0
"""Made-up spectrograms of a few tones, with tags: sound to try things out.

Every tag is a band that sounds for half of a clip in about a third of all
clips, over noise. A tenth of the tags is unknown. Embeddings, one per frame of
`frames`, are a random linear map of which bands sound then, and noise.
"""

from __future__ import annotations

import numpy as np

from tgt_jax import checks
from tgt_jax.data import draws, sources

_UNKNOWN = 0.1


def tones(
  *,
  num_classes: int = 4,
  input_shape: tuple[int, int, int] = (32, 48, 1),
  frames: int = 0,
  embedding_width: int = 16,
  train_size: int = 200,
  test_size: int = 100,
  seed: int = 0,
) -> sources.Dataset:
  """Spectrograms [mels, time, 1] with tags.

  Args:
    num_classes: K, tags, at most as many as there are bands.
    input_shape: (mels, time, 1).
    frames: T of the embeddings, which divides the time; 0: no embeddings.
    embedding_width: D of the embeddings.
    train_size: number of training clips.
    test_size: number of test clips.
    seed: of everything.

  Raises:
    ValueError: a number out of its range.
  """
  bands, time, _ = input_shape
  checks.positive(
    num_classes=num_classes,
    embedding_width=embedding_width,
    train_size=train_size,
    test_size=test_size,
  )
  checks.in_range(1, bands, num_classes=num_classes)
  checks.in_range(0, time, frames=frames)
  if frames and time % frames:
    raise ValueError(f"frames must divide the time {time}, got {frames}")
  uniforms = lambda name, *shape: draws.uniforms(
    seed, f"tones/{name}", 0, shape
  )
  mixing = uniforms("mixing", num_classes, embedding_width) - 0.5
  where = np.arange(num_classes) * (bands // num_classes)
  options = {"frames": frames, "seed": seed}
  splits = []
  for split, size in (("train", train_size), ("test", test_size)):
    there = uniforms(f"{split}/there", size, num_classes) < 1 / 3
    start = uniforms(f"{split}/start", size, num_classes, 1) * time / 2
    at = np.arange(time)
    sounds = there[..., None] & (at >= start) & (at < start + time / 2)
    clips = uniforms(f"{split}/noise", size, *input_shape).astype(np.float32)
    clips[..., 0][:, where] += 2 * sounds
    tags = there.astype(np.float32)
    tags[uniforms(f"{split}/unknown", size, num_classes) < _UNKNOWN] = -1
    embeddings = None
    if frames:
      each = sounds.reshape(size, num_classes, frames, -1).mean(axis=3)
      made = each.transpose(0, 2, 1) @ mixing
      made += 0.1 * uniforms(f"{split}/hiss", *made.shape)
      embeddings = made[:, :, None].astype(np.float32)
    splits.append(
      sources.from_arrays(
        clips,
        tags,
        name=f"tones/{split}",
        class_names=[f"band {band}" for band in where],
        options=options,
        embeddings=embeddings,
        bounded=False,
      )
    )
  return sources.Dataset(splits[0], splits[1], splits[0])
