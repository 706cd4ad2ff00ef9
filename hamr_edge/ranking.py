"""Retrieval scores of person re-identification: CMC, mAP and mINP, single query, camera-aware.

The protocol is Zheng et al., ICCV 2015; mINP is Ye et al., TPAMI 2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import JUNK_IDENTITY
from hamr_edge.errors import InputError
from hamr_edge.reranking import reranked_blocks
from hamr_edge.similarity import similarity_blocks


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Shares in 0..1 over the queries that have at least one right gallery image."""

    rank1: float
    rank5: float
    rank10: float
    map: float
    """Mean average precision."""
    minp: float
    """Mean inverse negative penalty: right matches over the rank of the last of them."""
    queries: int
    """Queries that count."""
    gallery: int
    """Gallery images that are not junk."""


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Scores query by query, of the queries that have at least one right gallery image."""

    rows: NDArray[np.int64]
    """(Q',) which of the queries these are, ascending."""
    first_ranks: NDArray[np.int64]
    """(Q',) rank of the nearest right gallery image, from 1."""
    average_precisions: NDArray[np.float64]
    """(Q',) in 0..1."""
    inverse_penalties: NDArray[np.float64]
    """(Q',) in 0..1: right matches over the rank of the last of them."""
    gallery: int
    """Gallery images that are not junk."""

    def summary(self) -> RetrievalScores:
        """Means over the queries."""
        rank1, rank5, rank10 = (float(np.mean(self.first_ranks <= k)) for k in (1, 5, 10))
        return RetrievalScores(
            rank1,
            rank5,
            rank10,
            float(np.mean(self.average_precisions)),
            float(np.mean(self.inverse_penalties)),
            len(self.rows),
            self.gallery,
        )


def score_retrieval(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_identities: NDArray[np.int64],
    gallery_identities: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
    rerank: bool = False,
    device: str = "cpu",
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
        rerank: Rank by k-reciprocal re-ranking instead, with its paper's settings; it sees all queries at once.
        device: Of the distances: ``cpu`` or ``cuda:N``, which needs torch.

    Raises:
        InputError: Shapes disagree, a value is not finite, or no query has a right gallery image.
        UnavailableError: ``device`` is a CUDA device, and torch or the device is not there.
    """
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    _check(query, query_identities, query_cameras, "query")
    _check(gallery, gallery_identities, gallery_cameras, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(f"query embeddings have {query.shape[1]} values, gallery embeddings {gallery.shape[1]}")
    keep = gallery_identities != JUNK_IDENTITY
    if not keep.all():
        gallery, gallery_identities, gallery_cameras = gallery[keep], gallery_identities[keep], gallery_cameras[keep]
    blocks = reranked_blocks(query, gallery, device=device) if rerank else similarity_blocks(query, gallery, device)
    return score_blocks(blocks, query_identities, gallery_identities, query_cameras, gallery_cameras)


def score_blocks(
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    query_identities: NDArray[np.int64],
    gallery_identities: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> RetrievalScores:
    """Score rankings by any finite similarity: the means of :func:`rank_queries`, with its arguments and errors."""
    return rank_queries(blocks, query_identities, gallery_identities, query_cameras, gallery_cameras).summary()


def rank_queries(
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    query_identities: NDArray[np.int64],
    gallery_identities: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> QueryScores:
    """Score each query's ranking by any finite similarity, as :func:`score_retrieval` does by cosine.

    Args:
        blocks: The first query of each block and its (B, G) float32 similarities; greater is nearer. They are
            overwritten. A distance matrix is ``[(0, -distances)]``.
        query_identities: (Q,).
        gallery_identities: (G,); no junk.
        query_cameras: (Q,).
        gallery_cameras: (G,).

    Raises:
        InputError: No query has a right gallery image.
    """
    by_identity = np.argsort(gallery_identities, kind="stable")
    sorted_identities = gallery_identities[by_identity]
    starts, ends = (np.searchsorted(sorted_identities, query_identities, side) for side in ("left", "right"))
    rows, first_ranks, precisions, penalties = [], [], [], []
    for start, block in blocks:
        for row, similarity in enumerate(block, start):
            same_identity = by_identity[starts[row] : ends[row]]
            same_camera = gallery_cameras[same_identity] == query_cameras[row]
            right = same_identity[~same_camera]
            if len(right):
                similarity[same_identity[same_camera]] = -np.inf
                ranks = _ranks_of_matches(similarity, right)
                rows.append(row)
                first_ranks.append(ranks[0])
                precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
                penalties.append(len(ranks) / ranks[-1])
    if not first_ranks:
        raise InputError("no query has a gallery image of its identity from another camera; nothing can be scored")
    return QueryScores(
        np.asarray(rows),
        np.asarray(first_ranks),
        np.asarray(precisions),
        np.asarray(penalties),
        len(gallery_identities),
    )


def _ranks_of_matches(similarity: NDArray[np.float32], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks, from 1 and ascending, of the right gallery images; only what ranks at or above them is sorted."""
    scores = similarity[right]
    rivals = similarity.compress(similarity >= scores.min())
    rivals.sort()
    not_above = rivals.searchsorted(scores, side="right")
    ranks: NDArray[np.int64] = len(rivals) - not_above + 1
    # An equal similarity ranks above when it comes earlier in the gallery.
    for place in np.flatnonzero(not_above - rivals.searchsorted(scores, side="left") > 1):
        ranks[place] += np.count_nonzero(similarity[: right[place]] == scores[place])
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
    with np.errstate(all="ignore"):
        # A sum shows what is not finite and needs no array of flags as large as the embeddings.
        doubtful = np.flatnonzero(~np.isfinite(embeddings.sum(axis=1)))
    wrong = doubtful[~np.isfinite(embeddings[doubtful]).all(axis=1)]
    if len(wrong):
        raise InputError(f"{name}: embedding {wrong[0]} (and {len(wrong) - 1} more) is not finite")
