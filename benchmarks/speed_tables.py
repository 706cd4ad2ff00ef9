"""The tables of a report on time, memory and energy."""

from __future__ import annotations

from hamr_edge.benchmarks.latency import STEADY, Latency
from hamr_edge.benchmarks.report_tables import Model, ReportTable, all_models, build_table
from hamr_edge.benchmarks.report_text import NONE, megabytes, milliseconds, printable, signed, speedup_text
from hamr_edge.benchmarks.results import BenchReport


def speed_tables(report: BenchReport, full: bool = True) -> list[ReportTable]:
    """How fast and how large the models are: all tables that have something to say.

    Args:
        report: The comparison.
        full: Every column; otherwise those that people look at first.
    """
    models = all_models(report)
    tables = (
        _times(
            "Latency of a ready batch, ms",
            "batch",
            "From crops in host memory to embeddings there",
            [(model, latency) for model in models for latency in model.latency],
            full,
        ),
        _times(
            "End to end, ms",
            "boxes",
            "From a frame and its boxes to embeddings, each model in its own way",
            [(model, latency) for model in models for latency in model.end_to_end],
            full,
        ),
        _stages(models),
        _start(models, full),
        _energy(models),
    )
    return [table for table in tables if table.rows and len(table.columns) > 1]


def _times(title: str, unit: str, what: str, timed: list[tuple[Model, Latency]], full: bool) -> ReportTable:
    timed = sorted(timed, key=lambda pair: pair[1].batch)
    rows = []
    for _, latency in timed:
        speedup = latency.speedup
        rows.append(
            [
                str(latency.batch),
                milliseconds(latency.p50_ms),
                milliseconds(latency.p90_ms) if full else "",
                milliseconds(latency.p95_ms),
                milliseconds(latency.p99_ms),
                milliseconds(latency.mean_ms) if full else "",
                f"{latency.images_per_s:.1f}",
                speedup_text(speedup) if speedup else "",
                f"{speedup.low:.2f} to {speedup.high:.2f}" if speedup and full else "",
                f"{100 * latency.uncertainty:.1f}{' !' if latency.uncertainty > STEADY else ''}",
                str(latency.iterations) if full else "",
            ]
        )
    return build_table(
        title,
        f"{what}. x speed: the reference's time over this one's, round by round, and the 95 % interval of its median; "
        f"±: how well that is known, ! where worse than {100 * STEADY:g} %.",
        [
            *(unit, "p50", "p90", "p95", "p99", "mean", "images/s"),
            *("x speed (95 %)", "rounds 5-95 %", "± %", "rounds"),
        ],
        [model for model, _ in timed],
        rows,
        sections=frozenset(row for row in range(1, len(timed)) if timed[row][1].batch != timed[row - 1][1].batch),
    )


def _stages(models: list[Model]) -> ReportTable:
    found = [(model, model.stages) for model in models if model.stages is not None]
    rows = [
        [
            str(split.boxes),
            milliseconds(split.crop_ms),
            NONE if model.device == "cpu" else milliseconds(split.upload_ms),
            milliseconds(split.compute_ms),
            NONE if model.device == "cpu" else milliseconds(split.download_ms),
            milliseconds(split.end_to_end_ms),
            f"{signed(100 * split.overhead, 1)} %",
        ]
        for model, split in found
    ]
    return build_table(
        "Stages of a frame, ms",
        "Each timed by itself; overhead: what the whole takes beyond the stages' sum.",
        ["boxes", "crop", "upload", "compute", "download", "end to end", "overhead"],
        [model for model, _ in found],
        rows,
    )


def _start(models: list[Model], full: bool) -> ReportTable:
    rows = []
    for model in models:
        start = model.cold_start
        times = [NONE] * 4
        if start is not None:
            steps = (start.import_ms, start.load_ms, start.first_embedding_ms, start.to_first_embedding_ms)
            times = [NONE if step is None else milliseconds(step) for step in steps]
        rows.append(
            [
                *times,
                f"{start.peak_memory_mb:.0f}" if start else NONE,
                f"{start.gpu_memory_mb:.0f}" if start and start.gpu_memory_mb is not None else NONE,
                megabytes(model.size_bytes),
                str(model.embedding_dim) if full else "",
            ]
        )
    return build_table(
        "Start, memory and size",
        "Of a fresh process: milliseconds to its first embedding, and its memory at the highest. MB: 1e6 bytes.",
        ["import ms", "load ms", "first ms", "in all ms", "memory MB", "GPU MB", "file MB", "values"],
        models,
        rows,
    )


def _energy(models: list[Model]) -> ReportTable:
    found = [(model, model.energy) for model in models if model.energy is not None]
    rows = [
        [
            str(energy.batch),
            f"{energy.watts:.2f}",
            f"{energy.idle_watts:.2f}",
            f"{energy.millijoules_per_image:.4g}",
            str(energy.samples),
            printable(energy.sensor),
        ]
        for _, energy in found
    ]
    return build_table(
        "Energy",
        "While one model runs alone; mJ/image: the whole draw, idle included.",
        ["batch", "W", "idle W", "mJ/image", "readings", "sensor"],
        [model for model, _ in found],
        rows,
        words=("sensor",),
    )
