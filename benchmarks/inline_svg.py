"""A Matplotlib figure as SVG inside a page: its colours follow the page, its text is the page's text."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from hamr_edge.errors import UnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
"""Stand for the page's colours of text, of quiet text, of rules, and of the page itself."""
MODEL_COLOURS = tuple(f"#0501{place:02x}" for place in range(8))
"""Stand for the models' colours, the reference's first."""
_VARIABLES = {INK: "ink", PALE: "pale", LINE: "line", PAPER: "paper"} | {
    colour: f"m{place}" for place, colour in enumerate(MODEL_COLOURS)
}
_COLOUR = re.compile("|".join(_VARIABLES))
_PLACE = re.compile(r"NAME(\d{3})")


def check_matplotlib() -> None:
    """Raise UnavailableError unless figures can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"the page's plots need Matplotlib, which cannot be imported ({error}); pip install 'hamr-edge[figures]'"
        ) from error


def placeholder(number: int) -> str:
    """A text to draw in place of the name of that number: Matplotlib would read formulas in names, or lack letters."""
    return f"NAME{number:03d}"


def figure_to_svg(figure: Figure, key: str, alt: str, names: Sequence[str]) -> str:
    """Draw a figure for a page; equal figures give equal text.

    Args:
        figure: Drawn in the colours that stand for the page's.
        key: Goes before every id, so that no two figures of a page share one; letters and digits.
        alt: What it shows, for those who do not see it.
        names: What :func:`placeholder` stands for.
    """
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', text)
    text = text[text.index(">") + 1 :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text).replace("xlink:href", "href")
    text = _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = _PLACE.sub(lambda found: escape(names[int(found[1])]), text)  # last: nothing is read into names
    head = f'<svg class="plot" role="img" aria-label="{escape(alt)}" viewBox="{box[1] if box else ""}">'
    return head + text.strip()
