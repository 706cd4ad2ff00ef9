"""What a lane is given for one run: a batch of crops, or boxes of a frame, from the host or already on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hamr_edge.batch_buckets import bucket_of
from hamr_edge.device_array import DeviceArray
from hamr_edge.execution_lane import ALIGNMENT, Shapes
from hamr_edge.preprocess import pixel_windows


class Lane(Protocol):
    """What a part starts on: a :class:`hamr_edge.execution_lane.ExecutionLane`, or one that is timed."""

    def pinned(self, name: str, size: int) -> NDArray[np.uint8]:
        """Page-locked host memory of an input."""

    def upload(self, name: str, size: int) -> None:
        """Send it to the device."""

    def fetch(self, name: str, pointer: int, size: int) -> None:
        """Fill an input from device memory."""

    def execute(self, shapes: Shapes, addresses: dict[str, int] | None = None) -> None:
        """Put the run on the stream."""


@dataclass(frozen=True, slots=True)
class Part:
    """One run of at most the maximum batch."""

    rows: int
    start: Callable[[Lane], None]
    """Puts upload and run on an idle lane's stream."""


def crop_parts(batch: NDArray[np.uint8] | DeviceArray, buckets: tuple[int, ...]) -> list[Part]:
    """Split (N, H, W, 3) crops into runs; crops on the device are read where they are."""
    parts = []
    for first in range(0, batch.shape[0], buckets[-1]):
        rows = min(buckets[-1], batch.shape[0] - first)
        if isinstance(batch, np.ndarray):
            parts.append(Part(rows, partial(_start_crops, batch[first : first + rows], buckets)))
        else:
            parts.append(Part(rows, partial(_start_device_crops, batch, first, rows, buckets)))
    return parts


def frame_parts(
    frame: NDArray[np.uint8] | DeviceArray,
    boxes: NDArray[np.float32],
    buckets: tuple[int, ...],
    smallest_hw: tuple[int, int],
) -> list[Part]:
    """Split checked boxes of one frame into runs.

    Args:
        frame: (H, W, 3), not above the engine's largest. One on the host that is below the smallest is filled up to
            the right and below; one on the device must not be.
        boxes: (N, 4) float32 xyxy, inside the frame.
        buckets: Batch sizes, the largest last.
        smallest_hw: The engine's smallest frame.
    """
    height, width = frame.shape[:2]
    source: _HostFrame | _DeviceFrame
    if isinstance(frame, np.ndarray):
        size_hw = max(height, smallest_hw[0]), max(width, smallest_hw[1])
        source = _HostFrame(frame, size_hw, set())
        if size_hw != (height, width):
            # The graph keeps windows inside the frame it sees, which is larger than the true one.
            boxes = pixel_windows(boxes, (height, width)).astype(np.float32)
    else:
        source = _DeviceFrame(frame)
    return [
        Part(min(buckets[-1], len(boxes) - first), partial(_start_frame, source, boxes, first, buckets))
        for first in range(0, len(boxes), buckets[-1])
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _HostFrame:
    frame: NDArray[np.uint8]
    size_hw: tuple[int, int]
    lanes: set[Lane]
    """Those that have it already."""

    def give(self, lane: Lane) -> dict[str, int]:
        if lane in self.lanes:
            return {}
        height, width = self.frame.shape[:2]
        shape = (*self.size_hw, 3)
        size = int(np.prod(shape))
        # Around a frame that is too small lies whatever was there: no window reaches it.
        lane.pinned("frame", size).reshape(shape)[:height, :width] = self.frame
        lane.upload("frame", size)
        self.lanes.add(lane)
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class _DeviceFrame:
    frame: DeviceArray

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.frame.shape[0], self.frame.shape[1]

    def give(self, lane: Lane) -> dict[str, int]:
        return _place(lane, "frame", self.frame.pointer, int(np.prod(self.frame.shape)))


def _start_crops(part: NDArray[np.uint8], buckets: tuple[int, ...], lane: Lane) -> None:
    lane.pinned("images", part.nbytes).reshape(part.shape)[:] = part
    lane.upload("images", part.nbytes)
    # The rows behind are computed too and never read.
    lane.execute({"images": (bucket_of(len(part), buckets), *part.shape[1:])})


def _start_device_crops(batch: DeviceArray, first: int, rows: int, buckets: tuple[int, ...], lane: Lane) -> None:
    crop_bytes = int(np.prod(batch.shape[1:]))
    addresses = _place(lane, "images", batch.pointer + first * crop_bytes, rows * crop_bytes)
    # What lies behind the last crop on the device is not ours to read.
    lane.execute({"images": (rows if addresses else bucket_of(rows, buckets), *batch.shape[1:])}, addresses)


def _start_frame(
    source: _HostFrame | _DeviceFrame,
    boxes: NDArray[np.float32],
    first: int,
    buckets: tuple[int, ...],
    lane: Lane,
) -> None:
    part = boxes[first : first + buckets[-1]]
    addresses = source.give(lane)
    bucket = bucket_of(len(part), buckets)
    padded = lane.pinned("boxes", bucket * 16).view(np.float32).reshape(bucket, 4)
    padded[: len(part)] = part
    padded[len(part) :] = part[0]
    lane.upload("boxes", padded.nbytes)
    lane.execute({"frame": (*source.size_hw, 3), "boxes": (bucket, 4)}, addresses)


def _place(lane: Lane, name: str, pointer: int, size: int) -> dict[str, int]:
    """Where a run reads device memory: where it lies, or copied into the lane's own where TensorRT could not."""
    if pointer % ALIGNMENT == 0:
        return {name: pointer}
    lane.fetch(name, pointer, size)
    return {}
