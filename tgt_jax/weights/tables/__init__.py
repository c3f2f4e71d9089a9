# SPDX-License-Identifier: Apache-2.0
"""Tables of rules, one file per family of networks."""

from __future__ import annotations

__all__ = ()
