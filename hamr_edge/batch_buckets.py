"""Batch sizes that an engine is run at: few enough to keep a CUDA graph for each."""

from __future__ import annotations

from bisect import bisect_left


def batch_buckets(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, 8, then 12, 16, 24, 32, 48 and so on up to the maximum, which is the last.

    Up to 8 a batch costs a GPU about the same as its bucket; above, steps of a third and a half keep what padding
    adds below one half.
    """
    sizes = [1, 2, 4]
    power = 8
    while power < max_batch:
        sizes += [power, power * 3 // 2]
        power *= 2
    return (*(size for size in sizes if size < max_batch), max_batch)


def bucket_of(rows: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds so many rows; there must be one."""
    return buckets[bisect_left(buckets, rows)]
