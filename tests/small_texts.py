# SPDX-License-Identifier: Apache-2.0
"""An experiment on text of seconds: sentences of a grammar, tiny networks."""

from __future__ import annotations

from configs import sst2_low
from tgt_jax import settings as settings_lib


def settings(*arms, **changes):
  """The small form of an experiment on text, with these of its arms."""
  config = settings_lib.plain(sst2_low.get_config("smoke"))
  found = settings_lib.plain(sst2_low.get_config())["arms"]
  config["arms"] = {name: found[name] for name in arms or ("tgt_random",)}
  config["main_arm"] = list(config["arms"])[-1]
  config["seeds"] = 1
  return {**config, **changes}
