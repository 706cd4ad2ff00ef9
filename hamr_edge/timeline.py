"""When each stage of the pipeline was at work: sums for a report, and a trace that shows what overlapped."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hamr_edge.text_file import write_text
from hamr_edge.video import Frame, FrameSource

_NEWEST = 100_000


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work; times are seconds since the timeline began."""

    stage: str
    camera: str
    thread: str
    start_s: float
    end_s: float
    thread_id: int = 0
    """Tells threads of one name apart."""


class Timeline:
    """Spans of work from any number of threads. Sums are of all spans; the newest 100,000 are kept one by one."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stopped: float | None = None
        self._lock = threading.Lock()
        self._spans: deque[Span] = deque(maxlen=_NEWEST)
        self._seconds: dict[str, float] = {}

    @contextmanager
    def span(self, stage: str, camera: str = "") -> Iterator[None]:
        """Record the ``with`` block, even one that raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            name, number = threading.current_thread().name, threading.get_ident()
            span = Span(stage, camera, name, start - self._began, end - self._began, number)
            with self._lock:
                self._spans.append(span)
                self._seconds[stage] = self._seconds.get(stage, 0.0) + end - start

    def stop(self) -> None:
        """Fix the total; a second call does nothing."""
        if self._stopped is None:
            self._stopped = time.perf_counter()

    @property
    def total_s(self) -> float:
        """Seconds from the timeline's making to :meth:`stop`, or to now."""
        return (self._stopped or time.perf_counter()) - self._began

    @property
    def spans(self) -> list[Span]:
        """The newest spans in the order in which they ended."""
        with self._lock:
            return list(self._spans)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of work a stage, in the order of first use. Threads work side by side: they may exceed the total."""
        with self._lock:
            return dict(self._seconds)

    def write_trace(self, path: Path) -> None:
        """Write the spans as Chrome trace events (JSON), which ui.perfetto.dev and chrome://tracing show.

        Args:
            path: The file to make or replace.

        Raises:
            InputError: It cannot be written.
        """
        spans = self.spans
        seen = dict.fromkeys((span.thread, span.thread_id) for span in spans)
        threads = {thread: number for number, thread in enumerate(seen, 1)}
        events: list[dict[str, object]] = [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": name}}
            for (name, _), number in threads.items()
        ]
        events += [
            {
                "ph": "X",
                "name": span.stage,
                "cat": span.stage,
                "pid": 1,
                "tid": threads[span.thread, span.thread_id],
                "ts": round(1e6 * span.start_s, 3),
                "dur": round(1e6 * (span.end_s - span.start_s), 3),
                "args": {"camera": span.camera},
            }
            for span in spans
        ]
        write_text(json.dumps({"displayTimeUnit": "ms", "traceEvents": events}) + "\n", str(path), "--timeline")


class TimedSource(FrameSource):
    """A source whose every frame is a span of the stage ``decode``.

    Args:
        source: Not open.
        timeline: Gets the spans.
        camera: Whose they are.
    """

    def __init__(self, source: FrameSource, timeline: Timeline, camera: str) -> None:
        self._source, self._timeline, self._camera = source, timeline, camera
        self._take_facts()

    def open(self) -> None:
        """Open the source."""
        self._source.open()
        self._take_facts()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def fresh(self) -> TimedSource:
        """Another of the same source, not open."""
        return TimedSource(self._source.fresh(), self._timeline, self._camera)

    def __iter__(self) -> Iterator[Frame]:
        """The source's frames."""
        frames = iter(self._source)
        while True:
            with self._timeline.span("decode", self._camera):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _take_facts(self) -> None:
        for name in ("name", "fps", "frame_count", "is_live"):
            if hasattr(self._source, name):  # some are known once open
                setattr(self, name, getattr(self._source, name))


def overlap_share(spans: list[Span], first: str, second: str) -> float:
    """The share of the time in which stage ``first`` was at work that ``second`` was at work too, 0..1.

    Args:
        spans: Of one timeline.
        first: A stage; without any span of it the share is 0.
        second: Another stage.
    """
    mine, theirs = (_merge([span for span in spans if span.stage == stage]) for stage in (first, second))
    shared, place = 0.0, 0
    for start, end in mine:
        while place < len(theirs) and theirs[place][1] <= start:
            place += 1
        for other_start, other_end in islice(theirs, place, None):
            if other_start >= end:
                break
            shared += min(end, other_end) - max(start, other_start)
    at_work = sum(end - start for start, end in mine)
    return shared / at_work if at_work else 0.0


def _merge(spans: list[Span]) -> list[tuple[float, float]]:
    """Starts and ends of the stretches in which at least one of the spans was at work."""
    merged: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        if merged and span.start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], span.end_s))
        else:
            merged.append((span.start_s, span.end_s))
    return merged
