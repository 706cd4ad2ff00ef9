"""What the command line does with log lines: above a table or bar that is drawn, or nowhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hamr_edge.open_capture import SILENT, set_opencv_log_level

_LIBRARY = logging.getLogger("hamr_edge")


class StderrLog(logging.Handler):
    """Writes each line to what ``sys.stderr`` is at that moment.

    While a table or bar changes in the terminal, rich puts a stream in its place that prints above them; a handler that
    keeps the stream it found first tears them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def quiet_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing past tables and bars, unless the user has set their variables.

    hamr-edge says itself what went wrong; ``OPENCV_FFMPEG_LOGLEVEL=24`` shows FFmpeg's own words.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
        set_opencv_log_level(SILENT)  # OpenCV has read the variable already, when it was loaded
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first opening


@contextmanager
def quiet_log() -> Iterator[None]:
    """No log lines of hamr-edge in the ``with`` block. An error that ends the run is no log line."""
    before = _LIBRARY.level
    _LIBRARY.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _LIBRARY.setLevel(before)
