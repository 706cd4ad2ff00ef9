"""Drawing with Matplotlib, which is imported here and only when a figure is drawn: colours, placing, PNG bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from hamr_edge.errors import UnavailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
"""Pixels an inch of every figure."""
INK, PALE_INK = "#1a1a1a", "#5a5a5a"
RIGHT_COLOUR, WRONG_COLOUR = "#009e4d", "#d62728"
"""Frames: green and red as in the paper, of different lightness; a solid and a dashed line tell them apart as well."""
SERIES_COLOURS = ("#0072b2", "#d55e00", "#117755")
"""Curves: blue, vermilion, green of Okabe and Ito's palette for colour-blind readers, the green darkened for paper."""
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, and has the tick and the cross
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": PALE_INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.color": PALE_INK,
    "ytick.color": PALE_INK,
    "legend.frameon": False,
}


def check_matplotlib() -> None:
    """Raise UnavailableError unless Matplotlib can be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"Matplotlib, which draws the figures, cannot be imported ({error}); pip install 'hamr-edge[figures]'"
        ) from error


@contextmanager
def drawing(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """An empty white figure in hamr-edge's style; the user's own Matplotlib settings have no say in it."""
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name may hold letters that the font lacks: they become boxes, and the page has the name in full.
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # Not pyplot: no window, no global list of figures.
        yield Figure(figsize=(width_inches, height_inches), dpi=DPI, facecolor="white")


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes for a picture, in inches from the figure's top left corner: no ticks, no grid, no frame."""
    figure_width, figure_height = figure.get_size_inches().tolist()
    box = (left / figure_width, 1 - (top + height) / figure_height, width / figure_width, height / figure_height)
    axes = figure.add_axes(box)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    return axes


def write_text(
    figure: Figure, left: float, top: float, text: str, size: float = 8.5, colour: str = INK, centred: bool = False
) -> None:
    """Text with its top at ``top``, starting or centred at ``left``, in inches from the figure's top left corner."""
    width, height = figure.get_size_inches().tolist()
    across = "center" if centred else "left"
    # Data set and file names may hold a dollar sign, which would start a formula.
    figure.text(left / width, 1 - top / height, text, size=size, color=colour, ha=across, va="top", parse_math=False)


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes; the same figure gives the same bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
