"""Which block loses what when it is quantised: the search for int8 as a table, JSON and a plot."""

from __future__ import annotations

import io
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hamr_edge.calibration.search import QuantisedNetwork
from hamr_edge.errors import UnavailableError


def sensitivity_table(search: QuantisedNetwork) -> Table:
    """The blocks, the one that loses most first; the cost is that of giving it back to float."""
    table = Table(
        title=f"{search.flavour}: each block quantised alone ({search.calibrator}), cost of giving it back",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("block")
    for name in (
        "loss of mAP",
        "of rank-1",
        "1st pct. cosine",
        "mean cosine",
        f"cost ({_unit(search)})",
        "loss / cost",
    ):
        table.add_column(name, justify="right")
    table.add_column("is")
    kept = {block.name for block in search.kept}
    for item in sorted(search.blocks, key=lambda item: -item.points):
        state = "int8" if item.block.name not in kept else "given back" if item.block.quantised else "float"
        table.add_row(
            item.block.name,
            f"{item.loss.map_drop:.2f}",
            f"{item.loss.rank1_drop:.2f}",
            f"{item.loss.p01_cosine:.4f}",
            f"{item.loss.mean_cosine:.4f}",
            f"{_cost(search, item.cost):.3g}",
            f"{item.points / _cost(search, item.cost):.3g}" if item.cost else "-",
            state,
        )
    return table


def calibrator_table(search: QuantisedNetwork) -> Table:
    """What each calibrator loses with every block quantised."""
    table = Table(title=f"{search.flavour}: calibrators, all blocks", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("calibrator")
    for name in ("loss of mAP", "of rank-1", "min cosine", "1st pct.", "mean"):
        table.add_column(name, justify="right")
    for name, loss in search.calibrators.items():
        table.add_row(
            f"{name}, taken" if name == search.calibrator else name,
            f"{loss.map_drop:.2f}",
            f"{loss.rank1_drop:.2f}",
            f"{loss.min_cosine:.4f}",
            f"{loss.p01_cosine:.4f}",
            f"{loss.mean_cosine:.4f}",
        )
    return table


def draw_sensitivity(search: QuantisedNetwork) -> bytes:
    """The blocks' losses as bars, in graph order: a PNG file's bytes.

    Raises:
        UnavailableError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(f"Matplotlib cannot be imported ({error}); pip install 'hamr-edge[figures]'") from error
    kept = {block.name for block in search.kept}
    items = search.blocks
    figure = Figure(figsize=(8, 0.9 + 0.34 * len(items)), dpi=160, layout="constrained")
    for place, (title, values) in enumerate(
        (
            ("mAP lost, points", [item.loss.map_drop for item in items]),
            ("1 - cosine, 1st percentile", [1 - item.loss.p01_cosine for item in items]),
        )
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        colours = ["#b8b8b8" if item.block.name in kept else "#1f77b4" for item in items]
        axes.barh(range(len(items)), values, color=colours)
        axes.set_yticks(range(len(items)), [item.block.name for item in items] if place == 0 else [""] * len(items))
        axes.invert_yaxis()
        axes.set_xlabel(title)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{search.flavour} ({search.calibrator}): each block quantised alone; grey: stays in float")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def sensitivity_json(search: QuantisedNetwork, artifact: str) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {"schema": 1, "artifact": artifact, **search.to_json()}


def _unit(search: QuantisedNetwork) -> str:
    return "MB" if search.cost_unit == "bytes" else "ms an image"


def _cost(search: QuantisedNetwork, cost: float) -> float:
    return cost / 1e6 if search.cost_unit == "bytes" else cost
