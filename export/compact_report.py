"""What a compact embedding keeps: retrieval scores, bytes and search time by the number of values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hamr_edge.dataset import LabelledCrops
from hamr_edge.export.compact import Projection, unit_rows
from hamr_edge.export.raw_embeddings import embed_raw_files
from hamr_edge.export.search_time import measure_search_ms
from hamr_edge.machine import describe_machine, library_versions
from hamr_edge.ranking import RetrievalScores, score_retrieval
from hamr_edge.trainer.network import Hamr

DIMS = (64, 128, 256, 512, 1024, 2048)
"""Values of an embedding that the report tries, as far as the training crops span them, beside the chosen and all."""
SEARCHED = 10_000
"""Rows of the gallery whose search is timed."""
_ROUNDS = 11
_BYTES_PER_VALUE = 4


@dataclass(frozen=True, slots=True)
class CompactRow:
    """One number of values. Scores in 0..1."""

    dim: int
    compact: bool
    """Whether a projection made it; if not, it is the network's own embedding."""
    rank1: float
    map: float
    bytes_per_embedding: int
    """Of float32."""
    search_ms: float
    """Exact search of one query in one thread; see :func:`hamr_edge.export.search_time.measure_search_ms`."""
    variance_share: float
    """Of the training crops' variance, 0..1."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Scores on people that the projection was not learned on, by the number of values; the last row has all."""

    rows: tuple[CompactRow, ...]
    chosen_dim: int
    dataset: str
    queries: int
    """Queries that count."""
    gallery: int
    whitening: float
    learned_on: int
    """Training crops."""
    searched: int
    """Rows of the gallery whose search was timed."""
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {"schema": 1, **asdict(self), "rows": [asdict(row) for row in self.rows]}


def report_dimensions(
    network: Hamr,
    query: LabelledCrops,
    gallery: LabelledCrops,
    projection: Projection,
    chosen_dim: int,
    dataset: str,
    searched: int = SEARCHED,
    quiet: bool = True,
) -> CompactReport:
    """Score the network's own embeddings and compact ones of several widths on the same crops.

    The scores are of the trained network's embeddings with the projection behind them. The artifact into which it is
    folded gives the same within the check before publishing.

    Args:
        network: The trained network.
        query: Crops of people that were not trained on.
        gallery: The same people and others, without junk: :func:`hamr_edge.scored_crops.choose_crops`. 4,000 crops of
            10,752 values take 0.2 GB.
        projection: As many values as the training crops span, or 2048: :func:`learn_projection` with ``most``.
        chosen_dim: The number of values that is exported, reported in any case.
        dataset: What to call the crops.
        searched: Rows of the gallery whose search is timed, at least 10.
        quiet: No progress bar.

    Raises:
        InputError: ``chosen_dim`` is more than the projection has, a crop cannot be read, or nothing can be scored.
    """
    own_dim = network.config.embedding_dim
    dims = sorted({dim for dim in (*DIMS, projection.first(chosen_dim).dim) if dim <= projection.dim})
    labels = (query.identities, gallery.identities, query.cameras, gallery.cameras)
    raw = [
        embed_raw_files(network, query.paths, quiet, "query"),
        embed_raw_files(network, gallery.paths, quiet, "gallery"),
    ]
    own = score_retrieval(unit_rows(raw[0]), unit_rows(raw[1]), *labels)
    compact = [projection.project(part) for part in raw]
    times = measure_search_ms(sorted({*dims, own_dim}), searched, _ROUNDS)
    rows = []
    for dim in dims:  # the product with the first columns is the first columns of the product
        scores = score_retrieval(unit_rows(compact[0][:, :dim]), unit_rows(compact[1][:, :dim]), *labels)
        rows.append(_row(dim, True, scores, times[dim], projection.first(dim).variance_share))
    return CompactReport(
        rows=(*rows, _row(own_dim, False, own, times[own_dim], 1.0)),
        chosen_dim=chosen_dim,
        dataset=dataset,
        queries=own.queries,
        gallery=own.gallery,
        whitening=projection.whitening,
        learned_on=projection.crops,
        searched=searched,
        environment={
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **describe_machine(),
            "libraries": library_versions(),
        },
    )


def dimension_table(report: CompactReport) -> Table:
    """The report as a table; the row of the chosen number of values is bold."""
    title = (
        f"Compact embeddings on {report.dataset}: {report.queries} queries, {report.gallery} gallery crops; projection "
        f"learned on {report.learned_on} training crops, whitening {report.whitening:g}; exact search of one query "
        f"among {report.searched} in one thread"
    )
    table = Table(title=Text(title, "table.title"), title_justify="left", box=SIMPLE_HEAD)
    for name in ("values", "rank-1", "mAP", "change of mAP", "bytes a person", "search"):
        table.add_column(name, justify="right")
    own = report.rows[-1]
    for row in report.rows:
        table.add_row(
            f"{row.dim}" if row.compact else f"{row.dim} (all)",
            f"{100 * row.rank1:.2f} %",
            f"{100 * row.map:.2f} %",
            f"{100 * (row.map - own.map):+.2f}" if row.compact else "",
            f"{row.bytes_per_embedding}",
            f"{row.search_ms:.2f} ms",
            style="bold" if row.compact and row.dim == report.chosen_dim else None,
        )
    return table


def _row(dim: int, compact: bool, scores: RetrievalScores, search_ms: float, variance_share: float) -> CompactRow:
    return CompactRow(dim, compact, scores.rank1, scores.map, _BYTES_PER_VALUE * dim, search_ms, variance_share)
