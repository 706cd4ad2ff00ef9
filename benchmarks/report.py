"""The tables of a comparison."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hamr_edge.benchmarks.latency import Latency
from hamr_edge.benchmarks.results import BenchReport


def print_report(report: BenchReport, console: Console) -> None:
    """Write parity, retrieval and latency as tables, then each artifact's verdict with its reasons."""
    data = report.data
    console.print(
        f"{data['name']}: {data['images']} crops ({data['queries']} query, {data['gallery']} gallery without junk); "
        f"reference {Path(report.reference.artifact).name} ({report.reference.backend}, {report.reference.precision})",
        markup=False,
    )
    for table in (_parity_table(report), _retrieval_table(report), _latency_table(report), _overhead_table(report)):
        if table.row_count:
            console.print(table)
    for result in report.results:
        colour = "red" if result.failures else "green"
        console.print(f"[{colour}]{result.verdict}[/{colour}]", end=" ")
        console.print(result.artifact, markup=False, soft_wrap=True)
        for failure in result.failures:
            console.print(f"  - {failure}", markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _parity_table(report: BenchReport) -> Table:
    table = _table("Parity", "artifact", "min cosine", "1st pct.", "mean", "top-1 agrees", "overlap at 10", "in batch")
    for result in report.results:
        parity = result.parity
        table.add_row(
            Path(result.artifact).name,
            f"{parity.min_cosine:.6f}",
            f"{parity.p01_cosine:.6f}",
            f"{parity.mean_cosine:.6f}",
            f"{100 * parity.top1_agreement:.2f} %",
            f"{100 * parity.overlap_at_10:.2f} %",
            f"{result.batch_consistency.min_cosine:.6f}",
        )
    return table


def _retrieval_table(report: BenchReport) -> Table:
    table = _table("Retrieval", "model", "rank-1", "change", "mAP", "change")
    scores = report.reference.retrieval
    table.add_row(
        Path(report.reference.artifact).name, f"{100 * scores.rank1:.2f} %", "", f"{100 * scores.map:.2f} %", ""
    )
    for result in report.results:
        parity = result.parity
        table.add_row(
            Path(result.artifact).name,
            f"{100 * parity.rank1:.2f} %",
            f"{100 * parity.rank1_delta:+.2f}",
            f"{100 * parity.map:.2f} %",
            f"{100 * parity.map_delta:+.2f}",
        )
    return table


def _latency_table(report: BenchReport) -> Table:
    table = _table("Latency (ms a batch)", "model", "batch", "p50", "p95", "p99", "images/s", "speedup (5-95 %)", "MB")
    reference = report.reference
    rows: list[tuple[str, Latency, str]] = [
        (Path(reference.artifact).name, latency, "") for latency in reference.latency
    ]
    for result in report.results:
        size = f"{result.size_bytes / 1e6:.1f}"
        rows += [(Path(result.artifact).name, latency, size) for latency in result.latency]
    for name, latency, size in sorted(rows, key=lambda row: row[1].batch):
        speedup = latency.speedup
        table.add_row(
            name,
            str(latency.batch),
            f"{latency.p50_ms:.2f}",
            f"{latency.p95_ms:.2f}",
            f"{latency.p99_ms:.2f}",
            f"{latency.images_per_s:.1f}",
            f"{speedup.median:.2f} ({speedup.low:.2f}-{speedup.high:.2f})" if speedup else "",
            size,
        )
    return table


def _overhead_table(report: BenchReport) -> Table:
    table = _table(
        "Embedder.embed on a 1080p frame", "artifact", "boxes", "embed ms", "session ms", "overhead (5-95 %)"
    )
    for result in report.results:
        overhead = result.embed_overhead
        if overhead is not None:
            table.add_row(
                Path(result.artifact).name,
                str(overhead.boxes),
                f"{overhead.embed_p50_ms:.2f}",
                f"{overhead.session_p50_ms:.2f}",
                f"{100 * overhead.overhead:+.1f} % ({100 * overhead.low:+.1f} to {100 * overhead.high:+.1f})",
            )
    return table
