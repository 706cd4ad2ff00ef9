"""Frames a second of a video, from its file to embeddings: ``hamr-edge embed``'s way against a plain loop and peers.

Run ``python -m hamr_edge.benchmarks.video_rate VIDEO --detections FILE --model MODEL``. Every way decodes the video by
itself; they take turns segment by segment, in random order. A peer and the plain loop run in processes of their own and
time themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.latency import Speedup, pair_speedup, percentile
from hamr_edge.benchmarks.peer_process import PeerProcess, parse_peer
from hamr_edge.benchmarks.video_ways import OurWay, PeerWay, plain_loop
from hamr_edge.cli import run_and_exit
from hamr_edge.detections import Detections, load_detections
from hamr_edge.errors import InputError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.progress import progress_bar, stdout_console
from hamr_edge.video import open_source

_LEAST_SEGMENTS = 2


@dataclass(frozen=True, slots=True)
class VideoSegments:
    """A video cut into runs of frames, with the boxes of each frame."""

    path: Path
    boxes: tuple[tuple[NDArray[np.float32], ...], ...]
    """A segment: an array of (N, 4) xyxy pixels, clipped, a frame."""

    @property
    def frames(self) -> int:
        """Frames of all segments."""
        return sum(len(segment) for segment in self.boxes)

    @property
    def people(self) -> int:
        """Boxes of all segments."""
        return sum(len(boxes) for segment in self.boxes for boxes in segment)


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """One way through the video."""

    name: str
    backend: str
    frames_per_s: float
    """All frames over all seconds."""
    p50_ms_per_frame: float
    """Median over the segments of their time a frame."""
    people_per_s: float
    over_ours: Speedup | None
    """Its time over ours, segment by segment; None for ours."""
    min_cosine: float | None
    """Of any person with our embedding; None for ours, and for embeddings of another width."""
    mean_cosine: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """What our way could reach if a stage were all there is."""

    stage: str
    """``decode``, ``crop`` or ``infer``."""
    share: float
    """Of our way's time."""
    frames_per_s: float
    """Of this stage alone."""


@dataclass(frozen=True, slots=True)
class VideoRateReport:
    """The comparison as plain data; JSON keys are the field names."""

    environment: dict[str, Any]
    config: dict[str, Any]
    video: dict[str, Any]
    """``name``, ``frames`` and ``people`` that were measured, ``segment``: frames of each, ``rounds``."""
    ways: tuple[MeasuredRate, ...]
    """Ours first."""
    bounds: tuple[Bound, ...]
    """The slowest stage first."""
    notes: tuple[str, ...] = ()


def cut_segments(video: Path, detections: Detections, segment: int, max_frames: int | None = None) -> VideoSegments:
    """Decode a video once, to know its frames and their size, and cut it; a last piece that is too short is left out.

    Args:
        video: The file.
        detections: Boxes, at the size of its frames.
        segment: Frames of a segment.
        max_frames: Go no further; to its end when None.

    Raises:
        InputError: The video has fewer than two segments, holds nobody, or a box lies outside its frames.
    """
    boxes = []
    with open_source(video) as source:
        for frame in islice(source, max_frames):
            boxes.append(detections.in_frame(frame.number, (frame.image.shape[0], frame.image.shape[1]))[0])
    segments = [tuple(boxes[start : start + segment]) for start in range(0, len(boxes), segment)]
    cut = VideoSegments(video, tuple(part for part in segments if len(part) == segment))
    if len(cut.boxes) < _LEAST_SEGMENTS:
        raise InputError(
            f"{video} has {len(boxes)} frames, which are not {_LEAST_SEGMENTS} segments of {segment} (the first only "
            "warms up); give a smaller --segment"
        )
    if not cut.people:
        raise InputError(f"{detections.path} has no box in the first {cut.frames} frames of {video}")
    return cut


def measure_video_rate(
    cut: VideoSegments, ours: OurWay, peers: Sequence[PeerWay], passes: int, rng: np.random.Generator, quiet: bool
) -> tuple[tuple[MeasuredRate, ...], tuple[Bound, ...]]:
    """Let open ways take turns on the segments of a video.

    The first segment of each pass warms up and does not count.

    Args:
        cut: The video.
        ours: What the others are held against.
        peers: The others.
        passes: Times through the video.
        rng: Gives the order within each segment.
        quiet: No progress.

    Returns:
        The rates, ours first, and the stages of our way, the slowest first.
    """
    ways: list[OurWay | PeerWay] = [ours, *peers]
    rounds: list[list[float]] = []
    cosines: list[list[NDArray[np.float32]]] = [[] for _ in ways]
    stage_s: dict[str, float] = {}
    measured = cut.boxes[1:] * passes
    with progress_bar(quiet) as progress:
        task = progress.add_task("video", total=len(cut.boxes) * passes, note="")
        for _ in range(passes):
            for way in ways:
                way.rewind(cut.path)
            for number, boxes in enumerate(cut.boxes):
                seconds, embeddings = [0.0] * len(ways), [np.zeros((0, 0), np.float32)] * len(ways)
                for index in rng.permutation(len(ways)).tolist():
                    seconds[index], embeddings[index] = ways[index].run(boxes)
                progress.advance(task)
                if number == 0:
                    continue
                rounds.append(seconds)
                for index, found in enumerate(embeddings):
                    if found.shape == embeddings[0].shape:
                        cosines[index].append(np.einsum("nd,nd->n", found, embeddings[0]))
                for stage, spent in ours.stage_seconds.items():
                    stage_s[stage] = stage_s.get(stage, 0.0) + spent
    times_s = np.asarray(rounds, np.float64)
    frames = sum(len(boxes) for boxes in measured)
    people = sum(len(rows) for boxes in measured for rows in boxes)
    rates = tuple(
        _rate(way, times_s[:, index], None if index == 0 else times_s[:, 0], cosines[index], frames, people)
        for index, way in enumerate(ways)
    )
    total_s = sum(stage_s.values())
    bounds = [Bound(stage, spent / total_s, frames / spent) for stage, spent in stage_s.items() if stage != "other"]
    return rates, tuple(sorted(bounds, key=lambda bound: -bound.share))


def _rate(
    way: OurWay | PeerWay,
    times_s: NDArray[np.float64],
    ours_s: NDArray[np.float64] | None,
    cosines: Sequence[NDArray[np.float32]],
    frames: int,
    people: int,
) -> MeasuredRate:
    compared = np.concatenate(cosines) if ours_s is not None and cosines else np.zeros(0)
    return MeasuredRate(
        name=way.name,
        backend=way.backend,
        frames_per_s=frames / float(times_s.sum()),
        p50_ms_per_frame=1000 * percentile(times_s, 50) * len(times_s) / frames,
        people_per_s=people / float(times_s.sum()),
        over_ours=None if ours_s is None else pair_speedup(times_s, ours_s),
        min_cosine=float(compared.min()) if len(compared) else None,
        mean_cosine=float(compared.mean()) if len(compared) else None,
    )


def bound_sentence(bounds: Sequence[Bound]) -> str:
    """What keeps our way from being faster, in words."""
    first, *others = bounds
    rest = ", ".join(f"{bound.stage} alone {bound.frames_per_s:,.0f}" for bound in others)
    return (
        f"{first.stage} bounds it: {100 * first.share:.0f} % of the time, {first.frames_per_s:,.1f} frames/s by itself"
        f" ({rest})"
    )


def print_video_rate(report: VideoRateReport, console: Console) -> None:
    """Write the table, what bounds our way, and the notes."""
    video = report.video
    title = (
        f"{video['name']}: {video['frames']} frames, {video['people']} people, {video['rounds']} rounds of "
        f"{video['segment']} frames"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    table.add_column("backend", overflow="fold")
    for column in ("frames/s", "p50 ms/frame", "people/s", "time / ours (95 % of median)", "min cosine", "mean"):
        table.add_column(column, justify="right", overflow="fold")
    for way in report.ways:
        ratio = way.over_ours
        table.add_row(
            way.name,
            way.backend,
            f"{way.frames_per_s:.1f}",
            f"{way.p50_ms_per_frame:.2f}",
            f"{way.people_per_s:.1f}",
            "" if ratio is None else f"{ratio.median:.3f} ({ratio.median_low:.3f}-{ratio.median_high:.3f})",
            "" if way.min_cosine is None else f"{way.min_cosine:.6f}",
            "" if way.mean_cosine is None else f"{way.mean_cosine:.6f}",
        )
    console.print(table)
    for line in (bound_sentence(report.bounds), *report.notes):
        console.print(line, markup=False, soft_wrap=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--detections", required=True, type=click.Path(path_type=Path), help="Boxes in MOT text.")
@click.option("--detections-scale", type=float, default=1.0, show_default=True, help="Factor for the boxes.")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint folder.")
@click.option("--input", "described", metavar="WORDS", help="What an .onnx of others takes, as rgb-float-imagenet.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=COMMAND", help="Another program; can be given again.")
@click.option("--no-plain-loop", is_flag=True, help="Leave the plain loop out.")
@click.option("--segment", type=click.IntRange(1), default=50, show_default=True, help="Frames a turn.")
@click.option("--max-frames", type=click.IntRange(1), help="Go no further into the video.")
@click.option("--passes", type=click.IntRange(1), default=1, show_default=True, help="Times through the video.")
@click.option("--seed", type=int, default=0, show_default=True, help="Gives the order of the turns.")
@click.option("--device", default="auto", show_default=True, help="Of the model: auto, cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads, ours and the plain loop's; peers take their own.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def video_rate(
    video: Path,
    detections: Path,
    detections_scale: float,
    model: Path,
    described: str | None,
    peers: tuple[str, ...],
    no_plain_loop: bool,
    segment: int,
    max_frames: int | None,
    passes: int,
    seed: int,
    device: str,
    threads: int | None,
    json_file: str | None,
    quiet: bool,
) -> None:
    """Measure frames a second of VIDEO, from the file to embeddings."""
    if not math.isfinite(detections_scale):
        raise InputError(f"--detections-scale must be a number above 0, got {detections_scale:g}")
    if json_file is not None:
        check_json_target(json_file)
    others: list[PeerProcess] = [parse_peer(peer) for peer in peers]
    cut = cut_segments(video, load_detections(detections, detections_scale), segment, max_frames)
    backend = open_backend(model, device, threads, input_description=described)
    notes = []
    if not no_plain_loop:
        loop = plain_loop(model, backend.sidecar, described, threads)
        if isinstance(loop, str):
            notes.append(f"no plain loop: {loop}")
        else:
            others.insert(0, loop)
    names = [peer.name for peer in others]
    if len(set(names)) < len(names):
        raise InputError(f"--peer: each needs a name of its own, got {', '.join(names)}")
    with ExitStack() as stack:
        ours = stack.enter_context(OurWay(backend))
        ways = [PeerWay(stack.enter_context(peer)) for peer in others]
        environment = describe_environment(BenchConfig(threads=threads))
        rates, bounds = measure_video_rate(cut, ours, ways, passes, np.random.default_rng(seed), quiet)
    rounds = (len(cut.boxes) - 1) * passes
    report = VideoRateReport(
        environment=environment,
        config={
            "model": str(model),
            "input": described,
            "device": device,
            "threads": threads,
            "seed": seed,
            "peers": list(peers),
        },
        video={
            "name": video.name,
            "frames": rounds * segment,
            "people": sum(len(rows) for boxes in cut.boxes[1:] for rows in boxes) * passes,
            "segment": segment,
            "rounds": rounds,
        },
        ways=rates,
        bounds=bounds,
        notes=tuple(notes),
    )
    if json_file is not None:
        write_json(asdict(report), json_file)
    if json_file != STDOUT:
        print_video_rate(report, stdout_console())


if __name__ == "__main__":
    run_and_exit(video_rate, "python -m hamr_edge.benchmarks.video_rate")
