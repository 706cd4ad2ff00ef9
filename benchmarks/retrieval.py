"""One pass over the cosines of every query with every gallery crop: scores, separation, and the match threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.separation import Separation, separate
from hamr_edge.ranking import QueryScores, rank_queries
from hamr_edge.scored_crops import ScoredCrops
from hamr_edge.similarity import similarity_blocks

FALSE_ACCEPT_RATE = 0.001
"""One pair of different people in a thousand is taken for one person."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What the cosines of one model say. Pairs of one person and one camera are left out. Rates in 0..1."""

    scores: QueryScores
    separation: Separation
    genuine: NDArray[np.float32]
    """(P,) cosines of pairs of one person, ascending."""
    impostor_pairs: int
    false_accept_rate: float
    """Aimed at: ``FALSE_ACCEPT_RATE``, or one pair where there are fewer."""
    threshold: float
    """The cosine at and above which that share of the pairs of different people lies."""
    kept_false_accept_rate: float
    """Share of them at and above the threshold that was given; at its own without one."""

    def true_accept_rate(self, threshold: float) -> float:
        """Share of the pairs of one person at and above a cosine."""
        return float(1 - np.searchsorted(self.genuine, np.float32(threshold)) / len(self.genuine))


def measure_retrieval(
    embeddings: NDArray[np.float32], crops: ScoredCrops, kept_threshold: float | None = None
) -> Retrieval:
    """Rank the gallery for every query, and look at all pairs on the way.

    Args:
        embeddings: (N, D) float32 rows, finite, query first.
        crops: The crops of the rows; some query has a gallery crop of its identity from another camera.
        kept_threshold: Another model's threshold, to count what would be accepted with it.

    Raises:
        InputError: No query can be scored.
    """
    split = len(crops.query)
    pairs = _Pairs(crops, kept_threshold)
    query, gallery = crops.query, crops.gallery
    scores = rank_queries(
        pairs.watch(similarity_blocks(embeddings[:split], embeddings[split:])),
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )
    return pairs.sum_up(scores)


class _Pairs:
    """Sums over pairs, block by block; of the pairs of different people only the nearest are kept."""

    def __init__(self, crops: ScoredCrops, kept_threshold: float | None) -> None:
        self._crops = crops
        same = np.searchsorted(np.sort(crops.gallery.identities), crops.query.identities, "right")
        same -= np.searchsorted(np.sort(crops.gallery.identities), crops.query.identities, "left")
        self.impostor_pairs = len(crops.query) * len(crops.gallery) - int(same.sum())
        self.rate = max(FALSE_ACCEPT_RATE, 1 / max(self.impostor_pairs, 1))
        self._accepted = int(self.rate * self.impostor_pairs + 1e-9)
        self._nearest = np.empty(0, np.float32)
        self._kept_threshold = kept_threshold
        self._above_kept = 0
        self._genuine: list[NDArray[np.float32]] = []
        self._sum = self._squares = 0.0

    def watch(self, blocks: Iterator[tuple[int, NDArray[np.float32]]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Look at each block before it is handed on."""
        for start, block in blocks:
            self._add(start, block)
            yield start, block

    def _add(self, start: int, block: NDArray[np.float32]) -> None:
        query, gallery = self._crops.query, self._crops.gallery
        rows = slice(start, start + len(block))
        same = query.identities[rows, None] == gallery.identities
        other_camera = query.cameras[rows, None] != gallery.cameras
        self._genuine.append(block[same & other_camera])
        different = block[~same]
        self._sum += float(different.sum(dtype=np.float64))
        self._squares += float(np.square(different, dtype=np.float64).sum())
        if self._kept_threshold is not None:
            self._above_kept += int(np.count_nonzero(different >= np.float32(self._kept_threshold)))
        if len(self._nearest) == self._accepted and self._accepted:
            different = different[different > self._nearest.min()]
        nearest = np.concatenate([self._nearest, different])
        surplus = len(nearest) - self._accepted
        self._nearest = np.partition(nearest, surplus)[surplus:] if 0 < surplus < len(nearest) else nearest

    def sum_up(self, scores: QueryScores) -> Retrieval:
        """All that was seen, with the ranking's scores."""
        genuine = np.sort(np.concatenate(self._genuine))
        count = max(self.impostor_pairs, 1)
        mean = self._sum / count
        variance = max(self._squares / count - mean**2, 0.0)
        return Retrieval(
            scores=scores,
            separation=separate(genuine, mean, variance),
            genuine=genuine,
            impostor_pairs=self.impostor_pairs,
            false_accept_rate=self.rate,
            threshold=float(self._nearest.min()) if len(self._nearest) else 1.0,
            kept_false_accept_rate=self.rate if self._kept_threshold is None else self._above_kept / count,
        )
