"""Image files as a source of frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hamr_edge.errors import InputError
from hamr_edge.frame_source import Frame, FrameSource
from hamr_edge.image_file import read_crop

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_FOLDER_FPS = 1.0


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


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order: ``frame2`` before ``frame10``.

    Raises:
        InputError: There is none.
    """
    paths = [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise InputError(f"folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(paths, key=lambda path: _natural_key(path.name))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]
