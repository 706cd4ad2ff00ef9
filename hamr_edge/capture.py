"""What OpenCV captures as a source of frames: a video file, a camera, a stream, a GStreamer pipeline."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.frame_source import Frame, FrameSource, hide_password
from hamr_edge.gstreamer import complete_pipeline, is_pipeline, reads_files, require_gstreamer
from hamr_edge.open_capture import open_capture

_log = logging.getLogger(__name__)
DEFAULT_TIMEOUT_S = 8.0
"""Of opening and of each read; less than FrameReader's limit, so that a dead host is an end before it is a stall."""
HIGHEST_FPS = 1000.0
_FALLBACK_FPS = 25.0


class Capture(FrameSource):
    """What ``cv2.VideoCapture`` reads: a file, a camera, a stream or a pipeline.

    Times are the file's own, counted from its first frame; those of a live source are the wall clock's.

    Args:
        target: A path, a URL, a camera's number or ``gst:`` and a pipeline.
        timeout_s: The longest that opening and each read of a URL or pipeline may take, where OpenCV can limit it.

    Raises:
        InputError: The time limit makes no sense, or there is no pipeline.
        UnavailableError: A pipeline is asked for, and this OpenCV was built without GStreamer.
    """

    def __init__(self, target: str | int, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        if not 0 < timeout_s <= 86400:
            raise InputError(f"timeout_s must be above 0 and at most a day, got {timeout_s:g}")
        self.name = f"camera {target}" if isinstance(target, int) else hide_password(target)
        self.fps, self.frame_count, self.is_live = _FALLBACK_FPS, None, False
        self._target, self._timeout_s = target, timeout_s
        self._is_file = self._is_pipeline = False
        if isinstance(target, str):
            self._is_pipeline = is_pipeline(target)
            self._is_file = not self._is_pipeline and Path(target).is_file()
        self._is_limited = self._is_pipeline or (isinstance(target, str) and "://" in target)
        if self._is_pipeline:
            complete_pipeline(str(target))
            require_gstreamer()
        self._capture: Any = None
        self._is_reading = False
        self._lock = threading.Lock()
        """Guards the two above: a capture that a thread reads from must not be released by another."""

    def fresh(self) -> Capture:
        """The same file, device, URL or pipeline, not open."""
        return Capture(self._target, self._timeout_s)

    def open(self) -> None:
        """Open the file or device.

        Raises:
            InputError: The file is not a video.
            UnavailableError: The camera, stream or pipeline does not open.
        """
        if self._capture is not None:
            return
        capture = open_capture(self._target, self._timeout_s)
        if not capture.isOpened():
            capture.release()
            raise self._not_opened()
        reported = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(reported) if math.isfinite(reported) and reported > 0 else None
        self.is_live = self._finds_live()
        if self.is_live:
            self.frame_count = None
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= HIGHEST_FPS else _FALLBACK_FPS
        self._capture = capture

    def close(self) -> None:
        """Give the file or device back: at once, or as soon as the read is over in which another thread is."""
        with self._lock:
            capture, self._capture = self._capture, None
            if capture is not None and not self._is_reading:
                capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """The frames until the end; a warning says when a file ends before its own frame count.

        Closing the source ends the frames.
        """
        capture = self._capture
        if capture is None:
            raise HamrEdgeError(f"{self.name} is not open; use 'with open_source(...) as source:' or .open()")
        number, time_s, started = 0, 0.0, 0.0
        while True:
            image, now = self._read(capture)
            if image is None:
                break
            number += 1
            if number == 1:
                started = now
            elif math.isfinite(now) and now - started > time_s:
                time_s = now - started
            else:  # the container has no times, or they go back
                time_s += 1 / self.fps
            yield Frame(number, time_s, image, time.time() if self.is_live else None)
        if self._capture is capture:
            self._report_end(number)

    def _finds_live(self) -> bool:
        if self._is_file or (self._is_pipeline and reads_files(str(self._target))):
            return False
        # A recording behind a URL says how long it is, and has its own clock.
        return isinstance(self._target, int) or self.frame_count is None

    def _read(self, capture: Any) -> tuple[Any, float]:
        """The next image, None at the end, and its time in seconds by the source's clock."""
        with self._lock:
            if self._capture is not capture:
                return None, 0.0
            self._is_reading = True
        began_s = time.monotonic()
        try:
            read, image = capture.read()
            now = time.monotonic() if self.is_live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        except cv2.error as error:
            raise InputError(f"{self.name}: OpenCV cannot decode its frames: {error}") from error
        finally:
            with self._lock:
                self._is_reading = False
                if self._capture is not capture:  # closed meanwhile
                    capture.release()
        # When FFmpeg's time is over, it first gives, one a read, the frames that its threads still held.
        is_over = self._is_limited and time.monotonic() - began_s >= self._timeout_s
        if not read or is_over:
            return None, 0.0
        if image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"{self.name} gives frames of shape {image.shape}, expected (H, W, 3) BGR; a pipeline ends in "
                "'videoconvert ! video/x-raw,format=BGR ! appsink'"
            )
        return image, now

    def _not_opened(self) -> HamrEdgeError:
        if self._is_file:
            return InputError(f"{self.name} is not a video that OpenCV can decode; ffprobe says what is in it")
        if self._is_pipeline:
            return UnavailableError(
                f"{self.name} does not open; try the pipeline with gst-launch-1.0 and fakesink for appsink, which says "
                "what is wrong"
            )
        return UnavailableError(
            f"{self.name} does not open; check that it is connected, that no other program holds it and that "
            "this user may read it"
        )

    def _report_end(self, decoded: int) -> None:
        if decoded == 0:
            if self.is_live:
                raise UnavailableError(f"{self.name} opened but gave no frame")
            raise InputError(f"{self.name} has no frame that can be decoded; the file is empty or damaged")
        if self.is_live:
            _log.warning("%s stopped giving frames after %d", self.name, decoded)
        elif self.frame_count is not None and decoded < self.frame_count - 1:
            _log.warning(
                "%s: decoded %d frames, but the file reports %d; it may be cut short or damaged",
                self.name,
                decoded,
                self.frame_count,
            )
