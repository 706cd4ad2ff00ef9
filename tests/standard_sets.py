"""Tiny trees with the file names of the standard data sets, as they are published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

MARKET = {
    "bounding_box_train": ("0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c6s3_077417_02.jpg"),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c3s3_064744_00.jpg"),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "-1_c5s2_000101_01.jpg",
        "0000_c3s2_151242_02.jpg",
        "0000_c6s1_000051_01.jpg",
        "0001_c2s1_001976_02.jpg",
        "0003_c6s3_086542_05.jpg",
    ),
}
DUKE = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "0001_c5_f0051341.jpg", "0014_c8_f0116331.jpg"),
    "query": ("0005_c2_f0046985.jpg", "0008_c7_f0069112.jpg"),
    # 0010 and 7139 are distractors: people of no query, each under a number of their own.
    "bounding_box_test": (
        "0005_c1_f0044158.jpg",
        "0008_c6_f0067802.jpg",
        "0010_c2_f0063418.jpg",
        "7139_c8_f0209271.jpg",
    ),
}
CUHK03 = {
    "bounding_box_train": ("0001_c1_1.png", "0001_c2_6.png", "0002_c1_11.png"),
    "query": ("0003_c1_22.png", "0003_c2_27.png"),
    "bounding_box_test": ("0003_c1_21.png", "0003_c1_23.png", "0003_c2_30.png"),
}
MSMT17_TRAIN = ("0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_004_15_0302noon_0331_1_ex.jpg 1")
MSMT17_VAL = ("0000/0000_018_12_0114afternoon_1558_1.jpg 0",)
MSMT17_QUERY = ("0000/0000_002_07_0303morning_0020_1.jpg 0", "3059/3059_011_13_0113noon_0441_2.jpg 3059")
MSMT17_GALLERY = (
    "0000/0000_000_01_0303morning_0015_0.jpg 0",
    "0000/0000_021_07_0302afternoon_0644_0.jpg 0",
    "3059/3059_000_02_0113morning_0096_0_ex.jpg 3059",
)


def write_images(root: Path, names: Iterable[str]) -> None:
    """Write one small image under each name."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def write_market_like(root: Path, folders: dict[str, tuple[str, ...]]) -> Path:
    """Write a tree in Market-1501's layout."""
    write_images(root, [f"{folder}/{name}" for folder, names in folders.items() for name in names])
    return root


def write_msmt17(root: Path, version: int) -> Path:
    """Write MSMT17 as version 1 or 2 has it."""
    train, test = ("train", "test") if version == 1 else ("mask_train_v2", "mask_test_v2")
    lists = {
        "list_train.txt": (train, MSMT17_TRAIN),
        "list_val.txt": (train, MSMT17_VAL),
        "list_query.txt": (test, MSMT17_QUERY),
        "list_gallery.txt": (test, MSMT17_GALLERY),
    }
    for name, (folder, lines) in lists.items():
        write_images(root / folder, [line.split()[0] for line in lines])
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    return root
