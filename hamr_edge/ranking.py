"""Retrieval scores of person re-identification: CMC and mAP, single query, camera-aware (Zheng et al., ICCV 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import JUNK_IDENTITY
from hamr_edge.errors import InputError

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Shares in 0..1 over the queries that have at least one right gallery image."""

    rank1: float
    rank5: float
    rank10: float
    map: float
    """Mean average precision."""
    queries: int
    """Queries that count."""
    gallery: int
    """Gallery images that are not junk."""


def score_retrieval(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_identities: NDArray[np.int64],
    gallery_identities: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> RetrievalScores:
    """Rank the gallery for every query by cosine and score the ranking.

    Gallery images of the query's identity and camera, and junk, are left out. Average precision is the mean of the
    precision at each right match, as fast-reid and torchreid compute it. Equal similarities rank in gallery order.

    Args:
        query: (Q, D) float32 rows of unit L2 norm.
        gallery: (G, D) float32 rows of unit L2 norm.
        query_identities: (Q,).
        gallery_identities: (G,).
        query_cameras: (Q,).
        gallery_cameras: (G,).

    Raises:
        InputError: Shapes disagree, a value is not finite, or no query has a right gallery image.
    """
    _check(query, query_identities, query_cameras, "query")
    _check(gallery, gallery_identities, gallery_cameras, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(f"query embeddings have {query.shape[1]} values, gallery embeddings {gallery.shape[1]}")
    keep = gallery_identities != JUNK_IDENTITY
    if not keep.all():
        gallery, gallery_identities, gallery_cameras = gallery[keep], gallery_identities[keep], gallery_cameras[keep]
    by_identity = np.argsort(gallery_identities, kind="stable")
    sorted_identities = gallery_identities[by_identity]
    starts, ends = (np.searchsorted(sorted_identities, query_identities, side) for side in ("left", "right"))
    first_ranks, precisions = [], []
    rows = max(1, _BLOCK_BYTES // (4 * max(1, len(gallery))))
    for start in range(0, len(query), rows):
        for row, similarity in enumerate(query[start : start + rows] @ gallery.T, start):
            same_identity = by_identity[starts[row] : ends[row]]
            same_camera = gallery_cameras[same_identity] == query_cameras[row]
            ranks = _ranks_of_matches(similarity, same_identity[~same_camera], same_identity[same_camera])
            if len(ranks):
                first_ranks.append(ranks[0])
                precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    if not first_ranks:
        raise InputError("no query has a gallery image of its identity from another camera; nothing can be scored")
    first = np.asarray(first_ranks)
    rank1, rank5, rank10 = (float(np.mean(first <= k)) for k in (1, 5, 10))
    return RetrievalScores(rank1, rank5, rank10, float(np.mean(precisions)), len(first), len(gallery))


def _ranks_of_matches(
    similarity: NDArray[np.float32], right: NDArray[np.int64], left_out: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Ranks, from 1 and ascending, of the right gallery images: counted, without sorting the whole gallery.

    Overwrites the similarities of what is left out.
    """
    similarity[left_out] = -np.inf
    ranks = np.empty(len(right), np.int64)
    for place, (index, score) in enumerate(zip(right.tolist(), similarity[right], strict=True)):
        # An equal similarity ranks above when it comes earlier in the gallery.
        above = np.count_nonzero(similarity[:index] >= score) + np.count_nonzero(similarity[index + 1 :] > score)
        ranks[place] = above + 1
    ranks.sort()
    return ranks


def _check(
    embeddings: NDArray[np.float32], identities: NDArray[np.int64], cameras: NDArray[np.int64], name: str
) -> None:
    if embeddings.ndim != 2 or not len(embeddings) == len(identities) == len(cameras):
        raise InputError(
            f"{name}: expected (N, D) embeddings with N identities and N cameras, got {embeddings.shape}, "
            f"{len(identities)} and {len(cameras)}"
        )
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(wrong):
        raise InputError(f"{name}: embedding {wrong[0]} (and {len(wrong) - 1} more) is not finite")
