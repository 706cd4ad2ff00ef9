"""The lanes of an open engine, shared between threads, and runs over several of them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.device_embeddings import DeviceEmbeddings
from hamr_edge.engine_parts import Part
from hamr_edge.errors import HamrEdgeError
from hamr_edge.execution_lane import ExecutionLane
from hamr_edge.stage_times import StageTimes
from hamr_edge.timed_lane import TimedLane


class LanePool:
    """Lanes that calls of any thread borrow; with more callers than lanes, the others wait.

    To be made inside ``with device:``.

    Args:
        device: The GPU.
        make_lane: Called ``count`` times; if one cannot be made, those before it are closed.
        count: Number of lanes.
        width: Values of an embedding.
    """

    def __init__(self, device: CudaDevice, make_lane: Callable[[], ExecutionLane], count: int, width: int) -> None:
        self._device = device
        self._width = width
        self._idle: queue.SimpleQueue[ExecutionLane | None] = queue.SimpleQueue()
        self._lanes: list[ExecutionLane] = []
        try:
            for _ in range(count):
                self._lanes.append(make_lane())
        except BaseException:
            self._close_lanes()
            raise
        for lane in self._lanes:
            self._idle.put(lane)

    @contextmanager
    def borrow(self, most: int) -> Iterator[list[ExecutionLane]]:
        """At least one lane, and up to ``most`` of those that are free, with the GPU's context current.

        Raises:
            HamrEdgeError: The pool was closed.
        """
        lanes: list[ExecutionLane] = []
        try:
            self._take(lanes, self._idle.get)
            with suppress(queue.Empty):
                while len(lanes) < most:
                    self._take(lanes, self._idle.get_nowait)
            with self._device:
                yield lanes
        finally:
            for lane in lanes:
                self._idle.put(lane)

    def run(self, lanes: Sequence[ExecutionLane], parts: Sequence[Part]) -> NDArray[np.float32]:
        """Run parts; gives (N, D) float32 that the caller owns."""
        rows = np.empty((sum(part.rows for part in parts), self._width), np.float32)
        places: dict[ExecutionLane, tuple[slice, NDArray[np.uint8]]] = {}

        def collect(lane: ExecutionLane) -> None:
            lane.wait()
            place, host = places.pop(lane)
            rows[place] = host.view(np.float32).reshape(-1, self._width)

        def deliver(lane: ExecutionLane, place: slice) -> None:
            places[lane] = place, lane.download(self._bytes(place))

        self._run_parts(lanes, parts, collect, deliver)
        return rows

    def run_to_device(self, lanes: Sequence[ExecutionLane], parts: Sequence[Part]) -> DeviceEmbeddings:
        """Run parts; gives (N, D) float32 on the device, complete, in memory of its own."""
        count = sum(part.rows for part in parts)
        device, driver, width = self._device, self._device.driver, self._width
        with self._telling():
            allocation = driver.mem_alloc(max(count, 1) * width * 4)

        def free() -> None:
            with device:
                allocation.free()

        def to_host() -> NDArray[np.float32]:
            rows = np.empty((count, width), np.float32)
            if count:
                with device:
                    driver.memcpy_dtoh(rows, allocation)
            return rows

        def deliver(lane: ExecutionLane, place: slice) -> None:
            lane.copy_to(int(allocation) + place.start * width * 4, self._bytes(place))

        try:
            self._run_parts(lanes, parts, ExecutionLane.wait, deliver)
        except BaseException:
            allocation.free()
            raise
        return DeviceEmbeddings(int(allocation), (count, width), device.index, free, to_host)

    def time_stages(self, lane: ExecutionLane, part: Part) -> StageTimes:
        """Run one part with events between its stages; its embeddings are left where they are."""
        try:
            with self._telling():
                timed = TimedLane(lane)
                part.start(timed)
                return timed.finish(part.rows * self._width * 4)
        finally:
            self._empty(lane)

    def close(self) -> None:
        """Wait for calls that run, refuse those that wait, and give everything back."""
        for _ in self._lanes:
            self._idle.get()
        self._idle.put(None)
        with self._device:
            self._close_lanes()

    def _bytes(self, place: slice) -> int:
        return int(place.stop - place.start) * self._width * 4

    def _take(self, lanes: list[ExecutionLane], get: Callable[[], ExecutionLane | None]) -> None:
        lane = get()
        if lane is None:
            self._idle.put(None)  # for the next one that waits
            raise HamrEdgeError("the backend was closed while a call waited for it")
        lanes.append(lane)

    def _run_parts(
        self,
        lanes: Sequence[ExecutionLane],
        parts: Sequence[Part],
        collect: Callable[[ExecutionLane], None],
        deliver: Callable[[ExecutionLane, slice], None],
    ) -> None:
        """Run parts on the lanes in turn: while one computes, the next one's input travels."""
        start = 0
        try:
            with self._telling():
                for index, part in enumerate(parts):
                    lane = lanes[index % len(lanes)]
                    if index >= len(lanes):
                        collect(lane)
                    part.start(lane)
                    deliver(lane, slice(start, start + part.rows))
                    start += part.rows
                for lane in lanes[: len(parts)]:
                    collect(lane)
        finally:
            for lane in lanes:
                self._empty(lane)

    def _empty(self, lane: ExecutionLane) -> None:
        """After an error too: a lane that goes back holds no work, and no buffer is still in use."""
        with suppress(self._device.driver.Error):
            lane.wait()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except self._device.driver.Error as error:
            raise HamrEdgeError(f"{self._device.name} failed while it ran an engine: {error}") from error

    def _close_lanes(self) -> None:
        while self._lanes:
            self._lanes.pop().close()
