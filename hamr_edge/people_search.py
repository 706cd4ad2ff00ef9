"""The most similar people, where an index knows embeddings only and a person has any number of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamr_edge.gallery_index import GalleryIndex, dot_products

_WIDER = 4
_MOST_VIEWS = 4096
_BLOCK_BYTES = 16 << 20
_PRODUCT_BYTES = 64 << 20


def search_people(
    index: GalleryIndex,
    vectors: NDArray[np.float32],
    people: NDArray[np.int32],
    people_count: int,
    queries: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the k most similar people of each query, each the nearest of its person.

    The index is asked for a few rows a person, then for more, and where some people's rows crowd all others out,
    every row is looked at: once, however few people there are.

    Args:
        index: Knows the rows.
        vectors: (R, D) float32.
        people: (R,) whose row it is.
        people_count: How many they are.
        queries: (N, D) float32.
        k: People a query.
        allowed: (R,) bool, rows that may be found; all when None.

    Returns:
        (N, K) int64 rows, most similar first, -1 where there is nobody more; and (N, K) float32 dot products, -inf
        there.
    """
    rows = np.full((len(queries), k), -1, np.int64)
    similarity = np.full((len(queries), k), -np.inf, np.float32)
    short, wanted, views = np.arange(len(queries)), min(k, people_count), 1 if k == 1 else 4 * k
    while len(short):
        found_rows, found = index.search(vectors, queries[short], min(views, max(len(vectors), 1)), allowed)
        count = np.zeros(len(short), np.int64)
        for place, query in enumerate(short.tolist()):
            real = found_rows[place] >= 0
            _, first = np.unique(people[found_rows[place][real]], return_index=True)
            first = np.sort(first)[:k]  # of each person the nearest row, nearest person first
            rows[query, : len(first)] = found_rows[place][first]
            similarity[query, : len(first)] = found[place][first]
            count[place] = len(first)
        if allowed is not None and (count < wanted).any():
            wanted = min(wanted, int(np.count_nonzero(np.bincount(people[allowed]))))
        short, views = short[count < wanted], _WIDER * views
        if views > _MOST_VIEWS:
            break
    if len(short):
        rows[short, :wanted], similarity[short, :wanted] = _search_all(vectors, people, queries[short], wanted, allowed)
    return rows, similarity


def _search_all(
    vectors: NDArray[np.float32],
    people: NDArray[np.int32],
    queries: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The same by all products, for at least k people."""
    order = np.argsort(people, kind="stable")
    if allowed is not None:
        order = order[allowed[order]]
    starts = np.flatnonzero(np.diff(people[order], prepend=-1))  # where each person's rows begin
    ends = np.append(starts[1:], len(order))
    rows, similarity = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    block_rows = max(1, _BLOCK_BYTES // vectors[:1].nbytes)
    at_once = max(1, _PRODUCT_BYTES // (4 * len(order)))
    for first in range(0, len(queries), at_once):
        asked = queries[first : first + at_once]
        products = np.empty((len(asked), len(order)), np.float32)
        for start in range(0, len(order), block_rows):
            block = order[start : start + block_rows]
            products[:, start : start + len(block)] = dot_products(asked, vectors[block])
        best = np.maximum.reduceat(products, starts, axis=1)
        for place, values in enumerate(best):
            nearest = np.argsort(-values, kind="stable")[:k]
            similarity[first + place] = values[nearest]
            for rank, person in enumerate(nearest.tolist()):
                own = slice(starts[person], ends[person])
                rows[first + place, rank] = order[own][np.argmax(products[place, own])]
    return rows, similarity
