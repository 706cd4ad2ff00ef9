"""Opening ``cv2.VideoCapture`` for what a source is: by which backend, with which time limits, and quietly."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import Any

import cv2

from hamr_edge.errors import UnavailableError
from hamr_edge.frame_source import hide_password
from hamr_edge.gstreamer import complete_pipeline, is_pipeline

_quiet_lock = threading.Lock()
_quiet_threads = 0
_level_before = 0
SILENT = 0
_GRACE_S = 1.0
"""OpenCV's own time limit is to be first, where it has one."""


def open_capture(target: str | int, timeout_s: float) -> Any:
    """Open a file, a camera, a URL or a ``gst:`` pipeline; whether that worked, ``isOpened()`` says.

    URLs go to FFmpeg, which prefers TCP for RTSP; ``OPENCV_FFMPEG_CAPTURE_OPTIONS`` in the environment changes that, as
    everywhere in OpenCV (``rtsp_transport;udp``).

    Args:
        target: A path, a URL, a pipeline or a camera's number.
        timeout_s: The longest that opening a URL or pipeline, and each read from it, may take. Cameras and files have
            no such limit in OpenCV, nor have reads from pipelines before OpenCV 4.7.

    Raises:
        UnavailableError: A pipeline hangs while it is opened.
    """
    limit_ms = max(1, round(timeout_s * 1000))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
    with _quiet_opencv():
        if isinstance(target, str) and is_pipeline(target):
            # An older OpenCV refuses a property that it does not know, after it has opened the pipeline.
            known_limits = limits if _version() >= (4, 7) else []
            pipeline = complete_pipeline(target)
            return _open_within(
                timeout_s + _GRACE_S,
                lambda: cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER, known_limits),
                hide_password(target),
            )
        if isinstance(target, str) and "://" in target and cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
            return cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)
        return cv2.VideoCapture(target)


def _open_within(limit_s: float, open_now: Callable[[], Any], name: str) -> Any:
    """Leave an opening behind that hangs: OpenCV 4.6 waits for ever on an element that does not exist."""
    opened: Future[Any] = Future()

    def run() -> None:
        capture = open_now()
        try:
            opened.set_result(capture)
        except InvalidStateError:  # nobody waits any more
            capture.release()

    threading.Thread(target=run, name=f"open {name}", daemon=True).start()
    try:
        return opened.result(limit_s)
    except FutureTimeoutError:
        if opened.cancel():
            raise UnavailableError(
                f"{name} did not open within {limit_s:g} s; try the pipeline with gst-launch-1.0 and fakesink for "
                "appsink"
            ) from None
        return opened.result()


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", cv2.__version__)[:2])


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Without OpenCV's own words on stderr: the caller says what went wrong.

    The level is the process's: the last thread that opens something puts it back.
    """
    global _quiet_threads, _level_before
    with _quiet_lock:
        if _quiet_threads == 0:
            _level_before = set_opencv_log_level(SILENT)
        _quiet_threads += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_threads -= 1
            if _quiet_threads == 0:
                set_opencv_log_level(_level_before)


def set_opencv_log_level(level: int) -> int:
    """Set how much OpenCV writes to stderr, from :data:`SILENT` on; gives the level that was."""
    opencv: Any = cv2  # the system's OpenCV 4.6 has the function here only
    log = getattr(cv2.utils, "logging", opencv)
    before = int(log.getLogLevel())
    log.setLogLevel(level)
    return before
