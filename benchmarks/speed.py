"""How long each model of a comparison takes, all of them against each other in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.contestant import Contestant, ModelContestant
from hamr_edge.benchmarks.crowd_frame import draw_boxes, draw_frame, paste_crops
from hamr_edge.benchmarks.energy import Energy, measure_energy
from hamr_edge.benchmarks.latency import SETTLE_S, Latency, measure_rounds, summarise
from hamr_edge.benchmarks.power_sensors import choose_sensor, find_sensors
from hamr_edge.benchmarks.stages import StageSplit, measure_stages
from hamr_edge.dataset import read_crop
from hamr_edge.progress import stderr_console
from hamr_edge.scored_crops import ScoredCrops

FRAME_SIZE_HW = (1080, 1920)


@dataclass(slots=True)
class Speed:
    """What one model takes."""

    latency: list[Latency] = field(default_factory=list)
    end_to_end: list[Latency] = field(default_factory=list)
    stages: StageSplit | None = None
    energy: Energy | None = None


def measure_speed(
    contestants: Sequence[Contestant], crops: ScoredCrops, config: BenchConfig, quiet: bool
) -> list[Speed]:
    """Time every model against the first, the reference; all are loaded at once.

    No progress bar here: it draws from a thread of its own, which would show in the times.
    """
    console = stderr_console(quiet)
    rng = np.random.default_rng(config.seed)
    speeds = [Speed() for _ in contestants]
    with ExitStack() as stack:
        for contestant in contestants:
            stack.enter_context(contestant)
        for size in config.batches:
            rows = rng.choice(len(crops), size, replace=size > len(crops))
            images = [read_crop(crops.paths[row]) for row in rows]
            boxes = draw_boxes(size, FRAME_SIZE_HW, rng)
            frame = paste_crops(draw_frame(FRAME_SIZE_HW, rng), boxes, images)
            fitting = [index for index, contestant in enumerate(contestants) if contestant.max_batch >= size]
            left_out = [contestant.name for contestant in contestants if contestant.max_batch < size]
            if left_out:
                console.print(f"batch {size} is above the maximum batch of {', '.join(left_out)}: left out")
            if len(fitting) < 2 or fitting[0] != 0:
                continue
            ready = {
                index: contestant.inference(images)
                for index in fitting
                if isinstance(contestant := contestants[index], ModelContestant)
            }
            whole = {index: contestants[index].whole_frame(frame, boxes) for index in fitting}
            for runs, what, sink in (
                (ready, f"batches of {size}", [speed.latency for speed in speeds]),
                (whole, f"frames with {size} boxes", [speed.end_to_end for speed in speeds]),
            ):
                if len(runs) > 1:
                    console.print(f"timing {what}: {len(runs)} models, {config.seconds:g} to {config.max_seconds:g} s")
                    on_gpu = all(contestants[index].device.startswith("cuda") for index in runs)
                    _time(runs, size, config, rng, 0.0 if on_gpu else SETTLE_S, sink)
        _split(contestants, speeds, crops, config, rng, quiet)
    return speeds


def _time(
    runs: dict[int, Callable[[], object]],
    size: int,
    config: BenchConfig,
    rng: np.random.Generator,
    settle_s: float,
    sink: Sequence[list[Latency]],
) -> None:
    times_ms = measure_rounds(
        list(runs.values()),
        rng,
        config.seconds,
        config.min_rounds,
        config.warmup_rounds,
        max_seconds=config.max_seconds,
        settle_s=settle_s,
    )
    for column, index in enumerate(runs):
        sink[index].append(summarise(times_ms[:, column], size, times_ms[:, 0] if column else None))


def _split(
    contestants: Sequence[Contestant],
    speeds: Sequence[Speed],
    crops: ScoredCrops,
    config: BenchConfig,
    rng: np.random.Generator,
    quiet: bool,
) -> None:
    """Stages and energy, model by model."""
    console = stderr_console(quiet)
    sensors = find_sensors()
    for contestant, speed in zip(contestants, speeds, strict=True):
        if not isinstance(contestant, ModelContestant):
            continue
        size = max((size for size in config.batches if size <= contestant.max_batch), default=1)
        images = [read_crop(crops.paths[row]) for row in rng.choice(len(crops), size, replace=size > len(crops))]
        boxes = draw_boxes(size, FRAME_SIZE_HW, rng)
        frame: NDArray[np.uint8] = paste_crops(draw_frame(FRAME_SIZE_HW, rng), boxes, images)
        console.print(f"timing the stages of {contestant.name}: {config.seconds / 2:g} s or more")
        speed.stages = measure_stages(
            contestant.backend, frame, boxes, rng, config.seconds / 2, config.min_rounds, config.warmup_rounds
        )
        sensor = choose_sensor(sensors, contestant.device)
        if sensor is not None:
            console.print(f"energy of {contestant.name}: {config.seconds:g} s")
            speed.energy = measure_energy(contestant.inference(images), size, config.seconds, sensor)
