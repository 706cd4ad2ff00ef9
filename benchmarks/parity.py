"""Do two models embed the same crops alike? Pure functions on their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.ranking import RetrievalScores
from hamr_edge.scored_crops import ScoredCrops, score_crops

NEIGHBOURS = 10
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of an artifact with the reference over the same crops. Shares and scores in 0..1."""

    images: int
    not_finite: int
    """Crops whose embedding holds NaN or infinity; they count as a cosine of 0 and match nothing."""
    max_norm_error: float
    """The largest distance of a row's L2 norm from 1."""
    min_cosine: float
    p01_cosine: float
    """The 1st percentile: the value at or below which 1 % of the crops lie."""
    mean_cosine: float
    worst_crop: str
    """The crop of the least cosine."""
    top1_agreement: float
    """Share of crops whose nearest other crop is the same one in both models."""
    overlap_at_10: float
    """Mean share of each crop's 10 nearest other crops that both models name (all others where there are fewer)."""
    rank1: float
    rank5: float
    rank10: float
    map: float
    queries: int
    rank1_delta: float
    """The artifact's less the reference's: a loss is negative."""
    map_delta: float


def measure_parity(
    reference: NDArray[np.float32],
    reference_neighbours: NDArray[np.int64],
    reference_scores: RetrievalScores,
    embeddings: NDArray[np.float32],
    crops: ScoredCrops,
) -> Parity:
    """Hold an artifact's embeddings against the reference's.

    Args:
        reference: (N, D) float32 of the reference, one row a crop, query first.
        reference_neighbours: (N, k) from :func:`nearest_neighbours`.
        reference_scores: From :func:`hamr_edge.scored_crops.score_crops`.
        embeddings: (N, D) float32 of the artifact.
        crops: The crops of the rows.

    Raises:
        InputError: The shapes disagree.
    """
    finite: NDArray[np.bool_] = np.all(np.isfinite(embeddings), axis=1)
    if not finite.all():
        embeddings = np.where(finite[:, None], embeddings, np.float32(0))
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    cosines = row_cosines(reference, embeddings)
    worst = int(np.argmin(cosines))
    neighbours = nearest_neighbours(embeddings, reference_neighbours.shape[1])
    scores = score_crops(embeddings, crops)
    return Parity(
        images=len(cosines),
        not_finite=int(np.sum(~finite)),
        max_norm_error=float(np.max(np.abs(norms[finite] - 1), initial=0.0)),
        min_cosine=float(cosines[worst]),
        p01_cosine=float(np.quantile(cosines, 0.01, method="lower")),
        mean_cosine=float(np.mean(cosines)),
        worst_crop=crops.name(worst),
        top1_agreement=float(np.mean(neighbours[:, 0] == reference_neighbours[:, 0])),
        overlap_at_10=neighbour_overlap(reference_neighbours, neighbours),
        rank1=scores.rank1,
        rank5=scores.rank5,
        rank10=scores.rank10,
        map=scores.map,
        queries=scores.queries,
        rank1_delta=scores.rank1 - reference_scores.rank1,
        map_delta=scores.map - reference_scores.map,
    )


def row_cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) cosine of each row of two (N, D) arrays, summed in float64; 0 for a row of zeros.

    Raises:
        InputError: The shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise InputError(f"embeddings to compare must have one shape (N, D), got {first.shape} and {second.shape}")
    dot = np.einsum("nd,nd->n", first, second, dtype=np.float64)
    square = np.einsum("nd,nd->n", first, first, dtype=np.float64)
    square *= np.einsum("nd,nd->n", second, second, dtype=np.float64)
    cosines: NDArray[np.float64] = np.divide(dot, np.sqrt(square), out=np.zeros_like(dot), where=square > 0)
    return cosines.clip(-1.0, 1.0)


def nearest_neighbours(embeddings: NDArray[np.float32], count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(N, min(count, N - 1)) rows of the nearest other crops by dot product, nearest first; equals in row order.

    Works in blocks, so memory grows with N and not with its square.

    Raises:
        InputError: Fewer than two rows.
    """
    total = len(embeddings)
    if total < 2:
        raise InputError(f"a crop's neighbours need at least 2 crops, got {total}")
    count = min(count, total - 1)
    neighbours = np.empty((total, count), np.int64)
    rows = max(1, _BLOCK_BYTES // (4 * total))
    for start in range(0, total, rows):
        similarity = embeddings[start : start + rows] @ embeddings.T
        here = np.arange(len(similarity))
        similarity[here, start + here] = -np.inf
        # Sorted candidates keep equal values in row order, except where equals straddle the last place.
        candidates = np.sort(np.argpartition(-similarity, count - 1, axis=1)[:, :count], axis=1)
        values = np.take_along_axis(similarity, candidates, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        neighbours[start : start + rows] = np.take_along_axis(candidates, order, axis=1)
    return neighbours


def neighbour_overlap(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Mean share of each row's entries that two (N, k) arrays have in common; entries of a row are distinct."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float(np.mean(np.sum(both[:, 1:] == both[:, :-1], axis=1) / first.shape[1]))
