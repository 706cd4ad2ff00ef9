"""Training crops in memory: decoded and resized once, kept as uint8."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import LabelledCrops, read_crop
from hamr_edge.preprocess import resize_crop
from hamr_edge.progress import progress_bar


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Everything a training loop reads."""

    images: NDArray[np.uint8]
    """(N, H, W, 3) BGR."""
    labels: NDArray[np.int64]
    """(N,) classes from 0, in the order of the identities' numbers."""
    classes: int


def load_training_images(crops: LabelledCrops, size_hw: tuple[int, int], quiet: bool = True) -> TrainingImages:
    """Decode all crops; Market-1501 at 384 x 128 takes 1.9 GB.

    Raises:
        InputError: A file cannot be decoded; the message names it.
    """
    identities, labels = np.unique(crops.identities, return_inverse=True)
    images = np.empty((len(crops), *size_hw, 3), np.uint8)

    def load(row: int) -> None:
        images[row] = resize_crop(read_crop(crops.paths[row]), size_hw)

    with progress_bar(quiet) as progress, ThreadPoolExecutor() as pool:
        task = progress.add_task("decoding training images", total=len(crops), note="")
        for _ in pool.map(load, range(len(crops))):
            progress.advance(task)
    return TrainingImages(images, labels.astype(np.int64), len(identities))
