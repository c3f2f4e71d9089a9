# SPDX-License-Identifier: Apache-2.0
"""What the C library does with memory that XLA gives back."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys

import jax

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEPT = 1 << 30  # Bytes at the end of the heap that are not given back.

_keeps = False


def keep_freed_memory() -> bool:
  """Asks glibc to keep freed memory for the next step of a CPU run.

  XLA takes the temporaries of a program from the system and frees them when it
  ends. Large blocks, and all of a thread's own heap, glibc then hands back, so
  that every step waits for each of their pages anew: a fifth of an update of
  BERT. What else was freed, such as a compiler's, stays too: see
  `give_back_memory`.

  Programs then run one at a time (`jax_cpu_enable_async_dispatch` is off), as
  each of those in flight would have kept temporaries of its own.

  Call it before JAX starts its backend: threads that already have a heap of
  their own keep it. Does nothing on a machine with an accelerator, where
  temporaries are on the device, without glibc, or where the environment has
  GLIBC_TUNABLES or MALLOC_* settings, which then decide.

  Returns:
    Whether freed memory is kept from now on.
  """
  if any(name.startswith(("GLIBC_", "MALLOC_")) for name in os.environ):
    return False
  if not _on_cpu() or sys.platform != "linux":
    return False
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:  # Another C library.
    return False
  global _keeps
  settings = {_M_TRIM_THRESHOLD: _KEPT, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}
  _keeps = all(mallopt(*setting) for setting in settings.items())
  if _keeps:
    jax.config.update("jax_cpu_enable_async_dispatch", False)
  return _keeps


def give_back_memory() -> None:
  """Hands back what is free now, where `keep_freed_memory` keeps it.

  For between two jobs, when what the last one compiled and read is gone.
  """
  if _keeps:
    ctypes.CDLL(None).malloc_trim(0)


def _on_cpu() -> bool:
  """Whether JAX will run on the CPU, as far as can be told before it starts."""
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms:
    return platforms == "cpu"
  plugins = ("jax_plugins", "libtpu")  # GPUs and others; TPUs.
  return not any(importlib.util.find_spec(name) for name in plugins)
