"""The tables of a comparison of rankings."""

from __future__ import annotations

import os
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hamr_edge.benchmarks.ranking_agreement import SCORES

_NAMES = ("rank-1", "rank-5", "rank-10", "mAP", "mINP")


def print_ranking_report(report: dict[str, Any], console: Console) -> None:
    """Write what ``ranking_peers`` measured, with the bound beside the times."""
    for name, revision in report["peers"].items():
        console.print(f"{name} at {revision}", markup=False)
    if "whole_step" in report:
        queries, gallery, depth = report["shape"]
        console.print(
            f"{queries} queries, {gallery} gallery images, {depth} values; {report['environment']['threads']} threads; "
            f"the product alone is {report['product_gflop']:.0f} GFLOP",
            markup=False,
        )
        if os.environ.get("OPENBLAS_CORETYPE"):
            console.print(
                f"OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']} is set: numpy does not choose its own kernels"
            )
        console.print(_bound_table(report))
        console.print(_time_table(report))
    console.print(_agreement_table(report))
    if "reranking" in report:
        console.print(_reranking_table(report))


def _bound_table(report: dict[str, Any]) -> Table:
    table = _table("Bound: the product at this machine's float32 rate", "threads", "library", "GFLOP/s", "seconds")
    for threads, rates in report["product_gflops"].items():
        for library, rate in rates.items():
            table.add_row(str(threads), library, f"{rate:.1f}", f"{report['product_gflop'] / rate:.2f}")
    return table


def _time_table(report: dict[str, Any]) -> Table:
    table = _table(
        "From features to scores",
        "contestant",
        "median s",
        "least",
        "greatest",
        "CPU s",
        "x ours",
        "5 to 95 %",
        *_NAMES,
    )
    for row in report["whole_step"]:
        ratio, times = row["ours_is_faster_by"], row["times_s"]
        table.add_row(
            row["contestant"],
            f"{row['median_s']:.2f}",
            f"{min(times):.2f}",
            f"{max(times):.2f}",
            f"{row['cpu_median_s']:.2f}",
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}",
            *_shares(row["scores"]),
        )
    return table


def _agreement_table(report: dict[str, Any]) -> Table:
    table = _table("Difference to our scores on one distance matrix (shares)", "data", "peer", *_NAMES)
    for row in report["agreement"]:
        table.add_row(row["data"], row["peer"], *_differences(row["differences"]))
    return table


def _reranking_table(report: dict[str, Any]) -> Table:
    table = _table("Re-ranked, k1 20, k2 6, lambda 0.3", "contestant", "s, once", "greatest gap", *_NAMES)
    for row in report["reranking"]:
        gap = row.get("greatest_distance_gap")
        table.add_row(
            row["contestant"], f"{row['seconds']:.1f}", "" if gap is None else f"{gap:.1e}", *_shares(row["scores"])
        )
    return table


def _shares(scores: dict[str, float]) -> list[str]:
    return [f"{100 * scores[name]:.4f} %" if name in scores else "-" for name in SCORES]


def _differences(differences: dict[str, float]) -> list[str]:
    return [f"{differences[name]:.1e}" if name in differences else "-" for name in SCORES]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table
