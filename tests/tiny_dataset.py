"""A data set of tiny procedural crops in Market-1501's layout: people are colours, cameras are light."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CROP_SIZE_HW = (40, 20)
TEST_IDENTITIES = (3, 5, 8, 13)
CAMERAS = (1, 2, 3)
QUERIES = len(TEST_IDENTITIES) * len(CAMERAS)
GALLERY = 2 * len(TEST_IDENTITIES) * len(CAMERAS) + 4
JUNK = 3


def write_tiny_dataset(root: Path, seed: int = 0) -> Path:
    """4 test people under 3 cameras: 12 queries, 24 gallery crops, 4 distractors, 3 junk crops; 2 training people."""
    rng = np.random.default_rng(seed)
    folders = {split: root / split for split in ("bounding_box_train", "query", "bounding_box_test")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    looks = {identity: rng.integers(0, 256, (5, 2, 3)) for identity in (-1, 0, 1, 2, *TEST_IDENTITIES)}

    def write(split: str, identity: int, camera: int, shot: int) -> None:
        look = looks[identity] if identity > 0 else rng.integers(0, 256, (5, 2, 3))
        crop = look + 12 * (camera - 2) + rng.normal(scale=12, size=look.shape)
        image = cv2.resize(crop.clip(0, 255).astype(np.uint8), CROP_SIZE_HW[::-1], interpolation=cv2.INTER_NEAREST)
        label = f"{identity:04d}" if identity >= 0 else "-1"
        name = f"{label}_c{camera}s1_{shot:06d}_00.png"
        assert cv2.imwrite(str(folders[split] / name), image)

    for camera in CAMERAS:
        for identity in (1, 2):
            write("bounding_box_train", identity, camera, 1)
        for identity in TEST_IDENTITIES:
            write("query", identity, camera, 1)
            write("bounding_box_test", identity, camera, 2)
            write("bounding_box_test", identity, camera, 3)
        write("bounding_box_test", -1, camera, 4)
    for shot in range(4):
        write("bounding_box_test", 0, CAMERAS[shot % 3], 10 + shot)
    return root
