"""Queries of one precision against a gallery of another: what a fleet meets while it is updated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.ranking import RetrievalScores, score_retrieval
from hamr_edge.scored_crops import ScoredCrops


@dataclass(frozen=True, slots=True)
class CrossGallery:
    """Scores of the artifact's queries against the reference's gallery, in 0..1."""

    rank1: float
    map: float
    rank1_delta: float
    """Less the reference's own: a loss is negative."""
    map_delta: float


def measure_cross_gallery(
    embeddings: NDArray[np.float32], reference: NDArray[np.float32], scores: RetrievalScores, crops: ScoredCrops
) -> CrossGallery:
    """Rank the reference's gallery for the artifact's queries.

    Args:
        embeddings: (N, D) float32 of the artifact, finite, query rows first.
        reference: (N, D) float32 of the reference.
        scores: The reference's own.
        crops: The crops of the rows.
    """
    split = len(crops.query)
    query, gallery = crops.query, crops.gallery
    mixed = score_retrieval(
        embeddings[:split],
        reference[split:],
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )
    return CrossGallery(mixed.rank1, mixed.map, mixed.rank1 - scores.rank1, mixed.map - scores.map)
