"""From a frame to embeddings, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.embedder import Embedder


@dataclass(frozen=True, slots=True)
class StageSplit:
    """Median milliseconds of one frame's boxes, each stage timed by itself in interleaved rounds."""

    boxes: int
    crop_ms: float
    """Cutting out and resizing on the host; 0 in the frame form, which does it in the graph."""
    upload_ms: float
    compute_ms: float
    download_ms: float
    end_to_end_ms: float
    """``Embedder.embed(frame, boxes)`` as a whole."""
    overhead: float
    """Median over the rounds of ``end to end / (the stages' sum) - 1``: 0.05 is 5 %."""
    iterations: int


def measure_stages(
    backend: Backend,
    frame: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    rng: np.random.Generator,
    seconds: float,
    min_rounds: int,
    warmup_rounds: int,
) -> StageSplit:
    """Time cropping, the parts of the inference, and ``embed`` as a whole, each once a round in random order.

    A turn is two runs, and the second is timed: one model alone, so no other's threads have to come to rest.

    Args:
        backend: An open backend.
        frame: (H, W, 3) uint8 BGR.
        boxes: (N, 4) float32 xyxy pixels, 1 to the maximum batch.
        rng: Gives the order within each round.
        seconds: Measure for at least this long, warm-up apart.
        min_rounds: Measure at least this many rounds.
        warmup_rounds: Rounds before that, not measured.

    Raises:
        InputError: The frame or the boxes are not as expected, or more boxes than run at once.
    """
    embedder = Embedder(backend)
    crops_itself = backend.sidecar.form == "frame"
    batch = None if crops_itself else embedder.crop(frame, boxes)

    def crop() -> tuple[float, ...]:
        return (0.0,) if crops_itself else _timed(lambda: embedder.crop(frame, boxes))

    def infer() -> tuple[float, ...]:
        times = backend.infer_frame_stages(frame, boxes) if batch is None else backend.infer_stages(batch)
        return times.upload_ms, times.compute_ms, times.download_ms

    turns = (crop, infer, lambda: _timed(lambda: embedder.embed(frame, boxes)))
    for _ in range(warmup_rounds):
        for turn in turns:
            turn()
    rows: list[tuple[float, ...]] = []
    begin = time.perf_counter()
    while len(rows) < max(min_rounds, 1) or time.perf_counter() - begin < seconds:
        taken: dict[int, tuple[float, ...]] = {}
        for index in rng.permutation(len(turns)).tolist():
            turns[index]()
            taken[index] = turns[index]()
        rows.append((*taken[0], *taken[1], *taken[2]))
    times_ms = np.array(rows)
    crop_ms, upload_ms, compute_ms, download_ms, end_to_end_ms = np.median(times_ms, axis=0).tolist()
    return StageSplit(
        boxes=len(boxes),
        crop_ms=crop_ms,
        upload_ms=upload_ms,
        compute_ms=compute_ms,
        download_ms=download_ms,
        end_to_end_ms=end_to_end_ms,
        overhead=float(np.median(times_ms[:, -1] / times_ms[:, :-1].sum(axis=1) - 1.0)),
        iterations=len(rows),
    )


def _timed(run: Callable[[], object]) -> tuple[float, ...]:
    start = time.perf_counter()
    run()
    return ((time.perf_counter() - start) * 1000.0,)
