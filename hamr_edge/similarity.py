"""Dot products between many embeddings, in blocks of bounded memory: numpy, or torch on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import UnavailableError

_BLOCK_BYTES = 64 << 20
_MIN_ROWS = 256
"""A product of fewer rows runs well below the processor's rate."""
_SQUARE_ROWS = 2000
"""Side of the square blocks of :func:`nearest_rows`: 16 MB. A power of two would turn slowly: its columns share cache
lines' places."""


def similarity_blocks(
    query: NDArray[np.float32], gallery: NDArray[np.float32], device: str = "cpu"
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Dot product of every query with every gallery row, some queries at a time.

    Args:
        query: (Q, D) float32.
        gallery: (G, D) float32.
        device: ``cpu`` (numpy) or ``cuda:N`` (torch, in full float32).

    Yields:
        The first query of the block, and (B, G) float32: 64 MiB, or 256 rows where that is more. The caller may
        overwrite the block until it asks for the next; then it holds other numbers.

    Raises:
        UnavailableError: ``device`` is a CUDA device, and torch or the device is not there.
    """
    rows = max(_MIN_ROWS, _BLOCK_BYTES // (4 * max(1, len(gallery))))
    if device == "cpu":
        buffer = np.empty((min(rows, len(query)), len(gallery)), np.float32)
        for start in range(0, len(query), rows):
            chunk = query[start : start + rows]
            yield start, np.matmul(chunk, gallery.T, out=buffer[: len(chunk)])
        return
    torch = _import_torch(device)
    columns = torch.tensor(gallery, device=device).T
    for start in range(0, len(query), rows):
        with _full_float32(torch):
            block = torch.tensor(query[start : start + rows], device=device) @ columns
        yield start, block.cpu().numpy()


@dataclass(frozen=True, slots=True)
class NearestRows:
    """The most similar rows of each of N rows, among all N."""

    indices: NDArray[np.int64]
    """(N, K), most similar first; as a rule the row itself stands first."""
    similarities: NDArray[np.float32]
    """(N, K) dot products of those."""
    least: NDArray[np.float32]
    """(N,) the least dot product of each row with any."""


def nearest_rows(
    query: NDArray[np.float32], gallery: NDArray[np.float32], count: int, device: str = "cpu"
) -> NearestRows:
    """Find the rows of greatest dot product for each query and gallery row, among all queries and gallery rows.

    On the CPU each pair is multiplied once and serves both of its rows. Equal values stand in any order.

    Args:
        query: (Q, D) float32; rows 0 to Q - 1.
        gallery: (G, D) float32; rows Q to N - 1, N = Q + G.
        count: K, at most N.
        device: As :func:`similarity_blocks`.

    Raises:
        UnavailableError: As :func:`similarity_blocks`.
    """
    if device == "cpu":
        nearest = _nearest_on_cpu(query, gallery, count)
    else:
        nearest = _nearest_on_device(query, gallery, count, device)
    order = np.argsort(-nearest.similarities, axis=1)
    nearest.indices[:] = np.take_along_axis(nearest.indices, order, axis=1)
    nearest.similarities[:] = np.take_along_axis(nearest.similarities, order, axis=1)
    return nearest


def usable_device(device: str) -> str:
    """``device`` where torch can use it, else ``cpu``: for callers that were asked for no device of their own.

    Args:
        device: ``cpu`` or ``cuda:N``.
    """
    try:
        if device != "cpu":
            _import_torch(device)
    except UnavailableError:
        return "cpu"
    return device


def _nearest_on_cpu(query: NDArray[np.float32], gallery: NDArray[np.float32], count: int) -> NearestRows:
    total = len(query) + len(gallery)
    nearest = NearestRows(
        np.zeros((total, count), np.int64),
        np.full((total, count), -np.inf, np.float32),
        np.full(total, np.inf, np.float32),
    )
    chunks = []
    for first, part in ((0, query), (len(query), gallery)):
        chunks += [(first + at, part[at : at + _SQUARE_ROWS]) for at in range(0, len(part), _SQUARE_ROWS)]
    for place, (first, rows) in enumerate(chunks):
        for other_first, others in chunks[place:]:
            block = rows @ others.T
            _keep_nearest(nearest, block, first, other_first)
            if other_first != first:
                _keep_nearest(nearest, np.ascontiguousarray(block.T), other_first, first)
    return nearest


def _keep_nearest(nearest: NearestRows, block: NDArray[np.float32], first_row: int, first_column: int) -> None:
    """Let the rows of a block replace what they beat, in no order."""
    rows = slice(first_row, first_row + len(block))
    count, width = nearest.indices.shape[1], block.shape[1]
    best = min(count, width)
    columns = np.argpartition(block, width - best, axis=1)[:, width - best :]
    indices = np.hstack([nearest.indices[rows], columns + first_column])
    values = np.hstack([nearest.similarities[rows], np.take_along_axis(block, columns, axis=1)])
    kept = np.argpartition(values, best, axis=1)[:, best:]
    nearest.indices[rows] = np.take_along_axis(indices, kept, axis=1)
    nearest.similarities[rows] = np.take_along_axis(values, kept, axis=1)
    np.minimum(nearest.least[rows], block.min(axis=1), out=nearest.least[rows])


def _nearest_on_device(
    query: NDArray[np.float32], gallery: NDArray[np.float32], count: int, device: str
) -> NearestRows:
    torch = _import_torch(device)
    everything = torch.cat([torch.tensor(part, device=device) for part in (query, gallery)])
    indices, values, least = [], [], []
    for rows in everything.split(max(_MIN_ROWS, _BLOCK_BYTES // (4 * len(everything)))):
        with _full_float32(torch):
            block = rows @ everything.T
        top = block.topk(count, dim=1)
        indices.append(top.indices.cpu().numpy())
        values.append(top.values.cpu().numpy())
        least.append(block.amin(dim=1).cpu().numpy())
    return NearestRows(np.concatenate(indices), np.concatenate(values), np.concatenate(least))


def _import_torch(device: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(
            f"distances on {device} need torch, which is not installed; pip install 'hamr-edge[train]', or use cpu"
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UnavailableError(f"distances on {device}: torch {torch.__version__} cannot use it: {error}") from error
    return torch


@contextmanager
def _full_float32(torch: Any) -> Iterator[None]:
    """Keep TensorFloat-32's 10-bit mantissa out of the product, whatever the process uses elsewhere."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
