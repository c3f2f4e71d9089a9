# SPDX-License-Identifier: Apache-2.0
"""Teacher-guided training in JAX.

A sub-module is imported when it is first asked for, so `import tgt_jax` is
cheap, touches no device and imports neither TensorFlow nor a plotting library:

    import tgt_jax
    tgt_jax.losses.kl_divergence(student_logits, teacher_logits)

Start at `docs/architecture.md` for the map of the package.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Every name here is a module or sub-package, in the order of the floors.
__all__ = [
  "types",
  "checks",
  "registry",
  "rng",
  "longtail",
  "influence",
  "spectrograms",
  "losses",
  "exploration",
  "metrics",
  "models",
  "generators",
  "teachers",
  "measures",
  "methods",
  "training",
  "files",
  "progress",
  "tables",
  "distributed",
  "checkpoint",
  "data",
  "pictures",
  "results",
  "trees",
  "writers",
  "export",
  "pairing",
  "weights",
  "config",
  "overrides",
  "presets",
  "text_presets",
  "glue_presets",
  "embedding_presets",
  "reading",
  "settings",
  "learners",
  "networks",
  "build",
  "fit",
  "plan",
  "answers",
  "beginnings",
  "scoring",
  "teach",
  "splits",
  "experiment",
  "across",
  "curves",
  "streams",
  "alignment",
  "reconstruction",
  "gallery",
  "ranking",
  "report",
  "compare",
  "evaluate",
  "transfer",
  "train",
]


def __getattr__(name: str) -> Any:
  """Imports a sub-module on first use."""
  if name in __all__:
    return importlib.import_module(f"{__name__}.{name}")
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  """Lists the sub-modules, imported or not."""
  return sorted([*globals(), *__all__])
