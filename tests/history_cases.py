"""Reports to hold against each other: one as bench writes it, and such as differ in one thing."""

from __future__ import annotations

import copy
import json
from typing import Any

from hamr_edge.benchmarks.history import History
from tests.made_reports import made_report

INT8 = 2
"""The place of a judged artifact among the made report's results; of one beside."""
OSNET = 4
OLD_RESULT = ("artifact", "backend", "precision", "device", "size_bytes", "latency", "parity", "batch_consistency",
              "budgets", "failures", "verdict")  # fmt: skip
OLD_PARITY = ("images", "not_finite", "max_norm_error", "min_cosine", "p01_cosine", "mean_cosine", "worst_crop",
              "top1_agreement", "overlap_at_10", "rank1", "rank5", "rank10", "map", "queries", "rank1_delta",
              "map_delta")  # fmt: skip
OLD_LATENCY = ("batch", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "mean_ms", "images_per_s", "iterations", "speedup")
MADE = json.loads(json.dumps(made_report().to_json()))


def with_changes(*changes: tuple[str, Any], place: int | None = INT8) -> dict[str, Any]:
    """The made report with other values; a path such as ``parity.map`` of one result, or of the report when None."""
    report: dict[str, Any] = copy.deepcopy(MADE)
    for path, value in changes:
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        at: Any = report if place is None else report["results"][place]
        for step in steps:
            at = at[step]
        at[last] = value(at[last]) if callable(value) else value
    return report


def with_speed(factor: float, spread: float = 0.005) -> dict[str, float]:
    """A speedup so many times the made one's at batch 1, its median known to this share."""
    median = factor * 1.72
    ends = {"median_low": (1 - spread) * median, "median_high": (1 + spread) * median}
    return {"median": median, "low": 0.5 * median, "high": 2 * median, **ends}


def of_the_version_before() -> dict[str, Any]:
    """As the version before wrote it."""
    report = copy.deepcopy(MADE)
    judged = [result for result in report["results"] if result["role"] == "artifact"]
    report["results"] = [{name: result[name] for name in OLD_RESULT} | {"embed_overhead": None} for result in judged]
    for result in (*report["results"], report["reference"]):
        result["latency"] = [{name: latency[name] for name in OLD_LATENCY} for latency in result["latency"]]
        for latency in result["latency"]:
            if latency["speedup"]:
                latency["speedup"] = {name: latency["speedup"][name] for name in ("median", "low", "high")}
    for result in report["results"]:
        result["parity"] = {name: result["parity"][name] for name in OLD_PARITY}
    for name in ("name", "size_bytes", "separation", "end_to_end", "stages", "cold_start", "energy"):
        del report["reference"][name]
    del report["notes"], report["data"]["folder"], report["environment"]["state"]
    return report


def moved(history: History) -> list[tuple[str, str]]:
    """Quantity and verdict of what is better or worse."""
    return [(change.quantity, change.verdict) for change in history.moved]
