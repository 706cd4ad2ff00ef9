"""The published sizes of the standard data sets, and the check that a copy has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hamr_edge.errors import InputError
from hamr_edge.labelled_crops import JUNK_IDENTITY, LabelledCrops, ReidDataset


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """Images and identities of each split, (images, identities), and the cameras of all three together.

    Identities are without junk; the distractors of Market-1501 (identity 0) count as one.
    """

    train: tuple[int, int]
    query: tuple[int, int]
    gallery: tuple[int, int]
    cameras: int


PUBLISHED = {
    "market1501": DatasetCounts((12_936, 751), (3_368, 750), (19_732, 751), 6),
    "dukemtmc": DatasetCounts((16_522, 702), (2_228, 702), (17_661, 1_110), 8),
    "cuhk03-labelled": DatasetCounts((7_368, 767), (1_400, 700), (5_328, 700), 2),
    "cuhk03-detected": DatasetCounts((7_365, 767), (1_400, 700), (5_332, 700), 2),
    "msmt17": DatasetCounts((32_621, 1_041), (11_659, 3_060), (82_161, 3_060), 15),
}
"""Zheng et al., ICCV 2015; Zheng et al., ICCV 2017; CUHK03 by the 767/700 protocol of Zhong et al., CVPR 2017; Wei et
al., CVPR 2018, with training and validation together."""


def count_dataset(dataset: ReidDataset) -> DatasetCounts:
    """Count what was read."""
    splits = (dataset.train, dataset.query, dataset.gallery)
    cameras = np.unique(np.concatenate([crops.cameras for crops in splits]))
    train, query, gallery = (_count_split(crops) for crops in splits)
    return DatasetCounts(train, query, gallery, len(cameras))


def _count_split(crops: LabelledCrops) -> tuple[int, int]:
    return len(crops), len(np.unique(crops.identities[crops.identities != JUNK_IDENTITY]))


def check_counts(dataset: ReidDataset, kind: str, root: Path, part_kind: str) -> None:
    """Check a standard data set against its published counts.

    Args:
        dataset: What was read.
        kind: One of ``PUBLISHED``.
        root: Its folder.
        part_kind: The kind that reads the same layout unchecked; the message offers it.

    Raises:
        InputError: A count differs; the message names each that does.
    """
    found, expected = count_dataset(dataset), PUBLISHED[kind]
    differences = [
        f"{images:,} {words} images of {identities:,} identities, expected {right_images:,} of {right_identities:,}"
        for words, (images, identities), (right_images, right_identities) in (
            ("training", found.train, expected.train),
            ("query", found.query, expected.query),
            ("gallery", found.gallery, expected.gallery),
        )
        if (images, identities) != (right_images, right_identities)
    ]
    if found.cameras != expected.cameras:
        differences.append(f"{found.cameras} cameras, expected {expected.cameras}")
    if differences:
        raise InputError(
            f"{root} is not the whole {kind}: {'; '.join(differences)}; copy it again, or read it as {part_kind} "
            "(--dataset) if it is a part on purpose"
        )
