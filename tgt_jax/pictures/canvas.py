# SPDX-License-Identifier: Apache-2.0
"""What all figures share: colours, type, and how a figure becomes bytes."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np

GREY = "#777777"
PALETTE = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
)
_STYLES = ("-", "--", ":", "-.")
GROUP_COLORS = {"many": "#0072B2", "medium": "#009E73", "few": "#D55E00"}
DPI = 160  # Pixels per inch of the files; a page shows them at 96.

_RC: Any = {
  "font.family": "DejaVu Sans",
  "font.size": 9,
  "axes.titlesize": 10,
  "axes.titleweight": "bold",
  "axes.titlelocation": "left",
  "axes.edgecolor": GREY,
  "axes.labelcolor": GREY,
  "axes.titlecolor": GREY,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.axisbelow": True,
  "text.color": GREY,
  "xtick.color": GREY,
  "ytick.color": GREY,
  "grid.color": GREY,
  "grid.alpha": 0.25,
  "grid.linewidth": 0.6,
  "lines.linewidth": 1.6,
  "legend.frameon": False,
  "text.parse_math": False,  # A class or arm name may hold a dollar sign.
}


def arm_style(index: int) -> dict[str, Any]:
  """Returns colour and line style of the arm of that number."""
  turn, color = divmod(index, len(PALETTE))
  return {"color": PALETTE[color], "linestyle": _STYLES[turn % len(_STYLES)]}


def new_figure(width: float, height: float) -> Any:
  """Returns an empty matplotlib figure of that size in inches.

  To be used, and drawn with `png`, inside `drawing()`.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def drawing() -> Any:
  """Returns a context in which matplotlib uses this module's settings."""
  import matplotlib as mpl

  return mpl.rc_context(_RC)


def png(figure: Any, *, dpi: int = DPI) -> bytes:
  """Returns a figure as PNG bytes, on a transparent ground."""
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    # A class name in a script that the font lacks is drawn as boxes.
    warnings.filterwarnings("ignore", message=r"Glyph \d+")
    figure.savefig(
      buffer,
      format="png",
      dpi=dpi,
      transparent=True,
      metadata={"Software": None},
    )
  return buffer.getvalue()


def shorten(text: str, limit: int) -> str:
  """Returns `text`, its end replaced by an ellipsis if it is too long."""
  text = " ".join(str(text).split())
  return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
  """Returns [H, W, C] as RGB, each pixel a square of whole screen pixels.

  Args:
    image: in [0, 1]; of channels that are no colours the mean is shown.
    side: of the result, about, where the image is not larger.
  """
  if image.shape[-1] not in (1, 3):
    image = image.mean(-1, keepdims=True)
  image = np.broadcast_to(image, (*image.shape[:2], 3))
  factor = max(1, round(side / max(image.shape[:2])))
  return np.clip(image, 0, 1).repeat(factor, 0).repeat(factor, 1)


def png_size(data: bytes) -> tuple[int, int]:
  """Returns width and height in pixels of a PNG.

  Raises:
    ValueError: not a PNG.
  """
  if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
    raise ValueError(f"not a PNG: it begins with {data[:8]!r}")
  width, height = struct.unpack(">II", data[16:24])
  return width, height


def plain_log_axis(axis: Any) -> None:
  """Labels a logarithmic axis with plain numbers at the powers of ten.

  matplotlib's own labels need its mathematical type, which is off here.
  """
  from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

  axis.set_major_locator(LogLocator(numticks=6))
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_locator(NullLocator())
