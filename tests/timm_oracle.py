# SPDX-License-Identifier: Apache-2.0
"""Imports timm beside a torchvision without its compiled operators.

torchvision's wheels hold operators compiled for one build of torch. With any
other one `import torchvision`, which timm needs, fails while it describes two
of them; declared here by their signatures alone, they import and are never
called.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

_OPERATORS = (
  "nms(Tensor dets, Tensor scores, float threshold) -> Tensor",
  "qnms(Tensor dets, Tensor scores, float threshold) -> Tensor",
)
_libraries: list[Any] = []  # A library that is collected takes them along.


def import_timm() -> Any:
  """Returns the module timm, or skips the module of tests that asks."""
  torch = pytest.importorskip("torch")
  if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
      library.define(operator)
    _libraries.append(library)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchvision")
    return pytest.importorskip("timm")
