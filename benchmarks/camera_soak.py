"""Cameras with faults, for long: does anything hang, get lost or grow.

Run ``python -m hamr_edge.benchmarks.camera_soak VIDEO... --model MODEL --detector hog|FILE.onnx --frames 20000``. The
videos are played over and over as four cameras: one stalls now and then, as a network does, and is opened again; one
ends early; one sends garbage between its frames; and the detector of one raises. It prints what became of every frame
and how much memory the process held on the way.
"""

from __future__ import annotations

import copy
import itertools
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hamr_edge.camera_report import CameraReport
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.cli import run_and_exit
from hamr_edge.detector import PersonDetector, open_detector
from hamr_edge.embedder import Embedder
from hamr_edge.errors import GateError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.malloc_arenas import limit_malloc_arenas
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.progress import progress_bar
from hamr_edge.reconnect import Reconnect
from hamr_edge.video import Frame, FrameSource, open_source

FAULTS = ("stalls", "ends", "garbage", "raises")
_STALL_AFTER_S = 1.0
_MOST_GROWTH = 0.02
_RSS_EVERY = 500


class FaultySource(FrameSource):
    """A video played over and over, with one fault.

    Args:
        path: The video.
        fault: One of :data:`FAULTS`; ``raises`` is the detector's and changes nothing here.
        every: Frames from one fault to the next; for ``ends``, after which it ends.
        count: Frames in all, over every reconnect.
    """

    def __init__(self, path: str, fault: str, every: int, count: int) -> None:
        self.name = f"{Path(path).name} that {fault}"
        self.fps, self.frame_count, self.is_live = 25.0, None, fault == "stalls"
        self._path, self._fault, self._every, self._count = path, fault, every, count
        self._given = itertools.count(1)
        self._closed = threading.Event()

    def open(self) -> None:
        """Nothing to take: the video is opened each time it begins."""
        self._closed = threading.Event()

    def close(self) -> None:
        """Wake a thread that stalls."""
        self._closed.set()

    def fresh(self) -> FrameSource:
        """The same source, which goes on counting its frames."""
        return copy.copy(self)

    def __iter__(self) -> Iterator[Frame]:
        """Frames with faults."""
        closed = self._closed
        number = 0
        while True:
            with open_source(self._path) as source:
                for frame in source:
                    given = next(self._given)
                    number += 1
                    if given > self._count or (self._fault == "ends" and given > self._every):
                        return
                    if given % self._every == 0 and self._fault == "stalls":
                        closed.wait(10 * _STALL_AFTER_S)
                        return
                    image: Any = frame.image
                    if given % self._every == 0 and self._fault == "garbage":
                        image = _garbage(given // self._every, frame.image)
                    yield Frame(number, number / self.fps, image)


def _garbage(number: int, image: NDArray[np.uint8]) -> Any:
    """What a broken stream may send: nothing, grey, noise, another size, another type."""
    rng = np.random.default_rng(number)
    kinds = (
        np.zeros((0, 0, 3), np.uint8),
        image[..., 0],
        rng.integers(0, 256, image.shape, np.uint8),
        image[:1, :1],
        image.astype(np.float32),
        None,
    )
    return kinds[number % len(kinds)]


@dataclass(frozen=True, slots=True)
class SoakReport:
    """The run as plain data; JSON keys are the field names."""

    cameras: dict[str, CameraReport]
    given: int
    """Frames that came out."""
    service: dict[str, int]
    """Requests by outcome."""
    seconds: float
    rss_mb: list[float]
    """Memory that the process held, a value every 500 frames that came out."""
    growth: float
    """Mean of the last fifth of ``rss_mb`` over that of the second fifth, less 1."""
    threads_left: int
    """Threads beyond those from before; one that a stall left behind ends with its source."""
    problems: list[str]


def soak(
    videos: tuple[str, ...], embedder: Embedder, detector: PersonDetector, frames: int, every: int, quiet: bool
) -> SoakReport:
    """Run four faulty cameras.

    Args:
        videos: Played in turn.
        embedder: Open.
        detector: Of all cameras.
        frames: Of all cameras together, about.
        every: Frames from one fault to the next.
        quiet: No progress.
    """
    each = frames // (len(FAULTS) - 1)  # one ends early

    def find(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return detector.detect(frame.image)

    def find_or_raise(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if frame.number % every == 0:
            raise RuntimeError("the detector broke")
        return detector.detect(frame.image)

    cameras = [
        Camera(
            fault,
            FaultySource(video, fault, each // 10 if fault == "ends" else every, each),
            find_or_raise if fault == "raises" else find,
        )
        for fault, video in zip(FAULTS, itertools.cycle(videos))
    ]
    readers = [
        FrameReader(
            camera.source,
            when_full="block",
            reconnect=Reconnect(first_delay_s=0.1, attempts=2),
            stall_after_s=_STALL_AFTER_S,
        )
        for camera in cameras
    ]
    before, started = threading.active_count(), time.perf_counter()
    rss_mb: list[float] = []
    given = 0
    with progress_bar(quiet) as progress:
        task = progress.add_task("soak", total=frames, note="")
        with EmbeddingService(embedder) as service, CameraPipeline(cameras, service, readers=readers) as pipeline:
            for _ in pipeline:
                given += 1
                if given % _RSS_EVERY == 0:
                    rss_mb.append(_rss_mb())
                    progress.update(task, completed=given, note=f"{rss_mb[-1]:.0f} MB")
    seconds = time.perf_counter() - started
    reports, counts = pipeline.report(), service.metrics()
    outcomes = {name: counts.total(name) for name in ("submitted", "completed", "failed", "dropped", "pending")}
    fifth = max(1, len(rss_mb) // 5)
    growth = float(np.mean(rss_mb[-fifth:]) / np.mean(rss_mb[fifth : 2 * fifth]) - 1) if len(rss_mb) >= 5 else 0.0
    patience = time.monotonic() + 12 * _STALL_AFTER_S  # a source that stalls returns by then
    while (left := threading.active_count() - before) > 0 and time.monotonic() < patience:
        time.sleep(0.1)
    problems = _problems(reports, given, outcomes, growth, left)
    return SoakReport(reports, given, outcomes, seconds, rss_mb, growth, left, problems)


def _problems(
    reports: dict[str, CameraReport], given: int, outcomes: dict[str, int], growth: float, threads_left: int
) -> list[str]:
    problems = []
    for name, report in reports.items():
        if report.decoded != report.embedded + report.failed + report.dropped or report.waiting:
            problems.append(f"{name}: of {report.decoded} frames, not all are accounted for: {report}")
    if given != sum(report.embedded for report in reports.values()):
        problems.append(f"{given} frames came out, not as many as were counted")
    if outcomes["submitted"] != outcomes["completed"] + outcomes["failed"] + outcomes["dropped"]:
        problems.append(f"the service's counts do not add up: {outcomes}")
    if growth > _MOST_GROWTH:
        problems.append(f"memory grew by {100 * growth:.1f} %")
    if threads_left > 0:
        problems.append(f"{threads_left} threads are left")
    return problems


def _rss_mb() -> float:
    """Memory that this process holds now, in MB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux: the highest so far is the best there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return pages * resource.getpagesize() / 1e6


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint folder.")
@click.option("--detector", required=True, help="'hog', or a detector's .onnx file.")
@click.option("--frames", type=click.IntRange(100), default=20_000, show_default=True, help="Of all cameras together.")
@click.option("--every", type=click.IntRange(2), default=250, show_default=True, help="Frames from fault to fault.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of one inference and of one detection.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without the rest.")
@click.option("--quiet", is_flag=True, help="No progress.")
def camera_soak(
    videos: tuple[str, ...],
    model: Path,
    detector: str,
    frames: int,
    every: int,
    threads: int | None,
    json_file: str | None,
    quiet: bool,
) -> None:
    """Play each VIDEO over and over as cameras with faults; exit code 3 when something is lost or grows."""
    if json_file is not None:
        check_json_target(json_file)
    limit_malloc_arenas()
    with Embedder(model, threads=threads) as embedder:
        report = soak(videos, embedder, open_detector(detector, threads=threads), frames, every, quiet)
    if json_file is not None:
        write_json(asdict(report), json_file)
    if json_file != STDOUT:
        for name, camera in report.cameras.items():
            click.echo(
                f"{name:<8} {camera.state:<8} decoded {camera.decoded:>6}  embedded {camera.embedded:>6}  failed "
                f"{camera.failed:>4}  dropped {camera.dropped:>4}  people {camera.people:>6}  opened again "
                f"{camera.reconnects:>3}  {camera.error}"
            )
        rss = f"{report.rss_mb[0]:.0f} -> {report.rss_mb[-1]:.0f} MB" if report.rss_mb else "not read"
        click.echo(
            f"{report.given} frames in {report.seconds:.0f} s; memory {rss}, growth {100 * report.growth:+.2f} %"
        )
        click.echo(f"requests: {report.service}; threads left {report.threads_left}")
    if report.problems:
        raise GateError("; ".join(report.problems))


if __name__ == "__main__":
    run_and_exit(camera_soak, "python -m hamr_edge.benchmarks.camera_soak")
