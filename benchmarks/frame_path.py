"""From a frame and its boxes to embeddings: the frame form against the usual crop loop and the bare network.

Run ``python -m hamr_edge.benchmarks.frame_path BUILD``. Times are from host memory to host memory, except where a
contestant's name says that its input is on the GPU already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hamr_edge.backend import Backend, check_device, open_backend
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.crowd_frame import draw_boxes, draw_frame
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.benchmarks.frame_contestants import (
    BARE,
    FRAME,
    KINDS,
    LOOP,
    Contestant,
    FormPair,
    check_agreement,
    check_pair,
    find_pairs,
    gpu_contestants,
    host_contestants,
)
from hamr_edge.benchmarks.latency import SETTLE_S, Latency, Speedup, measure_rounds, pair_speedup, summarise
from hamr_edge.cli import run_and_exit
from hamr_edge.errors import GateError, InputError, UnavailableError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.progress import stderr_console, stdout_console

LEAST_SPEEDUP = 5.0
"""On a GPU: the crop loop's time over the frame form's."""
MOST_OF_BARE = 1.1
"""On a GPU: the frame form's time over the bare network's."""
_GPU_ROUNDS, _CPU_ROUNDS = 200, 10


@dataclass(frozen=True, slots=True)
class MeasuredWay:
    """One contestant's result."""

    kind: str
    """``onnx`` or ``engine``."""
    name: str
    backend: str
    latency: Latency
    """Of the whole frame; ``batch`` is the number of boxes."""
    over_frame_form: Speedup
    """Its time over that of the frame form of the same kind, round by round."""
    min_cosine: float
    """Of any box with the crop loop's embedding, of the same kind."""
    mean_cosine: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the frame form, held against the median over the rounds."""

    kind: str
    name: str
    limit: float
    measured: Speedup
    verdict: str
    """``met``, ``missed``, or ``not judged`` where no GPU ran it."""


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """What was to be measured and could not be."""

    kind: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class FramePathReport:
    """All that one run found out."""

    environment: dict[str, Any]
    settings: dict[str, Any]
    artifacts: tuple[str, ...]
    ways: tuple[MeasuredWay, ...]
    bars: tuple[Bar, ...]
    not_measured: tuple[NotMeasured, ...]


@dataclass(frozen=True, slots=True)
class FramePathConfig:
    """What is asked for.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    frame_size_hw: tuple[int, int] = (1080, 1920)
    boxes: int = 32
    rounds: int | None = None
    """200 with a GPU and 10 without when None."""
    warmup_rounds: int = 3
    seed: int = 0
    """Draws frame, boxes and the order within each round."""
    device: str = "auto"
    threads: int | None = None
    """CPU threads of one inference; the library's default when None."""
    min_cosine: float = 0.999
    """The least that any box's embedding may have with that of OpenCV's crop and resize."""

    def __post_init__(self) -> None:
        check_device(self.device)
        if min(self.frame_size_hw) < 32 or max(self.frame_size_hw) > 16384:
            raise InputError(f"--frame-size must be of 32 to 16384 pixels a side, got {self.frame_size_hw}")
        least = (("--boxes", self.boxes, 1), ("--rounds", self.rounds, 1), ("--warmup-rounds", self.warmup_rounds, 0))
        for option, value, lowest in (*least, ("--seed", self.seed, 0), ("--threads", self.threads, 1)):
            if value is not None and value < lowest:
                raise InputError(f"{option} must be at least {lowest}, got {value}")
        if not -1 <= self.min_cosine <= 1:
            raise InputError(f"--min-cosine must be within -1..1, got {self.min_cosine}")


def measure_frame_path(
    build: Path,
    config: FramePathConfig,
    precision: str | None = None,
    kinds: tuple[str, ...] = KINDS,
    quiet: bool = True,
) -> FramePathReport:
    """Hold the ways' embeddings against each other, then time all of them in one interleaved run.

    Args:
        build: Folder of the artifacts.
        config: Settings.
        precision: Which, where the folder holds several.
        kinds: Files to look for, of ``onnx`` and ``engine``.
        quiet: No words on stderr.

    Raises:
        InputError: The artifacts are not there, or are not the two forms of one model.
        GateError: Two ways disagree: their times say nothing.
        UnavailableError: No kind of artifact runs here; the message holds each reason.
    """
    console = stderr_console(quiet)
    rng = np.random.default_rng(config.seed)
    frame = draw_frame(config.frame_size_hw, rng)
    boxes = draw_boxes(config.boxes, config.frame_size_hw, rng)
    pairs = find_pairs(build, precision, kinds)
    contestants: list[Contestant] = []
    on_gpu: dict[str, bool] = {}
    not_measured: list[NotMeasured] = []
    with ExitStack() as stack:
        for pair in pairs:
            console.print(f"opening {pair.crops.name} and {pair.frame.name}", markup=False)
            try:
                crops, frame_form = _open_pair(pair, config, stack)
            except UnavailableError as error:
                not_measured.append(NotMeasured(pair.kind, "all", str(error)))
                continue
            contestants += host_contestants(pair.kind, crops, frame_form, frame, boxes)
            on_gpu[pair.kind] = crops.device != "cpu"
            try:
                if not on_gpu[pair.kind]:
                    raise UnavailableError(f"{crops.name} ran it, no GPU; the bars are not judged either")
                contestants += gpu_contestants(pair, crops, frame_form, frame, boxes, stack)
            except UnavailableError as error:
                not_measured.append(NotMeasured(pair.kind, "crops and frame that are on the GPU", str(error)))
        not_measured += [
            NotMeasured(kind, "all", "no such files in the folder") for kind in kinds if kind not in _kinds(pairs)
        ]
        if not contestants:
            reasons = "; ".join(f"{left_out.kind}: {left_out.reason}" for left_out in not_measured)
            raise UnavailableError(f"nothing could be measured: {reasons}")
        cosines = check_agreement(contestants, config.min_cosine)
        rounds = config.rounds or (_GPU_ROUNDS if any(on_gpu.values()) else _CPU_ROUNDS)
        console.print(f"timing {len(contestants)} contestants, {rounds} rounds")
        runs = [contestant.run for contestant in contestants]
        settle_s = 0.0 if all(on_gpu.values()) else SETTLE_S
        times_ms = measure_rounds(runs, rng, 0.0, rounds, config.warmup_rounds, settle_s=settle_s)
    times = {(way.kind, way.name): times_ms[:, column] for column, way in enumerate(contestants)}
    return FramePathReport(
        environment=describe_environment(BenchConfig(threads=config.threads)),
        settings={**asdict(config), "rounds": rounds},
        artifacts=tuple(str(path) for pair in pairs for path in (pair.crops, pair.frame)),
        ways=tuple(
            MeasuredWay(
                kind=way.kind,
                name=way.name,
                backend=way.backend,
                latency=summarise(times[way.kind, way.name], config.boxes),
                over_frame_form=pair_speedup(times[way.kind, way.name], times[way.kind, FRAME]),
                min_cosine=float(cosine.min()),
                mean_cosine=float(cosine.mean()),
            )
            for way, cosine in zip(contestants, cosines, strict=True)
        ),
        bars=tuple(bar for kind, judged in on_gpu.items() for bar in judge_frame_form(kind, times, judged)),
        not_measured=tuple(not_measured),
    )


def _kinds(pairs: Sequence[FormPair]) -> set[str]:
    return {pair.kind for pair in pairs}


def _open_pair(pair: FormPair, config: FramePathConfig, stack: ExitStack) -> tuple[Backend, Backend]:
    if pair.kind == "engine" and config.device == "cpu":
        raise UnavailableError("engines run on NVIDIA GPUs, and --device is cpu")
    crops, frame_form = (open_backend(path, config.device, config.threads) for path in (pair.crops, pair.frame))
    check_pair(pair, crops.sidecar, frame_form.sidecar, config.boxes)
    stack.enter_context(crops)
    stack.enter_context(frame_form)
    if crops.device != frame_form.device:
        raise UnavailableError(
            f"{pair.crops.name} runs on {crops.device}, {pair.frame.name} on {frame_form.device}; name one by --device"
        )
    return crops, frame_form


def judge_frame_form(kind: str, times_ms: dict[tuple[str, str], NDArray[np.float64]], on_gpu: bool) -> tuple[Bar, Bar]:
    """Hold the frame form's times against the crop loop's and the bare network's.

    Args:
        kind: Kind of artifact.
        times_ms: (rounds,) milliseconds by kind and contestant.
        on_gpu: The bars are those of a GPU: without one, nothing is judged.
    """
    gain = pair_speedup(times_ms[kind, LOOP], times_ms[kind, FRAME])
    share = pair_speedup(times_ms[kind, FRAME], times_ms[kind, BARE])

    def verdict(met: bool) -> str:
        return ("met" if met else "missed") if on_gpu else "not judged"

    return (
        Bar(kind, "crop loop / frame form, at least", LEAST_SPEEDUP, gain, verdict(gain.median >= LEAST_SPEEDUP)),
        Bar(kind, "frame form / bare network, at most", MOST_OF_BARE, share, verdict(share.median <= MOST_OF_BARE)),
    )


def print_frame_path(report: FramePathReport, console: Console) -> None:
    """Write the times, the bars, and what was not measured."""
    height, width = report.settings["frame_size_hw"]
    title = (
        f"{width} x {height} frame, {report.settings['boxes']} boxes: ms a frame, {report.settings['rounds']} rounds"
    )
    columns = ("p50", "p99", "images/s", "/ frame form (5-95 %)", "min cosine", "mean")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", overflow="fold")
    table.add_column("backend", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for way in report.ways:
        table.add_row(
            way.name,
            way.backend,
            f"{way.latency.p50_ms:.2f}",
            f"{way.latency.p99_ms:.2f}",
            f"{way.latency.images_per_s:.1f}",
            _spread(way.over_frame_form),
            f"{way.min_cosine:.6f}",
            f"{way.mean_cosine:.6f}",
        )
    console.print(table)
    for bar in report.bars:
        console.print(f"{bar.kind}: {bar.name} {bar.limit:g}: {_spread(bar.measured)}, {bar.verdict}", markup=False)
    for left_out in report.not_measured:
        console.print(
            f"not measured, {left_out.kind}: {left_out.what}: {left_out.reason}", markup=False, soft_wrap=True
        )


def _spread(ratio: Speedup) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("build", type=click.Path(path_type=Path))
@click.option("--precision", help="Which model.<precision> of BUILD.  [default: the only one]")
@click.option("--format", "formats", default="onnx,engine", show_default=True, help="Files to time, as far as there.")
@click.option("--frame-size", default="1080x1920", show_default=True, help="Height x width in pixels.")
@click.option("--boxes", type=int, default=32, show_default=True, help="Boxes in the frame.")
@click.option("--rounds", type=int, help=f"Rounds to measure.  [default: {_GPU_ROUNDS} with a GPU, else {_CPU_ROUNDS}]")
@click.option("--warmup-rounds", type=int, default=3, show_default=True, help="Rounds before the measured ones.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the frame, the boxes and the order.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of one inference.  [default: the library's]")
@click.option("--min-cosine", type=float, default=0.999, show_default=True, help="Least agreement of any box.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def frame_path(
    build: Path,
    precision: str | None,
    formats: str,
    frame_size: str,
    json_file: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Time the ways from a frame and its boxes to embeddings, with the artifacts in BUILD.

    The embeddings of all ways are held against each other first. A bar that a GPU misses: exit code 3, with the report
    written all the same.
    """
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", frame_size)
    if size is None:
        raise InputError(f"--frame-size must be HEIGHTxWIDTH in pixels, such as 1080x1920, got {frame_size!r}")
    kinds = tuple(formats.split(","))
    if not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
        raise InputError(f"--format must be {', '.join(KINDS)} or both by a comma, got {formats!r}")
    config = FramePathConfig(frame_size_hw=(int(size[1]), int(size[2])), **options)
    if json_file is not None:
        check_json_target(json_file)
    report = measure_frame_path(build, config, precision, kinds, quiet)
    if json_file is not None:
        write_json(asdict(report), json_file)
    if json_file != STDOUT:
        print_frame_path(report, stdout_console())
    missed = [bar for bar in report.bars if bar.verdict == "missed"]
    if missed:
        raise GateError("; ".join(f"{bar.kind}: {bar.name} {bar.limit:g}: {bar.measured.median:.3f}" for bar in missed))


if __name__ == "__main__":
    run_and_exit(frame_path, "python -m hamr_edge.benchmarks.frame_path")
