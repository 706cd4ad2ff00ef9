"""Many cameras at once: each decodes and detects in threads of its own, one service embeds for all of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hamr_edge.camera_lane import Camera, CameraLane, FindPeople, WaitingFrame
from hamr_edge.camera_report import CameraReport, EmbeddedFrame
from hamr_edge.errors import HamrEdgeError, InputError, OverloadError
from hamr_edge.fair_lanes import FairLanes
from hamr_edge.frame_reader import FrameReader
from hamr_edge.openable import Openable
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.timeline import TimedSource, Timeline
from hamr_edge.video import Frame

__all__ = ["Camera", "CameraPipeline", "FindPeople"]

_log = logging.getLogger(__name__)
_FAILURES_IN_A_ROW = 25
_STOP_WAIT_S = 5.0
_POLL_S = 0.2


class CameraPipeline(Openable):
    """Runs cameras side by side and gives their embedded frames, as they come and in order within each camera.

    ::

        with EmbeddingService(embedder) as service, CameraPipeline(cameras, service) as pipeline:
            for seen in pipeline:
                print(seen.camera, seen.frame.time_s, seen.embeddings.shape)

    A camera has a thread that decodes and one that detects; the service embeds for all. Every hand-over is bounded:
    where the receiver is slow, a recording waits and a live source drops its oldest frames, which are counted.

    A camera that fails leaves the others running. A source that breaks ends its camera, and so does an error that
    hamr-edge raises on purpose while people are looked for in its first frame: detections of another frame size, say.
    Any other exception costs its frame, and 25 of them in a row end the camera. :meth:`report` says which.

    Args:
        cameras: At least one, each with a name of its own; their sources not open.
        service: Open; the pipeline does not close it.
        readers: One for each camera, in order, where the defaults of :class:`FrameReader` do not fit.
        max_frames: Frames of each camera.
        in_flight: Frames of each camera that may be in the service or wait for the receiver.
        detect_lanes: Cameras whose people are looked for at the same time. Each detection may use several cores
            itself, and the network needs some too.
        should_stop: Asked several times a second; True ends the run as :meth:`stop` does.
        timeline: Gets spans of the stages ``decode`` and ``detect``.

    Raises:
        InputError: No camera, two of one name, or a setting makes no sense.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        service: EmbeddingService,
        *,
        readers: Sequence[FrameReader] | None = None,
        max_frames: int | None = None,
        in_flight: int = 8,
        detect_lanes: int = 1,
        should_stop: Callable[[], bool] | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        names = [camera.name for camera in cameras]
        if not names or len(set(names)) < len(names):
            raise InputError(f"cameras must be at least one, each with a name of its own; got {names}")
        if in_flight < 1 or detect_lanes < 1:
            raise InputError(f"in_flight and detect_lanes must be at least 1, got {in_flight} and {detect_lanes}")
        if readers is None:
            timed = (
                camera.source if timeline is None else TimedSource(camera.source, timeline, camera.name)
                for camera in cameras
            )
            readers = [FrameReader(source) for source in timed]
        self._lanes = {camera.name: CameraLane(camera, reader) for camera, reader in zip(cameras, readers, strict=True)}
        self._service, self._max_frames, self._in_flight = service, max_frames, in_flight
        self._detecting = FairLanes(detect_lanes)
        self._should_stop, self._timeline = should_stop, timeline
        self._changed = threading.Condition()
        self._give_up_s = math.inf
        """When nobody waits any more for a camera that has not ended; inf until it is stopped."""
        self._next_question_s = 0.0
        self._turn = 0

    def open(self) -> None:
        """Start the cameras; sources are opened in their own threads, so one that does not answer holds up none."""
        for name, lane in self._lanes.items():
            if lane.thread is None:
                lane.thread = threading.Thread(target=self._run, args=[lane], name=f"detect {name}", daemon=True)
                lane.thread.start()

    def stop(self) -> None:
        """Read no more frames; those on their way are still given. From any thread.

        A camera whose detector hangs is waited for a moment, and left behind.
        """
        with self._changed:
            self._give_up_s = min(self._give_up_s, time.monotonic() + _STOP_WAIT_S)
            self._changed.notify_all()
        # One that hangs is waited for a moment: all at once, so that eight dead cameras take no longer than one.
        closing = [threading.Thread(target=lane.reader.close, daemon=True) for lane in self._lanes.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def close(self) -> None:
        """Stop, and give up what is on its way."""
        self.stop()
        for lane in self._lanes.values():
            if lane.thread is not None:
                lane.thread.join(max(0.0, self._give_up_s - time.monotonic()))
            with self._changed:
                waiting = list(lane.waiting)
                lane.waiting.clear()
                lane.dropped += len(waiting)
            for item in waiting:
                item.future.cancel()
        with self._changed:
            self._give_up_s = -math.inf  # who still iterates is done
            self._changed.notify_all()

    def __iter__(self) -> Iterator[EmbeddedFrame]:
        """Embedded frames until every camera has ended; frames that failed or were dropped are counted, not given."""
        return (seen for seen in self.frames(math.inf) if seen is not None)

    def frames(self, tick_s: float) -> Iterator[EmbeddedFrame | None]:
        """As iterating, but None comes where there was no frame for so many seconds: time to look at something else."""
        while True:
            ready = self._next_ready(tick_s)
            if ready == "ended":
                return
            if ready == "nothing":
                yield None
            elif (seen := self._finish(*ready)) is not None:
                yield seen

    def frame_failed(self, seen: EmbeddedFrame, error: Exception) -> None:
        """Count the frame that was given last as failed after all: its receiver can make nothing of it."""
        lane = self._lanes[seen.camera]
        with self._changed:
            lane.embedded, lane.people = lane.embedded - 1, lane.people - len(seen.boxes)
            lane.failed_in_a_row = lane.failed_before_last
        self._frame_failed(lane, seen.frame, error)

    def report(self) -> dict[str, CameraReport]:
        """Each camera at this moment, by name; from any thread."""
        return {name: lane.report(self._changed) for name, lane in self._lanes.items()}

    @property
    def has_reached_max_frames(self) -> bool:
        """Whether some camera gave as many frames as were asked for."""
        return self._max_frames is not None and any(lane.read >= self._max_frames for lane in self._lanes.values())

    def failure(self) -> BaseException | None:
        """What somebody must know who expects every frame: the error of the only camera, or a summary of several.

        Drops of a live source and frames that a stop left behind are no failures.
        """
        errors = {name: lane.error for name, lane in self._lanes.items() if lane.error is not None}
        if len(self._lanes) == 1 and errors:
            return next(iter(errors.values()))
        if errors:
            words = "; ".join(f"{name}: {error}" for name, error in errors.items())
            return HamrEdgeError(f"{len(errors)} of {len(self._lanes)} cameras failed: {words}")
        failed = {name: report for name, report in self.report().items() if report.failed}
        if failed:
            words = "; ".join(f"{name}: {report.failed}, the last {report.error}" for name, report in failed.items())
            return HamrEdgeError(f"frames failed: {words}")
        return None

    def _run(self, lane: CameraLane) -> None:
        name = lane.camera.name
        try:
            with lane.reader:
                while self._wants_more(lane) and (frame := lane.reader.read()) is not None:
                    lane.read += 1
                    self._detect(lane, frame)
                lane.last_status = lane.reader.status
        except HamrEdgeError as error:
            self._fail(lane, error)
        except Exception as error:
            _log.exception("%s: failed", name)
            self._fail(lane, error)
        finally:
            with self._changed:
                lane.is_done = True
                self._changed.notify_all()

    def _wants_more(self, lane: CameraLane) -> bool:
        """Wait until a frame may be on its way; False where none is wanted any more."""
        with self._changed:
            while self._give_up_s == math.inf and lane.error is None:
                if self._max_frames is not None and lane.read >= self._max_frames:
                    return False
                if len(lane.waiting) < self._in_flight:
                    return True
                self._changed.wait()
        return False

    def _detect(self, lane: CameraLane, frame: Frame) -> None:
        name = lane.camera.name
        try:
            with self._detecting, nullcontext() if self._timeline is None else self._timeline.span("detect", name):
                boxes, scores = lane.camera.find_people(frame)
        except Exception as error:
            self._frame_failed(lane, frame, error)
            if lane.read == 1 and isinstance(error, HamrEdgeError):
                raise
            return
        try:
            future = self._service.submit(name, frame.image, boxes)
        except HamrEdgeError as error:  # there is no service any more
            self._frame_failed(lane, frame, error)
            raise
        with self._changed:
            lane.waiting.append(WaitingFrame(frame, boxes, scores, future))
        future.add_done_callback(self._notify)

    def _notify(self, future: Future[NDArray[np.float32]]) -> None:
        del future
        with self._changed:
            self._changed.notify_all()

    def _next_ready(self, tick_s: float) -> tuple[CameraLane, WaitingFrame] | Literal["nothing", "ended"]:
        """Wait for the next frame that is through; cameras take turns."""
        lanes = list(self._lanes.values())
        tick_at_s = time.monotonic() + tick_s
        while True:
            self._ask_whether_to_stop()
            with self._changed:
                for place in range(self._turn, self._turn + len(lanes)):
                    lane = lanes[place % len(lanes)]
                    if lane.waiting and lane.waiting[0].future.done():
                        self._turn = place + 1
                        item = lane.waiting.popleft()
                        self._changed.notify_all()
                        return lane, item
                now_s = time.monotonic()
                if all(lane.is_done and not lane.waiting for lane in lanes):
                    return "ended"
                if now_s >= self._give_up_s and not any(lane.waiting for lane in lanes):
                    hanging = [lane.camera.name for lane in lanes if not lane.is_done]
                    if hanging:
                        _log.warning("%s: the detector does not return; it is left behind", ", ".join(hanging))
                    return "ended"
                if now_s >= tick_at_s:
                    return "nothing"
                self._changed.wait(min(_POLL_S, tick_at_s - now_s))

    def _ask_whether_to_stop(self) -> None:
        """Also while frames are ready all the time: a slow receiver must not outvote who wants to stop."""
        now_s = time.monotonic()
        if self._should_stop is None or self._give_up_s < math.inf or now_s < self._next_question_s:
            return
        self._next_question_s = now_s + _POLL_S
        if self._should_stop():
            self.stop()

    def _finish(self, lane: CameraLane, item: WaitingFrame) -> EmbeddedFrame | None:
        name, count = lane.camera.name, len(item.boxes)
        try:
            embeddings = item.future.result()
        except (OverloadError, CancelledError):
            with self._changed:
                lane.dropped += 1
            return None
        except Exception as error:
            self._frame_failed(lane, item.frame, error)
            return None
        with self._changed:
            lane.embedded, lane.people = lane.embedded + 1, lane.people + count
            lane.failed_before_last, lane.failed_in_a_row = lane.failed_in_a_row, 0
            lane.last_time_s = item.frame.time_s
        return EmbeddedFrame(name, item.frame, item.boxes, item.scores, embeddings)

    def _frame_failed(self, lane: CameraLane, frame: Frame, error: Exception) -> None:
        name = lane.camera.name
        with self._changed:
            lane.failed, lane.failed_in_a_row = lane.failed + 1, lane.failed_in_a_row + 1
            lane.last_failure = f"frame {frame.number}: {error}"
            in_a_row = lane.failed_in_a_row
        if in_a_row == 1:
            _log.warning("%s: frame %d failed: %r", name, frame.number, error)
        if in_a_row == _FAILURES_IN_A_ROW:
            self._fail(lane, HamrEdgeError(f"{name}: {in_a_row} frames in a row failed, the last with {error!r}"))
            lane.reader.close()

    def _fail(self, lane: CameraLane, error: Exception) -> None:
        with self._changed:
            if lane.error is None:
                lane.error = error
                if len(self._lanes) > 1:  # the only camera's error is what the run ends with
                    _log.error("%s failed: %s; the others go on", lane.camera.name, error)
            self._changed.notify_all()
