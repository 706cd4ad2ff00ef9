"""The tables of a comparison of training steps."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_PRECISIONS = {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}


def print_step_report(report: dict[str, Any], console: Console) -> None:
    """Write what ``step_benchmark`` measured: the bound, then the steps and their share of it."""
    height, width = report["size_hw"]
    environment = report["environment"]
    console.print(
        f"{environment['cpu'] if environment['device'] == 'cpu' else environment['device']}, "
        f"{environment['threads']} CPU threads, load {environment['load_average']}, "
        f"torch {environment['libraries'].get('torch')}, {environment['date']}; "
        f"batch {report['batch']} of {height} x {width}{', CPU seconds' if report['cpu_time'] else ''}",
        markup=False,
        soft_wrap=True,
    )
    if report["authors_revision"]:
        loss = report["loss"]
        console.print(f"authors' code at {report['authors_revision']}", markup=False)
        console.print(f"loss of the same features: ours {loss['ours']:.6f}, authors' {loss['authors']:.6f}")
    console.print(_bound_table(report))
    console.print(_step_table(report))
    ours = next(row for row in report["contestants"] if row["name"] == "ours")
    share = 100 * report["augmentation_s"] / ours["median_s"]
    console.print(f"augmentation, not in the steps: {1000 * report['augmentation_s']:.1f} ms a batch, {share:.1f} %")


def _bound_table(report: dict[str, Any]) -> Table:
    table = Table(title="What bounds a step", box=SIMPLE_HEAD)
    for name in ("", "product GFLOP/s", "best convolution GFLOP/s", "convolutions alone: forward s", "backward s"):
        table.add_column(name, justify="left" if not name else "right")
    for rate in report["bound"]["rates"]:
        table.add_row(
            _PRECISIONS[rate["amp"]],
            f"{rate['product_gflops']:.0f}",
            f"{rate['best_convolution_gflops']:.0f}",
            f"{rate['forward_convolutions_s']:.3f}",
            f"{rate['backward_convolutions_s']:.3f}",
        )
    return table


def _step_table(report: dict[str, Any]) -> Table:
    first = report["contestants"][0]
    table = Table(title="A training step", box=SIMPLE_HEAD)
    table.add_column("")
    for name in (
        "precision",
        "GFLOP",
        "median s",
        "images/s",
        f"x {first['name']} (5-95 %)",
        "GFLOP/s",
        "convolutions' share",
        "first step s",
    ):
        table.add_column(name, justify="right")
    bounds = {
        rate["amp"]: rate["forward_convolutions_s"] + rate["backward_convolutions_s"]
        for rate in report["bound"]["rates"]
    }
    for row in report["contestants"]:
        speedup, bound = row["speedup"], bounds.get(row["amp"])
        gflop = report["bound"]["gflop_an_image"][row["name"].removesuffix(", compiled")]["step"] * report["batch"]
        table.add_row(
            row["name"],
            _PRECISIONS[row["amp"]],
            f"{gflop:.0f}",
            f"{row['median_s']:.3f}",
            f"{row['images_per_s']:.2f}",
            f"{speedup['median']:.2f} ({speedup['low']:.2f}-{speedup['high']:.2f})",
            f"{gflop / row['median_s']:.0f}",
            "" if bound is None else f"{100 * bound / row['median_s']:.0f} %",
            f"{row['first_step_s']:.1f}",
        )
    return table
