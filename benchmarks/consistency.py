"""Does an embedding depend on the batch that the crop is in? A graph that mixes rows shows here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.parity import finite_rows, row_cosines
from hamr_edge.dataset import read_crop
from hamr_edge.evaluation import embed_images
from hamr_edge.scored_crops import ScoredCrops
from hamr_edge.sidecar import Sidecar

_ALONE = 32
"""Crops that are embedded one by one."""


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
    """1 where a crop is NaN or infinite alone and in company: that is no sign of mixed rows."""
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
    """Embed some crops one by one, and again in shuffled batches, which larger sizes fill up with more crops.

    Args:
        backend: An open backend.
        crops: Where the crops are drawn from.
        batches: Batch sizes to try, besides 2, an engine's optimum and the backend's maximum; those above the maximum
            or the number of crops become that.
        rng: Draws the crops and their order.
        reference: (N, D) float32 of the reference, a row a crop; None where it is of another width.
    """
    limit = min(backend.sidecar.max_batch, len(crops))
    sizes = tuple(sorted({min(size, limit) for size in (2, *batches, *_optimum(backend.sidecar))} | {limit}))
    rows = rng.permutation(len(crops))[: max(_ALONE, limit)]
    images = [read_crop(crops.paths[row]) for row in rows]
    alone = np.concatenate([embed_images(backend, [image]) for image in images[:_ALONE]])
    worst, worst_row, worst_size = np.inf, 0, sizes[0]
    found = [] if reference is None else [_hold(1, alone, reference, rows, crops)]
    for size in sizes:
        together = _embed_shuffled(backend, images[: max(_ALONE, size)], size, rng)
        cosines = _agreement(alone, together[:_ALONE])
        row = int(np.argmin(cosines))
        if cosines[row] < worst:
            worst, worst_row, worst_size = float(cosines[row]), row, size
        if reference is not None and size > 1:
            found.append(_hold(size, together, reference, rows, crops))
    return BatchConsistency(len(alone), sizes, worst, crops.name(int(rows[worst_row])), worst_size, tuple(found))


def _embed_shuffled(
    backend: Backend, images: Sequence[NDArray[np.uint8]], size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Embed in batches of one size and in random order; the rows come back in the images' order."""
    order = rng.permutation(len(images))
    embeddings = np.empty((len(images), backend.sidecar.embedding_dim), np.float32)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        embeddings[chosen] = embed_images(backend, [images[index] for index in chosen])
    return embeddings


def _agreement(alone: NDArray[np.float32], together: NDArray[np.float32]) -> NDArray[np.float64]:
    (finite, rows), (still_finite, other_rows) = finite_rows(alone), finite_rows(together)
    cosines = row_cosines(rows, other_rows)
    cosines[~finite & ~still_finite] = 1.0
    return cosines


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
    cosines = row_cosines(reference[rows[: len(embeddings)]], finite_rows(embeddings)[1])
    worst = int(np.argmin(cosines))
    return BatchParity(
        batch=size,
        min_cosine=float(cosines[worst]),
        p01_cosine=float(np.quantile(cosines, 0.01, method="lower")),
        mean_cosine=float(np.mean(cosines)),
        worst_crop=crops.name(int(rows[worst])),
    )
