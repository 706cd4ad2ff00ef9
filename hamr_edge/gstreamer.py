"""GStreamer pipelines as OpenCV takes them: which OpenCV can, and what the end of a pipeline needs."""

from __future__ import annotations

import re
from functools import lru_cache

import cv2

from hamr_edge.errors import InputError, UnavailableError

GSTREAMER_PREFIX = "gst:"
"""What declares a source to be a pipeline."""
_APPSINK = re.compile(r"(?<![=/\w-])appsink(?![\w-])(?P<properties>[^!]*)")
_FILES = re.compile(r"(?<![=/\w-])(?:filesrc|multifilesrc|splitmuxsrc|imagesequencesrc)(?![\w-])|\bfile://")


def is_pipeline(source: str) -> bool:
    """Whether a source is declared as a pipeline."""
    return source.startswith(GSTREAMER_PREFIX)


def complete_pipeline(source: str) -> str:
    """The pipeline of a ``gst:`` source, ending in an ``appsink`` that OpenCV can read.

    Where there is no ``appsink``, conversion to BGR and one are put at the end. Properties of it that are not
    set get values that neither let memory grow nor frames grow old: ``max-buffers=2``, ``sync=false`` and, unless files
    are read, ``drop=true``. What is set stays.

    >>> complete_pipeline("gst:v4l2src device=/dev/video0")
    'v4l2src device=/dev/video0 ! videoconvert ! video/x-raw,format=BGR ! appsink max-buffers=2 sync=false drop=true'

    Raises:
        InputError: There is no pipeline after the prefix.
    """
    pipeline = source.removeprefix(GSTREAMER_PREFIX).strip().rstrip("!").rstrip()
    if not pipeline:
        raise InputError(f"{source!r} names no pipeline; expected such as 'gst:v4l2src device=/dev/video0'")
    if _APPSINK.search(pipeline) is None:
        pipeline += " ! videoconvert ! video/x-raw,format=BGR ! appsink"
    wanted = {"max-buffers": "2", "sync": "false", "drop": "false" if reads_files(pipeline) else "true"}

    def fill_in(sink: re.Match[str]) -> str:
        properties = sink["properties"]
        missing = [f"{name}={value}" for name, value in wanted.items() if not _sets(properties, name)]
        return " ".join(["appsink", *missing]) + properties

    return _APPSINK.sub(fill_in, pipeline, count=1)


def _sets(properties: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){name}\s*=", properties) is not None


def reads_files(pipeline: str) -> bool:
    """Whether a pipeline plays recordings: it has an element that reads files, or a ``file://`` address."""
    return _FILES.search(pipeline) is not None


def require_gstreamer() -> None:
    """Raise UnavailableError where this OpenCV cannot run pipelines."""
    if not _is_built_in():
        raise UnavailableError(
            f"this OpenCV ({cv2.__version__}) was built without GStreamer, as opencv-python from PyPI is; use the "
            "system's (on Debian, Ubuntu and JetPack: 'apt install python3-opencv', then a virtual environment made "
            "with --system-site-packages and without opencv-python), or a plain rtsp:// URL, which FFmpeg reads"
        )


@lru_cache
def _is_built_in() -> bool:
    return re.search(r"^\s*GStreamer:\s+YES", cv2.getBuildInformation(), re.MULTILINE) is not None
