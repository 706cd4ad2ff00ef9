"""The options of ``embed`` and ``watch``: which cameras, how their people are found, and how the service runs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import numpy as np
from numpy.typing import NDArray

from hamr_edge.cameras import Camera, FindPeople
from hamr_edge.detections import Detections, load_detections
from hamr_edge.detector import open_detector
from hamr_edge.detector_formats import FORMATS
from hamr_edge.frame_reader import FrameReader
from hamr_edge.reconnect import Reconnect
from hamr_edge.text_file import to_writable
from hamr_edge.timeline import TimedSource, Timeline
from hamr_edge.video import DEFAULT_FOLDER_FPS, Capture, Frame, FrameSource, hide_password, open_source

Function = TypeVar("Function", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)
FOREVER = math.inf
"""Attempts of ``--reconnect forever``."""
_EMBED_ATTEMPTS = 5


def _read_attempts(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value == "forever":
        return FOREVER
    if value is not None and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of attempts, 0 for none, nor 'forever'", ctx, param)
    return None if value is None else int(value)


_FLAGS = (
    click.option(
        "--model", "-m", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint folder."
    ),
    click.option(
        "--detections", multiple=True, type=_FILE, help="Boxes in MOT text, frames from 1; one file a SOURCE, in order."
    ),
    click.option("--detector", help="'hog', or a detection network's .onnx file."),
    click.option(
        "--detector-format",
        type=click.Choice(list(FORMATS)),
        help="What network the file of --detector is; never guessed.  [default: yolox]",
    ),
    click.option(
        "--detector-size",
        metavar="HxW",
        help="Input size of a detector's file that takes any, such as 480x640.  [default: the format's own]",
    ),
    click.option(
        "--classes",
        help="Classes to find, by index from 0 or by the names in the file, such as 0,2 or person.  [default: people]",
    ),
    click.option("--camera", "names", multiple=True, help="Name of a SOURCE; as many as there are sources, in order."),
    click.option("--device", default="auto", show_default=True, help="Of the model: auto, cpu or cuda:N."),
    click.option(
        "--threads",
        type=click.IntRange(1),
        help="CPU threads of one inference.  [default: half the cores beside a detector's file, else all]",
    ),
    click.option(
        "--fps", type=float, help=f"Frames a second of a folder of images.  [default: {DEFAULT_FOLDER_FPS:g}]"
    ),
    click.option("--detections-scale", type=float, help="Factor for the boxes of --detections.  [default: 1]"),
    click.option(
        "--min-score",
        type=float,
        help="Leave out boxes below it.  [default: 0.25 to 0.7 by format, 0.4 for YOLOX; 0.8 for hog; none for "
        "--detections]",
    ),
    click.option(
        "--nms-iou",
        type=float,
        help="Overlap at which the better box wins.  [default: 0.45; none for networks that give each person once]",
    ),
    click.option(
        "--min-height",
        type=float,
        help="Leave out detections lower than this many pixels.  [default: 0; a seventh of the frame for hog]",
    ),
    click.option("--max-height", type=float, help="Leave out detections higher than this many pixels."),
    click.option("--detector-device", help="Of a detector's model: auto, cpu or cuda:N.  [default: auto]"),
    click.option(
        "--detect-lanes",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Cameras in whose frames people are looked for at the same time.",
    ),
    click.option(
        "--max-delay-ms",
        type=float,
        default=5.0,
        show_default=True,
        help="How long a frame's people wait for those of other cameras, to share a batch.",
    ),
    click.option("--max-batch", type=click.IntRange(1), help="Crops of one batch.  [default: the artifact's maximum]"),
    click.option(
        "--reconnect",
        callback=_read_attempts,
        metavar="N|forever",
        help="Attempts in a row to open a camera or stream again before it is given up; 0 for none.  "
        f"[default: {_EMBED_ATTEMPTS} for embed; forever for watch, which waits for its cameras]",
    ),
    click.option(
        "--stall-after",
        type=float,
        default=10.0,
        show_default=True,
        help="Seconds after which a source that gives no frame is given up or opened again.",
    ),
)


def camera_flags(function: Function) -> Function:
    """Give a command the options that the functions below read."""
    for option in reversed(_FLAGS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class ChosenCameras:
    """What the options make of the sources."""

    cameras: list[Camera]
    found_by: str
    """The detector, or the files of detections."""
    detections: dict[str, Detections]
    """By camera; empty with a detector."""


def check_camera_flags(flags: dict[str, Any], sources: Sequence[str]) -> None:
    """Raise click.UsageError where options contradict each other or would do nothing."""
    detections, detector = flags["detections"], flags["detector"]
    if bool(detections) == (detector is not None):
        raise click.UsageError("give either --detections FILE or --detector hog|FILE.onnx")
    refuse_options("--detections", not detections, {"--detections-scale": flags["detections_scale"]})
    of_detector = (
        "nms_iou",
        "min_height",
        "max_height",
        "detector_device",
        "detector_format",
        "detector_size",
        "classes",
    )
    refuse_options("--detector", detector is None, {f"--{name.replace('_', '-')}": flags[name] for name in of_detector})
    for option, values in (("--detections", detections), ("--camera", flags["names"])):
        if values and len(values) != len(sources):
            raise click.UsageError(
                f"{option} is given {len(values)} times for {len(sources)} sources; one each, in order"
            )
    if repeated := {name for name in flags["names"] if flags["names"].count(name) > 1}:
        raise click.UsageError(f"--camera {sorted(repeated)[0]} is given twice; each camera needs a name of its own")


def refuse_options(needs: str, absent: bool, options: dict[str, object]) -> None:
    """Raise click.UsageError for an option that would do nothing without another."""
    for name, value in options.items():
        if absent and value is not None:
            raise click.UsageError(f"{name} is for {needs} only")


def choose_threads(flags: dict[str, Any]) -> int | None:
    """CPU threads of the model and of the detector: they work at the same time, and share the cores.

    Two sessions that each take all cores wait for each other: on two cores that is 0.8 times as fast.
    """
    if flags["threads"] is not None or flags["detector"] in (None, "hog"):
        return cast("int | None", flags["threads"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def choose_cameras(sources: Sequence[str], flags: dict[str, Any]) -> ChosenCameras:
    """Sources, names and detectors as checked options say; nothing is opened but the detector's model.

    Raises:
        InputError: A source, a file of detections or the detector is not as expected.
        UnavailableError: A library or device of the detector is not there.
    """
    opened = [open_source(source, flags["fps"]) for source in sources]
    names = [to_writable(name) for name in flags["names"]] or name_cameras(sources)
    if flags["detections"]:
        scale = 1.0 if flags["detections_scale"] is None else flags["detections_scale"]
        files = {
            name: load_detections(path, scale, flags["min_score"])
            for name, path in zip(names, flags["detections"], strict=True)
        }
        cameras = [
            Camera(name, source, people_of_detections(files[name], source))
            for name, source in zip(names, opened, strict=True)
        ]
        return ChosenCameras(cameras, ", ".join(map(str, flags["detections"])), files)
    detector = open_detector(
        str(flags["detector"]),
        flags["detector_device"] or "auto",
        choose_threads(flags),
        flags["min_score"],
        flags["nms_iou"],
        flags["min_height"],
        format=flags["detector_format"],
        classes=None if flags["classes"] is None else [name.strip() for name in flags["classes"].split(",")],
        max_height=flags["max_height"],
        input_size_hw=_read_size(flags["detector_size"]),
    )

    def find(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return detector.detect(frame.image)

    return ChosenCameras(
        [Camera(name, source, find) for name, source in zip(names, opened, strict=True)], detector.name, {}
    )


def _read_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", text):
        raise click.UsageError(f"--detector-size is height x width in pixels, such as 480x640; got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)


def people_of_detections(detections: Detections, source: FrameSource) -> FindPeople:
    """People as a file of detections says; the whole file is held against a video's size at the first frame."""

    def find(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        size_hw = (frame.image.shape[0], frame.image.shape[1])
        if frame.number == 1 and isinstance(source, Capture):
            detections.check_inside(size_hw)
        return detections.in_frame(frame.recorded_number or frame.number, size_hw)

    return find


def make_readers(cameras: Sequence[Camera], flags: dict[str, Any], timeline: Timeline) -> list[FrameReader]:
    """A reader for each camera, with the options' patience.

    Raises:
        InputError: ``--stall-after`` makes no sense.
    """
    return [
        FrameReader(
            TimedSource(camera.source, timeline, camera.name),
            reconnect=reconnect_rule(flags),
            stall_after_s=flags["stall_after"],
        )
        for camera in cameras
    ]


def reconnect_rule(flags: dict[str, Any], default: float = _EMBED_ATTEMPTS) -> Reconnect | None:
    """How ``--reconnect`` opens a live source again; ``default`` attempts without it."""
    attempts = default if flags["reconnect"] is None else flags["reconnect"]
    if not attempts:
        return None
    return Reconnect(attempts=None if attempts == FOREVER else int(attempts))


def name_cameras(sources: Sequence[str]) -> list[str]:
    """A name for each source: the stem of a file, the place behind a URL; the second of one name is ``name-2``."""
    names: list[str] = []
    for source in sources:
        text = to_writable(hide_password(source))
        if text.isdecimal() and not Path(text).exists():
            name = f"camera {text}"
        elif text.startswith("gst:"):
            name = "pipeline"
        elif "://" in text:
            name = re.sub(r"^[^/]*@", "", text.split("://", 1)[1]).split("?")[0].strip("/")
        else:
            name = Path(text).stem or Path(text).resolve().name
        unique, count = name, 1
        while unique in names:
            count += 1
            unique = f"{name}-{count}"
        names.append(unique)
    return names
