"""Frames a second of several cameras: the pipeline against a serial loop and against each stage alone.

Run ``python -m hamr_edge.benchmarks.camera_rate SOURCE... --model MODEL --detector hog|FILE.onnx``. A round goes
through the same frames in every way, in random order: one thread that decodes, detects, crops and infers frame by
frame; each of these stages by itself, on what the one before it made; and the pipeline of ``hamr-edge embed``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.latency import median_interval
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.cli import run_and_exit
from hamr_edge.detector import PersonDetector, open_detector
from hamr_edge.embedder import Embedder
from hamr_edge.errors import InputError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.progress import progress_bar, stdout_console
from hamr_edge.timeline import Timeline, overlap_share
from hamr_edge.video import Frame, open_source

SERIAL, PIPELINE = "serial loop", "pipeline"
STAGES = ("decode", "detect", "crop", "infer")


@dataclass(frozen=True, slots=True)
class MeasuredWay:
    """One way through the frames."""

    name: str
    frames_per_s: float
    """Median over the rounds."""
    over_serial: tuple[float, float, float]
    """Its rate over the serial loop's, round by round: median and the 95 % interval of the median."""


@dataclass(frozen=True, slots=True)
class CameraRateReport:
    """The comparison as plain data; JSON keys are the field names."""

    environment: dict[str, Any]
    config: dict[str, Any]
    frames: int
    """Of all cameras, in one round."""
    people: int
    rounds: int
    ways: tuple[MeasuredWay, ...]
    slowest_stage: str
    of_slowest: tuple[float, float, float]
    """The pipeline's rate over that of the slowest stage alone, as ``over_serial``."""
    mean_batch: float
    """Crops of one batch of the pipeline."""
    stages_at_once: float
    """Seconds of work of all stages over the pipeline's seconds, last round."""
    overlap: dict[str, float]
    """Share of each stage's time in which ``infer`` was at work too, last round."""
    largest_difference: float
    """Of any value of an embedding between the pipeline and the serial loop."""


class _Ways:
    """The frames of one round, and every way through them."""

    def __init__(
        self,
        sources: Sequence[str],
        frames: int,
        embedder: Embedder,
        detector: PersonDetector,
        service: dict[str, Any],
    ) -> None:
        self._sources, self._frames = sources, frames
        self._embedder, self._detector, self._service = embedder, detector, service
        self.serial: dict[tuple[str, int], NDArray[np.float32]] = {}
        self.largest_difference, self.mean_batch = 0.0, 0.0
        self.timeline = Timeline()
        self._images: list[NDArray[np.uint8]] = [frame.image for _, frame in self._read()]
        self._boxes = [detector.detect(image)[0] for image in self._images]
        self._crops = [embedder.crop(*pair) for pair in zip(self._images, self._boxes, strict=True)]
        self.people = sum(map(len, self._boxes))

    def __len__(self) -> int:
        return len(self._images)

    def _read(self) -> Any:
        for index, source in enumerate(self._sources):
            with open_source(source) as opened:
                for frame in islice(opened, self._frames):
                    yield f"{index}", frame

    def run_serial(self) -> None:
        for camera, frame in self._read():
            boxes, _ = self._detector.detect(frame.image)
            self.serial[camera, frame.number] = self._embedder.embed(frame.image, boxes)

    def decode(self) -> None:
        for _ in self._read():
            pass

    def detect(self) -> None:
        for image in self._images:
            self._detector.detect(image)

    def crop(self) -> None:
        for image, boxes in zip(self._images, self._boxes, strict=True):
            self._embedder.crop(image, boxes)

    def infer(self) -> None:
        for crops in self._crops:
            self._embedder.embed_batch(crops)

    def run_pipeline(self) -> None:
        def find(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return self._detector.detect(frame.image)

        self.timeline = Timeline()
        cameras = [Camera(str(index), open_source(source), find) for index, source in enumerate(self._sources)]
        with (
            EmbeddingService(self._embedder, timeline=self.timeline, **self._service) as service,
            CameraPipeline(cameras, service, max_frames=self._frames, timeline=self.timeline) as pipeline,
        ):
            for seen in pipeline:
                expected = self.serial.get((seen.camera, seen.frame.number))
                if expected is not None and len(expected):
                    difference = float(np.abs(seen.embeddings - expected).max())
                    self.largest_difference = max(self.largest_difference, difference)
        self.timeline.stop()
        self.mean_batch = service.metrics().mean_batch
        if failure := pipeline.failure():
            raise failure


def measure_camera_rate(ways: _Ways, rounds: int, rng: np.random.Generator, quiet: bool) -> dict[str, list[float]]:
    """Seconds of each way in each round; one more round, before, warms up."""
    runs: dict[str, Callable[[], None]] = {SERIAL: ways.run_serial, PIPELINE: ways.run_pipeline}
    runs |= {stage: getattr(ways, stage) for stage in STAGES}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with progress_bar(quiet) as progress:
        task = progress.add_task("rounds", total=rounds + 1, note="")
        for number in range(rounds + 1):
            for index in rng.permutation(len(runs)).tolist():
                name = list(runs)[index]
                started = time.perf_counter()
                runs[name]()
                if number:
                    seconds[name].append(time.perf_counter() - started)
            progress.advance(task)
    return seconds


def _ratio(of: Sequence[float], over: Sequence[float]) -> tuple[float, float, float]:
    """How much faster ``of`` is than ``over``, both in seconds, round by round."""
    ratios = np.asarray(over) / np.asarray(of)
    return (float(np.median(ratios)), *median_interval(ratios))


def print_camera_rate(report: CameraRateReport, console: Console) -> None:
    """Write the table and what overlapped."""
    title = f"{report.frames} frames, {report.people} people, {report.rounds} rounds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way")
    for column in ("frames/s", "x serial loop (95 % of median)"):
        table.add_column(column, justify="right")
    for way in report.ways:
        median, low, high = way.over_serial
        table.add_row(way.name, f"{way.frames_per_s:.1f}", f"{median:.2f} ({low:.2f}-{high:.2f})")
    console.print(table)
    median, low, high = report.of_slowest
    shares = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in report.overlap.items())
    for line in (
        f"the pipeline reaches {median:.2f} ({low:.2f}-{high:.2f}) of {report.slowest_stage} alone, the slowest stage",
        f"{report.stages_at_once:.2f} stages at a time; at work while infer was: {shares}",
        f"batches of {report.mean_batch:.1f} crops; largest difference to the serial loop "
        f"{report.largest_difference:.1e}",
    ):
        console.print(line, markup=False, soft_wrap=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, required=True)
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint folder.")
@click.option("--detector", required=True, help="'hog', or a detector's .onnx file.")
@click.option("--frames", type=click.IntRange(1), default=50, show_default=True, help="Of each source, in a round.")
@click.option("--rounds", type=click.IntRange(2), default=7, show_default=True)
@click.option("--device", default="auto", show_default=True, help="Of the model: auto, cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of one inference and of one detection.")
@click.option("--max-delay-ms", type=float, default=5.0, show_default=True, help="See 'hamr-edge embed'.")
@click.option("--max-batch", type=click.IntRange(1), help="Crops of one batch.  [default: the artifact's maximum]")
@click.option("--timeline", "trace", type=click.Path(path_type=Path), help="Trace of the pipeline's last round, .json.")
@click.option("--seed", type=int, default=0, show_default=True, help="Gives the order within the rounds.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def camera_rate(
    sources: tuple[str, ...],
    model: Path,
    detector: str,
    frames: int,
    rounds: int,
    device: str,
    threads: int | None,
    max_delay_ms: float,
    max_batch: int | None,
    trace: Path | None,
    seed: int,
    json_file: str | None,
    quiet: bool,
) -> None:
    """Measure frames a second of each SOURCE and all together, from decoding to embeddings."""
    if json_file is not None:
        check_json_target(json_file)
    with ExitStack() as stack:
        embedder = stack.enter_context(Embedder(model, device, threads))
        settings = {"max_delay_ms": max_delay_ms, "max_batch": max_batch}
        ways = _Ways(sources, frames, embedder, open_detector(detector, threads=threads), settings)
        if not ways.people:
            raise InputError(f"{detector} finds nobody in the first {frames} frames of these sources")
        seconds = measure_camera_rate(ways, rounds, np.random.default_rng(seed), quiet)
    slowest = max(STAGES, key=lambda stage: float(np.median(seconds[stage])))
    spans = ways.timeline.spans
    report = CameraRateReport(
        environment=describe_environment(BenchConfig(threads=threads)),
        config={
            "sources": list(sources),
            "model": str(model),
            "detector": detector,
            "device": device,
            "threads": threads,
            **settings,
            "seed": seed,
        },
        frames=len(ways),
        people=ways.people,
        rounds=rounds,
        ways=tuple(
            MeasuredWay(name, len(ways) / float(np.median(times)), _ratio(times, seconds[SERIAL]))
            for name, times in seconds.items()
        ),
        slowest_stage=slowest,
        of_slowest=_ratio(seconds[PIPELINE], seconds[slowest]),
        mean_batch=ways.mean_batch,
        stages_at_once=sum(ways.timeline.stage_seconds.values()) / ways.timeline.total_s,
        overlap={stage: overlap_share(spans, stage, "infer") for stage in STAGES if stage != "infer"},
        largest_difference=ways.largest_difference,
    )
    if trace is not None:
        ways.timeline.write_trace(trace)
    if json_file is not None:
        write_json(asdict(report), json_file)
    if json_file != STDOUT:
        print_camera_rate(report, stdout_console())


if __name__ == "__main__":
    run_and_exit(camera_rate, "python -m hamr_edge.benchmarks.camera_rate")
