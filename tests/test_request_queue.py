from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.request_queue import Request, RequestQueue

LONG_S = 60.0


def request(camera: str, rows: int) -> Request:
    return Request(camera, np.zeros((rows, 2, 1, 3), np.uint8), np.empty((rows, 4), np.float32))


def filled(requests: list[Request], max_rows: int, limit: int = 1000) -> RequestQueue:
    queue = RequestQueue(limit, "block", max_rows, max_delay_s=0.0)
    for item in requests:
        assert queue.put(item).outcome == "waiting"
    return queue


@given(
    sizes=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 20)), min_size=1, max_size=20),
    max_rows=st.integers(1, 12),
)
def test_every_row_is_taken_once_in_order_in_batches_no_larger_than_asked_for(
    sizes: list[tuple[str, int]], max_rows: int
) -> None:
    requests = [request(camera, rows) for camera, rows in sizes]
    queue = filled(requests, max_rows)
    left = sum(rows for _, rows in sizes)
    taken: dict[Request, list[int]] = {item: [] for item in requests}
    while left:
        assert queue.waiting_rows == left
        pieces = queue.take()
        rows = sum(len(piece.crops) for piece in pieces)
        assert rows == min(max_rows, left)
        assert len({piece.request for piece in pieces}) == len(pieces)
        for piece in pieces:
            taken[piece.request] += range(piece.rows.start, piece.rows.stop)
        left -= rows
    assert all(rows == list(range(len(item.crops))) for item, rows in taken.items())
    for camera in "abcd":  # within a camera, first come, first served
        firsts = [item for item in requests if item.camera == camera]
        assert all(item.taken == len(item.crops) for item in firsts)
    assert queue.waiting_rows == 0


@given(crowded=st.integers(1, 200), others=st.integers(1, 6), max_rows=st.integers(1, 16), of_others=st.integers(1, 3))
def test_a_crowded_camera_takes_no_more_than_its_share_of_a_batch(
    crowded: int, others: int, max_rows: int, of_others: int
) -> None:
    queue = filled([request("crowd", crowded), *(request(f"c{i}", of_others) for i in range(others))], max_rows)
    rows = Counter[str]()
    batches = 0
    while any(rows[f"c{i}"] < of_others for i in range(others)):
        batches += 1
        for piece in queue.take():
            rows[piece.request.camera] += len(piece.crops)
    # In turns of one row each, the others would be through after this many batches.
    assert batches <= -(-of_others * (others + 1) // max_rows) + 1


def test_a_camera_that_got_nothing_is_first_in_the_next_batch() -> None:
    queue = filled([request(name, 2) for name in "abcde"], max_rows=2)
    assert ["".join(piece.request.camera for piece in queue.take()) for _ in range(5)] == ["ab", "cd", "ea", "bc", "de"]


def test_a_batch_waits_for_others_until_the_oldest_request_is_due() -> None:
    queue = RequestQueue(10, "block", max_rows=100, max_delay_s=0.05)
    queue.put(request("a", 3))
    queue.put(request("b", 2))
    started = time.perf_counter()
    pieces = queue.take()
    assert [len(piece.crops) for piece in pieces] == [3, 2]
    assert time.perf_counter() - started >= 0.03  # submission began a moment before


def test_a_full_batch_waits_for_nobody() -> None:
    queue = RequestQueue(10, "block", max_rows=4, max_delay_s=LONG_S)
    queue.put(request("a", 5))
    assert [len(piece.crops) for piece in queue.take()] == [4]
    queue.close()
    assert [len(piece.crops) for piece in queue.take()] == [1]
    assert queue.take() == []


def test_a_full_line_rejects_or_drops_its_own_camera_only() -> None:
    rejecting = RequestQueue(1, "reject", 8, LONG_S)
    assert rejecting.put(request("a", 1)).outcome == "waiting"
    assert rejecting.put(request("a", 1)).outcome == "rejected"
    assert rejecting.put(request("b", 1)).outcome == "waiting"
    dropping = RequestQueue(2, "drop_oldest", 8, LONG_S)
    first, other, second, third = request("a", 1), request("b", 1), request("a", 2), request("a", 3)
    assert [dropping.put(item).displaced for item in (first, other, second, third)] == [None, None, None, first]
    assert dropping.waiting_rows == 6


def test_a_request_that_is_in_a_batch_already_is_not_dropped() -> None:
    queue = RequestQueue(1, "drop_oldest", 2, 0.0)
    started = request("a", 5)
    queue.put(started)
    queue.take()
    assert queue.put(request("a", 1)).displaced is None
    assert [piece.rows for piece in queue.take()] == [slice(2, 4)]


def test_blocking_ends_when_there_is_room_or_the_time_is_up_or_the_queue_closes() -> None:
    queue = RequestQueue(1, "block", 8, 0.0)
    queue.put(request("a", 1))
    assert queue.put(request("a", 1), timeout_s=0.01).outcome == "rejected"
    assert queue.put(request("a", 1), may_block=False).outcome == "rejected"
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(queue.put(request("a", 1)).outcome)) for _ in range(2)]
    for thread in threads:
        thread.start()
    queue.take()
    while not outcomes:
        time.sleep(0.001)
    queue.close()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == ["closed", "waiting"]


@pytest.mark.parametrize("started", [False, True])
def test_a_discarded_request_leaves_nothing_behind(started: bool) -> None:
    queue = filled([item := request("a", 5), request("a", 1)], max_rows=2)
    if started:
        queue.take()
    queue.discard(item)
    queue.discard(item)
    assert queue.waiting_rows == 1
    assert [piece.request is item for piece in queue.take()] == [False]
    queue = filled([item], max_rows=2)
    assert queue.clear() == [item]
    assert queue.waiting_rows == 0
