"""What waits to be embedded: a bounded line a camera, emptied batch by batch so that no camera waits for another."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

WhenFull: TypeAlias = Literal["block", "drop_oldest", "reject"]
WHEN_FULL: tuple[WhenFull, ...] = ("block", "drop_oldest", "reject")


@dataclass(slots=True, eq=False)
class Request:
    """The crops of one frame, and what became of them."""

    camera: str
    crops: NDArray[np.uint8]
    """(N, H, W, 3), N at least 1."""
    embeddings: NDArray[np.float32]
    """(N, D), filled in as batches finish."""
    submitted_s: float = field(default_factory=time.perf_counter)
    future: Future[NDArray[np.float32]] = field(default_factory=Future)
    queued_s: float = math.inf
    """Since when it waits in its line."""
    taken: int = 0
    """Rows that are in a batch or were."""
    finished: int = 0
    """Rows whose embeddings are there."""
    is_ended: bool = False
    """Its outcome is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of a request that are in one batch."""

    request: Request
    rows: slice

    @property
    def crops(self) -> NDArray[np.uint8]:
        """(n, H, W, 3) of these rows."""
        return self.request.crops[self.rows]


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a request at the door."""

    outcome: Literal["waiting", "rejected", "closed"]
    displaced: Request | None = None
    """The camera's oldest request, which had to go for it."""


class RequestQueue:
    """A line a camera, each at most ``limit`` requests long, and batches of their rows.

    A batch is taken when ``max_rows`` wait or the oldest request has waited ``max_delay_s``. Cameras take turns, and
    each turn gives an equal share of what is left of the batch: one with forty people does not hold up one with two.
    A full line is its own camera's matter: it blocks, drops or rejects that camera's requests and nobody else's.

    Safe to use from any thread. No future is touched while the lock is held: its callbacks may come back here.

    Args:
        limit: Requests of one camera that may wait; one whose first row is in a batch waits no longer.
        when_full: What happens to a request that finds its line full.
        max_rows: Rows of one batch.
        max_delay_s: How long the oldest request waits for others.
    """

    def __init__(self, limit: int, when_full: WhenFull, max_rows: int, max_delay_s: float) -> None:
        self._limit, self._when_full = limit, when_full
        self._max_rows, self._max_delay_s = max_rows, max_delay_s
        self._lines: dict[str, deque[Request]] = {}
        """Cameras in the order of their turns; one without requests has no line."""
        self._rows = 0
        self._closed = False
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._went = threading.Condition(self._lock)

    @property
    def waiting_rows(self) -> int:
        """Rows that are in no batch yet."""
        with self._lock:
            return self._rows

    def put(self, request: Request, timeout_s: float | None = None, may_block: bool = True) -> Admission:
        """Let a request wait, as far as its camera's line allows.

        Args:
            request: Not in a queue yet.
            timeout_s: How long ``block`` waits for room before it rejects; for ever when None.
            may_block: False rejects instead of blocking: for the thread that empties the queue.
        """
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        displaced = None
        with self._lock:
            while not self._closed and self._is_full(request.camera):
                if self._when_full == "drop_oldest":
                    displaced = self._drop_oldest(request.camera)
                    break
                left = None if deadline is None else deadline - time.perf_counter()
                if self._when_full == "reject" or not may_block or (left is not None and left <= 0):
                    return Admission("rejected")
                self._went.wait(left)
            if self._closed:
                return Admission("closed")
            request.queued_s = time.perf_counter()
            self._lines.setdefault(request.camera, deque()).append(request)
            self._rows += len(request.crops)
            self._came.notify()
        return Admission("waiting", displaced)

    def take(self) -> list[Piece]:
        """Wait for a batch: 1 to ``max_rows`` rows of the requests that wait; none at all once closed and empty."""
        with self._lock:
            while not self._closed and self._rows < self._max_rows:
                if not self._rows:
                    self._came.wait()
                    continue
                left = self._oldest_s() + self._max_delay_s - time.perf_counter()
                if left <= 0:
                    break
                self._came.wait(left)
            pieces = self._fill_batch()
            self._went.notify_all()
        return pieces

    def close(self) -> None:
        """Let nothing more in; what waits can still be taken."""
        with self._lock:
            self._closed = True
            self._came.notify_all()
            self._went.notify_all()

    def clear(self) -> list[Request]:
        """Take out every request that has rows left, even those with rows in a batch."""
        with self._lock:
            requests = [request for line in self._lines.values() for request in line]
            self._lines.clear()
            self._rows = 0
            self._went.notify_all()
        return requests

    def discard(self, request: Request) -> None:
        """Take out one request, if it is still in."""
        with self._lock:
            line = self._lines.get(request.camera)
            if line is not None and request in line:
                line.remove(request)
                self._rows -= len(request.crops) - request.taken
                if not line:
                    del self._lines[request.camera]
                self._went.notify_all()

    def _is_full(self, camera: str) -> bool:
        return sum(not request.taken for request in self._lines.get(camera, ())) >= self._limit

    def _drop_oldest(self, camera: str) -> Request:
        line = self._lines[camera]
        oldest = next(request for request in line if not request.taken)
        line.remove(oldest)
        self._rows -= len(oldest.crops)
        return oldest

    def _oldest_s(self) -> float:
        return min(line[0].queued_s for line in self._lines.values())

    def _fill_batch(self) -> list[Piece]:
        """Give each camera an equal share; what one leaves goes to the next, and round again until full or empty.

        Those that got something are the last of the next batch.
        """
        shares: dict[Request, list[int]] = {}
        room = self._max_rows
        while room and self._lines:
            cameras = list(self._lines)
            for place, camera in enumerate(cameras):
                share = max(1, room // (len(cameras) - place)) if room else 0
                while share and camera in self._lines:
                    request = self._lines[camera][0]
                    rows = min(share, len(request.crops) - request.taken)
                    shares.setdefault(request, [request.taken, request.taken])[1] += rows
                    request.taken += rows
                    self._rows -= rows
                    room, share = room - rows, share - rows
                    if request.taken == len(request.crops):
                        self._pop(camera)
        for camera in dict.fromkeys(request.camera for request in shares):
            if camera in self._lines:
                self._lines[camera] = self._lines.pop(camera)
        return [Piece(request, slice(*rows)) for request, rows in shares.items()]

    def _pop(self, camera: str) -> None:
        line = self._lines[camera]
        line.popleft()
        if not line:
            del self._lines[camera]
