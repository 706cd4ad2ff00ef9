"""Interleaved timing: every contestant runs once a round, so that a machine that drifts drifts for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Speedup:
    """The reference's time over this one's, round by round: the median, and the 5th and 95th percentile as spread."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one inference, from a uint8 batch in host memory to float32 embeddings in host memory."""

    batch: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    images_per_s: float
    """``batch * 1000 / mean_ms``."""
    iterations: int
    speedup: Speedup | None
    """None for the reference itself."""


def measure_rounds(
    contestants: Sequence[Callable[[], object]],
    rng: np.random.Generator,
    seconds: float,
    min_rounds: int,
    warmup_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Time functions against each other.

    In each round every contestant has one turn, in random order. A turn is two runs back to back, and the second is
    timed, so that what the contestant before left behind (threads that still wait in a loop, its weights in the caches)
    does not count against this one.

    Args:
        contestants: What to time; each call must return only when its work is done.
        rng: Gives the order within each round.
        seconds: Stop after the round in which this much time has passed, warm-up apart.
        min_rounds: Measure at least this many rounds.
        warmup_rounds: Rounds before that, not measured.
        clock: Seconds, rising.

    Returns:
        (rounds, contestants) milliseconds.
    """
    for _ in range(warmup_rounds):
        for contestant in contestants:
            contestant()
    rounds: list[NDArray[np.float64]] = []
    begin = clock()
    while len(rounds) < min_rounds or clock() - begin < seconds:
        times_s = np.empty(len(contestants))
        for index in rng.permutation(len(contestants)).tolist():
            contestants[index]()
            start = clock()
            contestants[index]()
            times_s[index] = clock() - start
        rounds.append(times_s)
    return np.stack(rounds) * 1000.0


def percentile(values: NDArray[np.float64], percent: int) -> float:
    """A percentile by trtexec's definition, ``sorted[n - 1 - int((1 - percent / 100) * n)]``: always a measured value.

    Whole percents, so that the count left out is exact.

    Raises:
        InputError: No values, or ``percent`` is not in 0..100.
    """
    count = len(values)
    if not count or not 0 <= percent <= 100:
        raise InputError(f"percentile needs values and a percent in 0..100, got {count} values and {percent}")
    return float(np.sort(values)[max(0, count - 1 - (100 - percent) * count // 100)])


def summarise(times_ms: NDArray[np.float64], batch: int, reference_ms: NDArray[np.float64] | None = None) -> Latency:
    """Statistics of (rounds,) milliseconds; with the reference's of the same rounds, the speedup too."""
    mean_ms = float(np.mean(times_ms))
    return Latency(
        batch=batch,
        p50_ms=percentile(times_ms, 50),
        p90_ms=percentile(times_ms, 90),
        p95_ms=percentile(times_ms, 95),
        p99_ms=percentile(times_ms, 99),
        mean_ms=mean_ms,
        images_per_s=batch * 1000.0 / mean_ms,
        iterations=len(times_ms),
        speedup=None if reference_ms is None else pair_speedup(reference_ms, times_ms),
    )


def pair_speedup(reference_ms: NDArray[np.float64], times_ms: NDArray[np.float64]) -> Speedup:
    """Speedup over the rounds; both arrays are (rounds,) milliseconds of the same rounds."""
    ratios = reference_ms / times_ms
    return Speedup(percentile(ratios, 50), percentile(ratios, 5), percentile(ratios, 95))
