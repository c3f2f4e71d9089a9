# SPDX-License-Identifier: Apache-2.0
"""Arguments `--config.KEY=VALUE`, and what is wrong with them.

Imports nothing that is slow: `--help` comes through here.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from tgt_jax import registry

_ARGUMENT = re.compile(r"--?(?:no)?config\.([^=]+)")


class Parser(flags.ArgumentParser):
  """Loads an experiment file, to which arguments may then add keys.

  A spec or an arm of a file leaves out what is as by default, and the command
  line may set it all the same. Keys that mean nothing are refused by
  `settings.checked` and by the functions that specs name.
  """

  def __init__(self, loader: flags.ArgumentParser) -> None:
    """`loader` makes a ConfigDict of FILE.py or FILE.py:ARGUMENT."""
    super().__init__()
    self._loader = loader
    self.config: Any = None

  def parse(self, argument: str) -> Any:
    """Returns the experiment of a file.

    Raises:
      ValueError: there is no such file.
    """
    file = pathlib.Path(argument.partition(":")[0])
    if not file.is_file():
      others = (str(path) for path in file.parent.glob("*.py"))
      raise ValueError(
        f"there is no {file}.{registry.nearest(str(file), others)}"
      )
    self.config = self._loader.parse(argument)
    if isinstance(self.config, ml_collections.ConfigDict):
      self.config.unlock()
    return self.config

  def missing(self, arguments: Iterable[str]) -> str | None:
    """What to say of the first argument whose key is nowhere, or None.

    Args:
      arguments: of the command line.
    """
    for argument in arguments:
      match = _ARGUMENT.match(argument)
      here, path = self.config, ""
      for key in match[1].split(".") if match else ():
        if not isinstance(here, ml_collections.ConfigDict):
          return f"{path} is {here!r} and has no key {key!r}"
        if key not in here:
          return registry.no_key(path, key, here)
        here, path = here[key], f"{path}.{key}" if path else key
    return None


def define(help_string: str) -> Parser:
  """Defines `--config`, an experiment file that must be; returns its parser."""
  config_flags.DEFINE_config_file(
    "config",
    help_string=help_string,
    lock_config=False,
    accept_new_attributes=True,
  )
  flags.mark_flag_as_required("config")
  flag = flags.FLAGS["config"]
  flag.parser = Parser(flag.parser)
  return flag.parser
