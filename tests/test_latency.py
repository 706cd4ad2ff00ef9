from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.benchmarks.latency import (
    SelfTimed,
    measure_rounds,
    median_interval,
    pair_speedup,
    percentile,
    summarise,
    unsteady_sentence,
)


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
    _measure(clock, [clock.worker(name, 0.25) for name in "abc"], rounds=20)
    turns = [clock.calls[start : start + 2] for start in range(0, len(clock.calls), 2)]
    assert all(first == second for first, second in turns)
    rounds = ["".join(turn[0] for turn in turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert len(rounds) == 20
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 2  # the order is random


def test_the_run_after_the_first_is_timed() -> None:
    clock = FakeClock()
    assert _measure(clock, [clock.worker("cold", 9.0, 1.0)], rounds=3).tolist() == [[1000.0]] * 3


def test_a_short_contestant_runs_until_the_one_before_is_at_rest() -> None:
    clock = FakeClock()
    worker = clock.worker("quick", 0.004, 0.003, 0.003, 0.001)
    times_ms = measure_rounds([worker], np.random.default_rng(0), 0, 2, 0, clock, settle_s=0.01)
    np.testing.assert_allclose(times_ms, [[1.0]] * 2)
    times_ms = measure_rounds(
        [clock.worker("other", 0.004, 0.003)], np.random.default_rng(0), 0, 2, 0, clock, settle_s=0
    )
    np.testing.assert_allclose(times_ms, [[3.0]] * 2)


def test_a_contestant_in_another_process_times_itself() -> None:
    clock = FakeClock()
    work = clock.worker("peer", 0.5)

    def peer() -> SelfTimed:
        work()
        return SelfTimed(0.25)

    assert _measure(clock, [peer], rounds=2).tolist() == [[250.0]] * 2


def _noisy(clock: FakeClock, name: str, mean_s: float, noise: float, seed: int) -> Callable[[], object]:
    times_s = mean_s * (1 + noise * np.random.default_rng(seed).standard_normal(997))
    return clock.worker(name, *times_s.clip(0.11).tolist())


def test_it_goes_on_until_the_ratios_are_known() -> None:
    def rounds(noise: float, **limits: Any) -> int:
        clock = FakeClock()
        pair = [_noisy(clock, "reference", 0.25, noise, 0), _noisy(clock, "artifact", 0.125, noise, 1)]
        return len(measure_rounds(pair, np.random.default_rng(0), 1.0, 10, 0, clock, **limits))

    assert rounds(0.05) == 10
    enough = rounds(0.05, max_seconds=1e4)
    assert 30 <= enough <= 1000
    assert enough % 10 == 0
    assert rounds(0.05, max_seconds=1e4, target=0.03) < enough
    assert rounds(0.5, max_seconds=30.0) <= 60  # the time is up
    assert rounds(0.0, max_seconds=1e4) == 10


def test_garbage_is_not_collected_while_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    seen: list[bool] = []
    work = clock.worker("a", 0.25)

    def watched() -> None:
        work()
        seen.append(gc.isenabled())

    _measure(clock, [watched], rounds=2)
    assert seen == [False] * 4
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        _measure(clock, [lambda: 1 / 0], rounds=1)
    assert gc.isenabled()
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    monkeypatch.setattr(gc, "enable", lambda: pytest.fail("it was off before"))
    try:
        _measure(clock, [work], rounds=1)
    finally:
        monkeypatch.undo()
        gc.enable()


@pytest.mark.parametrize(("alike", "least"), [(0.0, 0.9), (0.6, 0.8)])
def test_the_interval_holds_the_median_as_often_as_it_says(alike: float, least: float) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        series = rng.standard_normal(100)
        for index in range(1, len(series)):
            series[index] = alike * series[index - 1] + np.sqrt(1 - alike**2) * series[index]
        low, high = median_interval(series)
        held.append(low <= 0 <= high)
    assert least <= np.mean(held) <= 0.99


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60))
def test_an_interval_is_two_of_the_values_around_the_median(values: list[float]) -> None:
    low, high = median_interval(np.array(values))
    assert {low, high} <= set(values)
    assert low <= np.median(values) <= high


def test_a_drift_makes_the_median_less_known() -> None:
    shuffled = np.random.default_rng(0).permutation(np.linspace(1.0, 2.0, 200))
    width = np.diff(median_interval(shuffled))
    assert np.diff(median_interval(np.sort(shuffled))) > 3 * width


def test_an_unsteady_measurement_says_so() -> None:
    rng = np.random.default_rng(0)
    reference_ms = 10 * (1 + 0.01 * rng.standard_normal(50))
    steady = summarise(reference_ms / 2, 8, reference_ms)
    assert unsteady_sentence("int8", {"batches": [steady]}) is None
    wild = summarise(10 * rng.uniform(0.5, 1.5, 20), 8, reference_ms[:20])
    assert wild.speedup is not None
    half = (wild.speedup.median_high - wild.speedup.median_low) / 2
    assert wild.uncertainty == pytest.approx(half / wild.speedup.median)
    sentence = unsteady_sentence("int8", {"batches": [steady, wild]})
    share = f"{100 * wild.uncertainty:.0f} %"
    assert sentence == (
        f"the speed against the reference of int8 is not known well enough to go by it: batches of 8 to {share}, over "
        "20 rounds or more; stop other programs or measure longer with --max-seconds"
    )
    state = {
        "cores": 2,
        "cpu": {"load_average": 3.14, "governors": ["powersave"], "pinned": False},
        "jetson": {"gpu_pinned": False},
    }
    alone = replace(wild, speedup=None)
    assert unsteady_sentence("fp32", {"frames": [alone], "batches": [alone]}, state) == (
        f"the time of fp32 is not known well enough to go by it: frames of 8 to {share}, batches of 8 to {share}, over "
        "20 rounds or more (load 3.1 on 2 cores); stop other programs, measure longer with --max-seconds, set the "
        "CPU's governor to performance, it is powersave or pin the clocks with 'sudo jetson_clocks'"
    )


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
        _measure(clock, [clock.worker(name, 0.25) for name in "abcd"], rounds=5)
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
