"""The plots of a report, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hamr_edge.benchmarks.inline_svg import (
    INK,
    LINE,
    MODEL_COLOURS,
    PALE,
    PAPER,
    figure_to_svg,
    placeholder,
)
from hamr_edge.benchmarks.pareto import TradeOff, pareto_front
from hamr_edge.benchmarks.report_tables import all_models
from hamr_edge.benchmarks.report_text import printable, shorten
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_MARKERS = "os^DvPX*"
_WIDTH, _NAME_LETTERS, _FONT = 6.4, 24, 9.0


_LEAST_SPAN = 1.0
"""Points of mAP."""


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A plot on the page."""

    heading: str
    svg: str
    caption: str


def draw_trade_off(found: TradeOff, report: BenchReport) -> ReportFigure:
    """Accuracy against time, the Pareto front marked."""
    names = _names(report)
    figure, axes = _axes(3.4, len(found.points))
    front = set(pareto_front(found.points))
    ordered = sorted((found.points[place] for place in front), key=lambda point: point.milliseconds)
    axes.step(
        [point.milliseconds for point in ordered],
        [100 * point.map for point in ordered],
        where="post",
        color=PALE,
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        zorder=1,
    )
    for place, point in enumerate(found.points):
        colour, marker = _look(point.model)
        x, y = point.milliseconds, 100 * point.map
        if point.map_interval is not None:
            low, high = (100 * (point.map - point.map_delta + end) for end in point.map_interval)
            axes.plot([x, x], [low, high], color=colour, linewidth=1.4, zorder=2)
        if place in front:
            axes.plot(x, y, marker="o", markersize=15, color="none", markeredgecolor=PALE, zorder=2)
        axes.plot(x, y, marker=marker, markersize=8, color=colour, markeredgecolor=PAPER, zorder=3)
    _scale_x(axes, [point.milliseconds for point in found.points])
    axes.set_xlabel(f"ms, {found.of}, p50 (left is faster)")
    axes.set_ylabel("mAP, % (up is better)")
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    if high - low < _LEAST_SPAN:  # what is all the same shall look the same
        middle = (low + high) / 2
        axes.set_ylim(middle - _LEAST_SPAN / 2, middle + _LEAST_SPAN / 2)
    _label(axes, [(point.model, point.milliseconds, 100 * point.map) for point in found.points])
    who = ", ".join(printable(names[point.model]) for point in ordered)
    return ReportFigure(
        f"Accuracy against time, {found.of}",
        figure_to_svg(figure, f"trade{found.batch}", f"mAP against latency; on the Pareto front: {who}", _short(names)),
        f"Ringed and joined by the dashed line: the Pareto front ({who}); no other model is both faster and more "
        "accurate. Upright lines: 95 % interval of the change to the reference.",
    )


def draw_throughput(report: BenchReport, end_to_end: bool) -> ReportFigure | None:
    """Images per second against the batch; None unless two sizes were timed."""
    names = _names(report)
    curves = [
        (number, sorted(timed, key=lambda latency: latency.batch))
        for number, model in enumerate(all_models(report))
        if (timed := tuple(model.end_to_end if end_to_end else model.latency))
    ]
    sizes = sorted({latency.batch for _, timed in curves for latency in timed})
    if len(sizes) < 2:
        return None
    figure, axes = _axes(3.4, len(curves))
    for number, lines in curves:
        colour, marker = _look(number)
        batches, rates = [latency.batch for latency in lines], [latency.images_per_s for latency in lines]
        style = "-" if number < len(MODEL_COLOURS) else "--"
        axes.plot(
            batches, rates, style, marker=marker, color=colour, markeredgecolor=PAPER, markersize=7, linewidth=1.6
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    _scale_y(axes, [latency.images_per_s for _, timed in curves for latency in timed])
    unit = "boxes in a frame" if end_to_end else "crops in a batch"
    axes.set_xlabel(unit)
    axes.set_ylabel("images/s (up is better)")
    _label(axes, [(number, timed[-1].batch, timed[-1].images_per_s) for number, timed in curves])
    what = "From a frame to embeddings" if end_to_end else "A ready batch"
    cut = "Cropping and resizing are part of it." if end_to_end else "The crops are ready."
    return ReportFigure(
        f"{what}: images a second",
        figure_to_svg(
            figure, f"rate{int(end_to_end)}", f"images a second against {unit}, a line a model", _short(names)
        ),
        f"Both axes are logarithmic. {cut}",
    )


def draw_histograms(report: BenchReport) -> ReportFigure | None:
    """How far crops lie from the reference; None where no model's embeddings have its width."""
    found = [(1 + number, one.cosine_histogram) for number, one in enumerate(report.results) if one.cosine_histogram]
    if not found:
        return None
    names = _names(report)
    figure, axes = _axes(3.0, len(found))
    used, labels = [], []
    for number, histogram in found:
        edges = np.asarray(histogram.edges, float)
        edges[0] = edges[1] / 2
        shares = 100 * np.asarray(histogram.counts) / max(sum(histogram.counts), 1)
        colour, _ = _look(number)
        axes.stairs(shares, edges, color=colour, linewidth=1.7, linestyle="-" if number < 8 else "--")
        peak = int(np.argmax(shares))
        places = np.flatnonzero(shares)
        used += [edges[places[0]], edges[places[-1] + 1]]
        labels.append((number, float(np.sqrt(edges[peak] * edges[peak + 1])), float(shares[peak])))
    axes.set_xscale("log")
    axes.set_xlim(min(used) / 1.3, max(used) * 1.3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("1 - cosine to the reference (left is closer)")
    axes.set_ylabel("share of crops, %")
    _label(axes, labels)
    return ReportFigure(
        "How far each crop's embedding moved",
        figure_to_svg(figure, "cosines", "histogram of 1 minus cosine, an outline a model", _short(names)),
        "One outline a model, over all crops; the axis is logarithmic, and its first bin holds all that is closer.",
    )


def draw_sensitivity(result: ArtifactResult, number: int) -> ReportFigure:
    """What each block of a quantised artifact costs."""
    blocks = result.sensitivity
    has_map = any(block.map_delta is not None for block in blocks)
    figure = _figure(0.75 + 0.24 * len(blocks))
    panels = figure.subplots(1, 2 if has_map else 1, sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.24, right=0.98, top=0.99, bottom=0.55 / figure.get_figheight(), wspace=0.08)
    colour, _ = _look(number)
    rows = np.arange(len(blocks))
    measured = [("1 - mean cosine", [1 - block.mean_cosine for block in blocks])]
    if has_map:
        lost = [0.0 if block.map_delta is None else -100 * block.map_delta for block in blocks]
        measured.append(("mAP lost, points", lost))
    for axes, (title, values) in zip(panels, measured, strict=True):
        _dress(axes)
        for row, value in enumerate(values):
            kept = blocks[row].kept_float
            axes.barh(row, value, 0.66, color=PAPER if kept else colour, edgecolor=colour, hatch="////" if kept else "")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel(title)
        axes.locator_params(axis="x", nbins=5)
    panels[0].set_yticks(rows, [placeholder(row) for row in range(len(blocks))])
    panels[0].invert_yaxis()
    name = printable(result.name)
    return ReportFigure(
        f"Blocks of {name}",
        figure_to_svg(
            figure,
            f"blocks{number}",
            f"what each block of {name} costs when it alone is quantised",
            [shorten(printable(block.block), 22) for block in blocks],
        ),
        "Each block quantised alone, as calibration measured it. Hatched: left in float in the artifact.",
    )


def model_swatch(number: int) -> str:
    """The CSS variable of a model's colour."""
    return f"var(--m{number % len(MODEL_COLOURS)})"


def _names(report: BenchReport) -> list[str]:
    return [model.name for model in all_models(report)]


def _short(names: Sequence[str]) -> list[str]:
    return [shorten(printable(name), _NAME_LETTERS) for name in names]


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of a model, the same in every plot."""
    shape = (number + number // len(MODEL_COLOURS)) % len(_MARKERS)
    return MODEL_COLOURS[number % len(MODEL_COLOURS)], _MARKERS[shape]


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    figure.patch.set_alpha(0)
    return figure


def _axes(height: float, labels: int) -> tuple[Figure, Axes]:
    """Axes with room for names on the right."""
    figure = _figure(max(height, 0.9 + 0.2 * labels))
    bottom = 0.5 / figure.get_figheight()
    axes = figure.add_axes((0.11, bottom, 0.605, 0.97 - bottom))
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(which="both", colors=PALE, labelsize=_FONT, labelcolor=PALE)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=INK, fontsize=_FONT)
    axes.yaxis.label.set(color=INK, fontsize=_FONT)


def _scale_x(axes: Axes, values: Sequence[float]) -> None:
    if max(values) > 4 * min(values) > 0:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    axes.margins(x=0.08)


def _scale_y(axes: Axes, values: Sequence[float]) -> None:
    if min(values) > 0:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.margins(y=0.08)


def _plain_ticks(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, points: Sequence[tuple[int, float, float]]) -> None:
    """Write the models' names right of the axes, each joined to its point, none over another."""
    axes.autoscale_view()  # now, not when it is drawn: the points' places are needed
    inverse = axes.transAxes.inverted()
    placed = sorted((*inverse.transform(axes.transData.transform((x, y))).tolist(), number) for number, x, y in points)
    placed.sort(key=lambda spot: spot[1])
    gap = 0.19 / (axes.bbox.height / axes.figure.dpi)
    heights = _spread([spot[1] for spot in placed], gap)
    for (x, y, number), height in zip(placed, heights, strict=True):
        colour, marker = _look(number)
        axes.plot(
            [x, 1.0, 1.025], [y, height, height], transform=axes.transAxes, color=colour, linewidth=0.7,
            linestyle=(0, (1, 2)), clip_on=False, zorder=1,
        )  # fmt: skip
        axes.plot(1.045, height, transform=axes.transAxes, marker=marker, color=colour, markersize=6, clip_on=False)
        axes.text(
            1.07, height, placeholder(number), transform=axes.transAxes, color=INK, fontsize=_FONT, va="center_baseline"
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved apart to at least ``gap``, as near as possible to where they were, within 0..1."""
    groups: list[tuple[float, int]] = []
    for height in wanted:
        groups.append((height, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (second, more), (first, some) = groups.pop(), groups.pop()
            groups.append(((first * some + second * more) / (some + more), some + more))
        middle, count = groups[-1]
        half = gap * (count - 1) / 2
        groups[-1] = (min(max(middle, half), 1 - half) if 2 * half <= 1 else 0.5, count)
    return [middle + gap * (place - (count - 1) / 2) for middle, count in groups for place in range(count)]
