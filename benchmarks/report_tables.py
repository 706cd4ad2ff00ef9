"""The tables of a report as plain text cells: terminal, Markdown and HTML show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hamr_edge.benchmarks.report_text import (
    NONE,
    cosine,
    megabytes,
    percent,
    points,
    points_between,
    printable,
    signed,
)
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport, ReferenceResult
from hamr_edge.benchmarks.separation import Separation


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table; the first cell of a row names it, the others are figures."""

    title: str
    caption: str
    """What the columns are, in a sentence or two."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sections: frozenset[int] = frozenset()
    """Rows that begin a new group, such as the next batch size."""
    words: frozenset[str] = frozenset()
    """Columns that hold words, not figures."""


Model = ReferenceResult | ArtifactResult


def all_models(report: BenchReport) -> list[Model]:
    """The reference, then the others."""
    return [report.reference, *report.results]


def build_table(
    title: str,
    caption: str,
    columns: Sequence[str],
    models: Iterable[Model],
    rows: Sequence[Sequence[str]],
    sections: frozenset[int] = frozenset(),
    words: Sequence[str] = (),
) -> ReportTable:
    """A table with the models' names in front, and without columns that say nothing."""
    kept = [place for place in range(len(columns)) if any(row[place] not in ("", NONE) for row in rows)]
    named = tuple(
        (printable(model.name), *(row[place] for place in kept)) for model, row in zip(models, rows, strict=True)
    )
    return ReportTable(
        title, caption, ("model", *(columns[place].strip() for place in kept)), named, sections, frozenset(words)
    )


def quality_tables(report: BenchReport, full: bool = True) -> list[ReportTable]:
    """How good the models are: all tables that have something to say, in the order in which they are read.

    Args:
        report: The comparison.
        full: Every column; otherwise those that people look at first.
    """
    makers: tuple[Callable[[BenchReport, bool], ReportTable], ...] = (
        _retrieval,
        _agreement,
        _by_batch,
        _telling_apart,
        _mixed_galleries,
    )
    tables = [maker(report, full) for maker in makers if full or maker is not _by_batch]
    return [table for table in tables if table.rows and len(table.columns) > 1]


def models_table(report: BenchReport) -> ReportTable:
    """Who takes part, and where it lies."""
    models = all_models(report)
    rows = [
        [
            "reference" if isinstance(model, ReferenceResult) else model.role,
            printable(model.backend),
            printable(model.precision),
            printable(model.device),
            str(model.embedding_dim),
            megabytes(model.size_bytes),
            printable(model.artifact),
        ]
        for model in models
    ]
    columns = ["role", "backend", "precision", "device", "values", "MB", "file or command"]
    words = ("role", "backend", "precision", "device", "file or command")
    return build_table(
        "Models", "Values: of an embedding. Beside: measured, not judged.", columns, models, rows, words=words
    )


def sensitivity_table(result: ArtifactResult) -> ReportTable:
    """What each block costs when it alone is quantised."""
    rows = tuple(
        (
            printable(block.block),
            cosine(block.mean_cosine),
            NONE if block.map_delta is None else points(block.map_delta),
            "float" if block.kept_float else "int8",
        )
        for block in result.sensitivity
    )
    return ReportTable(
        f"Blocks of {printable(result.name)}",
        "As calibration measured it, on crops of its own: this block alone quantised. Change of mAP in points.",
        ("block", "mean cosine", "change of mAP", "in the artifact"),
        rows,
        words=frozenset({"in the artifact"}),
    )


def _agreement(report: BenchReport, full: bool) -> ReportTable:
    rows = []
    for result in report.results:
        parity, alone = result.parity, result.batch_consistency
        rows.append(
            [
                cosine(parity.min_cosine),
                cosine(parity.p01_cosine),
                cosine(parity.mean_cosine),
                percent(parity.top1_agreement),
                percent(parity.overlap_at_10),
                cosine(alone.min_cosine if alone else None),
                str(parity.not_finite) if parity.not_finite else "",
                printable(parity.worst_crop or NONE) if full else "",
            ]
        )
    columns = ["least cosine", "1st pct.", "mean", "top-1 same %", "overlap at 10 %", "in a batch", "not finite"]
    return build_table(
        "Agreement with the reference",
        "Cosine of each crop's two embeddings; share of crops whose nearest other crop is the same, and of the 10 "
        "nearest in common; in a batch: least cosine of a crop in company to itself alone.",
        [*columns, "worst crop"],
        report.results,
        rows,
        words=("worst crop",),
    )


def _by_batch(report: BenchReport, full: bool) -> ReportTable:  # noqa: ARG001
    found = [
        (result, batch)
        for result in report.results
        for batch in (result.batch_consistency.by_batch if result.batch_consistency else ())
    ]
    rows = [
        [
            str(batch.batch),
            cosine(batch.min_cosine),
            cosine(batch.p01_cosine),
            cosine(batch.mean_cosine),
            printable(batch.worst_crop),
        ]
        for _, batch in found
    ]
    return build_table(
        "Agreement by batch size",
        "Cosine to the reference of some crops, in batches of each size and in random order.",
        ["batch", "least cosine", "1st pct.", "mean", "worst crop"],
        [result for result, _ in found],
        rows,
        sections=frozenset(row for row in range(1, len(found)) if found[row][0] is not found[row - 1][0]),
        words=("worst crop",),
    )


def _retrieval(report: BenchReport, full: bool) -> ReportTable:
    scores = report.reference.retrieval
    middle = [percent(scores.rank5), percent(scores.rank10)] if full else ["", ""]
    rows = [[percent(scores.rank1), "", *middle, percent(scores.map), "", percent(scores.minp), ""]]
    for result in report.results:
        parity = result.parity
        middle = [percent(parity.rank5), percent(parity.rank10)] if full else ["", ""]
        rows.append(
            [
                percent(parity.rank1),
                f"{points(parity.rank1_delta)} ({points_between(parity.rank1_interval)})",
                *middle,
                percent(parity.map),
                f"{points(parity.map_delta)} ({points_between(parity.map_interval)})",
                percent(parity.minp),
                points(parity.minp_delta),
            ]
        )
    return build_table(
        "Retrieval, %",
        f"{scores.queries} queries, {scores.gallery} gallery crops; change in points, with its 95 % interval over "
        f"queries. One query is {100 / max(scores.queries, 1):.2f} points of rank-1.",
        ["rank-1", "change (95 %)", "rank-5", "rank-10", "mAP", "change (95 %)", "mINP", "change"],
        all_models(report),
        rows,
    )


def _mixed_galleries(report: BenchReport, full: bool) -> ReportTable:  # noqa: ARG001
    found = [(result, result.cross_gallery) for result in report.results if result.cross_gallery is not None]
    rows = [
        [percent(cross.rank1), points(cross.rank1_delta), percent(cross.map), points(cross.map_delta)]
        for _, cross in found
    ]
    return build_table(
        "Against the reference's gallery, %",
        "The model's queries, a gallery that the reference embedded: a fleet while it is updated.",
        ["rank-1", "change", "mAP", "change"],
        [result for result, _ in found],
        rows,
    )


def _telling_apart(report: BenchReport, full: bool) -> ReportTable:
    first = report.results[0].match_threshold if report.results else None
    known = (f"{first.reference:.4f}", "", percent(first.reference_true_accept_rate)) if first else ("", "", "")
    rows = [[*_separation(report.reference.separation), *known, "", ""]]
    for result in report.results:
        found, same_space = result.match_threshold, result.cross_gallery is not None
        rows.append(
            [
                *_separation(result.separation),
                f"{found.artifact:.4f}",
                signed(found.shift, 4) if same_space else NONE,
                percent(found.true_accept_rate),
                f"{100 * found.kept_false_accept_rate:.3g}" if same_space else NONE,
                percent(found.kept_true_accept_rate) if same_space and full else NONE,
            ]
        )
    aimed = f" at {100 * first.false_accept_rate:g} % false accepts" if first else ""
    return build_table(
        f"Telling people apart{aimed}",
        "Mean cosine of one person's pairs and of different people's; d': how far apart they lie, in deviations; "
        "accepted: pairs of one person above the threshold. Old: with the reference's threshold kept.",
        ["same", "different", "d'", "threshold", "shift", "accepted %", "old: false %", "old: accepted %"],
        all_models(report),
        rows,
    )


def _separation(separation: Separation) -> list[str]:
    return [f"{separation.same:.3f}", f"{separation.different:.3f}", f"{separation.d_prime:.2f}"]
