"""Is an embedding independent of the crops that share its batch? A graph that mixes rows shows here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.parity import row_cosines
from hamr_edge.dataset import read_crop
from hamr_edge.preprocess import stack_crops
from hamr_edge.scored_crops import ScoredCrops

SAMPLE = 32


@dataclass(frozen=True, slots=True)
class BatchConsistency:
    """Cosine of crops embedded in company to the same crops embedded alone."""

    images: int
    batches: tuple[int, ...]
    """The batch sizes that were tried."""
    min_cosine: float
    worst_crop: str
    worst_batch: int


def measure_consistency(
    backend: Backend, crops: ScoredCrops, batches: Iterable[int], rng: np.random.Generator
) -> BatchConsistency:
    """Embed some crops one by one, and again in shuffled batches.

    Args:
        backend: An open backend.
        crops: Where the crops are drawn from.
        batches: Batch sizes to try, besides the backend's maximum.
        rng: Draws the crops and their order.
    """
    rows = rng.permutation(len(crops))[:SAMPLE]
    limit = min(backend.sidecar.max_batch, len(rows))
    sizes = tuple(sorted({min(size, limit) for size in batches} | {limit}))
    batch = stack_crops([read_crop(crops.paths[row]) for row in rows], backend.sidecar.input_size_hw)
    alone = np.concatenate([backend.infer(batch[[row]]) for row in range(len(batch))])
    worst, worst_row, worst_size = np.inf, 0, sizes[0]
    for size in sizes:
        order = rng.permutation(len(batch))
        together = np.empty_like(alone)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            together[chosen] = backend.infer(batch[chosen])
        cosines = row_cosines(*(np.where(np.isfinite(found), found, 0.0) for found in (alone, together)))
        row = int(np.argmin(cosines))
        if cosines[row] < worst:
            worst, worst_row, worst_size = float(cosines[row]), row, size
    return BatchConsistency(len(rows), sizes, worst, crops.name(int(rows[worst_row])), worst_size)
