"""Interleaved timing: every contestant runs once a round, so that a machine that drifts drifts for all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Speedup:
    """The reference's time over this one's, round by round."""

    median: float
    low: float
    """5th percentile over the rounds."""
    high: float
    """95th percentile over the rounds."""
    median_low: float
    """Lower end of the 95 % interval of the median."""
    median_high: float
    """Upper end."""


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
    uncertainty: float
    """Half the 95 % interval of the median, as a share of it: of the speedup, for the reference of its own time."""
    speedup: Speedup | None
    """None for the reference itself."""


STEADY = 0.03
"""A median that is known no better than this is not to be relied on."""
TARGET = 0.01
"""Go on until the median of every ratio is known this well, or the time is up."""
SETTLE_S = 0.1
"""How long a contestant runs before it is timed, so that the one before it has come to rest."""
_LOOK_EVERY = 10
"""Rounds between two looks at how well the ratios are known."""


@dataclass(frozen=True, slots=True)
class SelfTimed:
    """What a contestant in another process returns: its own time counts, not that of the way to it and back."""

    seconds: float


def measure_rounds(
    contestants: Sequence[Callable[[], object]],
    rng: np.random.Generator,
    seconds: float,
    min_rounds: int,
    warmup_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    max_seconds: float | None = None,
    target: float = TARGET,
    settle_s: float = SETTLE_S,
) -> NDArray[np.float64]:
    """Time functions against each other.

    In each round every contestant has one turn, in random order. In a turn it runs, once at least, until ``settle_s``
    has passed, and the run after that is timed: threads of the contestant before it still wait in a loop for a while
    and take a core from it, and its own weights have left the caches. Garbage collection waits meanwhile.

    Args:
        contestants: What to time, the reference first; each call must return only when its work is done. One that
            returns :class:`SelfTimed` is taken at its word.
        rng: Gives the order within each round.
        seconds: Measure for at least this long, warm-up apart.
        min_rounds: Measure at least this many rounds.
        warmup_rounds: Rounds before that, not measured.
        clock: Seconds, rising.
        max_seconds: Then go on, until the median of every ratio to the reference is known to ``target``, or this much
            time has passed; not at all when None.
        target: Half the 95 % interval of a ratio's median, as a share of it.
        settle_s: Seconds that a contestant runs untimed in each turn; 0 is one run, enough where no CPU thread waits.

    Returns:
        (rounds, contestants) milliseconds.
    """
    for _ in range(warmup_rounds):
        for contestant in contestants:
            contestant()
    rounds: list[NDArray[np.float64]] = []
    begin = clock()
    with _no_garbage_collection():
        while (
            len(rounds) < min_rounds
            or (passed := clock() - begin) < seconds
            or (max_seconds is not None and passed < max_seconds and not _known(rounds, target))
        ):
            times_s = np.empty(len(contestants))
            for index in rng.permutation(len(contestants)).tolist():
                times_s[index] = _turn(contestants[index], clock, settle_s)
            rounds.append(times_s)
    return np.stack(rounds) * 1000.0


def _turn(contestant: Callable[[], object], clock: Callable[[], float], settle_s: float) -> float:
    """Seconds of one run, after runs that are not timed."""
    start = clock()
    contestant()
    while clock() - start < settle_s:
        contestant()
    start = clock()
    result = contestant()
    return result.seconds if isinstance(result, SelfTimed) else clock() - start


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Reference counting still frees what it can; a collection of cycles would fall on whoever runs at the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _known(rounds: Sequence[NDArray[np.float64]], target: float) -> bool:
    """Whether every ratio's median is known well enough; looked at now and then, for it costs time."""
    if len(rounds) % _LOOK_EVERY:
        return False
    times = np.stack(rounds)
    return all(_uncertainty(times[:, 0] / times[:, column]) <= target for column in range(1, times.shape[1]))


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the median of a series, by order statistics (Conover, 1999, section 3.2).

    Values that follow each other may be alike, so that the series counts for fewer than it has: ``n / tau``, with
    ``tau = 1 + 2 (r1 + r2 + ...)`` by the correlations of which values lie above the median, summed in pairs as long as
    a pair is positive (Geyer, 1992, section 3.3, initial positive sequence).

    Args:
        values: (n,) in the order in which they were measured.

    Returns:
        Two of the values; the least and the greatest where there are too few to tell.
    """
    count = len(values)
    ranked = np.sort(values)
    # Of n values, half lie below the median, give or take 1.96 sqrt(n) / 2: as a share, 0.98 / sqrt(n).
    reach = 0.98 / np.sqrt(max(count / _correlation_time(np.sign(values - np.median(values))), 1.0))
    low, high = int(np.floor((0.5 - reach) * count)), int(np.ceil((0.5 + reach) * count)) - 1
    return float(ranked[max(low, 0)]), float(ranked[min(high, count - 1)])


def _correlation_time(series: NDArray[np.float64]) -> float:
    """How many values in a row count for one, 1 at least: ``tau`` of :func:`median_interval`."""
    count = len(series)
    centred = series - np.mean(series)
    square = float(np.sum(centred**2))
    if count < 4 or square == 0.0:
        return 1.0
    tau = 1.0
    for lag in range(1, count // 2, 2):
        pair = sum(float(np.sum(centred[k:] * centred[:-k])) / square for k in (lag, lag + 1))
        if pair <= 0:
            break
        tau += 2 * pair
    return tau


def _uncertainty(values: NDArray[np.float64]) -> float:
    low, high = median_interval(values)
    return (high - low) / 2 / percentile(values, 50)


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
        uncertainty=_uncertainty(times_ms if reference_ms is None else reference_ms / times_ms),
        speedup=None if reference_ms is None else pair_speedup(reference_ms, times_ms),
    )


def pair_speedup(reference_ms: NDArray[np.float64], times_ms: NDArray[np.float64]) -> Speedup:
    """Speedup over the rounds; both arrays are (rounds,) milliseconds of the same rounds."""
    ratios = reference_ms / times_ms
    return Speedup(percentile(ratios, 50), percentile(ratios, 5), percentile(ratios, 95), *median_interval(ratios))


def unsteady_sentence(
    name: str, measured: Mapping[str, Sequence[Latency]], state: dict[str, Any] | None = None
) -> str | None:
    """Words for measurements that are known too badly to rely on, and what to do; None where there are none.

    Args:
        name: Of the model.
        measured: Its measurements, by what their batches are: ``batches``, ``frames with boxes``.
        state: :func:`~hamr_edge.machine_state.machine_state` after them, to name what may be the reason.
    """
    unsteady = [
        (what, latency) for what, all_of in measured.items() for latency in all_of if latency.uncertainty > STEADY
    ]
    if not unsteady:
        return None
    known = "speed against the reference" if unsteady[0][1].speedup else "time"
    places = ", ".join(f"{what} of {latency.batch} to {100 * latency.uncertainty:.0f} %" for what, latency in unsteady)
    remedies = ["stop other programs", "measure longer with --max-seconds"]
    reasons = ""
    if state is not None:
        load, governors, pinned = (state["cpu"][key] for key in ("load_average", "governors", "pinned"))
        if load is not None:
            reasons = f" (load {load:.1f} on {state['cores']:g} cores)"
        if governors and governors != ["performance"]:
            remedies.append(f"set the CPU's governor to performance, it is {' and '.join(governors)}")
        elif pinned is False:
            remedies.append("pin the CPU's clock")
        if state["jetson"] is not None and state["jetson"]["gpu_pinned"] is False:
            remedies.append("pin the clocks with 'sudo jetson_clocks'")
    return (
        f"the {known} of {name} is not known well enough to go by it: {places}, over "
        f"{min(latency.iterations for _, latency in unsteady)} rounds or more{reasons}; {', '.join(remedies[:-1])} or "
        f"{remedies[-1]}"
    )
