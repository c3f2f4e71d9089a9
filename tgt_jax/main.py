# SPDX-License-Identifier: Apache-2.0
"""Trains a teacher and its students as a config says.

  python -m tgt_jax.main --config=configs/digits_lt.py --workdir=runs/digits

`--config.training.steps=100` changes a key, `--config=FILE.py:smoke` is an
experiment's small form. The same command again resumes.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging

from tgt_jax import overrides

_EXPERIMENT = overrides.define("Experiment file[:arg].")
flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.DEFINE_enum("multihost", "auto", ["auto", "on", "off"], "Join processes.")
flags.register_validator("workdir", bool, "name the folder of the run")


def fail(error: Exception) -> None:
  """Ends the program with one line, or with --v=1 by the error itself."""
  if logging.get_verbosity() > logging.INFO:
    raise error
  sys.exit(f"error: {error} (--v=1 shows where)")


def parse(argv: list[str]) -> list[str]:
  """Reads the flags; a key that the config does not have is one line."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:  # With a traceback where a config raised.
    sys.exit(f"error: {str(error).strip().splitlines()[-1]} (see --help)")
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(f"error: {_EXPERIMENT.missing(argv) or error} (see --help)")


def main(argv: list[str]) -> None:
  """Runs the experiment; errors of the user are one line and exit code 1."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
  if logging.get_verbosity() == logging.INFO:  # The default, and chatty.
    logging.set_verbosity(logging.WARNING)
  from tgt_jax import distributed, experiment, fit, train  # After --help.

  distributed.keep_freed_memory()
  try:
    distributed.initialize(flags.FLAGS.multihost)
    train.run(flags.FLAGS.config, flags.FLAGS.workdir)
  except fit.Preempted as stop:
    print(f"{stop}. To resume: {experiment.command_line()}", flush=True)
  except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
    fail(error)


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
