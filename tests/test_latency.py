from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hamr_edge import InputError
from hamr_edge.benchmarks.latency import measure_rounds, pair_speedup, percentile, summarise


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def worker(self, name: str, *durations_s: float) -> Callable[[], object]:
        def work() -> None:
            self.now += durations_s[self.calls.count(name) % len(durations_s)]
            self.calls.append(name)

        return work


def _measure(clock: FakeClock, workers: list, seconds: float = 0.0, rounds: int = 1, warmup: int = 0) -> np.ndarray:
    return measure_rounds(workers, np.random.default_rng(0), seconds, rounds, warmup, clock)


def test_each_column_is_a_contestants_time_in_milliseconds() -> None:
    clock = FakeClock()
    times_ms = _measure(clock, [clock.worker("slow", 0.5), clock.worker("fast", 0.125)], rounds=4)
    np.testing.assert_allclose(times_ms, [[500, 125]] * 4)


def test_every_contestant_has_one_turn_a_round_of_two_runs() -> None:
    clock = FakeClock()
    _measure(clock, [clock.worker(name, 0.1) for name in "abc"], rounds=20)
    turns = [clock.calls[start : start + 2] for start in range(0, len(clock.calls), 2)]
    assert all(first == second for first, second in turns)
    rounds = ["".join(turn[0] for turn in turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert len(rounds) == 20
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 2  # the order is random


def test_the_second_run_of_a_turn_is_timed() -> None:
    clock = FakeClock()
    assert _measure(clock, [clock.worker("cold", 9.0, 1.0)], rounds=3).tolist() == [[1000.0]] * 3


def test_warm_up_is_not_timed() -> None:
    clock = FakeClock()
    times_ms = _measure(clock, [clock.worker("a", *([50.0] * 5), *([1.0] * 100))], rounds=2, warmup=5)
    assert times_ms.tolist() == [[1000.0]] * 2
    assert len(clock.calls) == 5 + 2 * 2


def test_time_bounds_the_rounds_but_not_below_the_minimum() -> None:
    clock = FakeClock()
    assert len(_measure(clock, [clock.worker("a", 0.5)], seconds=4.5)) == 5
    assert len(_measure(clock, [clock.worker("a", 60.0)], seconds=1, rounds=3)) == 3


def test_a_seed_fixes_the_order() -> None:
    orders = []
    for _ in range(2):
        clock = FakeClock()
        _measure(clock, [clock.worker(name, 0.1) for name in "abcd"], rounds=5)
        orders.append(clock.calls)
    assert orders[0] == orders[1]


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [
        (1, 50, 1), (1, 99, 1), (1, 0, 1),
        (10, 50, 5), (10, 90, 9), (10, 95, 10), (10, 99, 10), (10, 100, 10), (10, 0, 1),
        (100, 90, 90), (100, 95, 95), (100, 99, 99), (200, 99, 198), (11, 50, 6), (20, 5, 1),
    ],
)  # fmt: skip
def test_percentiles_are_trtexecs(count: int, percent: int, expected: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, count + 1)).astype(float)
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_a_percentile_of_nothing_is_refused(values: list[float], percent: int) -> None:
    with pytest.raises(InputError, match="percentile needs"):
        percentile(np.array(values), percent)


def test_a_summary_holds_what_the_rounds_held() -> None:
    times_ms = np.arange(1.0, 101.0)
    latency = summarise(times_ms, batch=8, reference_ms=times_ms * 3)
    assert (latency.p50_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms) == (50, 90, 95, 99)
    assert latency.mean_ms == 50.5
    assert latency.images_per_s == pytest.approx(8 * 1000 / 50.5)
    assert latency.iterations == 100
    assert latency.speedup is not None
    assert (latency.speedup.median, latency.speedup.low, latency.speedup.high) == (3, 3, 3)
    assert summarise(times_ms, batch=8).speedup is None


def test_a_speedup_is_taken_pair_by_pair() -> None:
    machine = np.random.default_rng(0).uniform(1, 10, 50)  # a machine that drifts slows both alike
    speedup = pair_speedup(machine * 20, machine * 10)
    assert (speedup.low, speedup.median, speedup.high) == pytest.approx((2, 2, 2))
    spread = pair_speedup(np.arange(1.0, 101.0), np.ones(100))
    assert (spread.low, spread.median, spread.high) == (5, 50, 95)
