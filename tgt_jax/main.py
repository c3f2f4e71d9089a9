# SPDX-License-Identifier: Apache-2.0
"""Trains a teacher and its students as a config says.

  python -m tgt_jax.main --config=configs/digits_lt.py --workdir=runs/digits

Single keys are changed with `--config.training.steps=100`; an experiment's
small form is `--config=configs/digits_lt.py:smoke`. The same command again
resumes; a finished run is left as it is.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Experiment file, e.g. configs/digits_lt.py[:smoke]."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run: checkpoints, metrics, report, student."
)
_MULTIHOST = flags.DEFINE_enum(
  "multihost",
  "auto",
  ["auto", "on", "off"],
  "Join other processes: if a cluster is detected, always, or never.",
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
  """Runs the experiment; errors of the user are one line and exit code 2."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
  logging.set_verbosity(logging.WARNING)
  # Imported here, so that --help answers at once.
  from tgt_jax import distributed, fit, train

  distributed.initialize(_MULTIHOST.value)  # type: ignore[arg-type]
  try:
    train.run(_CONFIG.value, str(_WORKDIR.value))
  except fit.Preempted as stop:
    command = " ".join(["python -m tgt_jax.main", *sys.argv[1:]])
    print(f"{stop}. To resume: {command}", flush=True)
  except (ValueError, TypeError, OSError, RuntimeError) as error:
    if logging.get_verbosity() > logging.WARNING:
      raise
    print(f"error: {error}", file=sys.stderr, flush=True)
    print("(--v=1 shows where)", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
  app.run(main)
