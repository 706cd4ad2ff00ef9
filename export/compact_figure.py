"""The plot of a report on compact embeddings."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from hamr_edge.errors import UnavailableError
from hamr_edge.export.compact_report import CompactReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAP_COLOUR, _RANK1_COLOUR = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito's palette for colour-blind readers."""


def draw_dimensions(report: CompactReport) -> bytes:
    """Draw scores, and the time of a search, against the number of values; the network's own embedding is dashed.

    Returns:
        A PNG file's bytes; the same report gives the same bytes.

    Raises:
        UnavailableError: Matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(
            f"Matplotlib, which draws the plot, cannot be imported ({error}); pip install 'hamr-edge[figures]'"
        ) from error
    own = report.rows[-1]
    compact = [row for row in report.rows if row.compact]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 8.5, "axes.grid": True, "grid.color": "#dddddd", "axes.titlesize": 9.5})
        figure = Figure(figsize=(9.0, 3.4), dpi=160, facecolor="white", layout="constrained")
        scores, search = figure.subplots(1, 2)
        for label, colour, marker, values, whole in (
            ("rank-1", _RANK1_COLOUR, "s", [100 * row.rank1 for row in compact], 100 * own.rank1),
            ("mAP", _MAP_COLOUR, "o", [100 * row.map for row in compact], 100 * own.map),
        ):
            scores.plot([row.dim for row in compact], values, marker + "-", color=colour, label=label)
            scores.axhline(whole, color=colour, linestyle="--", linewidth=1, label=f"{label}, all {own.dim} values")
        scores.set_title("Retrieval (%)", loc="left")
        scores.legend(frameon=False)
        search.plot([row.dim for row in report.rows], [row.search_ms for row in report.rows], "o-", color=_MAP_COLOUR)
        search.set_yscale("log")
        search.set_title(f"Search of one query among {report.searched} (ms)", loc="left")
        _scale_dims(scores, [row.dim for row in compact], report.chosen_dim)
        _scale_dims(search, [row.dim for row in report.rows], report.chosen_dim)
        file = BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _scale_dims(axes: Axes, dims: list[int], chosen_dim: int) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [str(dim) for dim in dims], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("values of an embedding (4 bytes each)")
    axes.axvline(chosen_dim, color="#5a5a5a", linestyle=":", linewidth=1)
