"""How well each model of a comparison does: its embeddings of every crop, held against the reference's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.consistency import BatchConsistency, measure_consistency
from hamr_edge.benchmarks.contestant import Contestant, ModelContestant
from hamr_edge.benchmarks.cross_gallery import CrossGallery, measure_cross_gallery
from hamr_edge.benchmarks.match_threshold import MatchThreshold, compare_thresholds
from hamr_edge.benchmarks.parity import (
    CosineHistogram,
    Parity,
    cosine_histogram,
    finite_rows,
    measure_parity,
    nearest_neighbours,
    row_cosines,
)
from hamr_edge.benchmarks.retrieval import Retrieval, measure_retrieval
from hamr_edge.benchmarks.separation import Separation
from hamr_edge.benchmarks.worst_crops import WorstCrop, find_worst_crops
from hamr_edge.errors import InputError
from hamr_edge.scored_crops import ScoredCrops


@dataclass(frozen=True, slots=True)
class ReferenceAccuracy:
    """The reference's embeddings and what follows from them."""

    embeddings: NDArray[np.float32]
    """(N, D), a row a crop, query first."""
    neighbours: NDArray[np.int64]
    retrieval: Retrieval


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One model's, in the terms of :class:`hamr_edge.benchmarks.results.ArtifactResult`."""

    parity: Parity
    separation: Separation
    match_threshold: MatchThreshold
    cross_gallery: CrossGallery | None
    batch_consistency: BatchConsistency | None
    cosine_histogram: CosineHistogram | None
    worst_crops: tuple[WorstCrop, ...]


def embed_reference(reference: Contestant, crops: ScoredCrops, config: BenchConfig, quiet: bool) -> ReferenceAccuracy:
    """Embed every crop with the reference, which must be open.

    Raises:
        InputError: An embedding is not finite.
    """
    embeddings = reference.embed(crops.paths, config.mirror, quiet)
    finite, _ = finite_rows(embeddings)
    if not finite.all():
        worst = crops.name(int(np.argmin(finite)))
        raise InputError(
            f"the reference {reference.model} embeds {int(np.sum(~finite))} of {len(crops)} crops as NaN or infinity, "
            f"{worst} first; nothing can be held against it"
        )
    return ReferenceAccuracy(embeddings, nearest_neighbours(embeddings), measure_retrieval(embeddings, crops))


def measure_accuracy(
    contestant: Contestant, reference: ReferenceAccuracy, crops: ScoredCrops, config: BenchConfig, quiet: bool
) -> Accuracy:
    """Hold one model, which must be open, against the reference.

    The memory it takes is that of its embeddings, (N, D) float32, besides the reference's.
    """
    given = contestant.embed(crops.paths, config.mirror, quiet)
    _, rows = finite_rows(given)
    retrieval = measure_retrieval(rows, crops, reference.retrieval.threshold)
    before = reference.retrieval.scores
    parity = measure_parity(
        reference.embeddings, reference.neighbours, before, given, retrieval.scores, crops, config.seed
    )
    same_width = rows.shape[1] == reference.embeddings.shape[1]
    cosines = row_cosines(reference.embeddings, rows) if same_width else None
    consistency = None
    if isinstance(contestant, ModelContestant):
        consistency = measure_consistency(
            contestant.backend,
            crops,
            config.batches,
            np.random.default_rng(config.seed),
            reference.embeddings if same_width and not config.mirror else None,
        )
    return Accuracy(
        parity=parity,
        separation=retrieval.separation,
        match_threshold=compare_thresholds(reference.retrieval, retrieval),
        cross_gallery=measure_cross_gallery(rows, reference.embeddings, before.summary(), crops)
        if same_width
        else None,
        batch_consistency=consistency,
        cosine_histogram=None if cosines is None else cosine_histogram(cosines),
        worst_crops=()
        if cosines is None
        else find_worst_crops(reference.embeddings, rows, cosines, crops, common_folder(crops.paths)),
    )


def common_folder(paths: Sequence[Path]) -> Path:
    """The folder that all files lie in, at any depth."""
    return Path(os.path.commonpath([path.parent for path in paths]))
