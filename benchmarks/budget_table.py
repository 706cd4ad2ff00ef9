"""What was asked of each artifact beside what it gave."""

from __future__ import annotations

from collections.abc import Callable

from hamr_edge.benchmarks.report_tables import ReportTable
from hamr_edge.benchmarks.report_text import NONE, printable
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport

_Measured = Callable[[ArtifactResult, BenchReport], float | None]
_MEASURED: dict[str, tuple[str, _Measured]] = {
    "cosine": ("least cosine", lambda result, _: result.parity.min_cosine),
    "p01_cosine": ("1st pct. cosine", lambda result, _: result.parity.p01_cosine),
    "map": ("mAP lost", lambda result, _: -100 * result.parity.map_delta + 0.0),
    "rank1": ("rank-1 lost", lambda result, _: -100 * result.parity.rank1_delta + 0.0),
    "batch_cosine": (
        "cosine in a batch",
        lambda result, _: result.batch_consistency.min_cosine if result.batch_consistency else None,
    ),
    "separation": ("d' of the reference's", lambda result, report: _share_of_d_prime(result, report)),
    "cross_map": (
        "mAP lost, its gallery",
        lambda result, _: -100 * result.cross_gallery.map_delta + 0.0 if result.cross_gallery else None,
    ),
    "cross_rank1": (
        "rank-1 lost, its gallery",
        lambda result, _: -100 * result.cross_gallery.rank1_delta + 0.0 if result.cross_gallery else None,
    ),
    "threshold_shift": ("threshold moved", lambda result, _: abs(result.match_threshold.shift)),
    "speedup": ("least x speed", lambda result, _: _least_speedup(result)),
}
"""By the budget's name: the column's title, and what was measured."""


def budget_table(report: BenchReport) -> ReportTable:
    """One row an artifact: what it gave, of what was asked."""
    judged = report.judged
    asked = [name for name in _MEASURED if any(result.budgets.get(name) is not None for result in judged)]
    rows = []
    for result in judged:
        cells = []
        for name in asked:
            budget, measured = result.budgets.get(name), _MEASURED[name][1](result, report)
            cells.append(NONE if budget is None or measured is None else f"{_figure(name, measured)} of {budget:g}")
        rows.append((printable(result.name), result.verdict, *cells))
    return ReportTable(
        "Verdicts and budgets",
        "What was measured, of what was asked; losses in points. Below one query's worth, a loss of rank-1 is no miss.",
        ("artifact", "verdict", *(_MEASURED[name][0] for name in asked)),
        tuple(rows),
        words=frozenset({"verdict"}),
    )


def _figure(name: str, measured: float) -> str:
    if name.endswith("cosine"):
        return f"{measured:.6f}"
    if name == "threshold_shift":
        return f"{measured:.4f}"
    return f"{measured:.3f}" if name in ("separation", "speedup") else f"{round(measured, 2) + 0.0:.2f}"


def _share_of_d_prime(result: ArtifactResult, report: BenchReport) -> float | None:
    whole = report.reference.separation.d_prime
    return result.separation.d_prime / whole if whole > 0 else None


def _least_speedup(result: ArtifactResult) -> float | None:
    return min((latency.speedup.median for latency in result.latency if latency.speedup), default=None)
