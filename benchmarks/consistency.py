"""Does an embedding depend on the batch that the crop is in? A graph that mixes rows shows here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.parity import finite_rows, row_cosines
from hamr_edge.dataset import read_crop
from hamr_edge.preprocess import stack_crops
from hamr_edge.scored_crops import ScoredCrops
from hamr_edge.sidecar import Sidecar

SAMPLE = 32


@dataclass(frozen=True, slots=True)
class BatchParity:
    """Cosine to the reference of crops embedded in batches of one size, in random order."""

    batch: int
    min_cosine: float
    p01_cosine: float
    """The 1st percentile; of fewer than 100 crops that is the least."""
    mean_cosine: float
    worst_crop: str


@dataclass(frozen=True, slots=True)
class BatchConsistency:
    """Cosine of crops embedded in company to the same crops embedded alone."""

    images: int
    batches: tuple[int, ...]
    """The batch sizes that were tried."""
    min_cosine: float
    worst_crop: str
    worst_batch: int
    by_batch: tuple[BatchParity, ...] = ()
    """Against the reference; empty where its embeddings are of another width."""


def measure_consistency(
    backend: Backend,
    crops: ScoredCrops,
    batches: Iterable[int],
    rng: np.random.Generator,
    reference: NDArray[np.float32] | None = None,
) -> BatchConsistency:
    """Embed some crops one by one, and again in shuffled batches.

    Args:
        backend: An open backend.
        crops: Where the crops are drawn from.
        batches: Batch sizes to try, besides 2, an engine's optimum and the backend's maximum.
        rng: Draws the crops and their order.
        reference: (N, D) float32 of the reference, a row a crop; None where it is of another width.
    """
    rows = rng.permutation(len(crops))[:SAMPLE]
    limit = min(backend.sidecar.max_batch, len(rows))
    sizes = tuple(sorted({min(size, limit) for size in (2, *batches, *_optimum(backend.sidecar))} | {limit}))
    batch = stack_crops([read_crop(crops.paths[row]) for row in rows], backend.sidecar.input_size_hw)
    alone = np.concatenate([backend.infer(batch[[row]]) for row in range(len(batch))])
    worst, worst_row, worst_size = np.inf, 0, sizes[0]
    found = [] if reference is None else [_hold(1, alone, reference, rows, crops)]
    for size in sizes:
        order = rng.permutation(len(batch))
        together = np.empty_like(alone)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            together[chosen] = backend.infer(batch[chosen])
        cosines = row_cosines(*(finite_rows(embeddings)[1] for embeddings in (alone, together)))
        row = int(np.argmin(cosines))
        if cosines[row] < worst:
            worst, worst_row, worst_size = float(cosines[row]), row, size
        if reference is not None and size > 1:
            found.append(_hold(size, together, reference, rows, crops))
    return BatchConsistency(len(rows), sizes, worst, crops.name(int(rows[worst_row])), worst_size, tuple(found))


def _optimum(sidecar: Sidecar) -> list[int]:
    """The batch size that an engine is tuned for."""
    shapes = sidecar.engine.profile if sidecar.engine is not None else {}
    return [shapes[name][1][0] for name in ("images", "boxes") if name in shapes]


def _hold(
    size: int,
    embeddings: NDArray[np.float32],
    reference: NDArray[np.float32],
    rows: NDArray[np.int64],
    crops: ScoredCrops,
) -> BatchParity:
    cosines = row_cosines(reference[rows], finite_rows(embeddings)[1])
    worst = int(np.argmin(cosines))
    return BatchParity(
        batch=size,
        min_cosine=float(cosines[worst]),
        p01_cosine=float(np.quantile(cosines, 0.01, method="lower")),
        mean_cosine=float(np.mean(cosines)),
        worst_crop=crops.name(int(rows[worst])),
    )
