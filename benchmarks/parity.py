"""Do two models embed the same crops alike? Pure functions on their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.bootstrap import mean_interval
from hamr_edge.errors import InputError
from hamr_edge.ranking import QueryScores
from hamr_edge.scored_crops import ScoredCrops

NEIGHBOURS = 10
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of a model with the reference over the same crops. Shares and scores in 0..1.

    The cosines are None where the embeddings are of another width than the reference's.
    """

    images: int
    not_finite: int
    """Crops whose embedding holds NaN or infinity; they count as a cosine of 0 and match nothing."""
    max_norm_error: float
    """The largest distance of a row's L2 norm from 1."""
    min_cosine: float | None
    p01_cosine: float | None
    """The 1st percentile: the value at or below which 1 % of the crops lie."""
    mean_cosine: float | None
    worst_crop: str | None
    """The crop of the least cosine."""
    top1_agreement: float
    """Share of crops whose nearest other crop is the same one in both models."""
    overlap_at_10: float
    """Mean share of each crop's 10 nearest other crops that both models name (all others where there are fewer)."""
    rank1: float
    rank5: float
    rank10: float
    map: float
    minp: float
    queries: int
    rank1_delta: float
    """The artifact's less the reference's: a loss is negative."""
    rank5_delta: float
    rank10_delta: float
    map_delta: float
    minp_delta: float
    rank1_interval: tuple[float, float]
    """95 % interval of the change, by paired bootstrap over queries."""
    map_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class CosineHistogram:
    """How many crops lie how far from the reference: counts over ``1 - cosine``."""

    edges: tuple[float, ...]
    """Ascending, one more than counts; the first is 0."""
    counts: tuple[int, ...]


def measure_parity(
    reference: NDArray[np.float32],
    reference_neighbours: NDArray[np.int64],
    reference_scores: QueryScores,
    embeddings: NDArray[np.float32],
    scores: QueryScores,
    crops: ScoredCrops,
    seed: int = 0,
) -> Parity:
    """Hold a model's embeddings against the reference's.

    Args:
        reference: (N, D) float32 of the reference, one row a crop, query first.
        reference_neighbours: (N, k) from :func:`nearest_neighbours`.
        reference_scores: Query by query.
        embeddings: (N, E) float32 of the model, as it gave them.
        scores: Its scores, of :func:`finite_rows`.
        crops: The crops of the rows.
        seed: Fixes the resamples of the intervals.

    Raises:
        InputError: The numbers of rows disagree.
    """
    if len(reference) != len(embeddings):
        raise InputError(f"embeddings to compare must be of the same crops, got {len(reference)} and {len(embeddings)}")
    finite, rows = finite_rows(embeddings)
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    cosines = row_cosines(reference, rows) if reference.shape[1] == rows.shape[1] else None
    worst = None if cosines is None else int(np.argmin(cosines))
    neighbours = nearest_neighbours(rows, reference_neighbours.shape[1])
    before, after = reference_scores.summary(), scores.summary()
    first_before, first_after = reference_scores.first_ranks <= 1, scores.first_ranks <= 1
    return Parity(
        images=len(rows),
        not_finite=int(np.sum(~finite)),
        max_norm_error=float(np.max(np.abs(norms[finite] - 1), initial=0.0)),
        min_cosine=None if cosines is None else float(cosines.min()),
        p01_cosine=None if cosines is None else float(np.quantile(cosines, 0.01, method="lower")),
        mean_cosine=None if cosines is None else float(np.mean(cosines)),
        worst_crop=None if worst is None else crops.name(worst),
        top1_agreement=float(np.mean(neighbours[:, 0] == reference_neighbours[:, 0])),
        overlap_at_10=neighbour_overlap(reference_neighbours, neighbours),
        rank1=after.rank1,
        rank5=after.rank5,
        rank10=after.rank10,
        map=after.map,
        minp=after.minp,
        queries=after.queries,
        rank1_delta=after.rank1 - before.rank1,
        rank5_delta=after.rank5 - before.rank5,
        rank10_delta=after.rank10 - before.rank10,
        map_delta=after.map - before.map,
        minp_delta=after.minp - before.minp,
        rank1_interval=mean_interval(first_after.astype(float) - first_before, seed),
        map_interval=mean_interval(scores.average_precisions - reference_scores.average_precisions, seed),
    )


def finite_rows(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which rows hold no NaN or infinity, and the embeddings with zeros for the others: they match nothing."""
    finite: NDArray[np.bool_] = np.all(np.isfinite(embeddings), axis=1)
    return finite, embeddings if finite.all() else np.where(finite[:, None], embeddings, np.float32(0))


def cosine_histogram(cosines: NDArray[np.float64]) -> CosineHistogram:
    """Count (N,) cosines by their distance from 1, in steps of a fifth of a power of ten from 1e-7 on."""
    edges = np.concatenate([[0.0], 10.0 ** np.arange(-7, 0.4, 0.2)])
    edges[-1] = max(edges[-1], 2.0)
    counts, _ = np.histogram((1 - cosines).clip(0.0, 2.0), edges)
    return CosineHistogram(tuple(edges.tolist()), tuple(counts.tolist()))


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
