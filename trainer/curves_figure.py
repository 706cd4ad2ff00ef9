"""Curves: what training logged against the epoch, and the cumulative match characteristic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamr_edge.errors import InputError
from hamr_edge.trainer.figure_canvas import PALE_INK, SERIES_COLOURS, drawing, figure_png
from hamr_edge.trainer.training_log import EPOCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    labels: dict[str, str]
    """Columns of the log, with their names in the legend."""
    factor: float = 1.0
    """Of the values."""
    top: float | None = None
    """End of the scale; by the values where None."""


PANELS = (
    Panel("Loss", {"loss": "all", "id_loss": "identity", "triplet_loss": "triplet"}),
    Panel("Learning rate of the backbone", {"learning_rate": "learning rate"}),
    Panel("Retrieval (%)", {"rank1": "rank-1", "map": "mAP"}, 100, top=100),
    Panel("Images a second", {"images_per_s": "images/s"}),
    Panel("Waiting for batches (% of the time)", {"wait_share": "waiting"}, 100),
)
_RUN_STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o", "markersize": 3.5},
    {"linestyle": (0.0, (4.0, 2.0)), "marker": "s", "markersize": 3.5},
)
"""The model's lines and its baseline's."""
_HANDLE_LENGTH = 4.5
"""Long enough in a legend to show a dash on each side of the mark."""


def draw_curves(logs: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Draw the logged columns of one run (solid lines), or of a model (solid) and its baseline (dashed).

    A column that no log has is left out, and so is a panel without columns. An epoch without a value is passed over.

    Args:
        logs: The columns of each run by the run's name, as
            :func:`hamr_edge.trainer.training_log.read_training_log` gives them.

    Returns:
        A PNG file's bytes.

    Raises:
        InputError: No log has any of the columns.
        UnavailableError: Matplotlib is not installed.
    """
    panels = drawn_panels(logs)
    if not panels:
        known = ", ".join(name for panel in PANELS for name in panel.labels)
        raise InputError(f"the training log has no value to draw; expected some of the columns {known}")
    rows = -(-len(panels) // 2)
    epochs = max(max(log[EPOCH]) for log in logs.values())
    with drawing(9.6, rows * 2.55 + 0.4) as figure:
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, 2, number)
            axes.set_title(panel.title, loc="left")
            axes.set_xlabel(EPOCH)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            names = logged_columns(logs, panel.labels)
            for log, style in zip(logs.values(), _RUN_STYLES, strict=False):
                for name, colour in zip(names, SERIES_COLOURS, strict=False):
                    _draw_series(axes, log, name, panel.factor, {**style, "color": colour})
            axes.set_xlim(0, 1.02 * epochs)  # one span for all panels, though scores come late
            axes.set_ylim(0, panel.top)
            axes.spines[["top", "right"]].set_visible(False)
            if len(names) > 1:
                colours = [Line2D([], [], color=colour) for colour in SERIES_COLOURS[: len(names)]]
                axes.legend(colours, [panel.labels[name] for name in names], loc="best")
        figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1), h_pad=1.4, w_pad=2.0)
        lines = [Line2D([], [], color=PALE_INK, **style) for style in _RUN_STYLES[: len(logs)]]
        legend = figure.legend(lines, ["run"] * len(lines), loc="lower center", ncols=2, handlelength=_HANDLE_LENGTH)
        _name_series(legend, list(logs))
        return figure_png(figure)


def drawn_panels(logs: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Panel]:
    """The panels for which some log has a value."""
    return [panel for panel in PANELS if logged_columns(logs, panel.labels)]


def logged_columns(logs: Mapping[str, Mapping[str, Sequence[float]]], names: Iterable[str]) -> list[str]:
    """Those of the names under which some log has a value."""
    return [name for name in names if any(not math.isnan(v) for log in logs.values() for v in log.get(name, ()))]


def draw_cmc(curves: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the share of queries whose first right match is at rank r or better, for one model or two.

    Args:
        curves: Shares in 0..1 for ranks 1, 2, ..., by the model's name.

    Returns:
        A PNG file's bytes.
    """
    longest = max(len(shares) for shares in curves.values())
    with drawing(5.4, 3.3) as figure:
        axes = figure.add_subplot()
        for shares, colour, style in zip(curves.values(), SERIES_COLOURS, _RUN_STYLES, strict=False):
            axes.plot(range(1, len(shares) + 1), 100 * np.asarray(shares), color=colour, label="run", **style)
        axes.set_xticks([1, *range(5, longest + 1, 5)])
        axes.set(xlabel="rank", ylabel="queries with a right match so far (%)")
        axes.set_ylim(top=100.5)
        axes.spines[["top", "right"]].set_visible(False)
        words = [f"{name}: rank-1 {100 * shares[0]:.1f} %" for name, shares in curves.items()]
        _name_series(axes.legend(loc="lower right", handlelength=_HANDLE_LENGTH), words)
        figure.tight_layout()
        return figure_png(figure)


def _draw_series(
    axes: Axes, log: Mapping[str, Sequence[float]], name: str, factor: float, style: Mapping[str, Any]
) -> None:
    """One column against the epoch, markers where only some epochs have a value, as with scores."""
    epochs, values = np.asarray(log[EPOCH]), factor * np.asarray(log.get(name, ()))
    if len(values):
        known = ~np.isnan(values)
        sparse = known.sum() < len(values) or len(values) == 1
        axes.plot(epochs[known], values[known], **{**style, "marker": style["marker"] if sparse else None})


def _name_series(legend: Legend, names: Sequence[str]) -> None:
    """Write names that users gave: as a label, one might start a formula or, with an underscore, be left out."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)
