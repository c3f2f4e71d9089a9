# SPDX-License-Identifier: Apache-2.0
"""Figures of a run as PNG bytes: arrays in, a picture out.

Nothing here knows networks or methods. Backgrounds are transparent and text
is a grey that reads on white and on black, so that a figure stands in a light
or a dark page. Colours are those of Okabe and Ito, which colour-blind readers
tell apart; arms also differ by line style once the colours are used up.

matplotlib is imported on use and without pyplot, so nothing here depends on or
changes a global backend.
"""

from __future__ import annotations

from tgt_jax.pictures.canvas import DPI, png_size
from tgt_jax.pictures.charts import (
  Curve,
  class_histogram,
  curves,
  disagreement,
  per_class,
)
from tgt_jax.pictures.gallery import (
  Gallery,
  crossed,
  draw_gallery,
  is_text,
  load_gallery,
  save_gallery,
)
from tgt_jax.pictures.ranked import (
  Ranked,
  load_ranked,
  ranked_table,
  save_ranked,
)
from tgt_jax.pictures.texts import texts_table

__all__ = [
  "Curve",
  "curves",
  "per_class",
  "class_histogram",
  "disagreement",
  "Gallery",
  "crossed",
  "draw_gallery",
  "is_text",
  "texts_table",
  "save_gallery",
  "load_gallery",
  "Ranked",
  "ranked_table",
  "save_ranked",
  "load_ranked",
  "png_size",
  "DPI",
]
