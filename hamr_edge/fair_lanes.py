"""A semaphore that serves whoever has waited longest: a camera whose frames are quick cannot starve the others."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLanes:
    """Lets at most ``lanes`` threads into its ``with`` block, in the order in which they came.

    ``threading.Semaphore`` gives no such promise: a thread that comes back at once often goes first again.

    Args:
        lanes: At least 1.
    """

    def __init__(self, lanes: int) -> None:
        self._free = lanes
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> FairLanes:
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return self
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # the lane goes from hand to hand
            else:
                self._free += 1
