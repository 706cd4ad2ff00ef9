"""Procedural data sets in Market-1501's layout, and a procedural video with detections."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.atomic import check_target, make_folder, replace_file
from hamr_edge.errors import InputError
from hamr_edge.progress import progress_bar
from hamr_edge.trainer.synthetic import (
    Person,
    apply_camera,
    draw_camera_traits,
    draw_person_traits,
    paint_background,
    paint_person,
    render_crop,
)

_IMAGES_PER_CAMERA = 3
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


def write_dataset(root: Path, ids: int = 48, cameras: int = 4, seed: int = 0, quiet: bool = True) -> None:
    """Write a data set; the first half of the identities is for training, the other for testing.

    The gallery also holds distractors (identity 0000) and junk (-1), as Market-1501's does. The folder appears whole
    or not at all.

    Args:
        root: Folder to make; it must not exist, or be empty.
        ids: Identities, at least 4.
        cameras: At least 2, at most 9.
        seed: The same seed gives the same files.
        quiet: No progress bar.

    Raises:
        InputError: ``root`` is not empty, or a number is out of range.
    """
    if ids < 4 or not 2 <= cameras <= 9:
        raise InputError(f"a data set needs at least 4 ids and 2 to 9 cameras, got {ids} and {cameras}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is not empty; name a new folder, or delete it")
    make_folder(root.parent, "folder")
    with tempfile.TemporaryDirectory(prefix=".synth-", dir=root.parent) as temporary:
        made = Path(temporary) / root.name
        for split in ("bounding_box_train", "query", "bounding_box_test"):
            (made / split).mkdir(parents=True)
        _write_splits(made, ids, cameras, seed, quiet)
        if root.exists():
            root.rmdir()
        made.replace(root)


def _write_splits(root: Path, ids: int, cameras: int, seed: int, quiet: bool) -> None:
    views = [draw_camera_traits(np.random.default_rng([seed, 1, camera])) for camera in range(cameras)]
    with progress_bar(quiet) as progress:
        task = progress.add_task("drawing people", total=ids, note="")
        for identity in range(1, ids + 1):
            random = np.random.default_rng([seed, 2, identity])
            person = draw_person_traits(random)
            training = identity <= ids // 2
            for camera, view in enumerate(views, 1):
                for image in range(_IMAGES_PER_CAMERA):
                    crop = render_crop(person, view, random)
                    split = "bounding_box_train" if training else "bounding_box_test" if image else "query"
                    _write_crop(root / split, identity, camera, image, crop)
            progress.advance(task)
    for extra in range(max(2, ids // 8)):
        random = np.random.default_rng([seed, 3, extra])
        camera = int(random.integers(cameras))
        stranger = render_crop(draw_person_traits(random), views[camera], random)
        _write_crop(root / "bounding_box_test", 0, camera + 1, extra, stranger)
        _write_crop(root / "bounding_box_test", -1, camera + 1, extra, render_crop(None, views[camera], random))


def _write_crop(folder: Path, identity: int, camera: int, image: int, crop: NDArray[np.uint8]) -> None:
    number = "-1" if identity < 0 else f"{identity:04d}"
    _write_image(folder / f"{number}_c{camera}s1_{image:06d}_00.jpg", crop)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    encoded, data = cv2.imencode(path.suffix, image, _JPEG_QUALITY)
    if not encoded:
        raise InputError(f"{path} cannot be encoded as {path.suffix}")
    path.write_bytes(data.tobytes())


def write_video(
    path: Path,
    people: int = 6,
    frames: int = 60,
    size_hw: tuple[int, int] = (360, 640),
    frames_per_s: float = 15.0,
    seed: int = 0,
) -> Path:
    """Write a video of people who walk through one camera's view, and their boxes beside it.

    Args:
        path: ``.avi`` or ``.mp4`` file to write.
        people: How many walk.
        frames: How many frames.
        size_hw: Of the video, pixels.
        frames_per_s: Of the video.
        seed: The same seed gives the same people.

    Returns:
        The detections: ``<stem>.det.txt`` in MOT text (frame, id, x, y, width, height, score).

    Raises:
        InputError: OpenCV cannot write such a file.
    """
    check_target(path, "video")
    height, width = size_hw
    random = np.random.default_rng([seed, 4])
    camera = draw_camera_traits(random)
    background = np.empty((height, width, 3), np.uint8)
    paint_background(background, camera, random)
    walkers = [_Walker(random, size_hw, frames) for _ in range(people)]
    lines: list[str] = []

    def write(temporary: Path) -> None:
        code = "MJPG" if path.suffix == ".avi" else "mp4v"
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*code), frames_per_s, (width, height))
        if not writer.isOpened():
            raise InputError(f"OpenCV cannot write a {path.suffix or 'nameless'} video to {path}; use .avi or .mp4")
        for frame in range(frames):
            image = background.copy()
            for walker in sorted(walkers, key=lambda walker: walker.bottom):
                box = walker.box(frame)
                paint_person(image, walker.person, box, walker.away, walker.phase(frame))
                x1, y1, x2, y2 = box
                if x2 > 4 and x1 < width - 4:
                    lines.append(f"{frame + 1},-1,{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},0.99,-1,-1,-1\n")
            writer.write(apply_camera(image, camera, random))
        writer.release()

    replace_file(path, write)
    detections = path.with_name(f"{path.stem}.det.txt")
    replace_file(detections, lambda temporary: temporary.write_text("".join(lines), "utf-8"))
    return detections


class _Walker:
    """A person on a straight way through the picture."""

    def __init__(self, random: np.random.Generator, size_hw: tuple[int, int], frames: int) -> None:
        height, width = size_hw
        self.person: Person = draw_person_traits(random)
        self.away = bool(random.random() < 0.5)
        self.bottom = float(random.uniform(0.72, 0.98) * height)
        self._height = 0.45 * self.bottom
        start, end = random.permutation((random.uniform(0.0, 0.35), random.uniform(0.65, 1.0))) * width
        self._start, self._step = float(start), float(end - start) / max(1, frames)

    def box(self, frame: int) -> tuple[float, float, float, float]:
        """Xyxy pixels in a frame."""
        x = self._start + self._step * frame
        half = 0.25 * self._height
        return x - half, self.bottom - self._height, x + half, self.bottom

    def phase(self, frame: int) -> float:
        """Of the step."""
        return 4 * self._step * frame / self._height
