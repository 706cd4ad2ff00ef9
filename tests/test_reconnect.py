from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.errors import InputError
from hamr_edge.reconnect import Reconnect, ReconnectAttempts


def test_delays_grow_to_the_longest() -> None:
    rule = Reconnect()
    assert [rule.delay_s(attempt) for attempt in range(1, 8)] == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert rule.delay_s(3, chance=0.5) == pytest.approx(3.6)
    assert Reconnect(factor=1, jitter=0).delay_s(9, chance=1) == 1
    assert Reconnect(first_delay_s=0).delay_s(5) == 0


@given(
    first=st.floats(0, 100),
    more=st.floats(0, 1000),
    factor=st.floats(1, 50),
    jitter=st.floats(0, 1),
    attempt=st.integers(1, 10**9),
    chance=st.floats(0, 1),
)
def test_delays_keep_their_bounds_however_long_it_takes(
    first: float, more: float, factor: float, jitter: float, attempt: int, chance: float
) -> None:
    rule = Reconnect(first, factor, first + more, jitter=jitter)
    delay_s = rule.delay_s(attempt, chance)
    assert first * (1 - jitter) * (1 - 1e-9) <= delay_s <= first + more
    assert rule.delay_s(attempt) <= rule.delay_s(attempt + 1) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first_delay_s": -1}, "delays must have"),
        ({"first_delay_s": 40}, "got 40 and 30"),
        ({"longest_delay_s": math.inf}, "finite"),
        ({"factor": 0.5}, "factor must be at least 1"),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"jitter": 1.5}, "jitter must be from 0 to 1"),
        ({"jitter": math.nan}, "jitter must be from 0 to 1"),
    ],
)
def test_rules_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Reconnect(**settings)


def test_attempts_in_a_row_are_counted_and_the_row_ends_with_frames() -> None:
    attempts = ReconnectAttempts(Reconnect(attempts=3, jitter=0))
    assert attempts.delay_s() == 0
    assert [attempts.take_next(0) for _ in range(4)] == [True, True, True, False]
    assert attempts.delay_s() == pytest.approx(4)
    assert not attempts.take_next(frames_came_for_s=3.9)  # no longer than the delay before
    assert attempts.take_next(frames_came_for_s=4.1)
    assert (attempts.count, attempts.delay_s()) == (1, 1)


def test_no_rule_is_no_attempt() -> None:
    assert not ReconnectAttempts(None).take_next(100)


def test_chance_spreads_the_attempts_of_many_cameras() -> None:
    attempts = ReconnectAttempts(Reconnect())
    attempts.take_next(0)
    delays = [attempts.delay_s() for _ in range(50)]
    assert 0.8 <= min(delays) < max(delays) <= 1
