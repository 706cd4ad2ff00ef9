"""Where frames come from: a video file, images in a folder, a camera, a stream or a pipeline, all with one face."""

from __future__ import annotations

from pathlib import Path

from hamr_edge.capture import DEFAULT_TIMEOUT_S, HIGHEST_FPS, Capture
from hamr_edge.errors import InputError
from hamr_edge.frame_source import Frame, FrameSource, hide_password
from hamr_edge.gstreamer import is_pipeline
from hamr_edge.image_sequence import DEFAULT_FOLDER_FPS, IMAGE_SUFFIXES, ImageSequence, images_in
from hamr_edge.text_file import to_writable

__all__ = [
    "DEFAULT_FOLDER_FPS",
    "DEFAULT_TIMEOUT_S",
    "IMAGE_SUFFIXES",
    "Capture",
    "Frame",
    "FrameSource",
    "ImageSequence",
    "hide_password",
    "open_source",
]


def open_source(source: str | Path, fps: float | None = None) -> FrameSource:
    """Choose the reader for a source.

    A pipeline is declared by ``gst:`` and runs where OpenCV was built with GStreamer. What its ``appsink`` lacks is
    filled in (:func:`hamr_edge.gstreamer.complete_pipeline`). On a Jetson, with the video decoder of the board::

        gst:rtspsrc location=rtsp://10.0.0.5/main protocols=tcp latency=200 ! rtph264depay ! h264parse
            ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink

    Args:
        source: A video file, an image, a folder of images, a camera's number ("0") or device file, a URL (RTSP is read
            over TCP), or ``gst:`` and a GStreamer pipeline.
        fps: Frames a second of images, which do not say it; ``DEFAULT_FOLDER_FPS`` when None. Only for images.

    Returns:
        A source that is not open yet: use it in a ``with`` statement, or give it to a
        :class:`~hamr_edge.frame_reader.FrameReader`.

    Raises:
        InputError: The source is not there, a video's name is not UTF-8, the folder holds no image, or ``fps`` makes
            no sense.
        UnavailableError: The source is a pipeline, and this OpenCV was built without GStreamer.
    """
    text = str(source)
    if fps is not None and not 0 < fps <= HIGHEST_FPS:
        raise InputError(f"fps must be above 0 and at most {HIGHEST_FPS:g}, got {fps:g}")
    path = Path(source)
    is_stream = is_pipeline(text) or "://" in text
    if not is_stream and path.is_dir():
        return ImageSequence(images_in(path), name=text, fps=fps or DEFAULT_FOLDER_FPS)
    if not is_stream and path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSequence([path], name=text, fps=fps or DEFAULT_FOLDER_FPS)
    if fps is not None:
        raise InputError(f"fps is for images only; {hide_password(text)} has its own clock")
    if is_stream or path.is_file() or path.is_char_device():
        if to_writable(text) != text:  # OpenCV does not refuse it: the process dies
            raise InputError(f"source {to_writable(hide_password(text))} must have a name in UTF-8; rename it")
        return Capture(text)
    if text.isdecimal():
        return Capture(int(text))
    raise InputError(
        f"source {text} is not there; expected a video file, a folder of images, a camera's number, a URL or "
        "'gst:' and a GStreamer pipeline"
    )
