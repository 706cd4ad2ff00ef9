"""Queries and their best gallery matches, framed green where right and red where wrong (paper, figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from hamr_edge.dataset import LabelledCrops, read_crop
from hamr_edge.ranked_list import RankedList
from hamr_edge.trainer.figure_canvas import (
    INK,
    PALE_INK,
    RIGHT_COLOUR,
    WRONG_COLOUR,
    drawing,
    figure_png,
    place,
    write_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_WIDTH, CELL_HEIGHT = 0.76, 1.52
"""Room for one picture, in inches."""
CAPTION_HEIGHT, LINE_HEIGHT = 0.66, 0.15
_LETTER_WIDTH = 0.066
"""Of the title, on average, in inches."""
_MARGIN, _GAP, _QUERY_GAP = 0.15, 0.11, 0.3
_FRAME_POINTS = 3.0
_DASHES = (0.0, (2.0, 1.0))
RIGHT_MARK, WRONG_MARK = "\N{CHECK MARK}", "\N{BALLOT X}"


@dataclass(frozen=True, slots=True)
class RetrievalRow:
    """One query, its ranking and the words above it."""

    query: int
    """Row of the query split."""
    ranked: RankedList
    title: str


def cell_left(column: int) -> float:
    """Left edge of a picture in inches; column 0 is the query, column r rank r."""
    return _MARGIN + column * (CELL_WIDTH + _GAP) + (_QUERY_GAP if column else 0.0)


def draw_retrieval(rows: Sequence[RetrievalRow], query: LabelledCrops, gallery: LabelledCrops) -> bytes:
    """Draw each query, a gap, and its best matches with rank, identity, camera and cosine below.

    A right match has a solid green frame and a tick, a wrong one a dashed red frame and a cross. Pictures keep their
    aspect ratio.

    Args:
        rows: The queries, from top to bottom.
        query: The query split.
        gallery: The gallery that ``RankedList.gallery`` counts in.

    Returns:
        A PNG file's bytes.

    Raises:
        InputError: An image is missing or cannot be decoded.
        UnavailableError: Matplotlib is not installed.
    """
    width = cell_left(max(len(row.ranked.gallery) for row in rows)) + CELL_WIDTH + _MARGIN
    titles = [wrap(row.title, int((width - 2 * _MARGIN) / _LETTER_WIDTH)) for row in rows]
    heights = [len(lines) * LINE_HEIGHT + 0.07 for lines in titles]
    with drawing(width, _MARGIN + sum(heights) + len(rows) * (CELL_HEIGHT + CAPTION_HEIGHT)) as figure:
        top = _MARGIN
        for row, lines, height in zip(rows, titles, heights, strict=True):
            for number, line in enumerate(lines):
                write_text(figure, _MARGIN, top + number * LINE_HEIGHT, line)
            top += height
            _draw_cell(figure, 0, top, query.paths[row.query], ("query", _label(query, row.query)))
            ranked = zip(row.ranked.gallery.tolist(), row.ranked.similarity, row.ranked.right, strict=True)
            for rank, (place_in_gallery, similarity, right) in enumerate(ranked, 1):
                mark = RIGHT_MARK if right else WRONG_MARK
                words = (f"{rank} {mark}", _label(gallery, place_in_gallery), f"cos {similarity:.3f}")
                _draw_cell(figure, rank, top, gallery.paths[place_in_gallery], words, bool(right))
            top += CELL_HEIGHT + CAPTION_HEIGHT
        return figure_png(figure)


def _label(crops: LabelledCrops, row: int) -> str:
    return f"id {crops.identities[row]}, c{crops.cameras[row]}"


def _draw_cell(
    figure: Figure, column: int, top: float, path: Path, words: Sequence[str], right: bool | None = None
) -> None:
    """One picture and the words below it; without ``right``, no frame."""
    axes = place(figure, cell_left(column), top, CELL_WIDTH, CELL_HEIGHT)
    axes.imshow(read_crop(path)[:, :, ::-1], interpolation="bilinear", aspect="equal")
    axes.set_anchor("S")
    colour = INK
    if right is not None:
        colour = RIGHT_COLOUR if right else WRONG_COLOUR
        axes.spines[:].set(visible=True, color=colour, linewidth=_FRAME_POINTS, capstyle="butt")
        axes.spines[:].set_linestyle("-" if right else _DASHES)
    centre, line = cell_left(column) + CELL_WIDTH / 2, top + CELL_HEIGHT + 0.07
    for number, text in enumerate(words):
        write_text(
            figure, centre, line, text, 8.5 if number == 0 else 7.5, PALE_INK if number else colour, centred=True
        )
        line += 0.14
