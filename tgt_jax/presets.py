# SPDX-License-Identifier: Apache-2.0
"""What the image experiments of the paper share.

BigBiGAN explores, EfficientNet-B3 labels, MobileNetV3-Large 0.75 (or ResNet-50)
learns (arXiv:2208.06825, section 4). The paper's optimiser, learning rates,
weights and exploration strengths are not published where we could read them:
those here are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from tgt_jax import config as config_lib

# Models and their input sides; the means are those of the public weights.
_STUDENTS: dict[str, dict[str, Any]] = {
  "mobilenet_v3": {
    "name": "mobilenet_v3_large",
    "width": 0.75,
    "input_size": 224,
    "dtype": "bfloat16",
  },
  "resnet50": {"name": "resnet50", "input_size": 224, "dtype": "bfloat16"},
}
# BigBiGAN is the paper's; the others are public as a whole. Their latents get
# the unit of their spread, BigBiGAN's has it by its prior N(0, I).
_GENERATORS: dict[str, dict[str, Any]] = {
  "bigbigan": {"name": "bigbigan", "dtype": "bfloat16", "chunk": 64},
  "taesd": {"name": "taesd", "dtype": "bfloat16", "whitened": True},
  "sd_vae": {
    "name": "autoencoder_kl",
    "dtype": "bfloat16",
    "whitened": True,
    "chunk": 16,
  },
}
OPTIONS = ("resnet50", "taesd", "sd_vae", "smoke")
_SMOKE_SIZE = 32
_SIGMA = 0.3  # Of TGT-random, in units of the latent's spread; ours.


def options(arg: str, known: Sequence[str]) -> set[str]:
  """Splits the argument of a config, `"resnet50,smoke"`.

  Raises:
    ValueError: an option that is not known.
  """
  chosen = {word for word in arg.split(",") if word}
  if unknown := chosen - set(known):
    raise ValueError(
      f"unknown argument {', '.join(sorted(unknown))}; expected some of"
      f" {', '.join(known)}, joined by commas"
    )
  return chosen


def single(chosen: set[str], family: Sequence[str], default: str) -> str:
  """The one option of a family that was chosen, or its default.

  Raises:
    ValueError: several were.
  """
  found = sorted(chosen & set(family))
  if len(found) > 1:
    raise ValueError(f"choose one of {', '.join(found)}: a run has one")
  return found[0] if found else default


def keep(config: Any, names: Iterable[str]) -> None:
  """Leaves out all arms but these.

  Args:
    config: with all of them; one whose main arm goes gets the last that stays.
    names: of arms.
  """
  names = set(names)
  kept = {n: config.arms[n].to_dict() for n in config.arms if n in names}
  with config.unlocked():
    config.arms = config_lib.arms(kept)
  if config.main_arm not in kept:
    config.main_arm = next(reversed(kept))
  references = config.reference_arms
  config.reference_arms = tuple(n for n in references if n in kept)


def paper_images(
  config: Any,
  *,
  data: dict[str, Any],
  num_classes: int,
  train_size: int,
  epochs: int,
  chosen: Set[str] = frozenset(),
) -> None:
  """Fills a config with the paper's networks and the arms of its tables.

  Args:
    config: from `config.default()`.
    data: spec of the data set, without the size of its images.
    num_classes: number of classes K.
    train_size: labelled images.
    epochs: passes over them.
    chosen: of `OPTIONS`: "resnet50" is the larger student, "taesd" or
      "sd_vae" the generator instead of BigBiGAN.
  """
  student = "resnet50" if "resnet50" in chosen else "mobilenet_v3"
  generator = next((g for g in _GENERATORS if g in chosen), "bigbigan")
  batch_size = 256
  config.input_shape = (256, 256, 3)
  config.num_classes = num_classes
  with config.unlocked():
    config.data = {**data, "image_size": 256}
    config.generator = dict(_GENERATORS[generator])
    config.labeler = {
      "name": "efficientnet_b3",
      "input_size": 300,
      "dtype": "bfloat16",
    }
    config.student = dict(_STUDENTS[student])
    config.arms = config_lib.arms(paper_arms())
  config.augment = (
    {"name": "random_resized_crop"},
    {"name": "horizontal_flip"},
  )
  # Both parts come with public weights; the labeler is fine-tuned on the tail.
  config.generator_training.steps = 0
  config.labeler_training.update(
    source="train",
    steps=10 * train_size // batch_size,
    batch_size=batch_size,
    reconstruction=0.0,
  )
  config.labeler_training.label_loss.name = "balanced_softmax"
  config.label_loss.name = "balanced_softmax"
  config.training.update(
    steps=epochs * train_size // batch_size, batch_size=batch_size
  )
  config.optimizer.update(
    learning_rate=2e-3, warmup_steps=500, clip_norm=1.0, weight_decay=1e-4
  )
  config.groups.update(many_above=100, few_below=20)
  config.cadence.update(log=100, evaluate=2500, checkpoint=2500)
  config.main_arm = "tgt_gradient"


def paper_arms() -> dict[str, Any]:
  """The rows of the paper's tables, and balanced softmax beside them."""
  # The start points are left as they are, so that Enc(x) is cached.
  tgt = {
    "method": {"name": "tgt"},
    "starts": {
      "source": "train",
      "sampler": "class_balanced",
      "augment": False,
    },
  }
  return {
    "one_hot": {
      "method": {"name": "supervised"},
      "label_loss": {"name": "cross_entropy"},
    },
    "balanced_softmax": {"method": {"name": "supervised"}},
    "distillation": {"method": {"name": "kd"}},
    "tgt_random": {**tgt, "exploration": {"name": "random", "sigma": _SIGMA}},
    "tgt_gradient": {
      **tgt,
      "exploration": {
        "name": "gradient_ascent",
        "step_size": _SIGMA / 3,
        "start_sigma": _SIGMA,
        "radius": _SIGMA,
        "sphere": True,
      },
    },
  }


def smoke(config: Any, *, arms: Sequence[str] = ("tgt_gradient",)) -> None:
  """Shrinks an image experiment to two real steps on a CPU.

  Networks keep their kinds and lose width, depth and resolution; weights are
  random; images are windows of two photographs.

  Args:
    config: filled in.
    arms: which to keep.
  """
  config.title += " (smoke)"
  config.num_classes = 4
  config.input_shape = (_SMOKE_SIZE, _SMOKE_SIZE, 3)
  kept = {name: config.arms[name].to_dict() for name in arms}
  small = {"input_size": _SMOKE_SIZE, "dtype": "float32"}
  with config.unlocked():
    config.data = {"name": "photographs", "image_size": _SMOKE_SIZE}
    if config.generator.name == "bigbigan":
      config.generator = {
        "name": "bigbigan",
        "ch": 8,
        "encoder_size": _SMOKE_SIZE,
        "encoder_blocks": (1, 1),
        "head_width": 32,
        "head_blocks": 1,
      }
    elif config.generator.name == "autoencoder_kl":
      config.generator.update(
        dtype="float32", chunk=2, widths=(32, 32), blocks=1
      )
    elif config.generator.name == "taesd":
      config.generator.update(
        dtype="float32",
        width=16,
        encoder_blocks=(0, 1, 1),
        decoder_blocks=(1, 1, 0),
      )
    if config.labeler.name == "efficientnet_b3":
      config.labeler = {
        "name": "efficientnet",
        "width": 0.25,
        "depth": 0.25,
        **small,
      }
    student = config.student.to_dict()
    if student["name"] == "resnet50":
      student = {"name": "resnet_imagenet", "depth": 14}
    elif student["name"] == "mobilenet_v3_large":
      student |= {"width": 0.25, "depth": 0.25}
    config.student = {**student, **small}
    config.arms = config_lib.arms(kept)
  config.long_tail.profile = ""
  config.main_arm = arms[-1]
  config.reference_arms = ()
  config.generator_training.update(
    steps=min(2, config.generator_training.steps), batch_size=4
  )
  config.labeler_training.update(steps=0, batch_size=4)
  config.training.update(steps=2, batch_size=4)
  config.optimizer.warmup_steps = 0
  config.quick_compilation = True
  config.groups.update(many_above=8, few_below=3)
  config.cadence.update(log=1, evaluate=2, checkpoint=2)
  config.evaluation_batch_size = 8
  config.gallery_examples = 0  # Another program to compile.


def balance(config: Any) -> None:
  """Priors of a long tail: for both label losses, and between the logits.

  With the students' alone their two losses would want different logits.

  Args:
    config: with its distance chosen.
  """
  config.label_loss.name = "balanced_softmax"
  config.labeler_training.label_loss.name = "balanced_softmax"
  with config.unlocked():
    config.distance.priors = True


def fashion_mnist(config: Any) -> None:
  """Fashion-MNIST: networks and training of its experiments.

  The generator sees all 60 000 training images without labels, the labeler all
  their labels.

  Args:
    config: from `config.default()`.
  """
  config.input_shape = (28, 28, 1)
  with config.unlocked():
    config.data = {"name": "fashion_mnist", "data_dir": ""}
    config.generator = {"name": "vae", "latent_dim": 16, "widths": (512, 256)}
    config.labeler = {"name": "cnn", "widths": (32, 64)}
    config.student = {"name": "mlp", "widths": (64, 64)}
  config.generator_training.update(steps=9000)
  config.labeler_training.update(source="full", steps=2500)
  config.optimizer.learning_rate = 3e-3  # The best for mixup_kd of 1e-3, 3e-3.
  config.training.update(steps=3000, batch_size=64)
  config.cadence.update(log=250, evaluate=1000, checkpoint=1000)


def fashion_mnist_lt(config: Any) -> None:
  """`fashion_mnist` with 2 478 labels, 1 000 to 10 a class, and their priors.

  Args:
    config: from `config.default()`.
  """
  fashion_mnist(config)
  config.seeds = 5
  config.label_loss.update(name="balanced_softmax")
  with config.unlocked():
    config.distance.priors = True
  config.long_tail.update(
    profile="exponential", imbalance_ratio=100.0, head=1000
  )


def few_updates(config: Any) -> None:
  """A run of seconds, to see that it runs."""
  config.generator_training.update(steps=10)
  config.labeler_training.update(steps=4)
  config.training.update(steps=4)
  config.cadence.update(log=2, evaluate=4, checkpoint=4)
  config.gallery_examples = 3
  config.quick_compilation = True
