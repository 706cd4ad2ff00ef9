"""What a live view shows of each camera: the newest frame's people, how fast frames come, how old the last one is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from hamr_edge.camera_report import CameraReport, EmbeddedFrame
from hamr_edge.cameras import CameraPipeline
from hamr_edge.frame_reader import FrameReader
from hamr_edge.naming import Named
from hamr_edge.pipeline import EmbeddingService

_RATE_WINDOW_S = 3.0


@dataclass(slots=True)
class _Seen:
    people: list[Named] = field(default_factory=list)
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=512))


class WatchState:
    """The newest of every camera. Safe to read from any thread.

    Args:
        cameras: Names.
        pipeline: Says how the cameras are.
        service: Says how the model is.
        readers: Of the cameras, in order: each says why its source is away.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        pipeline: CameraPipeline,
        service: EmbeddingService,
        readers: Sequence[FrameReader] = (),
    ) -> None:
        self._pipeline, self._service = pipeline, service
        self._readers = dict(zip(cameras, readers, strict=False))
        self._started_s = time.monotonic()
        self._lock = threading.Lock()
        self._seen = {name: _Seen() for name in cameras}

    def update(self, seen: EmbeddedFrame, people: list[Named]) -> None:
        """Take a frame and its people."""
        now = time.monotonic()
        with self._lock:
            camera = self._seen[seen.camera]
            camera.people = people
            camera.times_s.append(now)

    def age_s(self, name: str) -> float:
        """Seconds since a camera's last frame was through; before the first, since the start."""
        age_s, _, _ = self._look(name)
        return min(age_s, time.monotonic() - self._started_s)

    def error(self, name: str, report: CameraReport) -> str:
        """Why a camera failed or its source is away, or its last failed frame; empty without one."""
        if report.state in ("reconnecting", "stalled") and name in self._readers:
            return self._readers[name].status.error or report.error
        return report.error

    def caption(self, name: str) -> str:
        """A line about one camera: ``door  running  9.8/s  2 people``."""
        report = self._pipeline.report()[name]
        _, rate, people = self._look(name)
        return f"{name}   {report.state}   {rate:.1f}/s   {_count(people)}"

    def lines(self) -> list[str]:
        """A line a camera and one of the service, for a log."""
        lines = []
        for name, report in self._pipeline.report().items():
            age_s, rate, people = self._look(name)
            words = [name, report.state, f"{rate:.1f} frames/s", f"last {age_s:.1f} s ago", _count(people)]
            words += [_names(people)] if people else []
            words += _troubles(report, self.error(name, report))
            lines.append("  ".join(words))
        return [*lines, self._service_line()]

    def __rich__(self) -> Table:
        """The same as a table, for a terminal. Names are the user's: in plain text, brackets would be markup."""
        table = Table(
            caption=Text(self._service_line(), "table.caption"),
            caption_justify="left",
            title="hamr-edge watch",
            title_justify="left",
        )
        for column in ("camera", "state"):
            table.add_column(column, no_wrap=True)
        for column in ("frames/s", "last, s ago", "dropped", "failed", "people"):
            table.add_column(column, justify="right")
        table.add_column("who")
        for name, report in self._pipeline.report().items():
            age_s, rate, people = self._look(name)
            good = report.state in ("running", "ended")
            error = self.error(name, report)
            who = error if error and not good else _names(people)
            age = f"{age_s:.1f}" if age_s < 1e6 else "-"
            counts = (report.dropped, report.failed, len(people))
            cells = (f"{rate:.1f}", age, *map(str, counts), who)
            table.add_row(Text(name), Text(report.state, "" if good else "bold red"), *map(Text, cells))
        return table

    def _look(self, name: str) -> tuple[float, float, list[Named]]:
        """Seconds since the last frame (inf before the first), frames a second of late, people in the last."""
        now = time.monotonic()
        with self._lock:
            camera = self._seen[name]
            late = sum(moment > now - _RATE_WINDOW_S for moment in camera.times_s)
            age_s = now - camera.times_s[-1] if camera.times_s else float("inf")
            return age_s, late / _RATE_WINDOW_S, camera.people

    def _service_line(self) -> str:
        now = self._service.metrics()
        latencies = [camera.latency_ms for camera in now.cameras.values() if camera.latency_ms]
        if not latencies:
            return "model: nothing embedded yet"
        p50, p95 = (max(latency[rank] for latency in latencies) for rank in ("p50", "p95"))
        return (
            f"model: {now.mean_batch:.1f} crops a batch, latency p50 {p50:.0f} ms, p95 {p95:.0f} ms, "
            f"{now.waiting_crops} crops wait, {now.total('dropped')} frames dropped"
        )


def _names(people: list[Named]) -> str:
    return ", ".join(
        f"{person.label} {person.similarity:.2f}" if person.is_known else person.label for person in people
    )


def _count(people: list[Named]) -> str:
    return "1 person" if len(people) == 1 else f"{len(people)} people"


def _troubles(report: CameraReport, error: str) -> list[str]:
    words = [f"{count} {word}" for count, word in ((report.dropped, "dropped"), (report.failed, "failed")) if count]
    return [*words, error] if error else words
