"""Where frames come from: a video file, images in a folder, a camera or a stream, all with one face."""

from __future__ import annotations

import logging
import math
import re
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import read_crop
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.openable import Openable

_log = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_FOLDER_FPS = 1.0
_FALLBACK_FPS = 25.0
_HIGHEST_FPS = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a source."""

    number: int
    """Counts from 1, as MOT text does."""
    time_s: float
    """Seconds since the first frame; never goes back."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8 BGR; the receiver owns it."""


class FrameSource(Openable):
    """Frames in order, once. A context manager: building it is cheap, the file or device is taken on entry.

    Attributes:
        name: The source as reports show it; a password in a URL is hidden.
        fps: Frames a second, as a video of these frames should play. Known once open.
        frame_count: Frames that are expected, None when nobody knows. Known once open.
        is_live: True for a camera or a stream: it has no end, and Ctrl-C is the normal way to stop. Known once open.
    """

    name: str
    fps: float
    frame_count: int | None
    is_live: bool

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames that are left, one at a time.

        Raises:
            InputError: A frame cannot be decoded, or there is none at all.
            HamrEdgeError: The source is not open.
        """


def open_source(source: str | Path, fps: float | None = None) -> FrameSource:
    """Choose the reader for a source.

    Args:
        source: A video file, an image, a folder of images, a camera's number ("0") or device file, or a URL.
        fps: Frames a second of images, which do not say it; ``DEFAULT_FOLDER_FPS`` when None. Only for images.

    Returns:
        A source that is not open yet: use it in a ``with`` statement.

    Raises:
        InputError: The source is not there, the folder holds no image, or ``fps`` makes no sense.
    """
    text, path = str(source), Path(source)
    if fps is not None and not 0 < fps <= _HIGHEST_FPS:
        raise InputError(f"fps must be above 0 and at most {_HIGHEST_FPS:g}, got {fps:g}")
    if path.is_dir():
        return ImageSequence(_images_in(path), name=text, fps=fps or DEFAULT_FOLDER_FPS)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSequence([path], name=text, fps=fps or DEFAULT_FOLDER_FPS)
    if fps is not None:
        raise InputError(f"fps is for images only; {hide_password(text)} has its own clock")
    if path.is_file() or path.is_char_device() or "://" in text:
        return Capture(text)
    if text.isdecimal():
        return Capture(int(text))
    raise InputError(
        f"source {text} is not there; expected a video file, a folder of images, a camera's number or a URL"
    )


def hide_password(url: str) -> str:
    """``rtsp://user:secret@host`` with ``***`` for the secret; other text as it is."""
    return re.sub(r"(://[^/@:]*:)[^/]*@", r"\1***@", url)


class ImageSequence(FrameSource):
    """Image files as frames; they may differ in size.

    Args:
        paths: At least one file, in order.
        name: What reports call them.
        fps: Frames a second.
    """

    def __init__(self, paths: Sequence[Path], name: str, fps: float = DEFAULT_FOLDER_FPS) -> None:
        self.name, self.fps, self.is_live = name, fps, False
        self.frame_count = len(paths)
        self._paths = paths

    def open(self) -> None:
        """Nothing to take: each file is opened when its turn comes."""

    def close(self) -> None:
        """Nothing to give back."""

    def __iter__(self) -> Iterator[Frame]:
        """The images in order; a file that cannot be decoded is an error that names it."""
        for index, path in enumerate(self._paths):
            yield Frame(index + 1, index / self.fps, read_crop(path))


def _images_in(folder: Path) -> list[Path]:
    paths = [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise InputError(f"folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(paths, key=lambda path: _natural_key(path.name))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``frame2`` before ``frame10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]


class Capture(FrameSource):
    """What ``cv2.VideoCapture`` reads: a file, a camera or a stream.

    Times are the file's own, counted from its first frame; those of a live source are the wall clock's.

    Args:
        target: A path, a URL or a camera's number.
    """

    def __init__(self, target: str | int) -> None:
        self.name = f"camera {target}" if isinstance(target, int) else hide_password(target)
        self.fps, self.frame_count, self.is_live = _FALLBACK_FPS, None, False
        self._target = target
        self._capture: Any = None

    def open(self) -> None:
        """Open the file or device; raises InputError for a file, UnavailableError for a camera or stream."""
        if self._capture is not None:
            return
        is_file = isinstance(self._target, str) and Path(self._target).is_file()
        capture = _open_quietly(self._target)
        if not capture.isOpened():
            capture.release()
            if is_file:
                raise InputError(f"{self.name} is not a video that OpenCV can decode; ffprobe says what is in it")
            raise UnavailableError(
                f"{self.name} does not open; check that it is connected, that no other program holds it and that "
                "this user may read it"
            )
        reported = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(reported) if math.isfinite(reported) and reported > 0 else None
        # A recording behind a URL says how long it is, and has its own clock.
        self.is_live = not is_file and (isinstance(self._target, int) or self.frame_count is None)
        if self.is_live:
            self.frame_count = None
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= _HIGHEST_FPS else _FALLBACK_FPS
        self._capture = capture

    def close(self) -> None:
        """Give the file or device back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __iter__(self) -> Iterator[Frame]:
        """The frames until the end; a warning says when a file ends before its own frame count."""
        if self._capture is None:
            raise HamrEdgeError(f"{self.name} is not open; use 'with open_source(...) as source:' or .open()")
        number, time_s, started = 0, 0.0, 0.0
        while True:
            read, image = self._capture.read()
            if not read:
                break
            number += 1
            now = time.monotonic() if self.is_live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number == 1:
                started = now
            elif math.isfinite(now) and now - started > time_s:
                time_s = now - started
            else:  # the container has no times, or they go back
                time_s += 1 / self.fps
            yield Frame(number, time_s, image)
        self._report_end(number)

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


def _open_quietly(target: str | int) -> Any:
    """Open without OpenCV's own words on stderr: the caller says what went wrong."""
    logging_of_opencv: Any = cv2.utils.logging
    level = logging_of_opencv.setLogLevel(logging_of_opencv.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(target)
    finally:
        logging_of_opencv.setLogLevel(level)
