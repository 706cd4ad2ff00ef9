"""A labelled folder of person crops, in Market-1501's layout (Zheng et al., ICCV 2015). Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

JUNK_IDENTITY = -1
"""Label of gallery images that count neither for nor against a match."""
_NAME = re.compile(r"^(-1|\d+)_c(\d+)")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True, slots=True)
class LabelledCrops:
    """Parallel arrays, one entry a crop, sorted by file name."""

    paths: tuple[Path, ...]
    identities: NDArray[np.int64]
    """(N,) identity of each crop; ``JUNK_IDENTITY`` for junk."""
    cameras: NDArray[np.int64]
    """(N,) camera of each crop."""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: NDArray[Any]) -> LabelledCrops:
        """The crops that an index or mask array chooses, in its order."""
        rows = np.arange(len(self))[chosen]
        return LabelledCrops(tuple(self.paths[row] for row in rows), self.identities[rows], self.cameras[rows])


@dataclass(frozen=True, slots=True)
class ReidDataset:
    """A data set of three splits; training identities and test identities do not overlap. Training holds no junk."""

    name: str
    train: LabelledCrops
    query: LabelledCrops
    gallery: LabelledCrops


def open_dataset(root: str | Path) -> ReidDataset:
    """Read the file names of a Market-1501 folder; images are read later, by :func:`read_crop`.

    Args:
        root: The folder that holds ``bounding_box_train``, ``query`` and ``bounding_box_test``.

    Raises:
        InputError: The folder or one of the three is not there, is empty, or holds an image whose name does not say
            identity and camera.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"data set {root} is not a folder; 'hamr-edge synth {root}' would write a procedural one there"
        )
    missing = [folder for folder in _SPLITS.values() if not (root / folder).is_dir()]
    if missing:
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root} has no {', '.join(missing)}; expected Market-1501's layout "
            f"({', '.join(_SPLITS.values())}), found {found}"
        )
    splits = {split: _read_split(root / folder) for split, folder in _SPLITS.items()}
    train = splits["train"].select(splits["train"].identities != JUNK_IDENTITY)
    return ReidDataset(root.resolve().name, train, splits["query"], splits["gallery"])


def _read_split(folder: Path) -> LabelledCrops:
    paths = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(_IMAGE_SUFFIXES)})")
    labels = []
    for path in paths:
        match = _NAME.match(path.name)
        if match is None:
            raise InputError(
                f"{path} does not name identity and camera; expected Market-1501's form, like 0002_c1s1_000451_03.jpg"
            )
        labels.append((int(match.group(1)), int(match.group(2))))
    identities, cameras = np.asarray(labels, dtype=np.int64).T
    return LabelledCrops(tuple(paths), identities, cameras)


def read_crop(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 BGR.

    Raises:
        InputError: The file is missing or is not an image that OpenCV can decode.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        reason = "cannot be decoded; delete or replace it" if Path(path).is_file() else "is not there"
        raise InputError(f"image {path} {reason}")
    return np.asarray(image, dtype=np.uint8)
