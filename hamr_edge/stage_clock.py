"""Where a loop's time goes: one sum a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up the time of named stages. What lies between them is ``other``."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._total: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the ``with`` block, even one that raises, for ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def stop(self) -> None:
        """Fix the total; a second call does nothing."""
        if self._total is None:
            self._total = time.perf_counter() - self._started

    @property
    def total_s(self) -> float:
        """Seconds from the clock's making to :meth:`stop`, or to now."""
        return time.perf_counter() - self._started if self._total is None else self._total

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage in the order of their first use, and of ``other``; they sum to the total."""
        return {**self._seconds, "other": max(0.0, self.total_s - sum(self._seconds.values()))}
