"""What the runtime costs on top of the network: ``Embedder.embed`` against a bare ONNX Runtime session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.latency import measure_rounds, percentile
from hamr_edge.embedder import Embedder
from hamr_edge.onnx_backend import fuses_quantised
from hamr_edge.onnx_session import open_session

FRAME_SIZE_HW = (1080, 1920)
BOXES = 8


@dataclass(frozen=True, slots=True)
class EmbedOverhead:
    """Time of ``embed`` (checks, cropping, resizing, inference) over that of the session alone, on the same crops."""

    boxes: int
    frame_size_hw: tuple[int, int]
    embed_p50_ms: float
    session_p50_ms: float
    overhead: float
    """Median over the rounds of ``embed / session - 1``: 0.05 is 5 %."""
    low: float
    """5th percentile over the rounds."""
    high: float
    """95th percentile over the rounds."""
    iterations: int


def measure_overhead(
    backend: Backend, artifact: Path, config: BenchConfig, rng: np.random.Generator
) -> EmbedOverhead | None:
    """Time one frame of people through the runtime, and their ready batch through the session.

    Args:
        backend: The artifact's open backend.
        artifact: The artifact's file.
        config: Time, rounds and threads.
        rng: Draws the frame and the order within each round.

    Returns:
        None where the artifact does not run on ONNX Runtime.
    """
    if artifact.suffix != ".onnx":
        return None
    embedder = Embedder(backend)
    frame = rng.integers(0, 256, (*FRAME_SIZE_HW, 3), np.uint8)
    boxes = _person_boxes(min(BOXES, backend.sidecar.max_batch))
    batch = embedder.crop(frame, boxes)
    feeds = {"frame": frame, "boxes": boxes} if backend.sidecar.form == "frame" else {"images": batch}
    fuse = fuses_quantised(backend.sidecar)
    session, _ = open_session(artifact, backend.device, config.threads, fuse_quantised=fuse)
    times_ms = measure_rounds(
        (lambda: embedder.embed(frame, boxes), lambda: session.run(["embeddings"], feeds)),
        rng,
        config.seconds,
        config.min_rounds,
        config.warmup_rounds,
    )
    overheads = times_ms[:, 0] / times_ms[:, 1] - 1.0
    return EmbedOverhead(
        boxes=len(boxes),
        frame_size_hw=FRAME_SIZE_HW,
        embed_p50_ms=percentile(times_ms[:, 0], 50),
        session_p50_ms=percentile(times_ms[:, 1], 50),
        overhead=percentile(overheads, 50),
        low=percentile(overheads, 5),
        high=percentile(overheads, 95),
        iterations=len(times_ms),
    )


def _person_boxes(count: int) -> NDArray[np.float32]:
    """(N, 4) float32 xyxy boxes side by side in a 1080p frame, 100 to 200 pixels wide and 3 times as high."""
    widths = np.linspace(100, 200, count)
    left = np.linspace(10, FRAME_SIZE_HW[1] - 210, count)
    return np.stack([left, np.full(count, 300.0), left + widths, 300 + 3 * widths], axis=1).astype(np.float32)
