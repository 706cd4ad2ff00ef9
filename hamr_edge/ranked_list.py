"""Each query's gallery in order of similarity: what scores are made of, and what a picture of the ranking shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hamr_edge.labelled_crops import JUNK_IDENTITY, LabelledCrops


@dataclass(frozen=True, slots=True)
class RankedList:
    """The best of the gallery for one query, best first; parallel arrays of the same length."""

    gallery: NDArray[np.int64]
    """(K,) rows of the gallery."""
    similarity: NDArray[np.float32]
    """(K,) cosines with the query."""
    right: NDArray[np.bool_]
    """(K,) whether the row shows the query's identity."""
    average_precision: float
    """Over the whole gallery, 0..1; NaN where no gallery image can be right."""
    first_right: int
    """Rank of the first right image, from 1; 0 where there is none."""
    first_right_row: int
    """Row of the gallery that it is; -1 where there is none."""
    right_count: int
    """Right images in the whole gallery."""
    left_out: int
    """Gallery images of the query's identity and camera, which the ranking leaves out; junk is not counted."""

    @property
    def is_scored(self) -> bool:
        """Whether the query has a right image in the gallery, so that it counts in the scores."""
        return self.first_right > 0

    def best(self, top: int) -> RankedList:
        """The same list with at most ``top`` images."""
        return replace(self, gallery=self.gallery[:top], similarity=self.similarity[:top], right=self.right[:top])


def rank_gallery(
    similarity: NDArray[np.float32],
    identity: int,
    camera: int,
    gallery: LabelledCrops,
    top: int,
) -> RankedList:
    """Order the gallery for one query, as :func:`hamr_edge.ranking.score_retrieval` does.

    Gallery images of the query's identity and camera, and junk, are left out (Zheng et al., ICCV 2015). Equal
    similarities rank in gallery order.

    Args:
        similarity: (G,) cosine of the query with each gallery image.
        identity: The query's.
        camera: The query's.
        gallery: The G images' labels.
        top: Images to keep, at least 1; there may be fewer.
    """
    same_identity = gallery.identities == identity
    same_camera = same_identity & (gallery.cameras == camera)
    kept = np.flatnonzero(~same_camera & (gallery.identities != JUNK_IDENTITY))
    order = kept[np.argsort(-similarity[kept], kind="stable")]
    right = same_identity[order]
    ranks = np.flatnonzero(right) + 1
    best = order[:top]
    left_out = 0 if identity == JUNK_IDENTITY else int(np.count_nonzero(same_camera))
    if not len(ranks):
        return RankedList(best, similarity[best], right[:top], math.nan, 0, -1, 0, left_out)
    precision = float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    first, row = int(ranks[0]), int(order[ranks[0] - 1])
    return RankedList(best, similarity[best], right[:top], precision, first, row, len(ranks), left_out)


def rank_blocks(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], query: LabelledCrops, gallery: LabelledCrops, top: int
) -> Iterator[RankedList]:
    """Order the gallery for every query, in the queries' order; see :func:`rank_gallery`.

    Args:
        blocks: The first query of each block and its (B, G) similarities, as
            :func:`hamr_edge.similarity.similarity_blocks` gives them; left as they are.
        query: The queries' labels.
        gallery: The G gallery images' labels.
        top: Images to keep of each list.
    """
    for start, block in blocks:
        for row, similarity in enumerate(block, start):
            yield rank_gallery(similarity, int(query.identities[row]), int(query.cameras[row]), gallery, top)


def cumulative_matches(lists: Sequence[RankedList], ranks: int) -> NDArray[np.float64]:
    """The CMC curve: (ranks,) shares in 0..1 of the scored queries whose first right image is at rank r or better."""
    first = np.asarray([ranked.first_right for ranked in lists if ranked.is_scored])
    return np.asarray([np.mean(first <= rank) if len(first) else math.nan for rank in range(1, ranks + 1)])
