"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), with sparse rows in place of the usual N x N arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.similarity import NearestRows, nearest_rows, similarity_blocks

_ROUNDING = 1e-6
"""A greatest distance below this is rounding: the images are all alike."""
_ROWS = 128
"""Rows whose dense form is held at a time: a dense row is as long as there are images."""
_PAIRS = 1024
"""Pairs whose embeddings are multiplied at a time."""
_NEAREST_KEPT = 5
"""Neighbours whose similarity is kept, as a multiple of k1: nearly all members of the expanded sets are among them."""


@dataclass(frozen=True, slots=True)
class _SparseRows:
    """Rows of mostly zeros: row i holds ``values[starts[i] : starts[i + 1]]`` in those ``columns``."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def entries(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each entry of the given rows, the place in ``rows`` of its row, and the entry's index."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        owners = np.repeat(np.arange(len(rows)), lengths)
        shifts = self.starts[rows] - np.cumsum(lengths) + lengths
        return owners, np.arange(len(owners)) + np.repeat(shifts, lengths)


def reranked_blocks(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
    device: str = "cpu",
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Re-ranked similarity of every query to every gallery row, some queries at a time.

    The original distance is the squared Euclidean one, each row divided by its greatest, as in the authors' code.

    Args:
        query: (Q, D) float32 rows of unit L2 norm.
        gallery: (G, D) float32 rows of unit L2 norm.
        k1: Neighbours whose reciprocity is asked for.
        k2: Neighbours, the row itself among them, whose encodings are averaged (local query expansion); 1 is none.
        original_weight: lambda, the share of the original distance in the final one, 0..1.
        device: Of the distances: ``cpu`` or ``cuda:N``.

    Yields:
        The first query of the block and (B, G) float32: ``1 - lambda`` less the final distance of equation 12, so
        greater is nearer. The block may be overwritten, as that of :func:`similarity_blocks`.

    Raises:
        InputError: A setting is out of range, or rows are not of unit norm.
        UnavailableError: ``device`` is a CUDA device, and torch or the device is not there.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original_weight <= 1:
        raise InputError(f"re-ranking needs k1 >= 1, k2 >= 1, lambda in 0..1, got {k1}, {k2}, {original_weight}")
    _check_norms(query, "query")
    _check_norms(gallery, "gallery")
    total = len(query) + len(gallery)
    nearest = nearest_rows(query, gallery, min(total, max(k1 + 1, _NEAREST_KEPT * k1, k2)), device)
    greatest = np.maximum(2 * (1 - nearest.least), np.float32(_ROUNDING))
    encoding = _encode(query, gallery, nearest, greatest, k1)
    if k2 > 1:
        encoding = _expand_queries(encoding, nearest.indices[:, :k2])
    lists = _invert(encoding, len(query), total)
    for start, block in similarity_blocks(query, gallery, device):
        block -= 1
        block *= (2 * original_weight / greatest[start : start + len(block)])[:, None]
        for row, similarity in enumerate(block, start):
            similarity += np.float32(1 - original_weight) * _jaccard_similarity(encoding, lists, row, len(gallery))
        yield start, block


def _encode(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    nearest: NearestRows,
    greatest: NDArray[np.float32],
    k1: int,
) -> _SparseRows:
    """Each row's expanded k-reciprocal set, weighted by distance; weights of a row sum to 1 (equations 3 to 7)."""
    near = nearest.indices[:, : k1 + 1]
    half = nearest.indices[:, : round(k1 / 2) + 1]
    near_mutual, half_mutual = _mutual(near), _mutual(half)
    total = len(near)
    rows, columns, similarities = [], [], []
    for start in range(0, total, _ROWS):
        block = near[start : start + _ROWS]
        here = np.arange(len(block))[:, None]
        member = np.zeros((len(block), total), bool)
        member[here, block] = near_mutual[start : start + _ROWS]
        candidates = half[block]
        in_candidate = half_mutual[block] & near_mutual[start : start + _ROWS, :, None]
        shared = np.count_nonzero(member[here[:, :, None], candidates] & in_candidate, axis=2)
        taken = in_candidate & (3 * shared > 2 * np.count_nonzero(in_candidate, axis=2))[:, :, None]
        member[np.nonzero(taken)[0], candidates[taken]] = True
        similarity = np.full(member.shape, np.nan, np.float32)
        similarity[here, nearest.indices[start : start + _ROWS]] = nearest.similarities[start : start + _ROWS]
        found, column = _nonzero(member)
        rows.append(found + start)
        columns.append(column)
        similarities.append(similarity[found, column])
    row, column, cosine = np.concatenate(rows), np.concatenate(columns), np.concatenate(similarities)
    unknown = np.flatnonzero(np.isnan(cosine))
    cosine[unknown] = _dot_products(query, gallery, row[unknown], column[unknown])
    weights = np.exp(-2 * np.maximum(1 - cosine, 0) / greatest[row])
    weights /= np.bincount(row, weights, total)[row]
    return _SparseRows(_starts(row, total), column, weights)


def _mutual(neighbours: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N, k) True where the row is among its neighbour's neighbours too (equation 3)."""
    mutual = np.empty(neighbours.shape, bool)
    for start in range(0, len(neighbours), _ROWS):
        block = neighbours[start : start + _ROWS]
        here = np.arange(start, start + len(block))
        mutual[start : start + _ROWS] = (neighbours[block] == here[:, None, None]).any(axis=2)
    return mutual


def _dot_products(
    query: NDArray[np.float32], gallery: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Dot products of single pairs of rows; queries come first in the numbering."""

    def take(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        taken = np.empty((len(chosen), query.shape[1]), np.float32)
        is_query = chosen < len(query)
        taken[is_query] = query[chosen[is_query]]
        taken[~is_query] = gallery[chosen[~is_query] - len(query)]
        return taken

    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        products[part] = np.einsum("nd,nd->n", take(rows[part]), take(columns[part]))
    return products


def _expand_queries(encoding: _SparseRows, neighbours: NDArray[np.int64]) -> _SparseRows:
    """Mean of the encodings of each row's (N, k2) neighbours (equation 11)."""
    total, count = neighbours.shape
    rows, columns, values = [], [], []
    for start in range(0, total, _ROWS):
        block = neighbours[start : start + _ROWS]
        dense = np.zeros((len(block), total), np.float32)
        for neighbour in block.T:
            owners, entries = encoding.entries(neighbour)
            dense[owners, encoding.columns[entries]] += encoding.values[entries]
        found, column = _nonzero(dense != 0)
        rows.append(found + start)
        columns.append(column)
        values.append(dense[found, column] / np.float32(count))
    return _SparseRows(_starts(np.concatenate(rows), total), np.concatenate(columns), np.concatenate(values))


def _invert(encoding: _SparseRows, queries: int, total: int) -> _SparseRows:
    """For each image, the gallery rows whose encoding holds it, and its weight there."""
    first = encoding.starts[queries]
    owners = np.repeat(np.arange(total - queries), np.diff(encoding.starts[queries:]))
    order = np.argsort(encoding.columns[first:], kind="stable")
    columns = encoding.columns[first:][order]
    return _SparseRows(_starts(columns, total), owners[order], encoding.values[first:][order])


def _jaccard_similarity(encoding: _SparseRows, lists: _SparseRows, row: int, gallery: int) -> NDArray[np.float32]:
    """(G,) one less the Jaccard distance of a query's encoding to each gallery row's (equation 10)."""
    own = slice(encoding.starts[row], encoding.starts[row + 1])
    owners, entries = lists.entries(encoding.columns[own])
    least = np.minimum(encoding.values[own][owners], lists.values[entries])
    shared = np.bincount(lists.columns[entries], least, gallery).astype(np.float32)
    similarity: NDArray[np.float32] = shared / (2 - shared)
    return similarity


def _nonzero(flags: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``np.nonzero`` of a 2-D array, several times as fast where few are set."""
    return np.divmod(np.flatnonzero(flags), flags.shape[1])


def _starts(rows: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=total))])


def _check_norms(embeddings: NDArray[np.float32], name: str) -> None:
    squares = np.einsum("nd,nd->n", embeddings, embeddings)
    wrong = np.flatnonzero(np.abs(squares - 1) > 0.02)
    if len(wrong):
        raise InputError(
            f"{name}: re-ranking needs embeddings of unit L2 norm, embedding {wrong[0]} has "
            f"{squares[wrong[0]] ** 0.5:.3f}; divide each row by its norm"
        )
