"""The crops that a network is calibrated on."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import LabelledCrops, ReidDataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.preprocess import stack_crops

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CalibrationBatches:
    """Decoded crops in batches; can be gone through again and again."""

    images: NDArray[np.uint8]
    """(N, H, W, 3) BGR."""
    batch_size: int
    sha256: str
    """Of the crops' names and files, in order."""

    @property
    def input_size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[1], self.images.shape[2]

    def __len__(self) -> int:
        """The number of batches; the last may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Views of up to ``batch_size`` crops each, (n, H, W, 3) uint8 BGR; not to be changed."""
        for start in range(0, len(self.images), self.batch_size):
            yield self.images[start : start + self.batch_size]


def choose_calibration_crops(dataset: ReidDataset, count: int, seed: int) -> LabelledCrops:
    """Choose training crops, balanced over identities and then over cameras.

    Identities take turns, in a random order. At its turn an identity gives a crop of the camera that it has given
    least crops of; of several such cameras, the one that has given least crops in all.

    Args:
        dataset: Only its training split is used, so that nothing is tuned on people who are tested.
        count: Crops to choose, at least 1; a smaller training split is taken whole.
        seed: The same seed chooses the same crops.

    Returns:
        The chosen crops, in the data set's order.

    Raises:
        InputError: There is no training crop.
    """
    train = dataset.train
    if not len(train):
        raise InputError(
            f"data set {dataset.name} has no training crops, and calibration uses no others: name with --data one that "
            "has (bounding_box_train in Market-1501's layout), or try out scales of noise with "
            "--allow-random-calibration"
        )
    if count >= len(train):
        if count > len(train):
            _log.warning("%s has %d training crops, %d were asked for: all are used", dataset.name, len(train), count)
        return train
    return train.select(np.sort(_take_turns(train, count, np.random.default_rng(seed))))


def _take_turns(crops: LabelledCrops, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of ``count`` crops, fewer than there are."""
    waiting: dict[int, dict[int, list[int]]] = {}
    for row in rng.permutation(len(crops)).tolist():  # gives the turns, and the crops of a camera, their random order
        cameras = waiting.setdefault(int(crops.identities[row]), {})
        cameras.setdefault(int(crops.cameras[row]), []).append(row)
    given: Counter[int] = Counter()
    given_by: dict[int, Counter[int]] = {identity: Counter() for identity in waiting}
    chosen: list[int] = []
    while True:
        for identity, cameras in waiting.items():
            if not cameras:
                continue
            own = given_by[identity]
            camera = min(cameras, key=lambda camera: (own[camera], given[camera]))
            chosen.append(cameras[camera].pop())
            if len(chosen) == count:
                return np.array(chosen, np.int64)
            if not cameras[camera]:
                del cameras[camera]
            own[camera] += 1
            given[camera] += 1


def calibration_batches(crops: LabelledCrops, size_hw: tuple[int, int], batch_size: int = 16) -> CalibrationBatches:
    """Decode crops once, at the network's size.

    Args:
        crops: What :func:`choose_calibration_crops` chose. 512 of 384 x 128 pixels take 75 MB.
        size_hw: Height and width of the network's input.
        batch_size: Crops of a batch.

    Raises:
        InputError: A crop cannot be read, or there is none.
    """
    if not len(crops):
        raise InputError("calibration needs at least one crop, got none")
    digest = hashlib.sha256()
    images = np.empty((len(crops), *size_hw, 3), np.uint8)
    for row, path in enumerate(crops.paths):
        images[row] = stack_crops([read_crop(path)], size_hw)[0]
        content = path.read_bytes()
        # Lengths first, so that no two lists of files join to the same bytes.
        digest.update(f"{len(path.name.encode())} {len(content)} ".encode() + path.name.encode() + content)
    return CalibrationBatches(images, batch_size, digest.hexdigest())


def random_calibration_batches(
    count: int, size_hw: tuple[int, int], seed: int, allow_random: bool, batch_size: int = 16
) -> CalibrationBatches:
    """Noise in place of crops. Its activations are not those of people, so neither are the scales.

    Args:
        count: Crops to make, at least 1.
        size_hw: Height and width of the network's input.
        seed: The same seed makes the same noise.
        allow_random: Whether the user asked for it.
        batch_size: Crops of a batch.

    Raises:
        InputError: ``allow_random`` is not set.
    """
    if not allow_random:
        raise InputError(
            "int8 needs real crops to calibrate on: name a data set with --data; --allow-random-calibration takes "
            "noise instead, whose scales are good for trying out only"
        )
    images = np.random.default_rng(seed).integers(0, 256, (count, *size_hw, 3), np.uint8)
    return CalibrationBatches(images, batch_size, hashlib.sha256(images.tobytes()).hexdigest())
