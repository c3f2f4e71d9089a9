# SPDX-License-Identifier: Apache-2.0
"""The steps of `setting.py` as one would write them in PyTorch.

Eager or compiled, with images in NCHW or channels-last memory; teachers are
frozen and in evaluation mode, Adam is the fused one, parameter gradients are
not computed while exploring. Noise is drawn in one call: PyTorch needs no key
for each example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from setting import LATENT_DIM, NUM_CLASSES, SIGMA, STEP_SIZE
from torch import nn
from torch.nn import functional


def _kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
  return functional.kl_div(
    student.log_softmax(-1),
    teacher.log_softmax(-1),
    log_target=True,
    reduction="batchmean",
  )


def _networks(device: str, dtype: torch.dtype) -> dict[str, nn.Module]:
  encoder = nn.Sequential(
    nn.Flatten(),
    nn.Linear(784, 512),
    nn.ReLU(),
    nn.Linear(512, LATENT_DIM),
  )
  decoder = nn.Sequential(
    nn.Linear(LATENT_DIM, 512),
    nn.ReLU(),
    nn.Linear(512, 784),
    nn.Sigmoid(),
    nn.Unflatten(1, (1, 28, 28)),
  )
  labeler = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.MaxPool2d(2),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, padding=1),
    nn.MaxPool2d(2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(64 * 7 * 7, 128),
    nn.ReLU(),
    nn.Linear(128, NUM_CLASSES),
  )
  student = nn.Sequential(
    nn.Flatten(),
    nn.Linear(784, 64),
    nn.ReLU(),
    nn.Linear(64, 64),
    nn.ReLU(),
    nn.Linear(64, NUM_CLASSES),
  )
  frozen = {"encoder": encoder, "decoder": decoder, "labeler": labeler}
  for module in frozen.values():
    module.requires_grad_(False).eval().to(device, dtype)
  return {**frozen, "student": student.to(device)}


class Steps:
  """The four steps on one batch; each waits for its own result.

  Args:
    batch: "input" [B, H, W, C] and "label" [B] as numpy arrays, and where a
      cache is read "teacher_logits" and "latent".
    channels_last: memory layout of images and labeler.
    compiled: whether `torch.compile` is applied to every stage.
    dtype: compute dtype of generator and labeler.
  """

  def __init__(
    self,
    batch: Mapping[str, np.ndarray],
    *,
    channels_last: bool,
    compiled: bool,
    dtype: str,
  ):
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    self.dtype = getattr(torch, dtype)
    self.nets = _networks(self.device, self.dtype)
    self.layout = (
      torch.channels_last if channels_last else torch.contiguous_format
    )
    self.nets["labeler"].to(memory_format=self.layout)
    tensor = lambda a: torch.tensor(np.array(a), device=self.device)
    self.image = tensor(batch["input"]).permute(0, 3, 1, 2)
    self.image = self.image.contiguous(memory_format=self.layout)
    self.target = tensor(batch["label"]).long()
    cached = lambda key: tensor(batch[key]) if key in batch else None
    self.logits, self.latent = cached("teacher_logits"), cached("latent")
    self.optimizer = torch.optim.Adam(
      self.nets["student"].parameters(), lr=1e-3, fused=True
    )
    stage = torch.compile if compiled else lambda function: function
    self.encode, self.decode = stage(self._encode), stage(self._decode)
    self.label, self.loss = stage(self._label), stage(self._loss)
    self.disagreement = stage(self._disagreement)

  def _encode(self, x):
    return self.nets["encoder"](x.to(self.dtype)).float()

  def _decode(self, z):
    return self.nets["decoder"](z.to(self.dtype)).float()

  def _label(self, x):
    x = x.to(self.dtype).contiguous(memory_format=self.layout)
    return self.nets["labeler"](x).float()

  def _disagreement(self, z):
    x = self._decode(z)
    student = self.nets["student"](x)
    return _kl(student, self._label(x)) * len(x)

  def _loss(self, logits, generated, targets):
    student = self.nets["student"]
    if generated is None:
      outputs = student(self.image)
    else:
      outputs = student(torch.cat([self.image, generated]))
    size = len(self.target)
    total = functional.cross_entropy(outputs[:size], self.target)
    if logits is not None:
      total = total + _kl(outputs[:size], logits)
    if generated is not None:
      total = total + _kl(outputs[size:], targets)
    return total

  def _update(self, logits=None, generated=None, targets=None) -> None:
    self.optimizer.zero_grad(set_to_none=True)
    self.loss(logits, generated, targets).backward()
    self.optimizer.step()
    if self.device == "cuda":
      torch.cuda.synchronize()

  @torch.no_grad()
  def _teacher_logits(self):
    return self.label(self.image) if self.logits is None else self.logits

  @torch.no_grad()
  def _start(self):
    return self.encode(self.image) if self.latent is None else self.latent

  @torch.no_grad()
  def _shown(self, z):
    x = self.decode(z)
    return x, self.label(x)

  def supervised(self) -> None:
    """Labels only."""
    self._update()

  def kd(self) -> None:
    """Distillation on real examples."""
    self._update(self._teacher_logits())

  def random(self) -> None:
    """TGT-random."""
    z = self._start()
    shown = self._shown(z + SIGMA * torch.randn_like(z))
    self._update(self._teacher_logits(), *shown)

  def gradient(self) -> None:
    """TGT-gradient, one step of normalised ascent."""
    z = self._start().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(self.disagreement(z), z)
    length = slope.square().mean(-1, keepdim=True).add(1e-20).sqrt()
    shown = self._shown(z.detach() + STEP_SIZE * slope / length)
    self._update(self._teacher_logits(), *shown)


def contenders(
  name: str,
  batch: Mapping[str, Any],
  *,
  compiled: bool,
  dtype: str,
  threads: int,
) -> dict[str, Callable[[], None]]:
  """The step `name` in every form of PyTorch that works here.

  Args:
    name: "supervised", "kd", "random" or "gradient".
    batch: see `Steps`.
    compiled: whether to include `torch.compile`.
    dtype: see `Steps`.
    threads: of PyTorch's operators.
  """
  torch.set_num_threads(threads)
  arrays = {key: np.asarray(value) for key, value in batch.items()}
  made = {}
  for form in ("eager", "compile") if compiled else ("eager",):
    for channels_last in (False, True):
      label = f"torch {form}{', channels last' if channels_last else ''}"
      steps = Steps(
        arrays,
        channels_last=channels_last,
        compiled=form == "compile",
        dtype=dtype,
      )
      step = getattr(steps, name)
      try:
        step()
      except Exception as error:  # A compiler that is missing or fails.
        print(f"{label}: left out, {type(error).__name__}: {error}"[:200])
        continue
      made[label] = step
  return made
