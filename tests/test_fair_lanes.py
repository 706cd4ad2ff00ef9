from __future__ import annotations

import threading
import time

import pytest

from hamr_edge.fair_lanes import FairLanes


def test_whoever_came_first_goes_first_even_past_one_that_comes_back_at_once() -> None:
    lanes, order = FairLanes(1), list[str]()

    def work(name: str) -> None:
        for _ in range(20):
            with lanes:
                order.append(name)
                time.sleep(0.0005)

    with lanes:  # all four wait before the first goes
        threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert order[:4] == list("abcd")
    assert all(set(order[start : start + 4]) == set("abcd") for start in range(0, 76, 4))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_are_inside_than_there_are_lanes_and_errors_free_them(count: int) -> None:
    lanes, lock = FairLanes(count), threading.Lock()
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            try:
                with lanes:
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.0002)
                    with lock:
                        inside -= 1
                    raise ValueError("on purpose")
            except ValueError:
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == count
    assert inside == 0
