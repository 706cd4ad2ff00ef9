"""Readers of the two layouts of the standard data sets: Market-1501's folders and MSMT17's lists."""

from __future__ import annotations

import re
from pathlib import Path

from hamr_edge.errors import InputError
from hamr_edge.image_file import IMAGE_SUFFIXES
from hamr_edge.labelled_crops import LabelledCrops, ReidDataset, label_crops, without_junk

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
MSMT17_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
_MSMT17_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
# Identity and camera come first: 0002_c1s1_000451_03.jpg (Market-1501), 0005_c2_f0046985.jpg (DukeMTMC-reID),
# 0003_c1_21.png (CUHK03-NP).
_MARKET_NAME = re.compile(r"^(-1|\d+)_c(\d+)")
# Person within its folder, image, camera, date with time of day: 0000_000_01_0303morning_0015_0.jpg
_MSMT17_NAME = re.compile(r"^\d+_\d+_(\d+)_")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, sorted; hidden ones, such as ``._name.jpg`` of a Mac's archive, are left out.

    Raises:
        InputError: There is none.
    """
    paths = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def list_found(folder: Path, most: int = 8) -> str:
    """What a folder holds, in words for a message."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "nothing"


def read_market(root: Path, name: str) -> ReidDataset:
    """Read Market-1501's layout (Zheng et al., ICCV 2015), which DukeMTMC-reID and CUHK03-NP share.

    Identity -1 is junk and 0 the distractors, people of no query.

    Raises:
        InputError: One of the three folders is not there, is empty, or holds an image whose name does not say identity
            and camera.
    """
    missing = [folder for folder in MARKET_FOLDERS if not (root / folder).is_dir()]
    if missing:
        raise InputError(
            f"{root} has no {', '.join(missing)}; expected Market-1501's layout "
            f"({', '.join(MARKET_FOLDERS)}), found {list_found(root)}"
        )
    train, query, gallery = (_read_market_split(root / folder) for folder in MARKET_FOLDERS)
    return ReidDataset(name, without_junk(train), query, gallery)


def _read_market_split(folder: Path) -> LabelledCrops:
    labelled = []
    for path in image_files(folder):
        match = _MARKET_NAME.match(path.name)
        if match is None:
            raise InputError(
                f"{path} does not name identity and camera; expected Market-1501's form, like 0002_c1s1_000451_03.jpg"
            )
        labelled.append((path, int(match.group(1)), int(match.group(2))))
    return label_crops(labelled)


def read_msmt17(root: Path, name: str) -> ReidDataset:
    """Read MSMT17 (Wei et al., CVPR 2018), version 1 or 2, by its lists; training is its train and val lists together.

    Raises:
        InputError: A list or a folder is not there, a line cannot be read, or a listed image is missing.
    """
    missing = [listed for listed in MSMT17_LISTS if not (root / listed).is_file()]
    folders = [pair for pair in _MSMT17_FOLDERS if all((root / folder).is_dir() for folder in pair)]
    if missing or not folders:
        lacks = ", ".join(missing) or "train and test, or mask_train_v2 and mask_test_v2"
        raise InputError(
            f"{root} has no {lacks}; expected MSMT17's layout ({', '.join(MSMT17_LISTS)}, and train and test, or "
            f"mask_train_v2 and mask_test_v2), found {list_found(root)}"
        )
    train, test = (root / folder for folder in folders[0])
    list_train, list_val, list_query, list_gallery = (root / listed for listed in MSMT17_LISTS)
    return ReidDataset(
        name,
        without_junk(label_crops(_read_list(list_train, train) + _read_list(list_val, train))),
        label_crops(_read_list(list_query, test)),
        label_crops(_read_list(list_gallery, test)),
    )


def _read_list(list_file: Path, folder: Path) -> list[tuple[Path, int, int]]:
    labelled = []
    present: dict[str, set[str]] = {}  # each folder is listed once, rather than 126,441 files looked for
    for number, line in enumerate(list_file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        image, _, identity = line.strip().rpartition(" ")
        parent, _, file_name = image.strip().rpartition("/")
        match = _MSMT17_NAME.match(file_name)
        if match is None or re.fullmatch(r"-1|\d+", identity) is None:
            raise InputError(
                f"{list_file}, line {number}: expected a line like '0000/0000_000_01_0303morning_0015_0.jpg 0', "
                f"got {line.strip()[:120]!r}"
            )
        if parent not in present:
            inside = (folder / parent).iterdir() if (folder / parent).is_dir() else ()
            present[parent] = {path.name for path in inside}
        if file_name not in present[parent]:
            raise InputError(f"{folder / image} is not there, though {list_file}, line {number}, names it")
        labelled.append((folder / image, int(identity), int(match.group(1))))
    if not labelled:
        raise InputError(f"{list_file} names no images")
    return labelled
